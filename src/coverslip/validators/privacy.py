"""Search a series for what identifies: texts of the slide's own file, cells of a table, and patterns.

No message repeats what was found: it says where a text stands, where it comes from and how long it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError

from coverslip.errors import CorruptSourceError, StoreError
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding, Severity

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from coverslip.converter.sources.base import SlideSource
    from coverslip.validators.series import SeriesView
    from coverslip.validators.validate import ValidationOptions

__all__ = [
    "Secret",
    "check",
    "check_privacy",
    "is_identifying_column",
    "secrets_of_fields",
    "secrets_of_slide",
    "secrets_of_source",
]

_REFERENCE = "PS3.15 E.1"
_SHORTEST = 4
_SHORTEST_TELLING = 8
_MOST_REMEMBERED = 10_000
_VOCABULARY_VRS = ("CS", "UI")
_VOCABULARY = frozenset(
    "CodeMeaning CodeValue CodingSchemeDesignator ContributionDescription DeidentificationMethod DerivationDescription "
    "ICCProfile ImplementationVersionName Manufacturer ManufacturerModelName OpticalPathDescription "
    "PositionReferenceIndicator SoftwareVersions".split()
)
"""Attributes that hold words of code lists or programs; none of a slide's own, but for what is unmistakable."""
_MOST_COMMENTS = 1000
"""Different comments of one file that are looked at; what goes on like that has been told by then."""

_TRANSFER_SYNTAXES_JPEG2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")

