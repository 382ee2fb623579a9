"""Draft a map from the columns of a table, for a curator to complete."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial

from coverslip.metadata_maps.codes import read_codes
from coverslip.metadata_maps.tables import Table, normalize_name

__all__ = ["draft_map"]

_MOST_VALUES = 40
"""Values of a column listed for mapping; a column with more is no list of choices."""

# Normalised names by which tables commonly call a thing, the most telling first.
_COLUMNS = {
    "file": "file filename slidefilename imagefilename slidefile imagefile",
    "container": "slideid slidebarcode containeridentifier containerid barcode htandatafileid imageid",
    "patient": "patientid participantid htanparticipantid subjectid caseid casesubmitterid patient participant subject "
    "participant.participantid",
    "specimen": "specimenid sampleid biospecimenid specimenidentifier sample.sampleid htanparentbiospecimenid",
    "PatientSex": "sex gender sexatbirth patientsex",
    "PatientBirthDate": "birthdate dateofbirth dob patientbirthdate",
    "PatientAge": "age ageatdiagnosis ageatcollection patientage",
    "EthnicGroup": "race ethnicgroup ethnicity",
    "StudyID": "studyid examid",
    "AccessionNumber": "accessionnumber accession",
    "StudyDate": "studydate visitdate collectiondate dateofcollection",
    "StudyDescription": "studydescription",
    "SeriesDescription": "seriesdescription",
    "ClinicalTrialProtocolID": "protocolid project projectid collection collectionid clinicaltrialprotocolid protocol",
    "ClinicalTrialSiteID": "siteid site center centre institution",
    "ClinicalTrialSponsorName": "sponsor sponsorname",
    "ClinicalTrialTimePointID": "timepoint timepointid visit collectionevent",
    "AdmittingDiagnosesDescription": "primarydiagnosis diagnosis histologicdiagnosis",
    "organ": "organortissue organ anatomicsite primarysite tissueorsite tissue siteofresectionorbiopsy",
    "fixative": "tissuefixative fixative fixation fixationembeddingmethod preservationmethod",
    "embedding": "embeddingmedium embedding fixationembeddingmethod preservationmethod",
    "stain": "stain staining stainingmethod staintype",
    "ObjectiveLensPower": "magnification nominalmagnification objective objectivepower objectivelenspower",
}
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
# What words in a cell say of the variables that the shipped preparation steps look at.
_PREPARATION_WORDS = {
    "fixative": {"formalin": r"formalin|ffpe|nbf"},
    "embedding": {"paraffin": r"paraffin|ffpe", "freezing medium": r"\boct\b|frozen|cryo|freez|optimal cutting"},
    "stain": {"HE": r"h ?& ?e|hematoxylin|haematoxylin|^he$"},
}
_DATE_FORMATS = ("%Y%m%d", "%Y-%m-%d", "%m/%d/%Y", "%d.%m.%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%b-%Y", "%m-%d-%Y")


def draft_map(table: Table) -> str:
    """Return a commented map that reads a table, with what could be guessed from its column names.

    Parameters
    ----------
    table : Table

    Returns
    -------
    str
        TOML that `load_map` accepts as it is.
    """
    return "\n".join(_Draft(table).lines()) + "\n"


class _Draft:
    """Finds the columns of a table and writes the sections of its map."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._by_name = {normalize_name(column): column for column in table.columns}
        self._found = {
            role: column
            for role, names in _COLUMNS.items()
            if (column := next((self._by_name[name] for name in names.split() if name in self._by_name), None))
        }

    def lines(self) -> Iterator[str]:
        name = re.sub(r"[^a-z0-9]+", "_", self._table.path.stem.lower()).strip("_") or "draft"
        yield "# A draft: what is guessed from the names of columns is to be read, and what is empty to be completed."
        yield "# The language is described in docs/map-language.md; `coverslip map check` tells what is still wrong."
        yield ""
        yield "[map]"
        yield f"name = {_quote(name)}"
        yield f"title = {_quote(self._table.path.stem)}"
        if self._prepared():
            yield 'include = ["section", "ffpe", "frozen", "he", "brightfield"]'
        else:
            yield 'include = ["brightfield"]'
        yield from self._key()
        yield ""
        yield "# Facts of the collection that DICOM has no place for; collection_id follows from the protocol id."
        yield "[collection]"
        yield "# name ="
        yield "# cancer_types = []"
        yield "# tumor_locations = []"
        yield 'species = ["Human"]'
        yield "# license_url ="
        yield "# license_long_name ="
        yield "# license_short_name ="
        yield "# source_doi ="
        yield ""
        yield from self._variables()
        yield from self._attributes()
        yield from self._specimen()
        yield from self._optical_path()
        yield from self._value_tables()
        yield from self._unused()

    def _prepared(self) -> bool:
        return any(role in self._found for role in ("fixative", "embedding", "stain"))

    def _key(self) -> Iterator[str]:
        file, container = self._found.get("file"), self._found.get("container")
        if file and normalize_name(file) == "file":
            return
        if file:
            yield f'key = {{ column = {_quote(file)}, equals = "{{file_name}}" }}  # the column that names the slide'
        elif container:
            yield f'key = {{ column = {_quote(container)}, equals = "{{stem}}" }}  # the file name without its ending'
        else:
            yield "# No column seems to name the slide; a column `file` needs no key."
            yield '# key = { column = "", equals = "{file_name}" }'

    def _variables(self) -> Iterator[str]:
        yield "# Texts that are used more than once."
        yield "[variables]"
        if patient := self._found.get("patient"):
            yield f"patient = {{ column = {_quote(patient)}, required = true }}"
        else:
            yield "# No column seems to name the patient. From the name of the file, for example:"
            yield "# patient = { in = \"{file_name}\", match = '^([^_]+)_', required = true }"
            yield 'patient = ""'
        if container := self._found.get("container"):
            yield f"slide = {{ column = {_quote(container)}, required = true }}"
        else:
            yield 'slide = "{stem}"'
        specimen = self._found.get("specimen")
        yield f"block = {{ column = {_quote(specimen)} }}" if specimen else 'block = "{slide}"'
        for role, words in _PREPARATION_WORDS.items():
            if column := self._found.get(role):
                yield f"{role} = {{ column = {_quote(column)}, values = {_quote(role)} }}  # {', '.join(words)}"
        yield ""

    def _attributes(self) -> Iterator[str]:
        yield "[attributes]"
        yield 'PatientID = "{patient}"'
        yield 'PatientName = "{patient}"'
        yield 'ContainerIdentifier = "{slide}"'
        for keyword in _COLUMNS:
            if keyword[0].isupper() and keyword != "ObjectiveLensPower" and (column := self._found.get(keyword)):
                yield f"{keyword} = {self._value(keyword, column)}"
        for keyword in ("StudyID", "AccessionNumber"):
            if keyword not in self._found:
                yield f'{keyword} = "{{patient}}"  # one study for all slides of a patient'
        if "ClinicalTrialProtocolID" not in self._found:
            yield '# ClinicalTrialProtocolID = ""'
        if "ClinicalTrialSponsorName" not in self._found:
            yield '# ClinicalTrialSponsorName = ""  # needed beside ClinicalTrialProtocolID'
        yield ""

    def _value(self, keyword: str, column: str) -> str:
        values = self._values(column)
        parts = [f"column = {_quote(column)}"]
        comment = ""
        if keyword == "PatientSex":
            parts.append('values = "sexes"')
        elif keyword == "PatientAge":
            parts.append('unit = "years"')
            comment = "  # or days, weeks, months"
        elif keyword.endswith("Date"):
            formats = [each for each in _DATE_FORMATS if all(_is_date(value, each) for value in values)]
            if formats and formats[0] not in _DATE_FORMATS[:2]:
                parts.append(f"date = {_quote(formats[0])}")
            if len(formats) != 1:
                comment = f"  # the form of the dates is {'ambiguous' if formats else 'not known'}"
        elif any(len(value) > 16 for value in values) and keyword in ("EthnicGroup", "StudyID", "AccessionNumber"):
            comment = "  # holds 16 characters, and some values are longer"
        return f"{{ {', '.join(parts)} }}{comment}"

    def _specimen(self) -> Iterator[str]:
        yield "[specimen]"
        file = self._found.get("file")
        several = file and len(self._values(file)) < len(self._table.rows)
        yield (
            'SpecimenIdentifier = "{block}"  # some slides have several rows'
            if several
            else 'SpecimenIdentifier = "{slide}"'
        )
        yield 'SpecimenTypeCodeSequence = "slide"'
        if organ := self._found.get("organ"):
            yield f'PrimaryAnatomicStructureSequence = {{ column = {_quote(organ)}, codes = "organs" }}'
        if self._prepared():
            yield 'steps = ["section", "formalin", "paraffin", "freezing", "he"]  # those that apply, in this order'
        yield ""

    def _optical_path(self) -> Iterator[str]:
        if column := self._found.get("ObjectiveLensPower"):
            yield "[optical_path]"
            yield f"ObjectiveLensPower = {{ column = {_quote(column)}, match = '(\\d+)' }}"
            yield ""

    def _value_tables(self) -> Iterator[str]:
        if column := self._found.get("PatientSex"):
            yield from self._value_table("sexes", column, lambda value: _SEXES.get(value.lower(), ""))
        for role, words in _PREPARATION_WORDS.items():
            if column := self._found.get(role):
                yield from self._value_table(role, column, partial(_first_word, words))
        if column := self._found.get("organ"):
            names = read_codes()
            yield from self._value_table("organs", column, lambda value: _code_name(value, names))

    def _value_table(self, name: str, column: str, guess: Callable[[str], str]) -> Iterator[str]:
        yield f"# Each value of the column {_one_line(column)}; an empty text means that nothing is said."
        yield f"[values.{name}]"
        keys: set[str] = set()
        for value in self._values(column):
            if value.casefold() not in keys:
                keys.add(value.casefold())
                guessed = guess(value)
                yield f"{_quote(value)} = {_quote(guessed)}" + ("" if guessed else "  # to be mapped")
        yield ""

    def _unused(self) -> Iterator[str]:
        used = set(self._found.values())
        columns = [column for column in self._table.columns if column not in used]
        if columns:
            yield "# Columns not used:"
        for column in columns:
            values = self._values(column)
            shown = ", ".join(map(_one_line, values[:3])) if len(values) <= _MOST_VALUES else ""
            yield f"#   {_one_line(column)}: {len(values)} values" + (f", such as {shown}" if shown else "")

    def _values(self, column: str) -> list[str]:
        return sorted({row[column] for row in self._table.rows} - {""})


def _quote(text: str) -> str:
    """Return a text as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return _quote(text)[1:-1]


def _is_date(text: str, form: str) -> bool:
    try:
        return bool(datetime.strptime(text, form))
    except ValueError:
        return False


def _first_word(words: dict[str, str], value: str) -> str:
    return next((word for word, pattern in words.items() if re.search(pattern, value, re.IGNORECASE)), "")


def _code_name(value: str, names: Mapping[str, object]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
    return name if name in names else ""
