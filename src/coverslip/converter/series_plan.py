"""What one region of a slide will become: its series, instances and UIDs; writes nothing.

No pixels are read for it, unless bad tiles are to be found and blanked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from coverslip.converter.deidentify import deidentify
from coverslip.converter.identity import identity_uids, version_uids
from coverslip.converter.mask_label import mask_label
from coverslip.converter.request import ConversionRequest, InstanceResult, SeriesResult, curated_keywords
from coverslip.converter.sources.bad_tiles import bad_tile_words, screen_pyramid
from coverslip.converter.sources.base import (
    AssociatedImage,
    PixelSpacing,
    SlideMetadata,
    SlideSource,
    SourceLevel,
    SourcePyramid,
)
from coverslip.converter.sources.focal_planes import select_focal_planes
from coverslip.converter.uids import OUTPUT_FORMAT, derive_uid
from coverslip.errors import MissingMetadataError, UsageError
from coverslip.metadata_maps import codes
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.deid.claims import DeidClaims, claim
from coverslip.metadata_maps.deid.policy import DeidRecord
from coverslip.metadata_maps.icc import as_input_profile, srgb_input_profile
from coverslip.tiler.codecs import make_encoder
from coverslip.tiler.codecs.base import CodecOption, FrameEncoder, FrameFormat
from coverslip.tiler.grid import TileGrid
from coverslip.tiler.pyramid import Pyramid, PyramidLevel, StoredLevel, plan_pyramid
from coverslip.validators.report import Finding, Severity

__all__ = [
    "InstancePlan",
    "PixelPlan",
    "SeriesPlan",
    "base_spacing",
    "plan_pixels",
    "plan_series",
    "stored_level",
]

JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
ASSOCIATED_IMAGES = ("thumbnail", "overview", "label")
BACKGROUND = (255, 255, 255)
_SPACING_DECIMALS = 12
"""Spacing in mm is rounded to these, so that it and its multiples by powers of two are exact Decimal Strings."""


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One instance to be written.

    Parameters
    ----------
    origin : str
        In words: where the pixels come from and how the frames are made.
    earlier_lossy : tuple of (str, float)
        Method and ratio of each lossy compression that the pixels have been through before.
    associated : AssociatedImage or None
        The image to be written as one frame; None for a level of the pyramid.
    """

    sop_instance_uid: str
    image_type: tuple[str, str, str, str]
    grid: TileGrid
    frame_format: FrameFormat
    pixel_spacing_mm: tuple[float, float] | None
    reuses_frames: bool
    origin: str
    earlier_lossy: tuple[tuple[str, float], ...]
    derivation: tuple[Code, ...]
    derivation_description: str
    associated: AssociatedImage | None = None
    bad_tiles: int = 0

    def result(self) -> InstanceResult:
        """Return what is known before it is written."""
        return InstanceResult(
            file_name=f"{self.sop_instance_uid}.dcm",
            sop_instance_uid=self.sop_instance_uid,
            image_flavor=self.image_type[2],
            total_pixel_matrix_rows=self.grid.total_pixel_matrix_rows,
            total_pixel_matrix_columns=self.grid.total_pixel_matrix_columns,
            rows=self.grid.rows,
            columns=self.grid.columns,
            pixel_spacing_mm=self.pixel_spacing_mm,
            number_of_frames=self.grid.number_of_frames,
            transfer_syntax_uid=self.frame_format.transfer_syntax_uid,
            photometric_interpretation=self.frame_format.photometric_interpretation,
            reuses_frames=self.reuses_frames,
            origin=self.origin,
            bad_tiles=self.bad_tiles,
        )


@dataclass(frozen=True, slots=True)
class PixelPlan:
    """What will become of the pixels of one region, whatever names and metadata they get."""

    region_index: int
    source_pyramid: SourcePyramid
    spacing: PixelSpacing
    pyramid: Pyramid
    encoder: FrameEncoder

    def work_pixels(self) -> int:
        """Return the pixels that are read from the source, for a progress bar."""
        grids = [level.grid for level in self.pyramid.levels if level.stored_level_index is not None]
        return sum(grid.number_of_frames * grid.rows * grid.columns for grid in grids)


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """One series to be written: the pyramid's levels first, then the associated images.

    `metadata` is what the de-identification policy lets out, `deid` what may be claimed of it.
    """

    source_pyramid: SourcePyramid
    pyramid: Pyramid
    encoder: FrameEncoder
    instances: tuple[InstancePlan, ...]
    uids: Mapping[str, str]
    container_identifier: str
    spacing: PixelSpacing
    icc_profile: bytes | None
    metadata: SlideMetadata
    deid: DeidClaims
    findings: tuple[Finding, ...]
    folder: Path
    collection: Mapping[str, str | tuple[str, ...]]
    curated: tuple[str, ...]
    region_number: int = 1

    def result(self, instances: Sequence[InstanceResult], *, already_there: bool = False) -> SeriesResult:
        """Return the result with what has become of its instances."""
        unused = tuple(f"level {level.stored_level_index}: {level.reason}" for level in self.pyramid.unused_levels)
        return SeriesResult(
            self.uids["study"],
            self.uids["series"],
            self.folder,
            tuple(instances),
            unused,
            self.findings,
            already_there,
            collection=self.collection,
            curated=self.curated,
        )


