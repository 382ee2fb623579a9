"""The command `coverslip formats`, and the tables that are made from the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from coverslip.cli import cli
from coverslip.converter.sources.format_table import full_table, short_table
from coverslip.converter.sources.formats import FORMATS
from coverslip.converter.sources.slide_format import SlideFormat

ROOT = Path(__file__).resolve().parents[1]


def test_every_format_is_listed_with_what_reads_it_and_whether_that_is_installed():
    done = CliRunner().invoke(cli, ["formats", "--json"], catch_exceptions=False)
    rows = json.loads(done.output)["formats"]
    assert [row["name"] for row in rows] == [one.name for one in FORMATS]
    for row, one in zip(rows, FORMATS, strict=True):
        assert row["installed"] == isinstance(one, SlideFormat)
        assert bool(row["stored_tiles"]) != bool(row["way_out"])


def test_the_table_for_people_names_every_format():
    done = CliRunner().invoke(cli, ["formats"], catch_exceptions=False, env={"COLUMNS": "200"})
    assert all(one.title in done.output for one in FORMATS)


def test_a_format_whose_library_is_not_there_tells_how_to_install_it(monkeypatch):
    absent = SlideFormat("a", "A", "a", lambda _: False, dependency="nobody_has_it", install="pip install it")
    monkeypatch.setattr("coverslip.converter.sources.format_table.FORMATS", (absent,))
    assert "pip install it" in CliRunner().invoke(cli, ["formats"], catch_exceptions=False).output


@pytest.mark.parametrize(("page", "table"), [("README.md", short_table), ("docs/formats.md", full_table)])
def test_the_tables_of_the_documentation_are_made_from_the_registry(page, table):
    text = (ROOT / page).read_text()
    found = text.partition("<!-- formats -->")[2].partition("<!-- /formats -->")[0]
    assert found.strip() == table().strip(), f"write {table.__name__}() between the marks of {page}"
