"""Apply a map to a slide: the facts of its file and the rows of its table become DICOM attributes, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_VM, keyword_dict

from coverslip.errors import UsageError
from coverslip.metadata_maps.codes import Code, code
from coverslip.metadata_maps.language import (
    COLLECTION_LISTS,
    FACTS,
    Attribute,
    Choice,
    Coded,
    Content,
    Item,
    MetadataMap,
    Name,
    StepSpec,
    Template,
    Test,
    ValueSpec,
    modifier_keyword,
    normalize_text,
)
from coverslip.metadata_maps.tables import Row, Table, normalize_name
from coverslip.metadata_maps.value_rules import (
    MAX_LENGTHS,
    MisfitError,
    age_text,
    decimal_text,
    fit_text,
    parse_quantity,
    to_unit,
)
from coverslip.validators.report import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AttributeTree", "AttributeValue", "MappedSlide", "Problem", "apply_map", "code_item", "slide_facts"]

type AttributeValue = str | int | float | Code | tuple[str | int | float, ...] | tuple[AttributeTree, ...]
type AttributeTree = dict[str, AttributeValue]
"""Values by keyword or private tag. A code alone is a sequence of one coded item; a tuple of trees is a sequence."""

TYPE_2 = frozenset(
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber "
    "ReferringPhysicianName SeriesNumber ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName "
    "ClinicalTrialTimePointID ClinicalTrialCoordinatingCenterName IssuerOfTheContainerIdentifierSequence "
    "IssuerOfTheSpecimenIdentifierSequence SpecimenPreparationSequence AcquisitionContextSequence BarcodeValue "
    "LabelText".split()
)
"""Attributes that the VL WSI IOD has even where nothing is known (PS3.3 A.32.8, Type 2)."""

_MODULES = (
    # Clinical Trial Subject, Study and Series (PS3.3 C.7.1.3, C.7.2.3, C.7.3.2): any attribute asks for these.
    (
        frozenset(
            "ClinicalTrialSponsorName ClinicalTrialProtocolID IssuerOfClinicalTrialProtocolID "
            "ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID "
            "ClinicalTrialSubjectReadingID OtherClinicalTrialProtocolIDsSequence".split()
        ),
        ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID"),
        ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
    ),
    (
        frozenset("ClinicalTrialTimePointID ClinicalTrialTimePointDescription".split()),
        (),
        ("ClinicalTrialTimePointID",),
    ),
    (
        frozenset("ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID ClinicalTrialSeriesDescription".split()),
        (),
        ("ClinicalTrialCoordinatingCenterName",),
    ),
)
_NO_ROW = Row(0, {})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a slide's metadata.

    Parameters
    ----------
    kind : str
        missing, unmapped, too-long, ambiguous, duplicate, inconsistent, invalid, no-row or no-slide.
    severity : Severity
    row : int or None
        Number of the table's row; None for a slide without one.
    column : str
        Where the value comes from; empty where no column has a part in it.
    keyword : str
        What it would become: a keyword, or the name of a variable or collection fact.
    message : str
        One line.
    """

    kind: str
    severity: Severity
    row: int | None
    column: str
    keyword: str
    message: str


@dataclass(frozen=True, slots=True)
class MappedSlide:
    """What a map says of a slide.

    Parameters
    ----------
    attributes : AttributeTree
        Of the top level of the data set.
    specimens : tuple of AttributeTree
        The items of Specimen Description Sequence, one per row, each with its Specimen Preparation Sequence.
    optical_paths : tuple of AttributeTree
        What is known of every optical path (one tree), or of each in order.
    container_identifier : str
        Empty where the map tells none.
    collection : mapping
        Facts of the collection that are not in DICOM.
    problems : tuple of Problem
    origins : mapping
        Where each value comes from, by its path such as ``"SpecimenDescriptionSequence[0].SpecimenIdentifier"``.
    private_vrs : mapping
        Value representation of each private tag.
    """

    attributes: AttributeTree
    specimens: tuple[AttributeTree, ...]
    optical_paths: tuple[AttributeTree, ...]
    container_identifier: str
    collection: Mapping[str, str | tuple[str, ...]]
    problems: tuple[Problem, ...]
    origins: Mapping[str, str]
    private_vrs: Mapping[str, str] = field(default_factory=dict)

    @property
    def curated_keywords(self) -> tuple[str, ...]:
        """Keywords and private tags that the map gives a value, at the top level, in specimens and optical paths."""
        trees = (self.attributes, *self.specimens, *self.optical_paths)
        return tuple(sorted({key for tree in trees for key, value in tree.items() if value not in ("", ())}))

    @property
    def has_errors(self) -> bool:
        """Whether the slide cannot be converted with this metadata."""
        return any(problem.severity is Severity.ERROR for problem in self.problems)


