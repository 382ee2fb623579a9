"""Tables are read by content, whole, and every odd thing about them is told."""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coverslip.errors import MissingDependencyError, UsageError
from coverslip.metadata_maps.tables import Table, normalize_name, read_table


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Table]:
    """Write bytes or text to a file and read it as a table."""

    def read(content: str | bytes, name: str = "t.csv") -> Table:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path)

    return read


def test_columns_are_found_whatever_their_case_spaces_dashes_and_underscores(table: Callable[..., Table]) -> None:
    (row,) = table("HTAN Data File-ID,sample.sample_id\nHTA9_1,s1\n").rows
    assert row["htan_data_file_id"] == row["HTANDATAFILEID"] == "HTA9_1"
    assert row["Sample.Sample ID"] == "s1"
    assert "samplesampleid" not in row
    assert row.get("other", "") == ""
    assert normalize_name("Étude\t1") == "étude1"


def test_byte_order_mark_line_ends_quotes_commas_and_line_breaks_in_fields_are_read(
    table: Callable[..., Table],
) -> None:
    content = '\ufefffile,site\r\na.svs,"Right Lung, Superior ""Lobe"""\r\n"b\nc.svs", x \r\n\r\n"d.svs",\r\n'
    found = table(content)
    assert found.columns == ("file", "site")
    assert [dict(row) for row in found.rows] == [
        {"file": "a.svs", "site": 'Right Lung, Superior "Lobe"'},
        {"file": "b\nc.svs", "site": "x"},
        {"file": "d.svs", "site": ""},
    ]
    assert [row.number for row in found.rows] == [2, 3, 6]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_follows_from_the_header(table: Callable[..., Table], delimiter: str) -> None:
    (row,) = table(f'file{delimiter}note{delimiter}"x, y"\na{delimiter}b{delimiter}c\n', "t.txt").rows
    assert dict(row) == {"file": "a", "note": "b", "x,y": "c"}


def test_utf_16_is_read(table: Callable[..., Table]) -> None:
    assert table("file\tname\na\tü\n".encode("utf-16")).rows[0]["name"] == "ü"


def test_a_column_without_name_and_values_is_ignored(table: Callable[..., Table]) -> None:
    assert table("file,,\na,,\n").columns == ("file",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, the header has 2"),
        ("a,b\n1,2,3\n", "line 2: 3 fields, the header has 2"),
        ("Sample ID,sample_id\n1,2\n", "the columns 'Sample ID' and 'sample_id' have the same name"),
        ("a,\n1,2\n", "column 2 has values and no name"),
        ('a,b\n"1"x,2\n', "line 2: "),
        (b"a,b\n1,2\n\xff,3\n", "line 3: is not UTF-8"),
        (b"PK\x03\x04broken", "is no Excel workbook"),
        (b"PAR1broken", "is no Parquet file"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_its_line(
    table: Callable[..., Table], content: str | bytes, words: str
) -> None:
    with pytest.raises(UsageError, match=r"^table 't\.csv': ") as caught:
        table(content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"table 'no\.csv': cannot be read: No such file"):
        read_table(tmp_path / "no.csv")


def test_excel_cells_become_text(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.append(["File", "visit", "age", "mpp", "note", "code"])
    sheet.append(["a.svs", dt.datetime(2020, 2, 13), 40.0, 0.25, None, "007"])
    sheet.append([None] * 6)
    sheet.append(["b.svs", dt.datetime(2020, 2, 13, 8, 30), 41, 1e-7, "x, y", True])
    workbook.save(tmp_path / "t.data")
    first, second = read_table(tmp_path / "t.data").rows
    assert dict(first) == {
        "file": "a.svs",
        "visit": "2020-02-13",
        "age": "40",
        "mpp": "0.25",
        "note": "",
        "code": "007",
    }
    assert (second.number, second["visit"], second["mpp"]) == (4, "2020-02-13T08:30:00", "1e-07")


def test_parquet_values_become_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {
        "file": ["a.svs", None],
        "age": [40.0, float("nan")],
        "site": ["x", "y"],
        "when": [dt.date(2020, 2, 13), None],
    }
    parquet.write_table(pa.table(columns), tmp_path / "year=2020.data")
    first, second = read_table(tmp_path / "year=2020.data").rows
    assert dict(first) == {"file": "a.svs", "age": "40", "site": "x", "when": "2020-02-13"}
    assert first.number == 2
    with pytest.raises(KeyError):
        first["year"]
    assert list(second.values()) == ["", "", "y", ""]


@pytest.mark.parametrize(("start", "library"), [(b"PK\x03\x04", "openpyxl"), (b"PAR1", "pyarrow")])
def test_a_reader_that_is_not_installed_is_told_with_its_install_command(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch, start: bytes, library: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'coverslip\[tables\]'"):
        table(start)


def test_rows_are_found_by_exact_values(table: Callable[..., Table]) -> None:
    found = table("Barcode,n\nTCGA-05-4244,1\nTCGA-05-42440,2\nTCGA-05-4244,3\n")
    assert [row["n"] for row in found.rows_where(("barcode",), ("TCGA-05-4244",))] == ["1", "3"]
    assert found.rows_where(("barcode",), ("TCGA-05",)) == ()


def test_real_tables_are_read_whole(shared: Path) -> None:
    folder = shared / "manifests"
    cmb = read_table(folder / "cmb-path-slides.csv")
    assert (len(cmb.rows), len(cmb.columns), cmb.rows[-1].number) == (1534, 20, 1535)
    assert cmb.rows[1003]["sample_type"] == "Right Lung, Superior Lobe, Anterior Segment"
    assert len(read_table(folder / "ccdi-mci-pathology-file.csv").rows) == 3250
    assert len(read_table(folder / "ccdi-mci-sample.csv").rows) == 11400