def plan_pixels(source: SlideSource, request: ConversionRequest) -> list[PixelPlan]:
    """Plan the pyramid of each region.

    Raises
    ------
    MissingMetadataError
        If the scale is not known.
    UsageError
        If the options do not fit the slide.
    """
    regions = range(len(source.pyramids))
    if request.region is not None:
        if request.region - 1 not in regions:
            raise UsageError(f"--region {request.region}: the slide has {len(regions)}, wanted 1 to {len(regions)}")
        regions = regions[request.region - 1 : request.region]
    return [_plan_pixels(source, index, request) for index in regions]


def _plan_pixels(source: SlideSource, region_index: int, request: ConversionRequest) -> PixelPlan:
    source_pyramid = select_focal_planes(source.pyramids[region_index], request.focal_planes)
    if request.blank_bad_tiles:
        if len(source_pyramid.focal_plane_offsets_um) < len(source.pyramids[region_index].focal_plane_offsets_um):
            raise UsageError("--on-bad-tile blank takes all focal planes of a slide: wanted without --focal-planes")
        source_pyramid = screen_pyramid(source_pyramid, BACKGROUND, request.workers)
    spacing = base_spacing(source_pyramid, request)
    if spacing is None:
        reasons = [finding.message for finding in source.findings if finding.rule == "source.spacing-unknown"]
        raise MissingMetadataError(f"{(reasons or ['no pixel spacing'])[0]}; supply micrometres per pixel with --mpp")
    spacing_mm = (round(spacing.row_mm, _SPACING_DECIMALS), round(spacing.column_mm, _SPACING_DECIMALS))
    stored = [stored_level(level) for level in source_pyramid.levels]
    pyramid = plan_pyramid(stored, spacing_mm, request.pyramid)
    base = source_pyramid.levels[0]
    encoder = make_encoder(pyramid.codec, dtype=base.dtype, samples_per_pixel=base.samples_per_pixel)
    return PixelPlan(region_index, source_pyramid, spacing, pyramid, encoder)


def plan_series(source: SlideSource, pixels: PixelPlan, request: ConversionRequest, digest: str) -> SeriesPlan:
    """Plan the series of one region.

    Parameters
    ----------
    source : SlideSource
    pixels : PixelPlan
        Of the region.
    request : ConversionRequest
    digest : str
        SHA-256 of the slide's files.

    Raises
    ------
    UsageError
        If the options do not fit the slide.
    """
    source_pyramid, pyramid, encoder = pixels.source_pyramid, pixels.pyramid, pixels.encoder
    findings = [*source.findings, *_bad_tile_findings(source_pyramid)]
    base = source_pyramid.levels[0]
    identity = request.identity_attributes()
    metadata, record = deidentify(source.metadata, request.policy, request.deid_key, identity.get("PatientID", ""))
    container = (
        identity.get("ContainerIdentifier") or metadata.restricted.get("BarcodeValue") or f"SLIDE-{digest[:16].upper()}"
    )
    uids = _derive_uids(request, digest, pixels.region_index, container)
    icc_profile = _choose_icc_profile(metadata, base, findings)

    def instance_uid(name: str) -> str:
        return derive_uid(request.uid_root, "instance", uids["series"], name)

    instances = [
        _plan_level(index, pyramid, source_pyramid, encoder, instance_uid) for index in range(len(pyramid.levels))
    ]
    pictures = _associated_images(source, request, findings)
    instances += _plan_associated(pictures, instances, instance_uid, findings)
    _note_what_is_absent(source.metadata, metadata, record, source_pyramid, findings)
    _note_unusual_frames(instances, findings)
    folder = request.output / uids["study"] / uids["series"]
    return SeriesPlan(
        source_pyramid,
        pyramid,
        encoder,
        tuple(instances),
        MappingProxyType(uids),
        container,
        pixels.spacing,
        icc_profile,
        metadata,
        claim(
            record,
            request.curated_texts(),
            shows_label=any(plan.associated is not None and plan.associated.shows_label for plan in instances),
            masked=any(plan.associated is not None and plan.associated.masked for plan in instances),
        ),
        tuple(findings),
        folder,
        request.mapped.collection if request.mapped else {},
        curated_keywords(request.mapped, request.attributes),
        pixels.region_index + 1,
    )


