"""Check a whole table against a map before any slide is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coverslip.errors import UsageError
from coverslip.metadata_maps.evaluate import MappedSlide, Problem, apply_map, require_tables, slide_facts
from coverslip.metadata_maps.language import FACTS, Attribute, Choice, Content, MetadataMap, Name
from coverslip.metadata_maps.matching import RowFinder
from coverslip.metadata_maps.tables import Row, Table, normalize_name
from coverslip.validators.report import Severity

__all__ = ["PATIENT_KEYWORDS", "STUDY_KEYWORDS", "CheckReport", "check_table", "find_slides", "is_slide_name"]

PATIENT_KEYWORDS = tuple(
    "PatientName IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex EthnicGroup PatientComments "
    "PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription PatientIdentityRemoved "
    "DeidentificationMethod ClinicalTrialSponsorName ClinicalTrialProtocolID IssuerOfClinicalTrialProtocolID "
    "ClinicalTrialProtocolName OtherClinicalTrialProtocolIDsSequence ClinicalTrialSiteID ClinicalTrialSiteName "
    "ClinicalTrialSubjectID ClinicalTrialSubjectReadingID".split()
)
"""What is the same on every slide of a patient: Patient and Clinical Trial Subject (PS3.3 C.7.1)."""

STUDY_KEYWORDS = tuple(
    "StudyDate StudyTime StudyDescription StudyID AccessionNumber ReferringPhysicianName PatientAge PatientSize "
    "PatientWeight Occupation AdditionalPatientHistory AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence "
    "ReasonForVisit ClinicalTrialTimePointID ClinicalTrialTimePointDescription".split()
)
"""What is the same on every slide of a study: General Study, Patient Study and Clinical Trial Study (PS3.3 C.7.2)."""

_ENDINGS = frozenset(
    ".avs .bif .btf .czi .isyntax .mrxs .ndpi .ndpis .qptiff .scn .svs .svslide .tif .tiff .vms .vmu .vsi".split()
)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Parameters
    ----------
    rows, slides : int
        Rows of the table, and slides that they or the files tell of.
    problems : tuple of Problem
        In the order of the rows; slides without a row last.
    absent_columns : tuple of str
        Columns the map can use that the table does not have.
    unused_columns : tuple of str
        Columns of the table that the map does not use.
    """

    rows: int
    slides: int
    problems: tuple[Problem, ...]
    absent_columns: tuple[str, ...]
    unused_columns: tuple[str, ...]

    @property
    def errors(self) -> int:
        """How many problems keep a slide from being converted."""
        return sum(problem.severity is Severity.ERROR for problem in self.problems)


def is_slide_name(name: str) -> bool:
    """Tell whether a file has the ending of a slide; DICOM files tell no more than that they are some."""
    return PurePosixPath(name).suffix.lower() in _ENDINGS


def find_slides(folder: Path) -> list[Path]:
    """Return the slides below a folder by their names: files with the ending of a slide, folders of DICOM files."""
    if not folder.is_dir():
        raise UsageError(f"--slides {folder.name!r}: is no folder")
    found = set()
    for path in folder.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        ending = path.suffix.lower()
        if ending in _ENDINGS:
            found.add(path)
        elif ending == ".dcm":
            found.add(path.parent)
    return sorted(found)


def check_table(
    metadata_map: MetadataMap,
    table: Table,
    tables: Mapping[str, Table] | None = None,
    slides: Iterable[Path] | None = None,
) -> CheckReport:
    """Check every row of a table, and that slides and rows belong together.

    Parameters
    ----------
    metadata_map : MetadataMap
    table : Table
    tables : mapping, optional
        Second tables by the name the map gives them.
    slides : iterable of Path, optional
        None: each row's own file name stands for its slide.

    Raises
    ------
    UsageError
        If the table has no column by which slides find their rows, or a second table is missing.
    """
    require_tables(metadata_map, tables or {})
    finder = RowFinder(metadata_map, table)
    problems: list[Problem] = []
    matched = _match_slides(finder, slides, problems) if slides is not None else []
    taken = {row.number for _, rows in matched for row in rows}
    for rows in finder.groups():
        if rows[0].number not in taken:
            matched.append((finder.facts_of(rows[0]), rows))
            if slides is not None:
                message = "no slide belongs to this row"
                problems.append(_problem("no-slide", rows[0], finder.columns[0], "", message, Severity.WARNING))
    mapped = [(rows[0], apply_map(metadata_map, facts, rows, tables or {})) for facts, rows in matched]
    for _, slide in mapped:
        problems += slide.problems
    problems += _duplicates(metadata_map, mapped)
    problems += _inconsistencies(metadata_map, mapped)
    used = {normalize_name(name.text) for name in _names(metadata_map)} | set(map(normalize_name, finder.columns))
    return CheckReport(
        rows=len(table.rows),
        slides=len(mapped),
        problems=tuple(sorted(dict.fromkeys(problems), key=lambda each: (each.row is None, each.row or 0))),
        absent_columns=_absent_columns(metadata_map, table),
        unused_columns=tuple(column for column in table.columns if normalize_name(column) not in used),
    )


def _problem(
    kind: str, row: Row | None, column: str, keyword: str, message: str, severity: Severity = Severity.ERROR
) -> Problem:
    return Problem(kind, severity, row.number if row else None, column, keyword, message)


