"""Read a Dockerfile: its stages, and the instructions of each."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Instruction", "Stage", "apt_packages", "read_dockerfile"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, on one line.

    Parameters
    ----------
    keyword, text : str
    """

    keyword: str
    text: str

    def words(self) -> list[str]:
        """Return the words of a list in JSON, or of a text as a shell splits it."""
        return [str(word) for word in json.loads(self.text)] if self.text.startswith("[") else shlex.split(self.text)


@dataclass(slots=True)
class Stage:
    """What follows a FROM.

    Parameters
    ----------
    base, name : str
    instructions : list of Instruction
    """

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def texts(self, keyword: str) -> list[str]:
        """Return the texts of all instructions of a kind."""
        return [each.text for each in self.instructions if each.keyword == keyword]


def read_dockerfile(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments with their defaults, and the stages with bases filled in.

    Raises
    ------
    ValueError
        If a line is no instruction.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        match = re.fullmatch(r"([A-Z]+)\s+(.+)", line.strip())
        if match is None:
            raise ValueError(f"{path.name}: no instruction: {line}")
        keyword, text = match[1], " ".join(match[2].split())
        if keyword == "ARG":
            name, _, value = text.partition("=")
            arguments[name] = value
        if keyword == "FROM":
            base, _, name = text.partition(" AS ")
            filled = re.sub(r"\$\{?(\w+)\}?", lambda found: arguments.get(found[1], ""), base)
            stages.append(Stage(filled, name))
        elif stages:
            stages[-1].instructions.append(Instruction(keyword, text))
    return arguments, stages


def apt_packages(stage: Stage) -> list[str]:
    """Return what a stage installs with apt-get."""
    found = []
    for text in stage.texts("RUN"):
        for command in re.split(r"&&|;|\|\|", text):
            words = shlex.split(command)
            if "apt-get" in words and "install" in words:
                found += [word for word in words[words.index("install") + 1 :] if not word.startswith("-")]
    return found