def base_spacing(source_pyramid: SourcePyramid, request: ConversionRequest) -> PixelSpacing | None:
    """Return the spacing of the base level: the user's before the slide's."""
    if request.spacing_mm is not None:
        return PixelSpacing(*request.spacing_mm, "--mpp")
    return source_pyramid.levels[0].pixel_spacing


def stored_level(level: SourceLevel) -> StoredLevel:
    """Return what planning has to know of a source's level."""
    stated = level.pixel_spacing
    spacing_mm = (stated.row_mm, stated.column_mm) if stated else None
    return StoredLevel(level.grid, level.frame_format, level.lossy_method is not None, spacing_mm)


def _bad_tile_findings(pyramid: SourcePyramid) -> Iterator[Finding]:
    for index in pyramid.bad_tiles:
        message = f"{bad_tile_words(pyramid.bad_tiles, index)} written as background, as --on-bad-tile asks"
        yield Finding("source.bad-tile", Severity.ERROR, message, f"level {index}")


def _derive_uids(request: ConversionRequest, digest: str, pyramid_index: int, container: str) -> dict[str, str]:
    """Return the UIDs of a series by their names.

    Study, frame of reference and specimen follow from identity alone. All others also follow from the source's bytes
    and everything that shapes the output: other bytes never carry the same UID.
    """
    root, attributes = request.uid_root, request.identity_attributes()
    patient = attributes.get("PatientID", "")
    version = (digest, str(pyramid_index), request.shaping_options(), str(OUTPUT_FORMAT), patient, container)
    return {**version_uids(root, *version), **identity_uids(root, attributes, container)}


def _choose_icc_profile(metadata: SlideMetadata, base: SourceLevel, findings: list[Finding]) -> bytes | None:
    """Return the slide's own profile where DICOM allows it, else sRGB; none for monochrome."""
    if base.samples_per_pixel == 1:
        return None
    own = metadata.icc_profile
    if own is None:
        findings.append(
            Finding("color.no-profile", Severity.INFO, "the slide has no ICC profile: sRGB is assumed", "", "C.11.15")
        )
        return srgb_input_profile()
    profile, remark = as_input_profile(own)
    if profile is None:
        message = f"the slide's ICC profile is {remark}, which does not fit its pixels: sRGB is assumed"
        findings.append(Finding("color.unusable-profile", Severity.WARNING, message, "", "C.11.15"))
        return srgb_input_profile()
    if remark is not None:
        findings.append(Finding("color.profile-class", Severity.INFO, f"ICC profile: {remark}", "", "C.11.15"))
    return profile


def _plan_level(
    index: int, pyramid: Pyramid, source_pyramid: SourcePyramid, encoder: FrameEncoder, uid: Callable[[str], str]
) -> InstancePlan:
    """Plan the instance of one level of the pyramid."""
    level = pyramid.levels[index]
    ancestor = next(one for one in reversed(pyramid.levels[: index + 1]) if one.stored_level_index is not None)
    stored = source_pyramid.levels[ancestor.stored_level_index or 0]
    earlier = source_pyramid.lossy_history.get(stored.level_index, ())
    told = bool(earlier) and stored.frame_format is not None and stored.frame_format.lossy_method is None
    if stored.lossy_method is not None and not told and not (level.frame_format and level.frame_format.lossy_method):
        earlier = (*earlier, (stored.lossy_method, _stored_ratio(stored)))
    steps: list[Code] = []
    words: list[str] = []
    if source_pyramid.stitched:
        steps.append(codes.IMAGE_STITCHING)
        words.append("stitched from the overlapping tiles of the slide")
    if level.stored_level_index is None:
        steps.append(codes.SPATIAL_RESAMPLING)
        words.append(_resampling(index, pyramid, ancestor))
    elif index:
        steps.append(codes.SPATIAL_RESAMPLING)
        words.append(f"stored level {level.stored_level_index} of the slide")
    if level.reuses_frames:
        words.append("stored frames copied bit for bit")
    else:
        words.append(encoder.description)
        if encoder.frame_format.lossy_method:
            steps.append(codes.LOSSY_COMPRESSION)
    bad = bad_tile_words(source_pyramid.bad_tiles, stored.level_index)
    if bad:
        # Pixels that are not those of the slide: the picture is no longer the original.
        words.append(f"{bad} of stored level {stored.level_index} written as background")
    text = "; ".join(words)
    derived = index > 0 or bool(steps or bad)
    return InstancePlan(
        sop_instance_uid=uid(f"VOLUME {index}"),
        image_type=("DERIVED" if derived else "ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED" if index else "NONE"),
        grid=level.grid,
        frame_format=level.frame_format or encoder.frame_format,
        pixel_spacing_mm=level.pixel_spacing_mm,
        reuses_frames=level.reuses_frames,
        origin=text,
        earlier_lossy=earlier,
        derivation=tuple(steps),
        derivation_description=text if derived else "",
        bad_tiles=len(source_pyramid.bad_tiles.get(stored.level_index, ())) if level is ancestor else 0,
    )