_IDENTIFYING = (
    "OtherPatientNames PatientBirthName PatientMotherBirthName PatientAddress PatientTelephoneNumbers "
    "PatientTelecomInformation MilitaryRank MedicalRecordLocator InsurancePlanIdentification ResponsiblePerson "
    "PersonName PersonAddress PersonTelephoneNumbers OperatorsName OperatorIdentificationSequence "
    "PerformingPhysicianName NameOfPhysiciansReadingStudy PhysiciansOfRecord RequestingPhysician "
    "ReferringPhysicianName ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers".split()
)
"""Of the attributes that PS3.15 table E.1-1 removes or empties, those that are a person's name or where to find one."""
_COLUMN = re.compile(
    r"(patient|last|first|sur|given|family|full|middle|maiden)[ _-]?name|mrn|medical[ _-]?record|ssn|social[ _-]?sec|"
    r"birth|\bdob\b|phone|e-?mail|address|zip|postal",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?<![\d.])(?:(?:19|20)\d\d([-/. :]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])([-/.])(?:0?[1-9]|[12]\d|3[01])\2(?:(?:19|20)\d\d|\d\d))(?![\d.])"
)
_RECORD_NUMBER = re.compile(
    r"\b(?:MRN|SSN|DOB|case|accession|patient)\W{0,3}(?:no|nr|id|number)?\W{0,3}[A-Z]?\d{4,}", re.I
)
_DATES_ALLOWED = frozenset(
    "AcquisitionDateTime AcquisitionDate AcquisitionTime ContentDate ContentTime StudyDate StudyTime SeriesDate "
    "SeriesTime InstanceCreationDate InstanceCreationTime SoftwareVersions".split()
)
_NUMBERS_ALLOWED = frozenset(("DS", "IS", "UI", "AS", "CS", "TM"))
_ENCODER_COMMENT = re.compile(
    rb"(?:\x00\x01)?(?:Kakadu-v?[\d.]{1,12}|OpenJPH Ver [\d.]{1,12}|Created by OpenJPEG version [\d.]{1,12}|"
    rb"Kdu-Layer-Info: log_2\{Delta-D\([\w-]+\)/Delta-L\(\w+\)\}, L\(\w+\)[-+\s\d.,e]*)"
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that must not be found, and where it comes from, e.g. ``source field 'User'``."""

    text: str
    origin: str

    @property
    def common(self) -> bool:
        """Whether a word or short text of the slide's file that may well stand somewhere by chance.

        A slide may be called ``tissue.svs`` or ``level_1.svs``: where only words of a vocabulary or of a program can
        stand, such a text is not searched for.
        """
        plain = _plain(self.text)
        return self.origin.startswith("source") and (len(plain) < _SHORTEST_TELLING or not any(map(str.isdigit, plain)))


def is_identifying_column(name: str) -> bool:
    """Whether a column's name says that it holds names, record numbers, birth dates or addresses."""
    return _COLUMN.search(name) is not None


def secrets_of_fields(fields: Mapping[str, str], kind: str, allowed: Collection[str] = ()) -> list[Secret]:
    """Return the texts to search for.

    A long text is searched for piece by piece. Short ones, numbers of few digits, and what `allowed` texts hold, say
    too little to be searched for.
    """
    known = [_plain(text) for text in allowed]
    secrets = []
    for name, text in fields.items():
        label = "".join(character for character in name if character.isprintable())[:40]
        for piece in {piece.strip() for piece in re.split(r"[|;\r\n]", text)}:
            value = piece.partition("=")[2].strip() or piece
            plain = _plain(value)
            telling = len(plain) >= _SHORTEST and not re.fullmatch(r"[\d .]{1,5}|[\d.,+-]*\.\d+", value)
            if telling and not any(f" {plain} " in f" {text} " for text in known):
                secrets.append(Secret(value, f"{kind} {label!r}"))
    return list({secret.text: secret for secret in secrets}.values())


def secrets_of_slide(path: Path, allowed: Collection[str] = ()) -> list[Secret]:
    """Return the texts to search for of a slide's own file, as `secrets_of_source` does.

    Raises
    ------
    SourceError
        If the slide cannot be read.
    """
    from coverslip.converter.sources import open_slide

    with open_slide(path) as slide:
        return secrets_of_source(slide, allowed)


def secrets_of_source(slide: SlideSource, allowed: Collection[str] = ()) -> list[Secret]:
    """Return the texts to search for of a slide's own file: its identifying fields, and its name."""
    stated = slide.metadata
    names = (stated.manufacturer, stated.manufacturer_model_name, *stated.software_versions)
    names += (slide.format_name, slide.format_title, "JPEG 2000 PNG BMP TIFF")
    known = {name for name in names if name} | set(allowed)
    fields = {**stated.identifying, "serial number": stated.device_serial_number or ""}
    secrets = secrets_of_fields(fields, "source field", known)
    return secrets + secrets_of_fields({"file name": slide.path.stem}, "source", known)


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Search the headers of a series, and those of its frames, for what identifies."""
    search = _Search(secrets_of_source(options.slide, options.allowed_texts) if options.slide is not None else ())
    for instance in series.instances:
        yield from search.in_text(instance.name, f"{instance.name}: file name", vocabulary=True)
        yield from _check_header(instance, search)
        if not options.headers_only:
            yield from _check_comments(instance, search)


def check_privacy(
    paths: Sequence[Path], secrets: Collection[Secret] = (), *, every_byte: bool = False
) -> list[Finding]:
    """Search instances and the texts beside them.

    Parameters
    ----------
    paths : sequence of Path
        DICOM files, and folders of them.
    secrets : collection of Secret
    every_byte : bool
        Search all bytes of the files too, pixel data included, not only headers and the headers of frames.

    Returns
    -------
    list of Finding
        ERROR for a secret found, and for what contradicts a claim; WARNING for a pattern.

    Raises
    ------
    StoreError
        If a file cannot be read, or is no DICOM file.
    """
    search = _Search(secrets)
    findings: list[Finding] = []
    files = sorted({file for path in paths for file in _files(path)})
    if not files:
        raise StoreError("no DICOM files found to check")
    for file in files:
        try:
            findings += search.in_text(file.name, f"{file.name}: file name", vocabulary=True)
            if file.suffix == ".json":
                text = file.read_text("utf-8", "replace")
                findings += search.in_text(text, file.name, vocabulary=True)
                findings += search.in_text(_curated_part(text), file.name)
            else:
                instance = InstanceView(file)
                findings += _check_header(instance, search)
                findings += _check_comments(instance, search)
                instance.file.close()
            if every_byte:
                findings += _check_bytes(file, search)
        except OSError as error:
            raise StoreError(f"{file.name} cannot be read: {error.strerror}") from error
        except InvalidDicomError:
            raise StoreError(f"{file.name} is no DICOM file") from None
    return list(dict.fromkeys(findings))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.suffix in (".dcm", ".json") and file.is_file())
    else:
        yield path


def _curated_part(text: str) -> str:
    """Return what of `conversion.json` is not in words of this program; all of another file."""
    try:
        stated = json.loads(text)
        if "coverslip_version" not in stated:
            return text
        return json.dumps([stated.get("collection"), stated.get("replaces")], ensure_ascii=False)
    except (ValueError, TypeError):
        return text


class _Search:
    """Find secrets in texts and bytes."""

    def __init__(self, secrets: Collection[Secret]) -> None:
        self._plain: list[tuple[str, Secret]] = []
        self._found: dict[str, list[Secret]] = {}
        for secret in secrets:
            words = _plain(secret.text).split()
            self._plain.append((" ".join(words), secret))
            if len(words) == 3 and all(map(str.isdecimal, words)) and not secret.origin.startswith("source"):
                year, month, day = words if len(words[0]) == 4 else (words[2], words[0], words[1])
                self._plain += [(f"{year}{month:0>2}{day:0>2}", secret), (f"{year}{day:0>2}{month:0>2}", secret)]
            elif 2 <= len(words) <= 4:  # a name, family name first
                self._plain.append((" ".join(reversed(words)), secret))
                self._plain.append((" ".join((words[-1], *words[:-1])), secret))
        self.encoded = {
            (coded, secret)
            for secret in secrets
            for coding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
            if (coded := secret.text.encode(coding, "ignore")) and len(coded) >= _SHORTEST
        }

    def in_text(self, text: str, place: str, *, vocabulary: bool = False) -> Iterator[Finding]:
        """Yield a finding for each secret that stands in a text as whole words, or anywhere if it is long.

        In a text that is of some `vocabulary`, common words are not searched for.
        """
        for secret in self._secrets_in(text):
            if not (vocabulary and secret.common):
                yield _leak(secret, place)

    def _secrets_in(self, text: str) -> Sequence[Secret]:
        """Return the secrets that stand in a text; the instances of a series have nearly all their texts in common."""
        found = self._found.get(text)
        if found is None:
            plain = f" {_plain(text)} "
            found = [
                secret
                for words, secret in self._plain
                if f" {words} " in plain or (len(words) >= _SHORTEST_TELLING and words in plain)
            ]
            if len(self._found) < _MOST_REMEMBERED:
                self._found[text] = found
        return found

    def in_bytes(self, data: bytes, place: str, *, vocabulary: bool = False) -> Iterator[Finding]:
        """Yield a finding for each secret that stands in bytes, in any usual coding; `vocabulary` as in a text."""
        for coded, secret in self.encoded:
            if coded in data and not (vocabulary and secret.common):
                yield _leak(secret, place)


def _leak(secret: Secret, place: str) -> Finding:
    message = f"holds a text of {len(secret.text)} characters that is that of {secret.origin}"
    rule = "privacy.source-value" if secret.origin.startswith("source") else "privacy.table-value"
    return Finding(rule, Severity.ERROR, message, place, _REFERENCE)


def _warning(rule: str, message: str, place: str) -> Finding:
    return Finding(rule, Severity.WARNING, message, place, _REFERENCE)


def _plain(text: str) -> str:
    """Return a text in small letters with one space for whatever parts its words."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _check_header(instance: InstanceView, search: _Search) -> Iterator[Finding]:
    ds, name = instance.header, instance.name
    if instance.preamble.strip(b"\0"):
        yield _warning("privacy.preamble", "the preamble is not empty", f"{name}: preamble")
        yield from search.in_bytes(instance.preamble, f"{name}: preamble")
        if instance.file.local_path is not None:
            yield from _check_dual_tiff(instance.file.local_path, instance.preamble, search)
    yield from _check_dataset(instance.file_meta, f"{name}: file meta", search)
    yield from _check_dataset(ds, name, search)
    label = instance.flavor in ("LABEL", "OVERVIEW") and ds.get("BurnedInAnnotation") != "NO"
    claimed = ds.get("PatientIdentityRemoved") == "YES"
    if label and claimed:
        message = "shows the slide's label, and says that the patient's identity is removed"
        yield Finding("privacy.claim", Severity.ERROR, message, name, "PS3.3 C.7.1.1")
    elif label:
        message = f"the {instance.flavor.lower()} shows the slide's label, unless it was masked"
        yield Finding("privacy.label-image", Severity.INFO, message, name, "PS3.15 E.3.1")
    for keyword in _IDENTIFYING:
        if ds.get(keyword) and claimed:
            message = "names or locates a person, and the patient's identity is said to be removed"
            yield Finding("privacy.claim", Severity.ERROR, message, f"{name}: {keyword}", "PS3.3 C.7.1.1")
        elif ds.get(keyword):
            yield _warning("privacy.identifying-attribute", "names or locates a person", f"{name}: {keyword}")


def _check_comments(instance: InstanceView, search: _Search) -> Iterator[Finding]:
    """Search the comments and application segments in the headers of the frames."""
    if not instance.encapsulated or instance.pixel_element is None:
        return
    with suppress(CorruptSourceError):  # told by the rules of frames
        yield from _comments_of_frames(instance, search)


def _comments_of_frames(instance: InstanceView, search: _Search) -> Iterator[Finding]:
    jpeg2000 = instance.transfer_syntax_uid.startswith(_TRANSFER_SYNTAXES_JPEG2000)
    seen: set[bytes] = set()
    for header, frames in instance.frame_headers():
        for comment in _comments(header, jpeg2000) or ():
            if comment in seen or len(seen) >= _MOST_COMMENTS:
                continue
            seen.add(comment)
            yield from search.in_bytes(comment, instance.place(frames[0]))
            if not _ENCODER_COMMENT.fullmatch(comment):
                yield _warning("privacy.pixel-metadata", "frames hold comments or application data", instance.name)


def _check_dual_tiff(path: Path, preamble: bytes, search: _Search) -> Iterator[Finding]:
    """Search the texts of a TIFF file that shares its bytes with the DICOM file."""
    from coverslip.converter.sources.tiff_structure import TagCode, TiffStructure
    from coverslip.errors import SourceError

    if preamble[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return
    tags = (
        TagCode.IMAGE_DESCRIPTION,
        TagCode.DOCUMENT_NAME,
        TagCode.SOFTWARE,
        TagCode.DATE_TIME,
        TagCode.ARTIST,
        TagCode.HOST_COMPUTER,
        TagCode.XMP,
    )
    try:
        structure = TiffStructure(path)
    except SourceError:
        return
    for page in structure.pages:
        for tag in tags:
            place = f"{path.name}: TIFF tag {tag.name}"
            yield from search.in_text(page.text(tag), place)
            if page.text(tag) and tag in (TagCode.DATE_TIME, TagCode.ARTIST, TagCode.HOST_COMPUTER):
                yield _warning("privacy.tiff-tag", "the TIFF directory says who, where or when", place)
    structure.close()


def _check_dataset(ds: Dataset, place: str, search: _Search) -> Iterator[Finding]:
    for element in ds:
        keyword = element.keyword or ("private" if element.tag.is_private else "unknown")
        where = f"{place}: {keyword} {element.tag}"
        vocabulary = element.VR in _VOCABULARY_VRS or keyword in _VOCABULARY
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from _check_dataset(item, f"{where}[{number}]", search)
        elif isinstance(element.value, bytes):
            yield from search.in_bytes(element.value, where, vocabulary=vocabulary)
        else:
            values = element.value if element.VM > 1 else [element.value]
            for text in map(str, values if values is not None else ()):
                yield from search.in_text(text, where, vocabulary=vocabulary)
                yield from _check_patterns(keyword, element.VR, text, where)
        if element.tag.is_private and not element.tag.is_private_creator and element.tag.group != 0x0013:
            yield _warning("privacy.private-tag", "a private attribute of unknown meaning", where)


def _check_patterns(keyword: str, vr: str, text: str, place: str) -> Iterator[Finding]:
    if not text or vr in _NUMBERS_ALLOWED or keyword in _DATES_ALLOWED:
        return
    if vr in ("DA", "DT") or _DATE.search(text):
        yield _warning("privacy.date", "holds a date outside the attributes of scan, study and series", place)
    if _RECORD_NUMBER.search(text):
        yield _warning("privacy.record-number", "holds what looks like the number of a person or case", place)
    if vr == "PN" and re.search(r"[^\W\d]{2,}\^[^\W\d]", text):
        yield _warning("privacy.person-name", "holds what looks like a person's name", place)


def _comments(data: bytes, jpeg2000: bool) -> list[bytes] | None:
    """Return the comments in the header of a frame, None if it goes on past the data."""
    found: list[bytes] = []
    if jpeg2000 and not data.startswith(b"\xff\x4f"):
        start = data.find(b"\xff\x4f\xff\x51")
        found.append(data[: start if start >= 0 else len(data)])  # boxes of a JP2 file
        data = data[start:] if start >= 0 else b""
    last, kept = (0x93, {0x64}) if jpeg2000 else (0xDA, {*range(0xE1, 0xEE), 0xEF, 0xFE})
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == last:
            return found
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end > len(data):
            return None
        if marker in kept:
            found.append(data[at + 4 : end])
        at = end
    return found if at + 4 <= len(data) else None


def _check_bytes(path: Path, search: _Search) -> Iterator[Finding]:
    """Search a whole file, in pieces that overlap by the longest secret."""
    overlap = max((len(coded) for coded, _ in search.encoded), default=0)
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(8 << 20):
            yield from search.in_bytes(tail + piece, f"{path.name}: bytes")
            tail = piece[-overlap:] if overlap else b""