def slide_facts(path: str | Path) -> dict[str, str]:
    """Return what is known of a slide by its path alone; the slide need not exist."""
    pure = PurePath(path)
    stem = pure.stem.removesuffix(".ome").removesuffix(".OME")
    return {"file_name": pure.name, "stem": stem, "folder": pure.parent.name, "path": str(path)}


def code_item(coded: Code) -> AttributeTree:
    """Return a code as the item of a code sequence; a value of more than 16 characters is a Long Code Value."""
    keyword = "LongCodeValue" if len(coded.value) > MAX_LENGTHS["SH"] else "CodeValue"
    return {
        keyword: coded.value,
        "CodingSchemeDesignator": coded.scheme_designator,
        "CodeMeaning": coded.meaning,
    }


def apply_map(
    metadata_map: MetadataMap, facts: Mapping[str, str], rows: Sequence[Row], tables: Mapping[str, Table]
) -> MappedSlide:
    """Apply a map to a slide.

    Parameters
    ----------
    metadata_map : MetadataMap
    facts : mapping
        From `slide_facts`.
    rows : sequence of Row
        The slide's; each describes one specimen on it. None: the slide's file alone must tell all.
    tables : mapping
        Second tables by the name the map gives them.

    Raises
    ------
    UsageError
        If the map needs a second table that is not given.
    """
    require_tables(metadata_map, tables)
    scenes = [_Scene(metadata_map, facts, row, tables) for row in rows or (_NO_ROW,)]
    first = scenes[0]
    attributes = first.tree(metadata_map.attributes, "")
    _complete_modules(attributes, first)
    for scene in scenes[1:]:
        other = scene.tree(metadata_map.attributes, "")
        for keyword in attributes | other:
            if attributes.get(keyword) != other.get(keyword) and keyword in metadata_map.attributes:
                spec = metadata_map.attributes[keyword]
                columns = spec.choice[0].column if spec.choice else ""
                scene.report("inconsistent", columns, keyword, f"differs from row {first.row.number} of the same slide")
    container = str(attributes.get("ContainerIdentifier", ""))
    specimens = tuple(scene.specimen(f"SpecimenDescriptionSequence[{index}]") for index, scene in enumerate(scenes))
    _identify_specimens(specimens, scenes, container)
    return MappedSlide(
        attributes=attributes,
        specimens=specimens,
        optical_paths=tuple(first.optical_paths()),
        container_identifier=container,
        collection=first.collection(attributes),
        problems=tuple(dict.fromkeys(problem for scene in scenes for problem in scene.problems)),
        origins={path: origin for scene in scenes for path, origin in scene.origins.items()},
        private_vrs={tag: vr for scene in scenes for tag, vr in scene.private_vrs.items()},
    )


def require_tables(metadata_map: MetadataMap, tables: Mapping[str, Table]) -> None:
    """Check that every second table the map needs is given, with the columns it is matched by, and no other."""
    for name in tables:
        if name not in metadata_map.tables:
            known = ", ".join(metadata_map.tables) or "none"
            raise UsageError(f"--table {name}: the map knows no table of that name, wanted one of {known}")
    for name, spec in metadata_map.tables.items():
        if name not in tables:
            if spec.required:
                raise UsageError(f"the map needs a second table: --table {name}=FILE")
            continue
        for column in spec.columns:
            if not tables[name].has_column(column):
                raise UsageError(f"table {tables[name].path.name!r}: has no column {column!r}, by which it is matched")


def render_without_row(metadata_map: MetadataMap, facts: Mapping[str, str], choice: Choice) -> str:
    """Return what a choice gives from a slide's file alone; empty where that is not enough."""
    scene = _Scene(metadata_map, facts, _NO_ROW, {})
    values, _ = scene.choose(choice, "")
    return scene.as_text(values)


def _complete_modules(attributes: AttributeTree, scene: _Scene) -> None:
    """Add the empty attributes that a clinical trial module has, and report what it cannot be without."""
    for members, type_1, type_2 in _MODULES:
        if members & attributes.keys():
            for keyword in type_1:
                if keyword not in attributes:
                    scene.report("missing", "", keyword, "is needed where other clinical trial attributes are set")
            for keyword in type_2:
                attributes.setdefault(keyword, "")


