"""The page of tables lists what a catalog has, and nothing else; `test_views` compares the sources with headers."""

from __future__ import annotations

import re

from pydicom.datadict import tag_for_keyword
from tools.tables_page import ABOUT, HEADERS, PAGE, SOURCES, describe_catalog, tables_page

CODE_PARTS = {"CodingSchemeDesignator", "CodeValue"}


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text() == tables_page(), "make tables"


def test_every_column_of_every_table_has_a_source() -> None:
    tables = describe_catalog()
    assert set(SOURCES) == set(ABOUT) == set(tables) - {HEADERS}
    headers = {name for name, _ in tables[HEADERS]}
    for table, columns in tables.items():
        if table == HEADERS:
            continue
        names = {name for name, _ in columns}
        if table == "dicom_all":
            names -= headers - set(SOURCES[table])
        assert set(SOURCES[table]) == names, table


def test_every_path_of_a_source_is_one_of_keywords() -> None:
    paths = {
        path
        for sources in SOURCES.values()
        for source in sources.values()
        for path in re.findall(r"`([A-Z][A-Za-z]+(?:\[[0*]\])?(?:\.[A-Z][A-Za-z]+(?:\[[0*]\])?)*)`", source)
        if path != "SERIES"
    }
    assert len(paths) > 50
    for path in paths:
        for part in path.split("."):
            assert tag_for_keyword(part.partition("[")[0]) is not None, path
