"""Read a curator's table: CSV, TSV and their kin, Excel, Parquet.

What kind a file is follows from its content. Every cell is text, trimmed; an empty cell is an empty text.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from coverslip.errors import MissingDependencyError, UsageError

__all__ = ["Row", "Table", "normalize_name", "read_table"]

_DELIMITERS = ",\t;|"


@lru_cache(maxsize=4096)
def normalize_name(name: str) -> str:
    """Return a column name without case, spaces, dashes and underscores; dots are kept."""
    return "".join(character for character in name.casefold() if character not in "-_" and not character.isspace())


@dataclass(frozen=True, slots=True)
class Row(Mapping[str, str]):
    """One row; columns are looked up whatever their case, spaces, dashes and underscores.

    Parameters
    ----------
    number : int
        1-based line of the file on which the row starts; in Excel, the number of the row.
    cells : mapping
        Text by normalised column name.
    """

    number: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[normalize_name(column)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file.

    Parameters
    ----------
    path : Path
    columns : tuple of str
        Names as they stand in the file.
    rows : tuple of Row
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    _indexes: dict[tuple[str, ...], dict[tuple[str, ...], list[Row]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def has_column(self, column: str) -> bool:
        """Tell whether there is a column of that name."""
        return normalize_name(column) in map(normalize_name, self.columns)

    def rows_where(self, columns: tuple[str, ...], values: tuple[str, ...]) -> Sequence[Row]:
        """Return the rows whose cells in `columns` are exactly `values`; the second such question is cheap."""
        index = self._indexes.get(columns)
        if index is None:
            index = self._indexes[columns] = {}
            for row in self.rows:
                index.setdefault(tuple(row[column] for column in columns), []).append(row)
        return index.get(values, ())


def read_table(path: Path) -> Table:
    """Read a table whole.

    Raises
    ------
    UsageError
        If the file cannot be read, two columns have the same name but for case, spaces, dashes and underscores, or a
        row has more or fewer fields than the header.
    MissingDependencyError
        If an Excel or Parquet file is given and its reader is not installed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UsageError(f"table {path.name!r}: cannot be read: {error.strerror}") from None
    if start == b"PAR1":
        lines = _read_parquet(path)
    elif start == b"PK\x03\x04":
        lines = _read_excel(path)
    else:
        lines = _read_delimited(path)
    return _build_table(path, [(number, [cell.strip() for cell in cells]) for number, cells in lines])


def _build_table(path: Path, lines: list[tuple[int, list[str]]]) -> Table:
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise UsageError(f"table {path.name!r}: is empty, wanted a line of column names and a line per slide")
    _, header = lines.pop(0)
    keys: dict[str, str] = {}
    for index, name in enumerate(header):
        if not name:
            if any(cell for _, cells in lines for cell in cells[index : index + 1]):
                raise UsageError(f"table {path.name!r}: column {index + 1} has values and no name")
            continue
        earlier = keys.setdefault(normalize_name(name), name)
        if earlier is not name:
            raise UsageError(f"table {path.name!r}: the columns {earlier!r} and {name!r} have the same name")
    for number, cells in lines:
        if len(cells) != len(header):
            raise UsageError(f"table {path.name!r}: line {number}: {len(cells)} fields, the header has {len(header)}")
    names = [normalize_name(name) for name in header]
    rows = tuple(
        Row(number, {name: cell for name, cell in zip(names, cells, strict=True) if name}) for number, cells in lines
    )
    return Table(path, tuple(keys.values()), rows)


def _read_delimited(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = _decode(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    # Names of columns hold no delimiter unquoted, so the right one is the one that parts the header most.
    delimiter = max(_DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    end = 0
    try:
        for cells in reader:
            yield end + 1, cells
            end = reader.line_num
    except csv.Error as error:
        raise UsageError(f"table {path.name!r}: line {end + 1}: {error}") from None


def _decode(path: Path) -> str:
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"table {path.name!r}: line {line}: is not UTF-8; save the table as UTF-8") from None


def _read_excel(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of the first sheet; trailing empty cells are no fields."""
    try:
        import openpyxl
    except ImportError:
        raise _missing(path, "Excel") from None
    try:
        # Given as an open file, because the library judges a name by its ending.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which say nothing of values
            workbook = openpyxl.load_workbook(file, data_only=True)
            values = [list(row) for row in workbook.worksheets[0].iter_rows(values_only=True)]
    except Exception as error:  # noqa: BLE001 - openpyxl raises whatever a broken archive or XML causes
        raise UsageError(f"table {path.name!r}: is no Excel workbook: {type(error).__name__}") from None
    for number, row in enumerate(values, start=1):
        yield number, [_cell_text(value) for value in row]


def _read_parquet(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise _missing(path, "Parquet") from None
    try:
        # Read as one file: a column's values must not be taken from the names of the folders around it.
        table = parquet.ParquetFile(path).read()
    except pa.ArrowException as error:
        raise UsageError(f"table {path.name!r}: is no Parquet file: {str(error).splitlines()[0]}") from None
    yield 1, list(table.column_names)
    columns = [column.to_pylist() for column in table.columns]
    for number, row in enumerate(zip(*columns, strict=True), start=2):
        yield number, [_cell_text(value) for value in row]


def _missing(path: Path, kind: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"table {path.name!r}: reading {kind} needs another library: pip install 'coverslip[tables]'"
    )


def _cell_text(value: Any) -> str:
    """Return what a typed cell would be as text: whole numbers without a point, dates as ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):  # by which dataframes mean an empty cell
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime) and (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value)