def _resampling(index: int, pyramid: Pyramid, ancestor: PyramidLevel) -> str:
    """Say how a derived level was made from the level it comes from."""
    # Only JPEG can be decoded at half scale.
    frames = ancestor.frame_format
    if not (pyramid.fast and frames and frames.lossy_method == "ISO_10918_1"):
        return "mean of 2x2 pixels of the next larger level"
    if pyramid.levels[index - 1] is ancestor:
        return "half-scale decoding, in the DCT domain, of the next larger level"
    return "mean of 2x2 pixels of the next larger level, which goes back to half-scale decoding in the DCT domain"


def _associated_images(
    source: SlideSource, request: ConversionRequest, findings: list[Finding]
) -> Iterator[AssociatedImage]:
    """Yield the pictures that the user asked for, the overview masked if that was asked for too."""
    for name in ASSOCIATED_IMAGES:
        if name not in request.include:
            continue
        image = source.associated_images.get(name)
        if image is None:
            findings.append(Finding("source.no-associated-image", Severity.WARNING, f"the slide has no {name}"))
        elif name == "overview" and request.mask_label:
            masked = mask_label(image)
            if masked is None:
                message = "the overview is left out: where it shows the label is not certain, so it cannot be masked"
                findings.append(Finding("privacy.label-not-located", Severity.WARNING, message, name))
            else:
                yield masked
        else:
            yield image


def _plan_associated(
    images: Iterable[AssociatedImage],
    levels: Sequence[InstancePlan],
    uid: Callable[[str], str],
    findings: list[Finding],
) -> list[InstancePlan]:
    """Plan the label, overview and thumbnail, each as one frame."""
    plans = []
    for image in images:
        coarsest = levels[-1].grid
        if image.name == "thumbnail" and not (
            image.rows < coarsest.total_pixel_matrix_rows and image.columns < coarsest.total_pixel_matrix_columns
        ):
            # Viewers drop levels that are not larger than a thumbnail.
            message = (
                f"the thumbnail of {image.rows} x {image.columns} pixels is left out: it must be smaller than the"
                f" coarsest level of {coarsest.total_pixel_matrix_rows} x {coarsest.total_pixel_matrix_columns}"
            )
            findings.append(Finding("source.thumbnail-too-large", Severity.WARNING, message))
            continue
        plans.append(_plan_associated_image(image, levels[0], uid))
    return plans


def _plan_associated_image(image: AssociatedImage, base: InstancePlan, uid: Callable[[str], str]) -> InstancePlan:
    encoder = associated_encoder(image)
    lossy = image.lossy_method
    flavor = image.name.upper()
    spacing = None
    if image.name == "thumbnail" and base.pixel_spacing_mm is not None:
        spacing = (
            base.pixel_spacing_mm[0] * base.grid.total_pixel_matrix_rows / image.rows,
            base.pixel_spacing_mm[1] * base.grid.total_pixel_matrix_columns / image.columns,
        )
    resampled = image.name == "thumbnail"
    steps = ((codes.SPATIAL_RESAMPLING,) if resampled else ()) + ((codes.LOSSY_COMPRESSION,) if lossy else ())
    text = f"the slide's own {image.name}{', its label painted over' if image.masked else ''}; {encoder.description}"
    derived = bool(steps) or image.masked
    earlier: tuple[tuple[str, float], ...] = ()
    if lossy and image.stored_bytes:
        earlier = ((lossy, image.rows * image.columns * 3 / image.stored_bytes),)
    elif lossy:
        text += f"; before that lossy compression ({lossy}) of unknown ratio"
    return InstancePlan(
        sop_instance_uid=uid(flavor),
        image_type=("DERIVED" if derived else "ORIGINAL", "PRIMARY", flavor, "RESAMPLED" if resampled else "NONE"),
        grid=TileGrid(image.rows, image.columns, image.rows, image.columns),
        frame_format=encoder.frame_format,
        pixel_spacing_mm=spacing,
        reuses_frames=False,
        origin=text,
        earlier_lossy=earlier,
        derivation=steps,
        derivation_description=text if derived else "",
        associated=image,
    )


