"""What is asked of a conversion, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coverslip.converter.uids import UUID_ROOT
from coverslip.errors import UsageError
from coverslip.metadata_maps.deid.keys import DeidKey
from coverslip.metadata_maps.deid.policy import Policy, load_policy
from coverslip.tiler.pyramid import PyramidOptions
from coverslip.validators.report import Finding, Severity

if TYPE_CHECKING:
    from coverslip.converter.sources.byte_ranges import ByteRanges
    from coverslip.metadata_maps.evaluate import AttributeTree, MappedSlide

__all__ = [
    "ConversionRequest",
    "ConversionResult",
    "InstanceResult",
    "Replacement",
    "SeriesResult",
    "ValidationSummary",
    "curated_texts",
    "parse_settings",
]


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """One slide and how it is to be converted.

    Parameters
    ----------
    path : Path
        The slide.
    output : Path
        Folder that receives ``<StudyInstanceUID>/<SeriesInstanceUID>/<SOPInstanceUID>.dcm``.
    pyramid : PyramidOptions
    include : tuple of str
        Associated images to write: ``label``, ``overview``, ``thumbnail``.
    spacing_mm : tuple of float, optional
        (row, column) of the base level; takes the place of what the slide states.
    attributes : mapping
        Keyword to text value, set in every instance.
    policy : Policy
        What of the slide's own text may be written.
    deid_key : DeidKey, optional
        Needed by a policy that hashes or shifts.
    mask_label : bool
        Whether the part of the overview that shows the label is painted over.
    uid_root : str
    offset_table : str
        ``auto``, ``bot``, ``eot`` or ``none``.
    workers : int
    memory_bytes : int, optional
        Budget for frames and blocks in flight, see `Workload`; shapes the work, never the output.
    overwrite : bool
        Replace a series that is already there.
    mapped : MappedSlide, optional
        What a curator's table says of the slide, by way of a map; `attributes` go before it.
    focal_planes : str
        ``all``, ``middle`` or the number of one, the lowest being 1.
    region : int, optional
        Number of the one region that is converted, 1 for the first; all are without it.
    blank_bad_tiles : bool
        Whether tiles that do not decode are written as background; they stop the slide without it.
    replaces : Replacement, optional
        The series that this one corrects: told in `conversion.json` and nowhere else.
    validate : str
        ``fast``, ``thorough`` or ``off``: how the series is validated before it is delivered.
    ranges : ByteRanges, optional
        What the slide is read through where it is not a file of this machine; `path` is its name then.
    """

    path: Path
    output: Path
    pyramid: PyramidOptions = PyramidOptions()
    include: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=load_policy)
    deid_key: DeidKey | None = None
    mask_label: bool = False
    uid_root: str = UUID_ROOT
    offset_table: str = "auto"
    workers: int = 2
    memory_bytes: int | None = None
    overwrite: bool = False
    mapped: MappedSlide | None = None
    replaces: Replacement | None = None
    focal_planes: str = "all"
    region: int | None = None
    blank_bad_tiles: bool = False
    validate: Literal["fast", "thorough", "off"] = "fast"
    ranges: ByteRanges | None = None

    def identity_attributes(self) -> dict[str, str]:
        """Return the texts that say who and what the slide belongs to: the map's, and the user's before them."""
        found = {}
        if self.mapped is not None:
            found = {key: str(value) for key, value in self.mapped.attributes.items() if isinstance(value, str | int)}
            if len(self.mapped.specimens) == 1:
                found["SpecimenIdentifier"] = str(self.mapped.specimens[0].get("SpecimenIdentifier", ""))
        return {key: value for key, value in found.items() if value} | dict(self.attributes)

    def curated_texts(self) -> dict[str, str]:
        """Return what a map and the user set, by keyword: what stands in specimens and other items too."""
        return curated_texts(self.mapped, self.attributes)

    def shaping_options(self) -> str:
        """Return the options that shape the output's bytes, as one stable text that UIDs are derived from."""
        pyramid = self.pyramid
        codec = pyramid.codec
        parts: dict[str, Any] = {
            "levels": pyramid.levels,
            "tile_size": pyramid.tile_size,
            "codec": codec and (codec.name, codec.lossless, codec.quality, codec.subsampling),
            "reencode": pyramid.reencode,
            "regenerate": pyramid.regenerate,
            "fast": pyramid.fast,
            "include": sorted(self.include),
            "spacing_mm": self.spacing_mm,
            "attributes": sorted(self.attributes.items()),
            "policy": (self.policy.name, self.policy.shape()),
            "key": self.deid_key.fingerprint() if self.deid_key and self.policy.needs_key else None,
            "mask_label": self.mask_label,
            "offset_table": self.offset_table,
            # Only where they are asked for, so that what is converted without them keeps its UIDs.
            **({} if self.focal_planes == "all" else {"focal_planes": self.focal_planes}),
            **({"blank_bad_tiles": True} if self.blank_bad_tiles else {}),
            "mapped": self.mapped
            and (
                sorted(self.mapped.attributes.items(), key=itemgetter(0)),
                self.mapped.specimens,
                self.mapped.optical_paths,
            ),
        }
        return repr(parts)