def _match_slides(
    finder: RowFinder, slides: Iterable[Path], problems: list[Problem]
) -> list[tuple[dict[str, str], tuple[Row, ...]]]:
    """Return each slide that has its rows to itself, and report the others."""
    matched: list[tuple[dict[str, str], tuple[Row, ...]]] = []
    owners: dict[int, str] = {}
    for path in slides:
        facts = slide_facts(path)
        match = finder.find(facts)
        name = path.name
        if match.ambiguous:
            rows = ", ".join(str(row.number) for row in match.ambiguous)
            problems.append(_problem("ambiguous", None, match.column, "", f"{name!r} may be that of the rows {rows}"))
        elif not match.rows:
            problems.append(_problem("no-row", None, match.column, "", f"{name!r} has no row"))
        elif (owner := owners.setdefault(match.rows[0].number, str(path))) != str(path):
            message = f"{str(path)!r} has the same row as {owner!r}"
            problems.append(_problem("ambiguous", match.rows[0], match.column, "", message))
        else:
            matched.append((facts, match.rows))
    return matched


def _duplicates(metadata_map: MetadataMap, mapped: Iterable[tuple[Row, MappedSlide]]) -> Iterator[Problem]:
    seen: dict[str, Row] = {}
    for row, slide in mapped:
        container = slide.container_identifier
        if container and (other := seen.setdefault(container, row)) is not row:
            message = f"is that of row {other.number}, another slide"
            column = _columns_of(metadata_map, "ContainerIdentifier")
            yield _problem("duplicate", row, column, "ContainerIdentifier", message)


def _inconsistencies(metadata_map: MetadataMap, mapped: Iterable[tuple[Row, MappedSlide]]) -> Iterator[Problem]:
    """Yield what differs between slides of one patient, or of one study of a patient."""
    firsts: dict[tuple[object, ...], tuple[Row, MappedSlide]] = {}
    for row, slide in mapped:
        patient = slide.attributes.get("PatientID")
        if not patient:
            continue
        # Studies are told apart as their UIDs are.
        study = [slide.attributes.get(key) for key in ("StudyInstanceUID", "StudyID", "AccessionNumber")]
        for name, group, keywords in (
            ("patient", ("patient", patient), PATIENT_KEYWORDS),
            ("study", ("study", patient, *study), STUDY_KEYWORDS),
        ):
            other, first = firsts.setdefault(group, (row, slide))
            for keyword in keywords:
                if slide.attributes.get(keyword) != first.attributes.get(keyword):
                    message = f"differs from row {other.number} of the same {name}"
                    yield _problem("inconsistent", row, _columns_of(metadata_map, keyword), keyword, message)


def _columns_of(metadata_map: MetadataMap, keyword: str) -> str:
    """Return the columns that an attribute comes from, those behind its variables too, for messages."""
    found: dict[str, None] = {}
    seen: set[str] = set()

    def follow(names: Iterable[Name]) -> None:
        for name in names:
            variable = None if name.column else metadata_map.variables_by_name.get(normalize_name(name.text))
            if variable is None or variable in seen:
                found[name.text] = None
            else:
                seen.add(variable)
                follow(each for spec in metadata_map.variables[variable] for each in spec.names)

    attribute = metadata_map.attributes.get(keyword)
    follow(_attribute_names(attribute) if attribute else ())
    return ", ".join(each for each in found if each not in FACTS)


def _absent_columns(metadata_map: MetadataMap, table: Table) -> tuple[str, ...]:
    known = {normalize_name(name) for name in FACTS} | set(metadata_map.variables_by_name)
    absent: dict[str, None] = {}
    for name in _names(metadata_map):
        second = name.text.partition(":")[0] in metadata_map.tables and ":" in name.text
        variable = not name.column and normalize_name(name.text) in known
        if not second and not variable and not table.has_column(name.text):
            absent[name.text] = None
    return tuple(absent)


def _names(metadata_map: MetadataMap) -> Iterator[Name]:
    """Yield every name that a map refers to."""
    for choice in (
        *metadata_map.variables.values(),
        *(key.equals for key in metadata_map.keys),
        *(choice for choices in metadata_map.collection.values() for choice in choices),
    ):
        yield from _choice_names(choice)
    for table in metadata_map.tables.values():
        yield from (name for template in table.values for name in template.names)
    for attributes in (metadata_map.attributes, metadata_map.specimen, metadata_map.optical_path):
        for attribute in attributes.values():
            yield from _attribute_names(attribute)
    for step in metadata_map.steps:
        yield from (test.name for test in step.when)
        for choice in (step.specimen, step.container, step.type, step.parent, step.parent_type):
            yield from _choice_names(choice)
        for content in step.content:
            yield from _content_names(content)


def _attribute_names(attribute: Attribute) -> Iterator[Name]:
    yield from _choice_names(attribute.choice)
    for item in attribute.items:
        if isinstance(item, Content):
            yield from _content_names(item)
        else:
            yield from (test.name for test in item.when)
            for each in item.attributes.values():
                yield from _attribute_names(each)


def _content_names(content: Content) -> Iterator[Name]:
    yield from (test.name for test in content.when)
    yield from _choice_names(content.value)


def _choice_names(choice: Choice) -> Iterator[Name]:
    for spec in choice:
        yield from spec.names
