"""The rules by which Slim groups instances into slides and dicom-microscopy-viewer shows their pyramid.

Written from the behaviour of dicom-microscopy-viewer 0.48.24, "the viewer" in the messages, and Slim 0.46.10. Both read
DICOM JSON, in which an attribute without a value is as good as absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil, isclose
from typing import TYPE_CHECKING, Final

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.jpeg2000_stream import parse_jpeg2000
from coverslip.tiler.codecs.jpeg_stream import JpegHeader, parse_jpeg
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from pydicom import Dataset

    from coverslip.validators.instance import InstanceView
    from coverslip.validators.report import Finding
    from coverslip.validators.series import SeriesView
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check", "check_studies"]

_ADVANCED_BLENDING: Final = "1.2.840.10008.5.1.4.1.1.11.8"
_PYRAMID_FLAVORS: Final = ("VOLUME", "THUMBNAIL")
_NATIVE: Final = "application/octet-stream"
_JPEG: Final = "image/jpeg"
_JPEG_LS: Final = "image/jls"
_JPEG_2000: Final = "image/jp2"
_MEDIA_TYPES: Final = {
    "1.2.840.10008.1.2": _NATIVE,
    "1.2.840.10008.1.2.1": _NATIVE,
    "1.2.840.10008.1.2.1.99": _NATIVE,
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG,
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{last}" for last in (201, 202, 203)), _JPEG_2000),  # HTJ2K
}
_HEADER_BYTES: Final = 65536  # a codestream's header, with room for comments and application data
_TOLERANCE: Final = 1e-5  # with which the viewer compares the pyramids of channels


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Tell what Slim and its viewer would make of a series alone."""
    images = series.slide_images
    missing = [each for image in images for each in _check_attributes(image)]
    yield from missing
    for image in images:
        yield from _check_preparation(image)
        yield from _check_frames(image)
    if not missing:
        yield from _check_slide(images)


def check_studies(all_series: Sequence[SeriesView]) -> Iterator[tuple[SeriesView, Finding]]:
    """Tell what Slim would make of series together, beyond what is wrong with each; once for each series it concerns.

    The series of a study that are equal in frame of reference and container are one slide, whatever their acquisition;
    the study's presentation states are applied to monochrome slides.
    """
    studies: dict[str, list[SeriesView]] = {}
    for series in all_series:
        studies.setdefault(_text(series.instances[0], "StudyInstanceUID"), []).append(series)
    for study in studies.values():
        yield from _check_study(study)


def _check_study(study: Sequence[SeriesView]) -> Iterator[tuple[SeriesView, Finding]]:
    slides: dict[tuple[str, str], list[SeriesView]] = {}
    for series in study:
        if not any(map(_lacks, series.slide_images)) and (volumes := _volumes(series.slide_images)):
            slides.setdefault(_slide_key(volumes[0]), []).append(series)
    for merged in slides.values():
        if len(merged) > 1:
            alone = {each.rule for series in merged for each in _check_slide(series.slide_images)}
            together = _check_slide([image for series in merged for image in series.slide_images])
            yield from ((series, each) for each in together if each.rule not in alone for series in merged)
    yield from _check_split(list(slides.values()))
    monochrome = any(_monochrome(_volumes(merged[0].slide_images)[0]) for merged in slides.values())
    yield from _check_presentation_states(study, monochrome)


def _slide_key(image: InstanceView) -> tuple[str, str]:
    """Return what series of one slide have in common; Slim also means Acquisition UID, but its dictionary lacks it."""
    return _text(image, "FrameOfReferenceUID"), _text(image, "ContainerIdentifier")


def _text(image: InstanceView, keyword: str) -> str:
    return str(image.header.get(keyword) or "")


def _volumes(images: Iterable[InstanceView]) -> list[InstanceView]:
    """Return what belongs to the pyramid, by width as the viewer sorts it, the narrowest first."""
    return sorted((image for image in images if image.flavor in _PYRAMID_FLAVORS), key=_width)


def _width(image: InstanceView) -> int:
    return image.matrix_size[1]


def _monochrome(image: InstanceView) -> bool:
    return image.number("SamplesPerPixel") == 1


# Attributes of one instance.


def _check_attributes(image: InstanceView) -> Iterator[Finding]:
    for name in _lacks(image):
        yield finding("viewer.missing-attribute", f"{name} is absent; the viewer stops", image.place())


