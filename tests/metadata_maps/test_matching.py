"""A slide finds its rows by equality alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coverslip.errors import UsageError
from coverslip.metadata_maps.evaluate import slide_facts
from coverslip.metadata_maps.language import load_map
from coverslip.metadata_maps.matching import RowFinder, RowMatch
from coverslip.metadata_maps.tables import read_table

Find = Callable[[str, str, str], RowMatch]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Find the rows of a slide in a table by a map."""

    def found(map_text: str, table_text: str, slide: str) -> RowMatch:
        (tmp_path / "m.toml").write_text(map_text)
        (tmp_path / "t.csv").write_text(table_text)
        return RowFinder(load_map(tmp_path / "m.toml"), read_table(tmp_path / "t.csv")).find(slide_facts(slide))

    return found


def numbers(match: RowMatch) -> list[int]:
    return [row.number for row in match.rows]


@pytest.mark.parametrize(
    ("files", "slide", "rows"),
    [
        (["a.svs", "b.svs"], "/data/b.svs", [3]),
        (["x/a.svs", "y/a.svs"], "/data/y/a.svs", [3]),
        (["s3://bucket/x/a.svs"], "/data/a.svs", [2]),
        (["C:\\\\slides\\\\a.svs".replace("\\\\", "\\")], "/data/a.svs", [2]),
        (["a.svs", "A.SVS"], "A.SVS", [3]),
        (["A.SVS"], "a.svs", [2]),
        (["a.svs", "a.svs"], "a.svs", [2, 3]),
        (["TCGA-05-42440.svs"], "TCGA-05-4244.svs", []),
        (["a.svs"], "a.svs.bak", []),
    ],
)
def test_the_column_file_names_a_slide_or_its_path(find: Find, files: list[str], slide: str, rows: list[int]) -> None:
    assert numbers(find("[map]\n", "\n".join(["File", *files]), slide)) == rows


@pytest.mark.parametrize("files", [["x/a.svs", "y/a.svs"], ["A.svs", "a.SVS"]])
def test_rows_of_different_slides_that_may_be_meant_are_ambiguous(find: Find, files: list[str]) -> None:
    match = find("[map]\n", "\n".join(["file", *files]), "/data/a.svs")
    assert (numbers(match), [row.number for row in match.ambiguous]) == ([], [2, 3])


def test_a_key_is_a_capture_from_the_file_name(find: Find) -> None:
    map_text = """
        [map]
        key = { column = "Case ID", equals = { in = "{file_name}", match = '^(TCGA-\\w+-\\w+)-' } }
    """
    table = "case_id\nTCGA-05-42440\nTCGA-05-4244\nTCGA-05\n"
    assert numbers(find(map_text, table, "TCGA-05-4244-01Z-00-DX1.svs")) == [3]
    assert numbers(find(map_text, table, "other.svs")) == []


def test_of_several_keys_the_first_that_finds_rows_wins(find: Find) -> None:
    map_text = """
        [map]
        key = [
            { column = "absent", equals = "{stem}" },
            { column = "name", equals = "{file_name}" },
            { column = "name", equals = "{folder}/{file_name}" },
        ]
    """
    assert numbers(find(map_text, "name\nx/a.svs\n", "/data/x/a.svs")) == [2]
    assert numbers(find(map_text, "name\nx/a.svs\na.svs\n", "/data/x/a.svs")) == [3]


@pytest.mark.parametrize("column", ["Barcode", "container_identifier"])
def test_without_a_key_barcode_or_container_identifier_are_looked_at(find: Find, column: str) -> None:
    map_text = "[attributes]\nContainerIdentifier = { in = '{stem}', match = '^[^.]+' }\n"
    assert numbers(find(map_text, f"{column}\nS1\nS10\n", "S1.uuid.svs")) == [2]


def test_a_table_by_which_no_slide_is_found_is_refused(find: Find) -> None:
    with pytest.raises(UsageError, match=r"table 't.csv': has neither a column 'file' nor one of 'barcode'"):
        find("[map]\n", "a\n1\n", "a.svs")
    with pytest.raises(UsageError, match="nor one of 'slide'"):
        find('[map]\nkey = { column = "slide", equals = "{stem}" }\n', "a\n1\n", "a.svs")
