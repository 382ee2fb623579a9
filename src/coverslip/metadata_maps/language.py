"""The map language: TOML that says how a slide's rows become DICOM attributes (docs/map-language.md).

A map is read, joined with what it includes, and checked whole: what is wrong with it is told before any slide is
looked at, with file, place, what was found and what is wanted.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydicom.datadict import dictionary_VR, keyword_dict

from coverslip.errors import UsageError
from coverslip.metadata_maps.codes import Code, code
from coverslip.metadata_maps.computed import is_computed
from coverslip.metadata_maps.tables import normalize_name
from coverslip.metadata_maps.value_rules import DATE_VRS, MisfitError, unit_name

__all__ = [
    "Attribute",
    "Coded",
    "Content",
    "Item",
    "KeySpec",
    "MetadataMap",
    "Name",
    "StepSpec",
    "TableSpec",
    "Template",
    "Test",
    "ValueSpec",
    "builtin_maps",
    "load_map",
    "normalize_text",
]

FACTS = ("file_name", "stem", "folder", "path")
"""What is known of a slide without opening it: its name, that without ending, its folder's name, the whole path."""

FILTERS = ("id", "lower", "upper")
"""What may follow a name in a template after a bar; `id` is lower case with dashes as underscores."""

SECTIONS = ("map", "collection", "variables", "tables", "attributes", "specimen", "steps", "optical_path", "values")
MAP_KEYS = ("name", "title", "include", "key")
COLLECTION_KEYS = (
    "collection_id", "name", "description", "cancer_types", "tumor_locations", "species", "subjects", "supporting_data",
    "license_url", "license_long_name", "license_short_name", "source_doi", "source_url", "access",
)  # fmt: skip
COLLECTION_LISTS = ("cancer_types", "tumor_locations", "species")
SOURCE_KEYS = ("text", "column", "columns", "join", "in", "code", "value")
SPEC_KEYS = (
    *SOURCE_KEYS, "with", "match", "values", "codes", "split", "unmapped", "when", "default", "required", "date",
    "unit", "from_unit", "vr", "max_length", "on_too_long", "modifier",
)  # fmt: skip
STEP_KEYS = ("specimen", "container", "type", "parent", "parent_type", "when", "each", "content")
CONTENT_KEYS = ("concept", "value", "when")
CODE_KEYS = ("code", "value", "scheme", "meaning", "modifier")
TEST_KEYS = ("present", "match", "not")
TABLE_KEYS = ("on", "required")

Unmapped = Literal["error", "keep", "drop"]
TooLong = Literal["error", "drop", "clip"]