def _lacks(image: InstanceView) -> list[str]:
    """Return the names of attributes without which Slim or the viewer throws."""
    ds = image.header
    paths = ds.get("OpticalPathSequence") or []
    lacks = [keyword for keyword in ("ImageType", "OpticalPathSequence") if not ds.get(keyword)]
    if image.flavor not in _PYRAMID_FLAVORS:
        return lacks
    keywords = ("PhotometricInterpretation", "TotalPixelMatrixOriginSequence")
    numbers = ("Rows", "Columns", "TotalPixelMatrixRows", "TotalPixelMatrixColumns", "SamplesPerPixel", "BitsAllocated")
    lacks += [keyword for keyword in (*keywords, *numbers) if not ds.get(keyword)]
    lacks += [
        f"{keyword} of an optical path"
        for keyword in ("OpticalPathIdentifier", "IlluminationTypeCodeSequence")
        if not all(path.get(keyword) for path in paths)
    ]
    if len(ds.get("ImageOrientationSlide") or ()) != 6:
        lacks.append("ImageOrientationSlide")
    if image.pixel_spacing_mm is None:
        lacks.append("PixelSpacing of the shared functional groups")
    if _text(image, "DimensionOrganizationType") != "TILED_FULL":
        frames = ds.get("PerFrameFunctionalGroupsSequence") or []
        if len(frames) < image.number_of_frames or not all(frame.get("PlanePositionSlideSequence") for frame in frames):
            lacks.append("the position of frames that are not TILED_FULL")
    return lacks


def _check_preparation(image: InstanceView) -> Iterator[Finding]:
    """Slim's list of specimens makes a coded concept of every name and code, and fails without its three parts."""
    for specimen in image.header.get("SpecimenDescriptionSequence") or ():
        for step in specimen.get("SpecimenPreparationSequence") or ():
            if not all(map(_readable_item, step.get("SpecimenPreparationStepContentItemSequence") or ())):
                message = "a preparation step holds a code without CodeValue, scheme or meaning; Slim's page fails"
                yield finding("viewer.preparation-code", message, image.place())
                return


def _readable_item(item: Dataset) -> bool:
    sequences = ["ConceptNameCodeSequence", *(["ConceptCodeSequence"] if item.get("ValueType") == "CODE" else [])]
    codes = [(item.get(sequence) or [{}])[0] for sequence in sequences]
    parts = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return all(code.get(part) for code in codes for part in parts)


# Frames of one instance: the viewer asks for any transfer syntax and tells the compression from the bytes.


def _check_frames(image: InstanceView) -> Iterator[Finding]:
    if image.flavor not in _PYRAMID_FLAVORS:
        return
    wanted = _MEDIA_TYPES.get(image.transfer_syntax_uid)
    if wanted is None:
        syntax = image.file_meta.get("TransferSyntaxUID")
        name = getattr(syntax, "name", "none")
        yield finding("viewer.transfer-syntax", f"the viewer has no decoder for {name}", image.place())
        return
    try:
        yield from _check_media_types(image, wanted)
        yield from _check_codestream(image, wanted)
    except CorruptSourceError:
        return  # damage is told by the check of frames


def _check_media_types(image: InstanceView, wanted: str) -> Iterator[Finding]:
    for found, frames in _media_types(image):
        for index in frames if found != wanted else ():
            message = f"by its bytes the viewer takes this {_NAMES[wanted]} frame for {_NAMES[found]}"
            yield finding("viewer.frame-type", message, image.place(index))


_NAMES: Final = {_NATIVE: "uncompressed", _JPEG: "JPEG", _JPEG_LS: "JPEG-LS", _JPEG_2000: "JPEG 2000"}


