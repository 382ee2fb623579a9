"""What a search may ask of slides: the fields, the values that they take, and the conditions in SQL that follow.

A condition is true, false, or NULL: not known. SQL joins the three as one would wish: what is false for one filter is
no match whatever else is unknown, and what fulfils all filters but an unknown one is unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coverslip.errors import UsageError

__all__ = ["FIELDS", "KNOWN", "Condition", "Field", "Kind", "Level", "build_conditions", "text_condition"]


class Level(StrEnum):
    """Of which slides a field is known."""

    SERIES = "series"
    """Of all, also of those that only IDC's index of series tells of."""
    COLLECTION = "collection"
    """Where facts of the collection are told."""
    SM_INDEX = "sm_index"
    """Of slides of this catalog, and of those in IDC's table `sm_index` where that is attached."""
    ALL = "all"
    """Only of slides of this catalog."""


class Kind(StrEnum):
    """How the values of a field are compared."""

    WORDS = "words"
    IDENTIFIER = "identifier"
    RANGE = "range"
    CHANNEL = "channel"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Facets:
    """Where the values of a field are that are counted.

    Parameters
    ----------
    values : str
        SQL of a value, or of a list of them.
    codes : str or None
        SQL of the list of their codes.
    many : bool
        Whether it is a list.
    """

    values: str
    codes: str | None = None
    many: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """Something that slides can be filtered by.

    Parameters
    ----------
    name : str
        As in ``--name``.
    kind : Kind
    column : str
        What it reads; of words, the column without ``_words``.
    level : Level
    help : str
    facet : Facets or None
        What is counted; None where values are not.
    synonyms : mapping
        What people write, in lower case, and the words it stands for.
    choices : tuple of str
    """

    name: str
    kind: Kind
    column: str
    level: Level
    help: str
    facet: Facets | None = None
    synonyms: Mapping[str, str] | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in SQL with its parameters.

    Parameters
    ----------
    field : str
        Name of the field that it is about.
    sql : str
        With a question mark for each parameter.
    parameters : tuple
    can_be_unknown : bool
    """

    field: str
    sql: str
    parameters: tuple[object, ...] = ()
    can_be_unknown: bool = False


_HE = "hematoxylin eosin"
_STAINS = {"h&e": _HE, "he": _HE, "haematoxylin": "hematoxylin", "haematoxylin and eosin": _HE}
_STAINS["hematoxylin and eosin"] = _HE
_EMBEDDINGS = {"ffpe": "paraffin", "frozen": "freezing", "oct": "freezing"}
_FIXATIVES = {"ffpe": "formalin"}


def _coded(column: str) -> Facets:
    return Facets(column, f"{column}_codes", many=True)


_SCANNER = "nullif(concat_ws(' ', Manufacturer, ManufacturerModelName), '')"
_NUMBER = "CASE WHEN {0} = floor({0}) THEN CAST(CAST({0} AS BIGINT) AS VARCHAR) ELSE CAST({0} AS VARCHAR) END"
_TWO_FIGURES = "round(spacing_um, CAST(1 - floor(log10(spacing_um)) AS INTEGER))"
SIZE = "greatest(matrix_columns, matrix_rows)"
_SIZES = (10_000, 25_000, 50_000, 100_000, 200_000)


def _size_classes() -> str:
    edges = (0, *_SIZES)
    cases = [
        f"WHEN {SIZE} < {above} THEN '{below or ''}..{above - 1}'" for below, above in zip(edges, _SIZES, strict=False)
    ]
    return f"CASE {' '.join(cases)} WHEN {SIZE} IS NOT NULL THEN '{_SIZES[-1]}..' END"


FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        Field("collection", Kind.IDENTIFIER, "collection_id", Level.SERIES, "Collection.", Facets("collection_id")),
        Field(
            "cancer-type", Kind.WORDS, "cancer_type", Level.COLLECTION, "Cancer type of the collection.",
            Facets("cancer_types", many=True),
        ),
        Field("anatomy", Kind.WORDS, "anatomy", Level.SM_INDEX, "Anatomic structure.", _coded("anatomy")),
        Field("tissue", Kind.WORDS, "tissue", Level.SM_INDEX, "Kind of tissue, such as normal.", _coded("tissue")),
        Field("stain", Kind.WORDS, "stain", Level.SM_INDEX, "Substance of a staining.", _coded("stain"), _STAINS),
        Field("fixative", Kind.WORDS, "fixative", Level.SM_INDEX, "Tissue fixative.", _coded("fixative"), _FIXATIVES),
        Field(
            "embedding", Kind.WORDS, "embedding", Level.SM_INDEX, "Embedding medium.", _coded("embedding"), _EMBEDDINGS
        ),
        Field("channel", Kind.CHANNEL, "channel", Level.ALL, "Optical path.", Facets("channel_names", many=True)),
        Field("target", Kind.CHANNEL, "target", Level.ALL, "Target of a channel.", Facets("targets", many=True)),
        Field("antibody", Kind.CHANNEL, "antibody", Level.ALL, "Antibody or RRID.", Facets("antibodies", many=True)),
        Field("fluorophore", Kind.CHANNEL, "fluorophore", Level.ALL, "Fluorophore.", Facets("fluorophores", many=True)),
        Field(
            "illumination", Kind.WORDS, "illumination", Level.SM_INDEX, "Illumination type.", _coded("illumination")
        ),
        Field(
            "objective", Kind.RANGE, "objective", Level.SM_INDEX, "Magnification of the objective.",
            Facets(_NUMBER.format("objective")),
        ),
        Field(
            "spacing", Kind.RANGE, "spacing_um", Level.SM_INDEX, "Pixel spacing in micrometres.",
            Facets(_NUMBER.format(f"({_TWO_FIGURES})")),
        ),
        Field("size", Kind.RANGE, SIZE, Level.SM_INDEX, "Longer side in pixels.", Facets(f"({_size_classes()})")),
        Field("megabytes", Kind.RANGE, "size_mb", Level.SERIES, "Size of all files of the series."),
        Field(
            "scanner", Kind.WORDS, "scanner", Level.SERIES, "Manufacturer and model.",
            Facets(_SCANNER),
        ),
        Field(
            "specimen-type", Kind.WORDS, "specimen_type", Level.ALL, "Type of the specimen.", _coded("specimen_type")
        ),
        Field("diagnosis", Kind.WORDS, "diagnosis", Level.SM_INDEX, "Admitting diagnosis.", _coded("diagnosis")),
        Field("patient", Kind.IDENTIFIER, "PatientID", Level.SERIES, "PatientID."),
        Field("container", Kind.IDENTIFIER, "ContainerIdentifier", Level.SM_INDEX, "ContainerIdentifier."),
        Field("series", Kind.IDENTIFIER, "SeriesInstanceUID", Level.SERIES, "SeriesInstanceUID."),
        Field("license", Kind.WORDS, "license", Level.SERIES, "License.", Facets("license_short_name")),
        Field(
            "validation", Kind.CHOICE, "validation", Level.ALL, "What validation said.", Facets("validation"),
            choices=("passed", "failed", "none"),
        ),
        Field(
            "source", Kind.CHOICE, "CASE WHEN published THEN 'idc' ELSE 'catalog' END", Level.SERIES,
            "This catalog, or IDC's index.", Facets("CASE WHEN published THEN 'idc' ELSE 'catalog' END"),
            choices=("catalog", "idc"),
        ),
    )
}  # fmt: skip
"""Every field by its name, in the order in which facets are shown."""

KNOWN = {
    Level.SERIES: "true",
    Level.COLLECTION: "(NOT published OR collection_told)",
    Level.SM_INDEX: "(known <> 'series')",
    Level.ALL: "(known = 'all')",
}
"""The condition that a field of a level is known of a slide."""

_NOTHING = "none"
_TOKEN = re.compile(r"[^\W_]+")
_CODE = re.compile(r"[A-Za-z0-9]+:[A-Za-z0-9.-]+")
_RANGE = re.compile(r"(?P<least>\d*\.?\d+)?(?P<dots>\.\.)?(?P<most>\d*\.?\d+)?")


def build_conditions(filters: Mapping[str, Sequence[str]]) -> list[Condition]:
    """Return the conditions that filters stand for; all have to hold.

    Parameters
    ----------
    filters : mapping
        From the name of a field to values of which one has to fit.

    Raises
    ------
    UsageError
        If there is no such field, or a value is none that it takes.
    """
    conditions = []
    for name, values in filters.items():
        if name not in FIELDS:
            raise UsageError(f"filter {name}: there is none; there are {', '.join(FIELDS)}")
        if values and FIELDS[name].kind is not Kind.CHANNEL:
            conditions.append(_condition(FIELDS[name], values))
    return [*conditions, *_channel_conditions({name: filters[name] for name in filters if filters[name]})]


def text_condition(text: str) -> Condition | None:
    """Return the condition that all words stand somewhere in the descriptions of a slide, None without words."""
    found = [_word_condition("text_words", word) for word in text.split()]
    if not found:
        return None
    sql = " AND ".join(each for each, _ in found)
    parameters = tuple(parameter for _, each in found for parameter in each)
    # What is not known of a published slide may hold the words: then it is unknown whether they are there.
    return Condition("text", f"(({sql}) OR CASE WHEN known <> 'all' THEN NULL ELSE false END)", parameters, True)


def _condition(field: Field, values: Sequence[str]) -> Condition:
    build: Callable[[Field, str], tuple[str, tuple[object, ...]]] = {
        Kind.WORDS: _expression,
        Kind.IDENTIFIER: _identifier,
        Kind.RANGE: _range,
        Kind.CHOICE: _choice,
    }[field.kind]
    built = [build(field, value) for value in values]
    sql = " OR ".join(f"({each})" for each, _ in built)
    parameters = tuple(parameter for _, each in built for parameter in each)
    return _with_unknown(field, sql, parameters)


def _with_unknown(field: Field, sql: str, parameters: tuple[object, ...]) -> Condition:
    known = KNOWN[field.level]
    sql = f"coalesce({sql}, false)"
    if field.level is Level.SERIES:
        return Condition(field.name, sql, parameters)
    return Condition(field.name, f"CASE WHEN {known} THEN {sql} END", parameters, True)


def _expression(field: Field, value: str) -> tuple[str, tuple[object, ...]]:
    """Return ``[NOT] TERM [AND [NOT] TERM]...`` as a condition."""
    column = f"{field.column}_words"
    found = []
    for negated, term in _terms(field, value):
        sql, parameters = _term(field, column, term)
        found.append((f"NOT coalesce({sql}, false)" if negated else sql, parameters))
    return " AND ".join(f"({sql})" for sql, _ in found), tuple(each for _, some in found for each in some)


def _terms(field: Field, value: str) -> Iterable[tuple[bool, str]]:
    if value.startswith("="):
        yield False, value
        return
    for part in re.split(r"(?:^|\s+)AND(?:\s+|$)", value.strip()):
        negated = part.startswith("NOT ")
        term = part.removeprefix("NOT ").strip()
        if not term or not (_TOKEN.search(term)):
            raise UsageError(f"--{field.name} {value!r}: expected words or a code")
        yield negated, (field.synonyms or {}).get(term.lower(), term)


_VALUES = {"cancer_type": "cancer_types", "scanner": f"[{_SCANNER}]", "license": "[license_short_name]"}
"""Where the values are of a field whose column is none of values."""


def _term(field: Field, column: str, term: str) -> tuple[str, tuple[object, ...]]:
    if term.startswith("="):
        whole = term.removeprefix("=").strip().lower()
        if field.kind is Kind.CHANNEL:
            return f"lower({column.removesuffix('_words')}) = ?", (whole,)
        values = _VALUES.get(field.column, field.column)
        return f"list_contains(list_transform({values}, lambda _v: lower(_v)), ?)", (whole,)
    if term.lower() == _NOTHING:
        return f"{column} IS NULL", ()
    found = [_word_condition(column, word) for word in term.split()]
    return " AND ".join(sql for sql, _ in found), tuple(each for _, some in found for each in some)


def _word_condition(column: str, word: str) -> tuple[str, tuple[str, ...]]:
    """Return the condition that a word is among those of a column: as it is, or without hyphens and the like."""
    normal = unicodedata.normalize("NFC", word).lower()
    end = "" if normal.endswith("*") else " "
    if _CODE.fullmatch(normal):
        return f"contains({column}, ?)", (f" {normal} ",)
    tokens = _TOKEN.findall(normal)
    if not tokens:
        return "true", ()
    apart = [f" {token} " for token in tokens[:-1]] + [f" {tokens[-1]}{end}"]
    sql = " AND ".join(f"contains({column}, ?)" for _ in apart)
    if len(tokens) == 1:
        return sql, tuple(apart)
    return f"(({sql}) OR contains({column}, ?))", (*apart, f" {''.join(tokens)}{end}")


def _identifier(field: Field, value: str) -> tuple[str, tuple[object, ...]]:
    text = value.strip().lower()
    if not text:
        raise UsageError(f"--{field.name}: expected an identifier")
    column = f"lower({field.column})"
    if text == _NOTHING:
        return f"{field.column} IS NULL", ()
    if field.name == "collection":
        text, column = text.replace("-", "_"), f"replace({column}, '-', '_')"
    if "*" not in text:
        return f"{column} = ?", (text,)
    pattern = "".join("%" if each == "*" else f"\\{each}" if each in "%_\\" else each for each in text)
    return f"{column} LIKE ? ESCAPE '\\'", (pattern,)


def _range(field: Field, value: str) -> tuple[str, tuple[object, ...]]:
    text = value.strip()
    if text.lower() == _NOTHING:
        return f"{field.column} IS NULL", ()
    found = _RANGE.fullmatch(text)
    least, dots, most = found.group("least", "dots", "most") if found else (None, None, None)
    if (least is None and most is None) or (least is not None and most is not None and not dots):
        raise UsageError(f"--{field.name} {value!r}: expected a number or a range such as 0.2..0.3, 0.2.. or ..0.3")
    if not dots and least is not None:
        if field.name == "spacing":
            # One number means what is that number when it is written with as many figures as IDC has.
            return f"(spacing_um = ? OR {_TWO_FIGURES} = ?)", (float(least), float(least))
        return f"{field.column} = ?", (float(least),)
    bounds = [(">=", least), ("<=", most)]
    if least is not None and most is not None and float(least) > float(most):
        raise UsageError(f"--{field.name} {value!r}: the first number is larger than the second")
    told = [(sign, bound) for sign, bound in bounds if bound is not None]
    sql = " AND ".join(f"{field.column} {sign} ?" for sign, _ in told)
    return sql, tuple(float(bound) for _, bound in told)


def _choice(field: Field, value: str) -> tuple[str, tuple[object, ...]]:
    if value.lower() not in field.choices:
        raise UsageError(f"--{field.name} {value!r}: expected one of {', '.join(field.choices)}")
    return f"{field.column} = ?", (value.lower(),)


def _channel_conditions(filters: Mapping[str, Sequence[str]]) -> list[Condition]:
    """Return the conditions on channels: simple values have to fit one and the same channel.

    A value of several terms, or a negated one, asks for a channel of its own for each term.
    """
    together: list[tuple[str, tuple[object, ...]]] = []
    conditions = []
    first = ""
    for name, values in filters.items():
        field = FIELDS[name]
        if field.kind is not Kind.CHANNEL:
            continue
        column = f"_c.{field.column}_words"
        terms = [list(_terms(field, value)) for value in values]
        simple = [
            _term(field, column, some[0][1])
            for some in terms
            if len(some) == 1 and not some[0][0] and some[0][1].lower() != _NOTHING
        ]
        if len(simple) == len(terms):
            first = first or name
            together.append((" OR ".join(f"({sql})" for sql, _ in simple), _flat(simple)))
            continue
        built = [_channel_expression(field, column, some) for some in terms]
        sql = " OR ".join(f"({each})" for each, _ in built)
        conditions.append(_with_unknown(field, sql, _flat(built)))
    if together:
        sql = _exists(" AND ".join(f"({each})" for each, _ in together))
        conditions.insert(0, _with_unknown(FIELDS[first], sql, _flat(together)))
    return conditions


def _channel_expression(field: Field, column: str, terms: Iterable[tuple[bool, str]]) -> tuple[str, tuple[object, ...]]:
    found = []
    for negated, term in terms:
        if term.lower() == _NOTHING:
            sql = f"NOT {_exists(f'{column} IS NOT NULL')}"
            parameters: tuple[object, ...] = ()
        else:
            inner, parameters = _term(field, column, term)
            sql = _exists(inner)
        found.append((f"NOT {sql}" if negated else sql, parameters))
    return " AND ".join(sql for sql, _ in found), _flat(found)


def _exists(condition: str) -> str:
    return f"coalesce(len(list_filter(channels, lambda _c: {condition})) > 0, false)"


def _flat(built: Iterable[tuple[str, tuple[object, ...]]]) -> tuple[object, ...]:
    return tuple(each for _, some in built for each in some)
