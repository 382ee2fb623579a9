"""What the documentation lists is what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from coverslip import errors
from coverslip.cli import cli
from coverslip.converter.request import InstanceResult
from coverslip.validators.rules import RULES, rules_page

ROOT = Path(__file__).resolve().parents[1]
MAKERS = ("finding", "_problem")
"""Functions that make a finding of a registered rule."""
TREES = [ast.parse(path.read_bytes()) for path in (ROOT / "src").rglob("*.py")]


def test_rules_page_is_made_from_the_rules() -> None:
    assert (ROOT / "docs/rules.md").read_text() == rules_page(), "write rules_page() to docs/rules.md"


def test_every_rule_is_used_and_every_rule_used_is_registered() -> None:
    given, named = set(), set()
    for path in (ROOT / "src/coverslip/validators").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "rules.py":
                named.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS and node.args:
                given |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    assert given <= set(RULES)
    assert set(RULES) <= named


def calls_of_finding() -> Iterator[ast.Call]:
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                yield node


def finding_rules() -> set[str]:
    """Rules given to Finding, and all other texts of the same form that may reach it through a variable."""
    given = {call.args[0].value for call in calls_of_finding() if isinstance(call.args[0], ast.Constant)}
    groups = "|".join({str(rule).partition(".")[0] for rule in given})
    form = re.compile(rf"(?:{groups})\.[a-z0-9]+(?:-[a-z0-9]+)*")
    texts = {node.value for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    found = {text for text in texts if isinstance(text, str) and form.fullmatch(text)}
    return found - {rule for rule in RULES if not rule.startswith("privacy.")}


def test_findings_page_lists_every_rule_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z0-9.-]+)` \|", (ROOT / "docs/findings.md").read_text(), re.MULTILINE)
    assert listed == sorted(finding_rules())


PAGES = {
    "info": "README.md",
    "handover": "docs/upload.md",
    "retract": "docs/upload.md",
    "run": "docs/pipeline.md",
    "worker": "docs/worker.md",
    "status": "docs/pipeline.md",
    "collect": "docs/pipeline.md",
    "init": "docs/pipeline.md",
}
SHARED = {
    "run": ("docs/convert.md", "docs/upload.md"),
    "worker": ("docs/convert.md", "docs/upload.md"),
    "status": ("docs/upload.md",),
    "collect": ("docs/upload.md",),
}
"""Pages that explain options which a command has in common with others."""


@pytest.mark.parametrize(
    "name",
    [
        "collect",
        "convert",
        "handover",
        "info",
        "init",
        "remap",
        "retract",
        "run",
        "serve",
        "status",
        "upload",
        "validate",
        "worker",
    ],
)
def test_every_option_of_a_command_is_named_in_its_documentation(name: str) -> None:
    pages = (PAGES.get(name, f"docs/{name}.md"), *SHARED.get(name, ()))
    text = "".join((ROOT / page).read_text() for page in pages)
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert f"`{option}`" in text, f"{option} is not in the documentation of {name}"


def test_documentation_names_no_option_that_is_not_there() -> None:
    options = {option for command in cli.commands.values() for one in command.params for option in one.opts}
    options |= {"--help", "--version"}
    pages = [(ROOT / f"docs/{name}.md").read_text() for name in ("convert", "pipeline", "upload", "worker")]
    named = set(re.findall(r"`(--[a-z-]+)", "".join(pages)))
    assert named <= options


def test_every_field_of_an_instance_in_the_result_file_is_explained() -> None:
    text = (ROOT / "docs/convert.md").read_text()
    for field in fields(InstanceResult):
        assert f"`{field.name}`" in text


def test_readme_lists_every_exit_code() -> None:
    section = (ROOT / "README.md").read_text().partition("## Exit codes")[2].partition("##")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert {value.exit_code for value in classes} | {0, 130, 143} == listed