def _media_types(image: InstanceView) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield what the viewer takes frames for by their first and last bytes, and which."""
    if not image.encapsulated:
        for index in range(image.number_of_frames):
            position, length = image.frame_span(index)
            size = min(3, length)
            tail = image.pread(size, position + length - size)
            yield _media_type(image.pread(min(8, length), position), tail), [index]
        return
    for header, frames in image.frame_headers():
        if header[:3] == b"\xff\xd8\xff" or header[4:8] == b"jP  ":
            yield _media_type(header, b""), frames
        else:
            yield from ((_media_type(header, image.frame_tail(index)), [index]) for index in frames)


def _media_type(head: bytes, tail: bytes) -> str:
    """Return what the viewer takes a frame for."""
    if head.startswith(b"\xff\xd8\xff"):
        return _JPEG_LS if head[3:4] in (b"\xf7", b"\xe8") else _JPEG
    if head[4:8] == b"jP  ":
        return _JPEG_2000
    return _JPEG_2000 if tail == b"\xff\xd9\0" or tail.endswith(b"\xff\xd9") else _NATIVE


def _check_codestream(image: InstanceView, media_type: str) -> Iterator[Finding]:
    """Compare what the first frame says of itself with what the header says."""
    converted = False  # whether decoding ends in RGB
    bits: set[int] = set()
    frame = image.read_frame(0, _HEADER_BYTES) if media_type != _NATIVE else b""
    photometric = _text(image, "PhotometricInterpretation")
    if media_type == _JPEG:
        header = parse_jpeg(frame)
        converted = _taken_for_ycbcr(header)
        bits = {header.precision}
    elif media_type == _JPEG_2000:
        codestream = parse_jpeg2000(frame)
        converted = codestream.multiple_component_transform
        bits = {component.bits for component in codestream.components}
    elif media_type == _JPEG_LS:
        bits = {frame[6]}  # sample precision, after SOI, SOF55 and its length (T.87 C.2.2)
    allocated = image.number("BitsAllocated")
    if bits - {allocated}:
        message = f"frames are coded with {max(bits)} bits per sample; the viewer shows none unless it is {allocated}"
        yield finding("viewer.frame-depth", message, image.place())
    if _monochrome(image):
        return
    if photometric.startswith("YBR") and not converted:
        yield finding("viewer.colors", f"{photometric} frames are shown without conversion to RGB", image.place())
    elif photometric == "RGB" and media_type == _JPEG and converted:
        yield finding("viewer.colors", "JPEG frames of RGB do not say so and are shown as if YCbCr", image.place())
    elif media_type == _NATIVE and image.number("PlanarConfiguration"):
        yield finding("viewer.colors", "colour planes are shown as if they were interleaved", image.place())


def _taken_for_ycbcr(header: JpegHeader) -> bool:
    """Tell whether libjpeg, left to itself, takes three components for YCbCr."""
    if header.has_jfif:
        return True
    if header.adobe_transform is not None:
        return header.adobe_transform != 0
    return bytes(component.identifier & 0xFF for component in header.components) != b"RGB"


# The images that Slim makes one slide of.


def _check_slide(images: list[InstanceView]) -> Iterator[Finding]:
    volumes = _volumes(images)
    if not volumes:
        yield finding("viewer.no-volume", "there is no VOLUME or THUMBNAIL image; Slim does not show the series")
        return
    yield from _check_identity(images, volumes)
    if len({_monochrome(image) for image in volumes}) > 1:
        yield finding("viewer.mixed-colors", "the pyramid mixes colour and monochrome images")
        return
    kept, dropped = _kept(volumes)
    yield from dropped
    yield from _check_bases(images, volumes)
    for image in kept:
        yield from _check_focal_planes(image)
    yield from _check_channels(kept) if _monochrome(kept[0]) else _check_color(kept)


def _check_identity(images: list[InstanceView], volumes: list[InstanceView]) -> Iterator[Finding]:
    if len({_text(image, "FrameOfReferenceUID") for image in volumes}) > 1:
        yield finding("viewer.frame-of-reference", "levels of one slide differ in their frame of reference")
    if len({_text(image, "ContainerIdentifier") for image in images}) > 1:
        yield finding("viewer.container", "images of one slide differ in their Container Identifier")


def _kept(volumes: list[InstanceView]) -> tuple[list[InstanceView], list[Finding]]:
    """Return the images that the viewer shows, and why it leaves others out.

    A thumbnail goes when a level is as wide; a level goes when a thumbnail that stays is wider.
    """
    widths = {_width(image) for image in volumes if image.flavor == "VOLUME"}
    thumbnails = [image for image in volumes if image.flavor == "THUMBNAIL"]
    unused = [image for image in thumbnails if _width(image) in widths]
    narrowest = min((_width(image) for image in thumbnails if image not in unused), default=0)
    hidden = [image for image in volumes if image.flavor == "VOLUME" and _width(image) < narrowest]
    told = [
        finding("viewer.thumbnail-unused", "a level is as wide as this thumbnail, which is not shown", image.place())
        for image in unused
    ]
    told += [
        finding(
            "viewer.thumbnail-hides-level", "narrower than the thumbnail, so this level is not shown", image.place()
        )
        for image in hidden
    ]
    kept = [image for image in volumes if image not in (*unused, *hidden)]
    known = [image for image in kept if _photometric_known(image)]
    told += [
        finding("viewer.photometric", f"{_text(image, 'PhotometricInterpretation')} is not shown", image.place())
        for image in kept
        if image not in known
    ]
    return known or kept, told


def _photometric_known(image: InstanceView) -> bool:
    photometric = _text(image, "PhotometricInterpretation")
    return photometric == "MONOCHROME2" if _monochrome(image) else photometric == "RGB" or "YBR" in photometric


def _check_bases(images: list[InstanceView], volumes: list[InstanceView]) -> Iterator[Finding]:
    if len(volumes) == 1:
        yield finding(
            "viewer.no-pyramid", "there is one image only; Slim warns of a missing pyramid", volumes[0].place()
        )
    bases = [image for image in volumes if _is_base(image)]
    paths = {identifier for image in images for identifier in image.optical_path_identifiers}
    if len(bases) > len(paths):
        message = f"{len(bases)} images of the pyramid are not RESAMPLED, of {len(paths)} optical paths; Slim warns"
        yield finding("viewer.several-bases", message)


def _is_base(image: InstanceView) -> bool:
    return "RESAMPLED" not in list(image.header.ImageType)[3:4]


def _check_focal_planes(image: InstanceView) -> Iterator[Finding]:
    if (planes := image.number("NumberOfFocalPlanes")) > 1:
        message = f"combined from {planes} focal planes; the viewer stops"
        yield finding("viewer.focal-planes", message, image.place())
    elif (planes := image.number("TotalPixelMatrixFocalPlanes")) > 1:
        yield finding("viewer.focal-stack", f"one of {planes} focal planes is shown", image.place())


def _check_color(images: list[InstanceView]) -> Iterator[Finding]:
    identifiers = {image.optical_path_identifiers[0] for image in images}
    if len(identifiers) > 1:
        message = (
            f"levels have {len(identifiers)} different Optical Path Identifiers; the viewer shows those of one only"
        )
        yield finding("viewer.optical-path-identifier", message)
        return
    yield from _check_levels(images)
    levels = [parts[0] for parts in _by_size(images).values()]
    profiles = sum(bool(image.header.OpticalPathSequence[0].get("ICCProfile")) for image in levels)
    if not profiles:
        yield finding(
            "viewer.no-profile", "no level has an ICC profile; the viewer warns and shows colours as they are"
        )
    elif profiles != len(levels):
        message = f"{profiles} ICC profiles for {len(levels)} levels; the viewer shows no frame"
        yield finding("viewer.profile-count", message)


def _check_channels(images: list[InstanceView]) -> Iterator[Finding]:
    """Every channel's pyramid must be that of the first."""
    channels: dict[str, list[InstanceView]] = {}
    for image in images:
        for identifier in image.optical_path_identifiers:
            channels.setdefault(identifier, []).append(image)
    shapes = []
    for identifier, members in channels.items():
        yield from _check_levels(members)
        if len({image.number("NumberOfOpticalPaths", 1) for image in members}) > 1:
            message = f"levels of channel {identifier} differ in their number of optical paths; the viewer stops"
            yield finding("viewer.channel-count", message)
        shapes.append((identifier, _shape(members)))
    for image in images:
        if image.number("NumberOfOpticalPaths", 1) != len(image.optical_path_identifiers):
            message = "NumberOfOpticalPaths is not the number of optical paths; channels are not found"
            yield finding("viewer.channel-count", message, image.place())
    for identifier, shape in shapes[1:]:
        if len(shape) != len(shapes[0][1]) or not all(map(_near, shape, shapes[0][1])):
            message = f"levels of channel {identifier} differ in number, size, tiles or spacing from those of another"
            yield finding("viewer.channel-pyramid", f"{message}; the viewer stops")