def associated_encoder(image: AssociatedImage) -> FrameEncoder:
    """Return the encoder for an associated image: lossless unless the image already went through lossy compression."""
    import numpy as np

    option = CodecOption("jpeg2000", lossless=True)
    if image.lossy_method is not None:
        option = CodecOption("jpeg", lossless=False, quality=90, subsampling="422")
    return make_encoder(option, dtype=np.dtype(np.uint8), samples_per_pixel=3)


def _stored_ratio(level: SourceLevel) -> float:
    """Return the compression ratio of a level as the file stores it."""
    grid = level.grid
    decoded = grid.number_of_frames * grid.rows * grid.columns * level.samples_per_pixel * level.dtype.itemsize
    return decoded / level.stored_bytes if level.stored_bytes else 1.0


def _note_what_is_absent(
    stated: SlideMetadata,
    metadata: SlideMetadata,
    record: DeidRecord,
    pyramid: SourcePyramid,
    findings: list[Finding],
) -> None:
    """Add findings for what DICOM requires and the slide does not say, or the policy takes away."""
    for keyword in record.cleaned:
        message = f"{keyword} of the slide repeats one of its identifying fields and is left out"
        findings.append(Finding("privacy.text-removed", Severity.INFO, message, "", "PS3.15 E.1"))
    if metadata.acquisition_datetime is None:
        reason = (
            "the slide states no acquisition date" if stated.acquisition_datetime is None else "the date is removed"
        )
        message = f"{reason}: Acquisition DateTime is the constant 1900-01-01"
        findings.append(Finding("metadata.no-acquisition-datetime", Severity.INFO, message, "", "C.7.10.1"))
    gaps = {round(b - a, 6) for a, b in pairwise(pyramid.focal_plane_offsets_um)}
    if len(gaps) > 1:
        message = "the focal planes lie unevenly, which DICOM's full tiling cannot say: their mean distance is written"
        findings.append(Finding("metadata.uneven-focal-planes", Severity.WARNING, message, "", "C.7.6.17.3"))
    if pyramid.origin_mm is None:
        message = "the slide does not say where it was scanned: the matrix origin is the constant 20 mm, 40 mm"
        findings.append(Finding("metadata.no-origin", Severity.INFO, message, "", "C.8.12.4"))


def _note_unusual_frames(instances: Sequence[InstancePlan], findings: list[Finding]) -> None:
    """Add findings for frames that some readers refuse or show wrongly."""
    volumes = [instance.frame_format for instance in instances if instance.associated is None]
    if any(
        one.photometric_interpretation == "YBR_FULL_422" and one.transfer_syntax_uid in JPEG_2000 for one in volumes
    ):
        message = (
            "JPEG 2000 frames hold YCbCr without a component transform, kept bit for bit as YBR_FULL_422: OpenSlide"
            " refuses them, dicom-microscopy-viewer and Slim show them in wrong colours; --reencode writes frames that"
            " all of them read"
        )
        findings.append(Finding("frames.ycbcr-jpeg2000", Severity.WARNING, message, "", "PS3.5 8.2.4"))
    tiles = {(one.grid.rows, one.grid.columns) for one in instances if one.associated is None}
    if len(tiles) > 1:
        message = (
            "levels differ in the size of their frames, as the slide stores them: wsidicom passes over those that are"
            " not like the base; --tile-size makes them alike, and encodes again"
        )
        findings.append(Finding("frames.sizes-differ", Severity.INFO, message, "", "C.8.12.4"))
    if any(not one.encapsulated for one in volumes):
        message = (
            "uncompressed frames: dicom-microscopy-viewer and Slim tell the compression from a frame's first and last"
            " bytes, and leave a frame blank whose pixels happen to look compressed"
        )
        findings.append(Finding("frames.uncompressed", Severity.INFO, message))