def curated_texts(mapped: MappedSlide | None, attributes: Mapping[str, str]) -> dict[str, str]:
    """Return what a map and then the user set, by keyword: what stands in specimens and other items too."""
    found: dict[str, str] = {}
    if mapped is not None:
        for tree in (mapped.attributes, *mapped.specimens, *mapped.optical_paths):
            found.update(_texts(tree))
    return found | dict(attributes)


def _texts(tree: AttributeTree) -> Iterator[tuple[str, str]]:
    """Yield keyword and text of all attributes that have a value, items after the sequence that they stand in."""
    for keyword, value in tree.items():
        if value not in ("", ()):
            yield keyword, str(value)
        for item in value if isinstance(value, tuple) else ():
            if isinstance(item, dict):
                yield from _texts(item)


def curated_keywords(mapped: MappedSlide | None, attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keywords and private tags that a map or the user gives a value."""
    given = {keyword for keyword, text in attributes.items() if text}
    return tuple(sorted(given.union(mapped.curated_keywords if mapped else ())))


@dataclass(frozen=True, slots=True)
class Replacement:
    """The series that a corrected one takes the place of, and why."""

    series_instance_uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class ValidationSummary:
    """What came of a validation.

    Parameters
    ----------
    mode : str
        ``fast``, ``thorough`` or ``headers``.
    profile : str
    worst : Severity or None
    counts : mapping
        Number of findings by rule.
    """

    mode: str
    profile: str
    worst: Severity | None
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """One instance that was written, or would be by a dry run (then without sizes and digests).

    Parameters
    ----------
    file_name, sop_instance_uid, image_flavor : str
        `image_flavor` is Image Type value 3: VOLUME, LABEL, OVERVIEW or THUMBNAIL.
    origin : str
        In words: where the pixels come from and how the frames were made.
    """

    file_name: str
    sop_instance_uid: str
    image_flavor: str
    total_pixel_matrix_rows: int
    total_pixel_matrix_columns: int
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None
    number_of_frames: int
    transfer_syntax_uid: str
    photometric_interpretation: str
    reuses_frames: bool
    origin: str
    missing_tiles: int = 0
    bad_tiles: int = 0
    size_bytes: int | None = None
    frame_bytes: int | None = None
    offset_table: str | None = None
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """One series of a slide: what `conversion.json` holds.

    Parameters
    ----------
    collection : mapping
        Facts of the collection that DICOM has no place for, as the map tells them.
    curated : tuple of str
        Keywords and private tags that the map or the user gave a value; never the values.
    validation : ValidationSummary, optional
        None if it was not asked for, or the series is from an earlier run.
    """

    study_instance_uid: str
    series_instance_uid: str
    folder: Path
    instances: tuple[InstanceResult, ...]
    unused_levels: tuple[str, ...]
    findings: tuple[Finding, ...]
    already_there: bool = False
    replaces: Replacement | None = None
    collection: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    curated: tuple[str, ...] = ()
    validation: ValidationSummary | None = None


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """All series made of one slide."""

    format_name: str
    source_sha256: str
    series: tuple[SeriesResult, ...]
    timings_s: Mapping[str, float] = field(default_factory=dict)


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """Return the attributes of ``--set KEYWORD=VALUE`` options.

    Raises
    ------
    UsageError
        If one is not of that form, or cannot be set.
    """
    attributes: dict[str, str] = {}
    for setting in settings:
        keyword, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {keyword}: wanted KEYWORD=VALUE")
        attributes[keyword] = value
    if attributes:
        from coverslip.converter.dataset import check_attributes

        check_attributes(attributes)
    return attributes