def _shape(images: list[InstanceView]) -> list[tuple[float, ...]]:
    """Return what the viewer compares of a pyramid: extent, then resolution, grid, tiles and spacing of each level."""
    by_size = _by_size(images)
    base_rows, base_columns = max(by_size, key=lambda size: size[1])
    shape: list[tuple[float, ...]] = [(base_rows, base_columns)]
    for (rows, columns), (image, *_parts) in by_size.items():
        tile_rows, tile_columns = image.tile_size
        grid = ceil(rows / tile_rows), ceil(columns / tile_columns)
        spacing = image.pixel_spacing_mm or (0.0, 0.0)
        shape.append((base_columns / columns, *grid, tile_rows, tile_columns, *spacing))
    return shape


def _near(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return all(isclose(*pair, rel_tol=0, abs_tol=_TOLERANCE) for pair in zip(left, right, strict=True))


def _check_levels(images: list[InstanceView]) -> Iterator[Finding]:
    """Check what becomes one level: the images of equal size, which must be parts of one concatenation."""
    by_size = _by_size(images)
    for parts in by_size.values():
        if len(parts) == 1:
            continue
        place = ", ".join(sorted(image.place() for image in parts))
        rows, columns = parts[0].matrix_size
        size = f"{len(parts)} images of one channel are {columns} x {rows}"
        if not all(image.header.get("SOPInstanceUIDOfConcatenationSource") for image in parts):
            yield finding("viewer.equal-sizes", f"{size} and are no concatenation; the viewer stops", place)
        elif any(_text(image, "DimensionOrganizationType") == "TILED_FULL" for image in parts):
            message = f"{size}, TILED_FULL; the viewer looks for every frame in the last part"
            yield finding("viewer.concatenation", message, place)
    for narrower, wider in pairwise(sorted(by_size, key=lambda size: size[1])):
        if narrower[1] == wider[1]:
            yield finding("viewer.equal-widths", f"two levels are {wider[1]} columns wide; the viewer warns")


def _by_size(images: Iterable[InstanceView]) -> dict[tuple[int, int], list[InstanceView]]:
    by_size: dict[tuple[int, int], list[InstanceView]] = {}
    for image in images:
        by_size.setdefault(image.matrix_size, []).append(image)
    return by_size


# The slides of one study.


def _check_split(slides: list[list[SeriesView]]) -> Iterator[tuple[SeriesView, Finding]]:
    """Tell which slides are parts of one glass slide that differ in their frame of reference only."""
    by_glass: dict[str, list[list[SeriesView]]] = {}
    for slide in slides:
        by_glass.setdefault(_slide_key(_volumes(slide[0].slide_images)[0])[1], []).append(slide)
    for parts in by_glass.values():
        if message := _split([_volumes(image for each in slide for image in each.slide_images) for slide in parts]):
            yield from ((series, finding("viewer.split-slide", message)) for slide in parts for series in slide)


def _split(parts: list[list[InstanceView]]) -> str:
    """Return how the images of one glass slide are divided that should not be; empty if they should, or are not."""
    if len(parts) == 1:
        return ""
    if len({any(map(_is_base, images)) for images in parts}) > 1:
        return "levels of another frame of reference than their base become another slide"
    paths = [path for images in parts for path in {path for image in images for path in image.optical_path_identifiers}]
    if all(_monochrome(images[0]) for images in parts) and len(set(paths)) == len(paths):
        return "channels of different frames of reference become slides of their own"
    return ""


def _check_presentation_states(study: Sequence[SeriesView], monochrome: bool) -> Iterator[tuple[SeriesView, Finding]]:
    states = [(series, each) for series in study for each in series.instances if _text(each, "Modality") == "PR"]
    blending = [each for each in states if _text(each[1], "SOPClassUID") == _ADVANCED_BLENDING]
    for series, state in states:
        if not monochrome:
            message = "Slim ignores presentation states of colour slides"
            yield series, finding("viewer.presentation-state-ignored", message, state.place())
        elif (series, state) not in blending:
            message = "Slim reads every presentation state as Advanced Blending and tells an error"
            yield series, finding("viewer.presentation-state-class", message, state.place())
        elif len(blending) > 1:
            message = f"one of {len(blending)} presentation states; by itself Slim applies the first that it finds"
            yield series, finding("viewer.presentation-state-order", message, state.place())