_PRIVATE_TAG = re.compile(r'\(([0-9A-Fa-f]{3}[13579BDFbdf]),"([^"\\]{1,64})",([0-9A-Fa-f]{2})\)')
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NO_GROUP = 0xFFFFFFFF
_COMPUTED_GROUPS = (0x0002, 0x5200, 0x7FE0)
_ELSEWHERE = {
    "SpecimenDescriptionSequence": "[specimen]",
    "SpecimenPreparationSequence": "[steps]",
    "OpticalPathSequence": "[optical_path]",
    "SpecimenIdentifier": "[specimen]",
    "ObjectiveLensPower": "[optical_path]",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, fact or column that a template refers to.

    Parameters
    ----------
    text : str
        As the map has it; ``"table:column"`` for a column of a second table.
    filters : tuple of str
    column : bool
        Only a column: no variable or fact of that name is meant.
    """

    text: str
    filters: tuple[str, ...] = ()
    column: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A text with names in braces; it is empty where any of its names is."""

    parts: tuple[str | Name, ...]

    @property
    def names(self) -> tuple[Name, ...]:
        """The names it refers to."""
        return tuple(part for part in self.parts if isinstance(part, Name))


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded concept with the modifier its map's entry gives it, if any."""

    code: Code
    modifier: Code | None = None


@dataclass(frozen=True, slots=True)
class Test:
    """One condition of a `when`: a name that is present, matches, or has one of some values.

    Parameters
    ----------
    name : Name
    values : frozenset of str or None
        Normalised by `normalize_text`.
    pattern : re.Pattern or None
    present : bool or None
    negated : bool
        None of the values is wanted.
    """

    __test__ = False

    name: Name
    values: frozenset[str] | None = None
    pattern: re.Pattern[str] | None = None
    present: bool | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """Where a value comes from and what becomes of it, in the order of the fields.

    Parameters
    ----------
    place : str
        File and key path in the map.
    origin : str
        The source in words.
    when : tuple of Test
        All must hold.
    sources : tuple of Template
        Texts of the source; the first that is not empty, or all joined.
    separator : str or None
        Joins the sources.
    literal : tuple of str
        Texts given as they are.
    constant : Coded or None
        A code given inline.
    pattern : re.Pattern or None
        Searched for; the text becomes what `group` matched.
    group : str or int
    split : str
        Parts the text into several values, and what the value table makes of each.
    lookup : mapping or None
        Value table: texts and codes by normalised text.
    unmapped : {"error", "keep", "drop"}
        What becomes of a text that the value table lacks.
    coded : bool
        The text is the name of a code.
    modifier : tuple of ValueSpec
        Code of the modifier of a coded value.
    formats : tuple of str
        Of dates.
    unit, from_unit : str
        Unit of the result, and of numbers that come without.
    default : str
    required : bool
    max_length : int or None
    on_too_long : {"error", "drop", "clip"}
    """

    place: str
    origin: str
    when: tuple[Test, ...] = ()
    sources: tuple[Template, ...] = ()
    separator: str | None = None
    literal: tuple[str, ...] = ()
    constant: Coded | None = None
    pattern: re.Pattern[str] | None = None
    group: str | int = 0
    split: str = ""
    lookup: Mapping[str, str | Coded] | None = None
    unmapped: Unmapped = "error"
    coded: bool = False
    modifier: tuple[ValueSpec, ...] = ()
    formats: tuple[str, ...] = ()
    unit: str = ""
    from_unit: str = ""
    default: str | Coded = ""
    required: bool = False
    max_length: int | None = None
    on_too_long: TooLong = "error"

    @property
    def names(self) -> tuple[Name, ...]:
        """Every name it refers to."""
        return (
            *(name for source in self.sources for name in source.names),
            *(test.name for test in self.when),
            *(name for spec in self.modifier for name in spec.names),
        )

    @property
    def column(self) -> str:
        """The columns or names its value comes from, for messages."""
        return ", ".join(dict.fromkeys(name.text for source in self.sources for name in source.names))


Choice = tuple[ValueSpec, ...]
"""Alternatives: the first that applies and is not empty wins."""


@dataclass(frozen=True, slots=True)
class Content:
    """A content item: a concept and its value (PS3.3 10.29)."""

    place: str
    when: tuple[Test, ...]
    concept: Code
    value: Choice


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a sequence."""

    place: str
    when: tuple[Test, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute: a value, or a sequence of items.

    Parameters
    ----------
    place : str
    vr : str
    choice : tuple of ValueSpec
    items : tuple of Item or Content
    """

    place: str
    vr: str
    choice: Choice = ()
    items: tuple[Item | Content, ...] = ()


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A step of the preparation of a specimen; codes and identifiers that are not told are empty."""

    place: str
    when: tuple[Test, ...]
    each: str
    specimen: Choice
    container: Choice
    type: Choice
    parent: Choice
    parent_type: Choice
    content: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How rows of a second table belong to a slide's row: `columns` there equal `values` here."""

    columns: tuple[str, ...]
    values: tuple[Template, ...]
    required: bool


@dataclass(frozen=True, slots=True)
class KeySpec:
    """How a slide finds its rows: `column` equals what the slide's file says."""

    column: str
    equals: Choice


@dataclass(frozen=True, slots=True)
class MetadataMap:
    """A map, joined with what it includes, and checked.

    Parameters
    ----------
    name, title : str
    keys : tuple of KeySpec
    collection : mapping
        Alternatives of each fact; of a list, the alternatives of each element.
    variables : mapping
    tables : mapping
    attributes, specimen, optical_path : mapping
        By keyword, or private tag.
    optical_path_each : str
        The table whose rows give an optical path each; empty, or without rows: one path from the slide's row.
    steps : tuple of StepSpec
        Of the preparation, in order.
    variables_by_name : mapping
        The name of each variable by its normalised form.
    """

    name: str
    title: str
    keys: tuple[KeySpec, ...]
    collection: Mapping[str, tuple[Choice, ...]]
    variables: Mapping[str, Choice]
    tables: Mapping[str, TableSpec]
    attributes: Mapping[str, Attribute]
    specimen: Mapping[str, Attribute]
    optical_path: Mapping[str, Attribute]
    optical_path_each: str
    steps: tuple[StepSpec, ...]
    variables_by_name: Mapping[str, str]


def normalize_text(text: str) -> str:
    """Return a text as value tables and conditions compare it: trimmed, whatever its case."""
    return text.strip().casefold()


def builtin_maps() -> dict[str, str]:
    """Return the title of each shipped map by name."""
    folder = resources.files(__package__) / "collections"
    return {
        file.name.removesuffix(".toml"): str(tomllib.loads(file.read_text("utf-8")).get("map", {}).get("title", ""))
        for file in sorted(folder.iterdir() if folder.is_dir() else (), key=lambda file: file.name)
        if file.name.endswith(".toml")
    }


def load_map(name_or_path: str | Path) -> MetadataMap:
    """Read and check a map.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a shipped map, or a file that ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such map, or for the first mistake in it.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
    else:
        path = _packaged("collections", text)
        if not path.is_file():
            names = ", ".join(builtin_maps())
            raise UsageError(
                f"map {text!r}: is not shipped; there are {names or 'none'}, or give a file that ends in .toml"
            )
    return _Parser(_Sections().read(path, ())).parse()


def _packaged(folder: str, name: str) -> Path:
    return Path(str(resources.files(__package__))) / folder / f"{name}.toml"


def _fail(place: str, found: str, wanted: str = "") -> NoReturn:
    raise UsageError(f"{place}: {found}" + (f", wanted {wanted}" if wanted else ""))


def _check_keys(place: str, raw: Mapping[str, Any], allowed: Collection[str]) -> None:
    for key in raw:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            _fail(f"{place}.{key}", "is not known", repr(close[0]) if close else f"one of {', '.join(allowed)}")


def _table(place: str, raw: Any) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else _fail(place, f"is {_kind(raw)}", "a table")


def _string(place: str, raw: Any) -> str:
    return raw if isinstance(raw, str) else _fail(place, f"is {_kind(raw)}", "a text")


def _strings(place: str, raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str):
        return (raw,)
    if isinstance(raw, list) and raw:
        return tuple(_string(f"{place}[{index}]", each) for index, each in enumerate(raw))
    _fail(place, f"is {_kind(raw)}", "a text or an array of texts")


def _kind(raw: Any) -> str:
    names = {dict: "a table", list: "an array", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(raw), "a date or time")


class _Sections:
    """The raw entries of a map and all it includes; what is included comes first and may be replaced by name."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, tuple[str, Any]]] = {section: {} for section in SECTIONS}

    def read(self, path: Path, chain: tuple[Path, ...]) -> _Sections:
        """Add a file after what it includes."""
        path = path.resolve()
        place = path.name
        if path in chain:
            _fail(place, f"includes itself: {' > '.join(each.name for each in (*chain, path))}")
        try:
            raw = tomllib.loads(path.read_text("utf-8-sig"))
        except OSError as error:
            _fail(place, f"cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            _fail(place, "is not UTF-8")
        except tomllib.TOMLDecodeError as error:
            _fail(place, f"is not TOML: {error}")
        for section, entries in raw.items():
            if section not in SECTIONS:
                close = difflib.get_close_matches(section, SECTIONS, n=1)
                _fail(
                    f"{place}: {section}", "is not known", repr(close[0]) if close else f"one of {', '.join(SECTIONS)}"
                )
            _table(f"{place}: {section}", entries)
        for name in _strings(f"{place}: map.include", raw.get("map", {}).pop("include", None) or [""]):
            if name:
                self.read(self._find(place, path.parent, name), (*chain, path))
        for section, entries in raw.items():
            self.entries[section].update({key: (f"{place}: {section}.{key}", entry) for key, entry in entries.items()})
        return self

    @staticmethod
    def _find(place: str, folder: Path, name: str) -> Path:
        found = folder / name if name.endswith(".toml") else _packaged("chains", name)
        if not found.is_file():
            _fail(f"{place}: map.include", f"there is no {name!r}", "a shipped piece, or a file that ends in .toml")
        return found


class _Parser:
    """Turns the raw entries into a map."""

    def __init__(self, sections: _Sections) -> None:
        self.raw = sections.entries
        self.values: dict[str, dict[str, Any]] = {}

    def parse(self) -> MetadataMap:
        self.values = {name: _table(place, raw) for name, (place, raw) in self.raw["values"].items()}
        for name, (place, raw) in self.raw["values"].items():
            self._lookup(place, raw)
            if not name:
                _fail(place, "has no name")
        about = {key: raw for key, (_, raw) in self.raw["map"].items()}
        for key, (place, _) in self.raw["map"].items():
            _check_keys(place.rpartition(".")[0], {key: None}, MAP_KEYS)
        keys = self.raw["map"].get("key")
        specimen = dict(self.raw["specimen"])
        order = specimen.pop("steps", None)
        optical_path = dict(self.raw["optical_path"])
        each = optical_path.pop("each", None)
        found = MetadataMap(
            name=_string("map.name", about.get("name", "")),
            title=_string("map.title", about.get("title", "")),
            keys=self._keys(*keys) if keys else (),
            collection={key: self._collection(key, *entry) for key, entry in self.raw["collection"].items()},
            variables={name: self._choice(*entry, name=name) for name, entry in self.raw["variables"].items()},
            tables={name: self._second_table(*entry) for name, entry in self.raw["tables"].items()},
            attributes=self._attributes(self.raw["attributes"], "attributes"),
            specimen=self._attributes(specimen, "specimen"),
            optical_path=self._attributes(optical_path, "optical_path"),
            optical_path_each=self._each(*each) if each else "",
            steps=self._steps(*order) if order else (),
            variables_by_name={normalize_name(name): name for name in self.raw["variables"]},
        )
        self._refuse_cycles(found.variables)
        return found

    def _keys(self, place: str, raw: Any) -> tuple[KeySpec, ...]:
        keys = []
        for each in raw if isinstance(raw, list) else [raw]:
            _check_keys(place, _table(place, each), ("column", "equals"))
            if set(each) != {"column", "equals"}:
                _fail(place, f"has {', '.join(each) or 'nothing'}", "column and equals")
            keys.append(KeySpec(_string(place, each["column"]), self._choice(f"{place}.equals", each["equals"])))
        return tuple(keys)

    def _collection(self, key: str, place: str, raw: Any) -> tuple[Choice, ...]:
        if key not in COLLECTION_KEYS:
            _check_keys(place.rpartition(".")[0], {key: raw}, COLLECTION_KEYS)
        if key in COLLECTION_LISTS and isinstance(raw, list):
            return tuple(self._choice(f"{place}[{index}]", each) for index, each in enumerate(raw))
        return (self._choice(place, raw),)

    def _second_table(self, place: str, raw: Any) -> TableSpec:
        _check_keys(place, _table(place, raw), TABLE_KEYS)
        on = _table(f"{place}.on", raw.get("on", ""))
        if not on:
            _fail(f"{place}.on", "is empty", "columns of this table and what they equal")
        values = tuple(_template(f"{place}.on.{column}", text) for column, text in on.items())
        return TableSpec(tuple(on), values, self._flag(place, raw, "required", default=True))

    def _each(self, place: str, raw: Any) -> str:
        name = _string(place, raw)
        if name not in self.raw["tables"]:
            _fail(place, f"there is no table {name!r}", f"one of {', '.join(self.raw['tables']) or 'none'}")
        return name

    def _steps(self, place: str, raw: Any) -> tuple[StepSpec, ...]:
        steps = []
        for name in _strings(place, raw) if raw != [] else ():
            if name not in self.raw["steps"]:
                close = difflib.get_close_matches(name, self.raw["steps"], n=1)
                _fail(
                    place, f"there is no step {name!r}", repr(close[0]) if close else "the name of a table in [steps]"
                )
            steps.append(self._step(*self.raw["steps"][name]))
        return tuple(steps)

    def _step(self, place: str, raw: Any) -> StepSpec:
        _check_keys(place, _table(place, raw), STEP_KEYS)

        def optional(key: str, *, coded: bool) -> Choice:
            return self._choice(f"{place}.{key}", raw[key], coded=coded) if key in raw else ()

        content = raw.get("content", [])
        if not isinstance(content, list):
            _fail(f"{place}.content", f"is {_kind(content)}", "an array of tables")
        return StepSpec(
            place=place,
            when=self._when(place, raw),
            each=self._each(f"{place}.each", raw["each"]) if "each" in raw else "",
            specimen=optional("specimen", coded=False),
            container=optional("container", coded=True),
            type=optional("type", coded=True),
            parent=optional("parent", coded=False),
            parent_type=optional("parent_type", coded=True),
            content=tuple(self._content(f"{place}.content[{index}]", each) for index, each in enumerate(content)),
        )

    def _content(self, place: str, raw: Any) -> Content:
        _check_keys(place, _table(place, raw), CONTENT_KEYS)
        if "concept" not in raw or "value" not in raw:
            _fail(place, f"has {', '.join(raw) or 'nothing'}", "concept and value")
        concept = self._coded(f"{place}.concept", raw["concept"]).code
        return Content(place, self._when(place, raw), concept, self._content_value(f"{place}.value", raw["value"]))

    def _content_value(self, place: str, raw: Any) -> Choice:
        """Read the value of a content item: a text is the name of a code, a table may be a text or a code."""
        alternatives = raw if isinstance(raw, list) else [raw]
        choice: Choice = ()
        for index, each in enumerate(alternatives):
            where = f"{place}[{index}]" if isinstance(raw, list) else place
            choice += self._choice(where, each, coded=isinstance(each, str))
        return choice

    def _attributes(self, entries: Mapping[str, tuple[str, Any]], section: str) -> dict[str, Attribute]:
        found = {}
        for key, (place, raw) in entries.items():
            if section == "attributes" and key in _ELSEWHERE:
                _fail(place, "does not belong here", f"it in {_ELSEWHERE[key]}")
            if section == "attributes" and is_computed(key, keyword_dict.get(key, _NO_GROUP)):
                _fail(place, "follows from the slide and cannot be set")
            found[key] = self._attribute(key, place, raw)
        return found

    def _attribute(self, key: str, place: str, raw: Any) -> Attribute:
        vr = _vr(key, place, raw)
        if vr != "SQ":
            return Attribute(place, vr, self._choice(place, raw, vr=vr, name=key))
        elements = raw if isinstance(raw, list) else [raw]
        if not any(isinstance(each, dict) and _is_item(each) for each in elements):
            choice = self._choice(place, raw, coded=True)
            if any(spec.modifier for spec in choice):
                modifier_keyword(key, place)
            return Attribute(place, vr, choice)
        items: list[Item | Content] = []
        for index, each in enumerate(elements):
            where = f"{place}[{index}]" if isinstance(raw, list) else place
            if not isinstance(each, dict) or not _is_item(each):
                _fail(where, "is no item of a sequence", "keywords with their values, or a concept with its value")
            items.append(self._content(where, each) if "concept" in each else self._item(where, each))
        return Attribute(place, vr, items=tuple(items))

    def _item(self, place: str, raw: dict[str, Any]) -> Item:
        attributes = {key: self._attribute(key, f"{place}.{key}", value) for key, value in raw.items() if key != "when"}
        return Item(place, self._when(place, raw), attributes)

    def _choice(self, place: str, raw: Any, *, vr: str = "", coded: bool = False, name: str = "") -> Choice:
        if isinstance(raw, list):
            if not raw:
                _fail(place, "is empty", "alternatives, the best first")
            return tuple(self._spec(f"{place}[{index}]", each, vr, coded, name) for index, each in enumerate(raw))
        return (self._spec(place, raw, vr, coded, name),)

    def _spec(self, place: str, raw: Any, vr: str, coded: bool, name: str) -> ValueSpec:
        if isinstance(raw, str):
            origin = f'code "{raw}"' if coded else f'text "{raw}"'
            spec = ValueSpec(place, origin, sources=(_template(place, raw),), coded=coded)
            self._check_code_name(place, raw, coded)
            return spec
        if isinstance(raw, list):
            _fail(place, "is an array", "a text or a table")
        if not isinstance(raw, dict):
            return ValueSpec(place, "value", literal=(_scalar_text(raw),))
        if coded and "value" in raw and "scheme" in raw:
            return ValueSpec(place, "code", constant=self._coded(place, raw), coded=True)
        _check_keys(place, raw, SPEC_KEYS)
        coded = coded or "codes" in raw or "code" in raw
        sources = [key for key in SOURCE_KEYS if key in raw]
        if len(sources) != 1:
            _fail(place, f"has {', '.join(sources) or 'none'}", f"one source of {', '.join(SOURCE_KEYS)}")
        spec = self._source(place, raw, sources[0])
        lookup = self._spec_lookup(place, raw, coded)
        if lookup is None and coded and sources[0] == "text":
            self._check_code_name(place, raw["text"], coded)
        spec = replace(
            spec,
            when=self._when(place, raw),
            lookup=lookup,
            unmapped=_one_of(place, raw, "unmapped", ("error", "keep", "drop")),
            coded=coded,
            split=_string(f"{place}.split", raw.get("split", "")),
            default=self._default(place, raw, coded),
            required=self._flag(place, raw, "required", default=False),
            modifier=self._choice(f"{place}.modifier", raw["modifier"], coded=True) if "modifier" in raw else (),
            max_length=self._max_length(place, raw),
            on_too_long=_one_of(place, raw, "on_too_long", ("error", "drop", "clip")),
            origin=spec.origin + (", value table" if lookup is not None else ""),
        )
        if "match" in raw:
            pattern = _pattern(f"{place}.match", raw["match"])
            group = name if name in pattern.groupindex else min(1, pattern.groups)
            spec = replace(spec, pattern=pattern, group=group, origin=f"{spec.origin}, match")
        return replace(spec, **self._form(place, raw, vr))

    def _source(self, place: str, raw: dict[str, Any], key: str) -> ValueSpec:
        where, value = f"{place}.{key}", raw[key]
        if key != "join" and "with" in raw:
            _fail(f"{place}.with", "joins nothing", "it beside join")
        if key in ("text", "in"):
            text = _string(where, value)
            return ValueSpec(
                place,
                f'{"file name" if key == "in" and "file_name" in text else "text"} "{text}"',
                sources=(_template(where, text),),
            )
        if key in ("column", "columns"):
            names = _strings(where, value)
            origin = f"{'columns' if len(names) > 1 else 'column'} {', '.join(names)}"
            return ValueSpec(place, origin, sources=tuple(Template((Name(name, column=True),)) for name in names))
        if key == "join":
            templates = tuple(
                _template(where, text) if "{" in text else Template((Name(text),)) for text in _strings(where, value)
            )
            separator = _string(f"{place}.with", raw.get("with", " "))
            return ValueSpec(place, "texts joined", sources=templates, separator=separator)
        if key == "code":
            if isinstance(value, str):
                self._check_code_name(where, value, coded=True)
                return ValueSpec(place, f'code "{value}"', sources=(_template(where, value),), coded=True)
            return ValueSpec(place, "code", constant=self._coded(where, value), coded=True)
        literal = value if isinstance(value, list) else [value]
        return ValueSpec(place, "value", literal=tuple(map(_scalar_text, literal)))

    def _default(self, place: str, raw: dict[str, Any], coded: bool) -> str | Coded:
        if "default" not in raw:
            return ""
        if coded:
            return self._coded(f"{place}.default", raw["default"])
        return _scalar_text(raw["default"])

    def _form(self, place: str, raw: dict[str, Any], vr: str) -> dict[str, Any]:
        form: dict[str, Any] = {}
        if "date" in raw:
            if vr and vr not in DATE_VRS:
                _fail(f"{place}.date", f"is given for a value of {vr}", "it where DICOM has a date or time")
            form["formats"] = _strings(f"{place}.date", raw["date"])
        for key in ("unit", "from_unit"):
            if key in raw:
                try:
                    form[key] = unit_name(_string(f"{place}.{key}", raw[key]))
                except MisfitError as error:
                    _fail(f"{place}.{key}", str(error))
        return form

    def _spec_lookup(self, place: str, raw: dict[str, Any], coded: bool) -> dict[str, str | Coded] | None:
        keys = [key for key in ("values", "codes") if key in raw]
        if len(keys) > 1:
            _fail(place, "has values and codes", "one of them")
        if not keys:
            if "unmapped" in raw:
                _fail(f"{place}.unmapped", "has no value table", "values or codes")
            return None
        where, table = f"{place}.{keys[0]}", raw[keys[0]]
        if isinstance(table, str):
            if table not in self.values:
                close = difflib.get_close_matches(table, self.values, n=1)
                _fail(where, f"there is no value table {table!r}", repr(close[0]) if close else "a table of [values]")
            where, table = self.raw["values"][table][0], self.values[table]
        elif not isinstance(table, dict):
            _fail(where, f"is {_kind(table)}", "a table, or the name of one of [values]")
        if not coded:
            return self._lookup(where, table)
        if raw.get("unmapped") == "keep":
            _fail(f"{place}.unmapped", "cannot be keep where codes are wanted", "error or drop")
        return {
            key: self._coded(where, value) if isinstance(value, str) and value else value
            for key, value in self._lookup(where, table).items()
        }

    def _lookup(self, place: str, raw: dict[str, Any]) -> dict[str, str | Coded]:
        """Read a value table: texts as they are, tables as codes."""
        found: dict[str, str | Coded] = {}
        for key, value in raw.items():
            where = f"{place}.{key!r}"
            if normalize_text(key) in found:
                _fail(where, "stands twice but for case and spaces")
            found[normalize_text(key)] = self._coded(where, value) if isinstance(value, dict) else _scalar_text(value)
        return found

    def _coded(self, place: str, raw: Any) -> Coded:
        """Read a code: a name of the code table, or value, scheme and meaning, or a name with a modifier."""
        if isinstance(raw, str):
            return Coded(self._code(place, raw))
        _check_keys(place, _table(place, raw), CODE_KEYS)
        modifier = self._coded(f"{place}.modifier", raw["modifier"]).code if "modifier" in raw else None
        if "code" in raw:
            return Coded(self._code(f"{place}.code", _string(f"{place}.code", raw["code"])), modifier)
        parts = [_string(f"{place}.{key}", raw.get(key, "")).strip() for key in ("value", "scheme", "meaning")]
        if not all(parts):
            _fail(place, f"has {', '.join(raw) or 'nothing'}", "value, scheme and meaning, or code")
        if len(parts[1]) > 16 or len(parts[2]) > 64:
            _fail(place, "is too long", "a scheme of at most 16 and a meaning of at most 64 characters")
        return Coded(Code(*parts), modifier)

    def _check_code_name(self, place: str, text: str, coded: bool) -> None:
        if coded and "{" not in text:
            self._code(place, text)

    @staticmethod
    def _code(place: str, name: str) -> Code:
        try:
            return code(name)
        except UsageError as error:
            _fail(place, str(error))

    def _when(self, place: str, raw: dict[str, Any]) -> tuple[Test, ...]:
        return tuple(
            self._test(f"{place}.when.{name}", name, wanted)
            for name, wanted in _table(f"{place}.when", raw.get("when", {})).items()
        )

    def _test(self, place: str, text: str, wanted: Any) -> Test:
        name = Name(text)
        if not isinstance(wanted, dict):
            return Test(name, values=_test_values(wanted))
        _check_keys(place, wanted, TEST_KEYS)
        if len(wanted) != 1:
            _fail(place, f"has {', '.join(wanted) or 'nothing'}", f"one of {', '.join(TEST_KEYS)}")
        if "match" in wanted:
            return Test(name, pattern=_pattern(f"{place}.match", wanted["match"]))
        if "not" in wanted:
            return Test(name, values=_test_values(wanted["not"]), negated=True)
        return Test(name, present=self._flag(place, wanted, "present", default=True))

    @staticmethod
    def _flag(place: str, raw: dict[str, Any], key: str, *, default: bool) -> bool:
        value = raw.get(key, default)
        return value if isinstance(value, bool) else _fail(f"{place}.{key}", f"is {_kind(value)}", "true or false")

    @staticmethod
    def _max_length(place: str, raw: dict[str, Any]) -> int | None:
        value = raw.get("max_length")
        if value is None or (type(value) is int and value > 0):
            return value
        _fail(f"{place}.max_length", f"is {value!r}", "a number above 0")

    @staticmethod
    def _refuse_cycles(variables: Mapping[str, Choice]) -> None:
        """Refuse variables that need each other; one that names itself means the column of that name."""
        needs = {
            normalize_name(name): (
                choice[0].place,
                {normalize_name(each.text) for spec in choice for each in spec.names if not each.column}
                - {normalize_name(name)},
            )
            for name, choice in variables.items()
        }

        def visit(name: str, above: tuple[str, ...]) -> None:
            place, names = needs[name]
            if name in above:
                _fail(place, f"needs itself: {' > '.join((*above[above.index(name) :], name))}")
            for each in names & set(needs):
                visit(each, (*above, name))

        for name in needs:
            visit(name, ())


def modifier_keyword(keyword: str, place: str = "") -> str:
    """Return the keyword of the sequence that modifies the code of a sequence."""
    found = f"{keyword.removesuffix('Sequence').removesuffix('Code')}ModifierSequence"
    if found not in keyword_dict:
        _fail(f"{place}.modifier", f"{keyword} has no modifier")
    return found


def _vr(key: str, place: str, raw: Any) -> str:
    private = _PRIVATE_TAG.fullmatch(key)
    if private:
        vr = raw.get("vr") if isinstance(raw, dict) else None
        if not isinstance(vr, str) or not re.fullmatch("[A-Z]{2}", vr) or vr in ("SQ", "OB", "OW", "UN"):
            _fail(f"{place}.vr", f"is {vr!r}" if vr else "is missing", 'the VR of a private attribute, e.g. vr = "LO"')
        return vr
    if isinstance(raw, dict) and "vr" in raw:
        _fail(f"{place}.vr", "is given for a standard attribute", "it on private ones only")
    tag = keyword_dict.get(key)
    if tag is None:
        close = difflib.get_close_matches(key, keyword_dict, n=1)
        _fail(place, "is no keyword of the DICOM data dictionary", repr(close[0]) if close else "")
    vr = dictionary_VR(tag)
    if tag >> 16 in _COMPUTED_GROUPS or vr.startswith("O") or vr in ("UN", "AT"):
        _fail(place, "follows from the slide and cannot be set")
    return str(vr)


def _is_item(raw: dict[str, Any]) -> bool:
    return "concept" in raw or any(key[:1].isupper() or key.startswith("(") for key in raw)


def _template(place: str, raw: Any) -> Template:
    text = _string(place, raw)
    parts: list[str | Name] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
            continue
        if match[1] is None:
            _fail(place, f"has a single {match[0]}", f"{match[0] * 2} for the character itself")
        name, *filters = (part.strip() for part in match[1].split("|"))
        if not name:
            _fail(place, "has empty braces", "a name in them")
        for each in filters:
            if each not in FILTERS:
                _fail(place, f"has the filter {each!r}", f"one of {', '.join(FILTERS)}")
        parts.append(Name(name, tuple(filters)))
    parts.append(text[end:])
    return Template(tuple(part for part in parts if part))


def _pattern(place: str, raw: Any) -> re.Pattern[str]:
    try:
        return re.compile(_string(place, raw))
    except re.error as error:
        _fail(place, f"is no regular expression: {error}")


def _one_of(place: str, raw: dict[str, Any], key: str, allowed: tuple[str, ...]) -> Any:
    value = raw.get(key, allowed[0])
    return value if value in allowed else _fail(f"{place}.{key}", f"is {value!r}", f"one of {', '.join(allowed)}")


def _test_values(raw: Any) -> frozenset[str]:
    return frozenset(normalize_text(_scalar_text(each)) for each in (raw if isinstance(raw, list) else [raw]))


def _scalar_text(raw: Any) -> str:
    if isinstance(raw, (datetime, date, time)):
        return raw.isoformat()
    return str(raw)
