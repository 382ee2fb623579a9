"""What the image is: small, without a compiler, without root. `make image` runs its steps."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tools.dockerfile import Stage, apt_packages, read_dockerfile

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read_dockerfile(ROOT / "Dockerfile")[1]


def test_last_stage_has_a_user_without_rights_by_number(stages: list[Stage]) -> None:
    final = stages[-1]
    (user,) = final.texts("USER")
    assert int(user) >= 1000
    order = [each.keyword for each in final.instructions]
    assert max(index for index, keyword in enumerate(order) if keyword in ("RUN", "COPY")) < order.index("USER")


def test_last_stage_installs_nothing_and_holds_no_compiler(stages: list[Stage]) -> None:
    final = stages[-1]
    assert "slim" in final.base
    assert apt_packages(final) == []
    text = " ".join(final.texts("RUN"))
    assert re.findall(r"\b(?:pip|apt|apt-get|gcc|make|curl|wget)\b", text) == []
    assert final.texts("COPY") == ["--from=build /opt/coverslip /opt/coverslip"]


def test_base_is_pinned_to_a_version_of_python_and_a_release_of_debian(stages: list[Stage]) -> None:
    assert {stage.base for stage in stages} == {"python:3.12-slim-bookworm"}
    assert PROJECT["requires-python"] == ">=3.12"


def test_everything_comes_through_the_hashes_of_the_lock(stages: list[Stage]) -> None:
    commands = [command.strip() for text in stages[0].texts("RUN") for command in re.split("&&", text)]
    fetching = [each for each in commands if re.search(r"\bpip (?:wheel|install|download)\b", each)]
    assert fetching
    for command in fetching:
        assert (
            "--no-index" in command
            or {"--require-hashes", "--only-binary=:all:"} <= set(command.split())
            or {"--no-deps", "--no-build-isolation"} <= set(command.split())
        ), command


def test_extras_and_entry_point_are_those_of_the_project(stages: list[Stage]) -> None:
    arguments = read_dockerfile(ROOT / "Dockerfile")[0]
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    assert {"cloud", "serve", "telemetry", "validate", "catalog"} <= set(arguments["EXTRAS"].split(","))
    (entry,) = (each.words() for each in stages[-1].instructions if each.keyword == "ENTRYPOINT")
    assert entry[0] in PROJECT["scripts"]


def test_every_file_that_is_copied_is_there_and_in_the_context(stages: list[Stage]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for text in stages[0].texts("COPY"):
        for source in text.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_reader_joins_lines_and_finds_what_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(
        "ARG BASE=debian:12\nFROM ${BASE} AS one\nRUN apt-get update \\\n # no comment ends a line\n"
        '    && apt-get install -y --no-install-recommends a b && rm x\nFROM $BASE\nENTRYPOINT ["x", "y z"]\n'
    )
    arguments, (one, two) = read_dockerfile(path)
    assert arguments == {"BASE": "debian:12"}
    assert (one.base, one.name, two.base) == ("debian:12", "one", "debian:12")
    assert apt_packages(one) == ["a", "b"]
    assert two.instructions[0].words() == ["x", "y z"]
    path.write_text("FROM x\nwhat is this\n")
    with pytest.raises(ValueError, match="no instruction"):
        read_dockerfile(path)