def _identify_specimens(specimens: tuple[AttributeTree, ...], scenes: Sequence[_Scene], container: str) -> None:
    """Give the only specimen the container's identifier where it has none; no two may have the same."""
    if len(specimens) == 1 and container:
        specimens[0].setdefault("SpecimenIdentifier", container)
    seen: dict[AttributeValue, int] = {}
    for scene, specimen in zip(scenes, specimens, strict=True):
        identifier = specimen.get("SpecimenIdentifier", "")
        if not identifier and len(specimens) > 1:
            scene.report("missing", "", "SpecimenIdentifier", "is needed where a slide has several specimens")
        elif identifier and (other := seen.setdefault(identifier, scene.row.number)) != scene.row.number:
            message = f"is that of row {other}, another specimen of the same slide"
            scene.report("duplicate", "", "SpecimenIdentifier", message)


@dataclass(slots=True)
class _Scene:
    """One row of one slide, with the variables that follow from it."""

    map: MetadataMap
    facts: Mapping[str, str]
    row: Row
    tables: Mapping[str, Table]
    problems: list[Problem] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    private_vrs: dict[str, str] = field(default_factory=dict)
    current: dict[str, Row] = field(default_factory=dict)
    _variables: dict[str, tuple[str | Coded, ...]] = field(default_factory=dict)
    _being_evaluated: set[str] = field(default_factory=set)
    _joined: dict[str, Sequence[Row]] = field(default_factory=dict)

    def report(self, kind: str, column: str, keyword: str, message: str, severity: Severity = Severity.ERROR) -> None:
        self.problems.append(Problem(kind, severity, self.row.number or None, column, keyword, message))

    # What the table, the file and the variables say.

    def look_up(self, name: Name) -> str:
        text = self._find(name)
        for each in name.filters:
            text = _FILTERS[each](text)
        return text

    def _find(self, name: Name) -> str:
        if not name.column:
            values = self._variable(name.text)
            if values is not None:
                return self.as_text(values)
            key = _FACT_NAMES.get(normalize_name(name.text))
            if key:
                return self.facts.get(key, "")
        table, colon, column = name.text.partition(":")
        if colon and table in self.map.tables:
            return self._second(table, column)
        return self.row.get(name.text, "")

    def _variable(self, name: str) -> tuple[str | Coded, ...] | None:
        """Return the value of a variable; None where the name is none, or is the one being evaluated."""
        known = self.map.variables_by_name.get(normalize_name(name))
        if known is None or known in self._being_evaluated:
            return None
        if known not in self._variables:
            self._being_evaluated.add(known)
            self._variables[known], _ = self.choose(self.map.variables[known], known)
            self._being_evaluated.discard(known)
        return self._variables[known]

    def joined_rows(self, table: str) -> Sequence[Row]:
        """Return the rows of a second table that belong to this row."""
        if table not in self._joined:
            spec = self.map.tables[table]
            values = tuple(self.render(template) for template in spec.values)
            rows: Sequence[Row] = ()
            if table in self.tables and all(values):
                rows = self.tables[table].rows_where(spec.columns, values)
                if not rows and spec.required:
                    names = ", ".join(name.text for template in spec.values for name in template.names)
                    self.report("no-row", names, "", f"has no row in the table {table!r}")
            self._joined[table] = rows
        return self._joined[table]

    def _second(self, table: str, column: str) -> str:
        if table in self.current:
            return self.current[table].get(column, "")
        rows = self.joined_rows(table)
        found = {row.get(column, "") for row in rows}
        if len(found) > 1:
            self.report("ambiguous", f"{table}:{column}", "", f"{len(rows)} rows of the table {table!r} belong to it")
            return ""
        return next(iter(found), "")

    def render(self, template: Template) -> str:
        """Return a template's text; empty where a name in it is."""
        texts = []
        for part in template.parts:
            text = part if isinstance(part, str) else self.look_up(part)
            if not text:
                return ""
            texts.append(text)
        return "".join(texts).strip()

    def holds(self, tests: tuple[Test, ...]) -> bool:
        return all(self._passes(test) for test in tests)

    def _passes(self, test: Test) -> bool:
        text = self.look_up(test.name)
        if test.present is not None:
            return bool(text) == test.present
        if test.pattern is not None:
            return test.pattern.search(text) is not None
        return (normalize_text(text) in (test.values or ())) != test.negated

    # What becomes of it.

    def choose(self, choice: Choice, keyword: str) -> tuple[tuple[str | Coded, ...], ValueSpec | None]:
        """Return the values of the first alternative that applies and is not empty, and that alternative."""
        wanted: ValueSpec | None = None
        for spec in choice:
            if not self.holds(spec.when):
                continue
            count = len(self.problems)
            values = self._values(spec, keyword)
            if values or len(self.problems) > count:
                return values, spec
            wanted = wanted or (spec if spec.required else None)
        if wanted is not None:
            form = f" {wanted.pattern.pattern!r}" if wanted.pattern else ""
            message = f"is empty; the map wants it from {wanted.origin}{form}"
            self.report("missing", wanted.column, keyword, message)
        return (), wanted

    def _values(self, spec: ValueSpec, keyword: str) -> tuple[str | Coded, ...]:
        if spec.constant is not None:
            return (spec.constant,)
        values: list[str | Coded] = []
        for text in self._texts(spec):
            if isinstance(text, Coded):
                values.append(text)
            elif text:
                found = self._translate(spec, text, keyword)
                values += filter(None, _split(found, spec.split) if isinstance(found, str) else [found])
        return tuple(values) or ((spec.default,) if spec.default else ())

    def _texts(self, spec: ValueSpec) -> Iterator[str | Coded]:
        """Yield the texts of the source, after match and split; a variable that is a code stays one."""
        if spec.literal:
            yield from spec.literal
            return
        if spec.coded and spec.lookup is None and (coded := self._coded_variable(spec)):
            yield from coded
            return
        texts = [self.render(template) for template in spec.sources]
        present = [text for text in texts if text]
        text = "".join(present[:1]) if spec.separator is None else spec.separator.join(present)
        if spec.pattern is not None:
            match = spec.pattern.search(text)
            text = (match[spec.group] or "") if match else ""
        yield from _split(text, spec.split)

    def _coded_variable(self, spec: ValueSpec) -> tuple[Coded, ...]:
        parts = spec.sources[0].parts
        if len(spec.sources) != 1 or len(parts) != 1 or not isinstance(parts[0], Name) or parts[0].column:
            return ()
        return tuple(value for value in self._variable(parts[0].text) or () if isinstance(value, Coded))

    def _translate(self, spec: ValueSpec, text: str, keyword: str) -> str | Coded:
        """Return what the value table makes of a text, and the code of a name."""
        found: str | Coded = text
        if spec.lookup is not None:
            mapped = spec.lookup.get(normalize_text(text))
            if mapped is None:
                if spec.unmapped == "error":
                    self.report("unmapped", spec.column, keyword, f"the map's value table lacks {text!r}")
                return text if spec.unmapped == "keep" else ""
            found = mapped
        if spec.coded and isinstance(found, str) and found:
            try:
                return Coded(code(found))
            except UsageError:
                self.report("unmapped", spec.column, keyword, f"no code is named {found!r}")
                return ""
        return found

    @staticmethod
    def as_text(values: tuple[str | Coded, ...]) -> str:
        return "; ".join(value.code.meaning if isinstance(value, Coded) else value for value in values)

    # The trees.

    def tree(self, attributes: Mapping[str, Attribute], path: str) -> AttributeTree:
        """Return the attributes that are not empty, and the empty ones of Type 2."""
        found: AttributeTree = {}
        for keyword, attribute in attributes.items():
            where = f"{path}.{keyword}" if path else keyword
            value = self._attribute(keyword, attribute, where)
            if value not in ("", ()):
                found[keyword] = value
                if keyword.startswith("("):
                    self.private_vrs[keyword] = attribute.vr
            elif keyword in TYPE_2:
                found[keyword] = () if attribute.vr == "SQ" else ""
        return found

    def _attribute(self, keyword: str, attribute: Attribute, path: str) -> AttributeValue:
        if attribute.items:
            items: list[AttributeTree] = []
            for item in attribute.items:
                tree = self._item(item, keyword, f"{path}[{len(items)}]")
                if tree:
                    items.append(tree)
            return tuple(items)
        values, spec = self.choose(attribute.choice, keyword)
        if spec is None or not values:
            return ""
        self.origins[path] = f"{spec.origin} ({spec.place})"
        if attribute.vr == "SQ":
            return self._code_sequence(keyword, values, spec)
        fitted = [self._fit(value, attribute.vr, spec, keyword) for value in values]
        texts = tuple(value for value in fitted if value != "")
        if len(texts) > 1 and keyword in keyword_dict and dictionary_VM(keyword_dict[keyword]) == "1":
            self.report("invalid", spec.column, keyword, f"{len(texts)} values, the attribute holds one")
            return ""
        return texts[0] if len(texts) == 1 else texts

    def _code_sequence(self, keyword: str, values: tuple[str | Coded, ...], spec: ValueSpec) -> AttributeValue:
        items: list[AttributeTree] = []
        codes = [value for value in values if isinstance(value, Coded)]
        for value in codes:
            item = code_item(value.code)
            modifiers = [each for each in self.choose(spec.modifier, keyword)[0] if isinstance(each, Coded)]
            if modifier := (modifiers[0].code if modifiers else value.modifier):
                item[modifier_keyword(keyword)] = _code_value(modifier)
            items.append(item)
        if len(items) == 1 and items[0].keys() == {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}:
            return codes[0].code
        return tuple(items)

    def _fit(self, value: str | Coded, vr: str, spec: ValueSpec, keyword: str) -> str | int | float:
        """Return a value as its VR has it; what does not fit is reported and empty."""
        text = value.code.meaning if isinstance(value, Coded) else value
        try:
            if spec.unit:
                number, unit = parse_quantity(text, spec.from_unit or spec.unit)
                text = age_text(number, unit) if vr == "AS" else decimal_text(str(to_unit(number, unit, spec.unit)))
            return fit_text(text, vr, formats=spec.formats, max_length=spec.max_length)
        except MisfitError as error:
            if error.kind != "too-long" or spec.on_too_long == "error":
                self.report(error.kind, spec.column, keyword, str(error))
                return ""
            clipped = spec.on_too_long == "clip"
            message = f"{error}: {'is clipped' if clipped else 'is left out'}, as the map says"
            self.report(error.kind, spec.column, keyword, message, Severity.WARNING)
            limits = filter(None, (MAX_LENGTHS.get(vr), spec.max_length))
            return text[: min(limits)].rstrip() if clipped else ""

    def _item(self, item: Item | Content, keyword: str, path: str) -> AttributeTree:
        if isinstance(item, Content):
            return self._content(item, keyword, path)
        return self.tree(item.attributes, path) if self.holds(item.when) else {}

    def _content(self, content: Content, keyword: str, path: str) -> AttributeTree:
        """Return a content item, empty where its value is."""
        if not self.holds(content.when):
            return {}
        values, spec = self.choose(content.value, keyword)
        if spec is None or not values:
            return {}
        self.origins[path] = f"{spec.origin} ({spec.place})"
        return self._content_item(content.concept, values[0], spec, keyword)

    def _content_item(self, concept: Code, value: str | Coded, spec: ValueSpec, keyword: str) -> AttributeTree:
        if isinstance(value, Coded):
            return _code_content(concept, value.code)
        if spec.unit:
            number = self._fit(value, "DS", spec, keyword)
            units = _code_value(Code(spec.unit, "UCUM", spec.unit))
            if number == "":
                return {}
            return _content_item("NUMERIC", concept, NumericValue=number, MeasurementUnitsCodeSequence=units)
        if spec.formats:
            moment = self._fit(value, "DT", spec, keyword)
            return _content_item("DATETIME", concept, DateTime=moment) if moment else {}
        text = self._fit(value, "UT", spec, keyword)
        return _content_item("TEXT", concept, TextValue=text) if text else {}

    def specimen(self, path: str) -> AttributeTree:
        """Return an item of Specimen Description Sequence."""
        found = self.tree(self.map.specimen, path)
        if self.map.steps:
            container, _ = self.choose(self._container_choice(), "ContainerIdentifier")
            identifier = str(found.get("SpecimenIdentifier", "")) or self.as_text(container)
            steps: list[AttributeTree] = []
            for step in self.map.steps:
                for _ in self._each(step.each):
                    where = f"{path}.SpecimenPreparationSequence[{len(steps)}]"
                    if self.holds(step.when) and (items := self._step_items(step, identifier, where)):
                        steps.append({"SpecimenPreparationStepContentItemSequence": items})
            found["SpecimenPreparationSequence"] = tuple(steps)
        return found

    def _container_choice(self) -> Choice:
        attribute = self.map.attributes.get("ContainerIdentifier")
        return attribute.choice if attribute else ()

    def _each(self, table: str) -> Iterator[None]:
        """Make each row of a second table the current one in turn; once where no table is named, or has no row."""
        rows = self.joined_rows(table) if table else ()
        if not rows:
            yield
            return
        for row in rows:
            self.current[table] = row
            # Variables may follow from the current row.
            self._variables.clear()
            yield
        self.current.pop(table, None)
        self._variables.clear()

    def _step_items(self, step: StepSpec, specimen: str, path: str) -> tuple[AttributeTree, ...]:
        """Return the content items of a step (PS3.16 TID 8001), in the order in which IDC publishes them."""
        own = self._step_value(step.specimen) or specimen
        items: list[AttributeTree] = []
        if isinstance(own, str) and own:
            items.append(_content_item("TEXT", code("specimen-identifier"), TextValue=own))
        for concept, choice in (("specimen-container", step.container), ("specimen-type", step.type)):
            if isinstance(value := self._step_value(choice), Code):
                items.append(_code_content(code(concept), value))
        where = f"{path}.SpecimenPreparationStepContentItemSequence"
        for content in step.content:
            item = self._content(content, "SpecimenPreparationSequence", f"{where}[{len(items)}]")
            if item:
                items.append(item)
        parent = self._step_value(step.parent)
        if isinstance(parent, str) and parent:
            items.append(_content_item("TEXT", code("parent-specimen-identifier"), TextValue=parent))
        if isinstance(parent_type := self._step_value(step.parent_type), Code):
            items.append(_code_content(code("parent-specimen-type"), parent_type))
        self._require_short_codes(items)
        self.origins.setdefault(path, step.place)
        return tuple(items)

    def _require_short_codes(self, items: Sequence[AttributeTree]) -> None:
        """Report long code values in a preparation step: viewers (Slim) refuse the whole slide for one."""
        for value in (value for item in items for value in item.values() if isinstance(value, tuple)):
            for coded in value:
                if isinstance(coded, dict):
                    message = f"the code value {coded['LongCodeValue']!r} is longer than the 16 characters of a step's"
                    self.report("too-long", "", "SpecimenPreparationSequence", f"{message}; wanted text instead")

    def _step_value(self, choice: Choice) -> str | Code:
        values, _ = self.choose(choice, "SpecimenPreparationSequence")
        if not values:
            return ""
        return values[0].code if isinstance(values[0], Coded) else values[0]

    def optical_paths(self) -> Iterator[AttributeTree]:
        """Yield the attributes of each optical path."""
        for index, _ in enumerate(self._each(self.map.optical_path_each)):
            tree = self.tree(self.map.optical_path, f"OpticalPathSequence[{index}]")
            if tree:
                yield tree

    def collection(self, attributes: AttributeTree) -> dict[str, str | tuple[str, ...]]:
        """Return the facts of the collection; its id follows from the protocol id where the map tells none."""
        found: dict[str, str | tuple[str, ...]] = {}
        for key, choices in self.map.collection.items():
            values = tuple(
                self.as_text((value,)) for choice in choices for value in self.choose(choice, key)[0] if value
            )
            if values:
                found[key] = values if key in COLLECTION_LISTS else "; ".join(values)
        protocol = attributes.get("ClinicalTrialProtocolID", "")
        if isinstance(protocol, str) and protocol:
            found.setdefault("collection_id", as_id(protocol))
        return found


def as_id(text: str) -> str:
    """Return a text as IDC writes ids: lower case, dashes as underscores."""
    return text.lower().replace("-", "_")


_FILTERS: Mapping[str, Callable[[str], str]] = {"id": as_id, "lower": str.lower, "upper": str.upper}
_FACT_NAMES = {normalize_name(name): name for name in FACTS}


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in (text.split(separator) if separator else [text])]


def _code_value(coded: Code) -> AttributeValue:
    """Return a code as the value of a sequence: itself, or an item where its value is long."""
    return coded if len(coded.value) <= MAX_LENGTHS["SH"] else (code_item(coded),)


def _content_item(value_type: str, concept: Code, **value: AttributeValue) -> AttributeTree:
    return {"ValueType": value_type, "ConceptNameCodeSequence": _code_value(concept), **value}


def _code_content(concept: Code, value: Code) -> AttributeTree:
    return _content_item("CODE", concept, ConceptCodeSequence=_code_value(value))
