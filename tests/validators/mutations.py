"""Ways to break a good series, each in one thing, and the rule that must find it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate_extended, generate_frames
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from coverslip.tiler.codecs import make_decoder, make_encoder, parse_codec
from coverslip.tiler.codecs.base import FrameFormat, Pixels

__all__ = ["MUTATIONS", "Broken", "Mutation"]

_OTHER_CLASS = UID("1.2.840.10008.5.1.4.1.1.77.1.1")
_JPEG_LS = "1.2.840.10008.1.2.4.80"
_PIXELS_HEADER = 12
_ITEM_HEADER = 8


class Broken:
    """A copy of a series, to be broken; its files by what they show: base, middle, top, label, overview."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Files by what they show, in the order from the base to the associated images."""
        headers = {path: dcmread(path, stop_before_pixels=True) for path in sorted(self.folder.rglob("*.dcm"))}
        volumes = [path for path, header in headers.items() if header.ImageType[2] == "VOLUME"]
        volumes.sort(key=lambda path: -headers[path].TotalPixelMatrixRows)
        named = dict(zip(("base", "middle", "top"), volumes, strict=False))
        return named | {h.ImageType[2].lower(): path for path, h in headers.items() if path not in volumes}

    def edit(self, which: str, change: Callable[[Dataset], object]) -> None:
        """Change the data set of one file, or of `all`, or of all `levels`."""
        volumes = [name for name in self.paths if name in ("base", "middle", "top")]
        for name in {"all": list(self.paths), "levels": volumes}.get(which, [which]):
            ds = dcmread(self.paths[name])
            change(ds)
            ds.save_as(self.paths[name])

    def edit_bytes(self, which: str, change: Callable[[bytearray], object]) -> None:
        """Change a file as bytes; what `change` returns, if bytes, takes their place."""
        data = bytearray(self.paths[which].read_bytes())
        changed = change(data)
        self.paths[which].write_bytes(changed if isinstance(changed, bytes | bytearray) else data)


@dataclass(frozen=True)
class Mutation:
    """One way to break a series.

    Parameters
    ----------
    name : str
    rule : str
        The one rule whose findings are errors then.
    apply : callable
    series : str
        Which good series is broken: ``jpeg``, ``lossless``, ``study`` (two slides), or another of the test's.
    with_source : bool
        Whether the slide is given too.
    profile : str
    """

    name: str
    rule: str
    apply: Callable[[Broken], object]
    series: str = "jpeg"
    with_source: bool = False
    profile: str = "dicom"


def on(which: str, change: Callable[[Dataset], object]) -> Callable[[Broken], None]:
    """Change a data set."""
    return lambda broken: broken.edit(which, change)


def on_bytes(which: str, change: Callable[[bytearray], object]) -> Callable[[Broken], None]:
    """Change a file as bytes."""
    return lambda broken: broken.edit_bytes(which, change)


def _at(ds: Dataset, path: str) -> tuple[Dataset, str]:
    """Return the item that holds the last keyword of a path like ``OpticalPathSequence.ICCProfile``."""
    *sequences, keyword = path.split(".")
    for name in sequences:
        ds = ds[name].value[0]
    return ds, keyword


def drop(path: str, which: str = "all") -> Callable[[Broken], None]:
    """Remove an attribute where it is."""

    def change(ds: Dataset) -> None:
        item, keyword = _at(ds, path)
        if keyword in item:
            del item[keyword]

    return lambda broken: broken.edit(which, change)


def put(path: str, value: object, which: str = "all") -> Callable[[Broken], None]:
    """Set an attribute."""

    def change(ds: Dataset) -> None:
        item, keyword = _at(ds, path)
        setattr(item, keyword, value(getattr(item, keyword)) if callable(value) else value)

    return lambda broken: broken.edit(which, change)


def put_raw(old: bytes, new: bytes) -> Callable[[Broken], None]:
    """Replace bytes of every file, once, by as many others."""

    def apply(broken: Broken) -> None:
        for which in broken.paths:
            broken.edit_bytes(which, lambda data: data.replace(old, new.ljust(len(old)), 1))

    return apply


def code(value: str, scheme: str, meaning: str, keyword: str = "CodeValue") -> Items:
    item = Dataset()
    setattr(item, keyword, value)
    item.CodingSchemeDesignator, item.CodeMeaning = scheme, meaning
    return Items([item])


# Frames.


def without_table(stored: Sequence[bytes]) -> bytes:
    """Return encapsulated pixel data with an empty Basic Offset Table."""
    padded = [b"", *(frame + bytes(len(frame) % 2) for frame in stored)]
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(frame)) + frame for frame in padded)


def put_frames(ds: Dataset, stored: Sequence[bytes]) -> None:
    """Replace the frames of an instance, and state the ratio that they have."""
    ds.PixelData = without_table(stored)
    ds["PixelData"].is_undefined_length = True
    if ds.LossyImageCompression == "01":
        ratio = ds.Rows * ds.Columns * 3 * len(stored) / sum(map(len, stored))
        earlier = ds.LossyImageCompressionRatio
        ds.LossyImageCompressionRatio = (
            [*earlier[:-1], round(ratio, 3)] if ds["LossyImageCompressionRatio"].VM > 1 else round(ratio, 3)
        )


def frames(which: str, change: Callable[[list[bytes]], Sequence[bytes]]) -> Callable[[Broken], None]:
    """Replace the frames of a file, without an offset table, and leave its header as it is."""

    def edit(ds: Dataset) -> None:
        stored = list(generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
        put_frames(ds, change(stored))

    return lambda broken: broken.edit(which, edit)


def swap(stored: list[bytes]) -> list[bytes]:
    stored[1], stored[4] = stored[4], stored[1]
    return stored


def recode(
    which: str, change: Callable[[Pixels], Pixels], size: tuple[int, int] | None = None
) -> Callable[[Broken], None]:
    """Change the pixels of a level as one picture, and encode it as it was."""

    def edit(ds: Dataset) -> None:
        syntax = str(ds.file_meta.TransferSyntaxUID)
        frame_format = FrameFormat(syntax, ds.PhotometricInterpretation, 3)
        decoder = make_decoder(frame_format, rows=ds.Rows, columns=ds.Columns)
        lossless = syntax == "1.2.840.10008.1.2.4.90"
        option = parse_codec("jpeg2000:lossless" if lossless else "jpeg:90:444")
        encode = make_encoder(option, dtype=np.dtype(np.uint8), samples_per_pixel=3).encode
        tall, wide = -(-ds.TotalPixelMatrixRows // ds.Rows), -(-ds.TotalPixelMatrixColumns // ds.Columns)
        stored = list(generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
        tiles = [decoder.decode(frame) for frame in stored]
        picture = np.concatenate([np.concatenate(tiles[r * wide : (r + 1) * wide], axis=1) for r in range(tall)])
        rows, columns = ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns
        picture = picture.copy()
        picture[:rows, :columns] = change(picture[:rows, :columns])
        put_frames(
            ds,
            [
                encode(
                    np.ascontiguousarray(
                        picture[r * ds.Rows : (r + 1) * ds.Rows, c * ds.Columns : (c + 1) * ds.Columns]
                    )
                )
                for r in range(tall)
                for c in range(wide)
            ],
        )

    return lambda broken: broken.edit(which, edit)


def blank_tile(picture: Pixels) -> Pixels:
    picture = picture.copy()
    picture[256:512, 256:512] = 255
    return picture


def darker(picture: Pixels) -> Pixels:
    picture = picture.copy()
    picture[300:500, 300:500] //= 2
    return picture


def corrupt(stored: list[bytes]) -> list[bytes]:
    """Overwrite the middle of a frame's entropy-coded data."""
    middle = len(stored[0]) // 2
    return [stored[0][:middle] + b"\xff\xd9" * 300 + stored[0][middle + 600 :], *stored[1:]]


def rubbish(stored: list[bytes]) -> list[bytes]:
    return [stored[0] + b"rubbish", *stored[1:]]


def smaller_frame(stored: list[bytes]) -> list[bytes]:
    encode = make_encoder(parse_codec("jpeg:90:444"), dtype=np.dtype(np.uint8), samples_per_pixel=3).encode
    return [encode(np.full((128, 128, 3), 200, np.uint8)), *stored[1:]]


def gray_frame(stored: list[bytes]) -> list[bytes]:
    encode = make_encoder(parse_codec("jpeg:90:444"), dtype=np.dtype(np.uint8), samples_per_pixel=1).encode
    return [encode(np.full((431, 1280, 1), 200, np.uint8)), *stored[1:]]


def without_last_frame(broken: Broken) -> None:
    frames("base", lambda stored: stored[:-1])(broken)
    put("NumberOfFrames", 11, "base")(broken)


def comment(stored: list[bytes]) -> list[bytes]:
    text = b"b414003d-95c6-48b0-9369-8010ed517ba7"
    segment = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
    return [stored[0][:2] + segment + stored[0][2:], *stored[1:]]


def pixel_data(data: bytes | bytearray) -> int:
    """Return where the Basic Offset Table's item is."""
    return data.index(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff") + _PIXELS_HEADER


def second_offset(added: int) -> Callable[[bytearray], None]:
    """Change the second entry of the Basic Offset Table."""

    def edit(data: bytearray) -> None:
        at = pixel_data(data) + _ITEM_HEADER + 4
        struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] + added)

    return edit


def extended(ds: Dataset, *, offset: int = 0, length: int = 0) -> None:
    """Give an instance an Extended Offset Table whose second entry is off."""
    stored = list(generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
    ds.PixelData, offsets, lengths = encapsulate_extended(stored)
    ds["PixelData"].is_undefined_length = True
    table, sizes = bytearray(offsets), bytearray(lengths)
    struct.pack_into("<Q", table, 8, struct.unpack_from("<Q", table, 8)[0] + offset)
    struct.pack_into("<Q", sizes, 8, struct.unpack_from("<Q", sizes, 8)[0] + length)
    ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = bytes(table), bytes(sizes)


def odd_item(data: bytearray) -> None:
    """Take the last byte off the last item."""
    table = pixel_data(data)
    at = table + _ITEM_HEADER + struct.unpack_from("<I", data, table + 4)[0]
    while data[at + _ITEM_HEADER + (size := struct.unpack_from("<I", data, at + 4)[0]) :][:4] == b"\xfe\xff\x00\xe0":
        at += _ITEM_HEADER + size
    struct.pack_into("<I", data, at + 4, size - 1)
    del data[at + _ITEM_HEADER + size - 1]


# Pieces of headers and files.


def copy_level(broken: Broken, change: Callable[[Dataset], object] = lambda _ds: None) -> None:
    """Add a copy of the middle level, with a UID of its own."""
    ds = dcmread(broken.paths["middle"])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID("2.25.4711")
    change(ds)
    ds.save_as(broken.paths["middle"].with_name("copy.dcm"))


def image_type(which: str, first: str, last: str) -> Callable[[Broken], None]:
    value = [first, "PRIMARY", "VOLUME", last]

    def change(ds: Dataset) -> None:
        ds.ImageType = value
        ds.SharedFunctionalGroupsSequence[0].WholeSlideMicroscopyImageFrameTypeSequence[0].FrameType = value

    return on(which, change)


def called_lossless(ds: Dataset) -> None:
    ds.LossyImageCompression = "00"
    del ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod


def claims_anonymity(ds: Dataset) -> None:
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "by hand"


def claims_anonymity_of_a_named_one(ds: Dataset) -> None:
    claims_anonymity(ds)
    ds.OperatorsName = "Roe^Jane"


def private(ds: Dataset) -> None:
    ds.private_block(0x0009, "SCANNER X", create=True).add_new(0x01, "LO", "text")


def same_sop_instance(broken: Broken) -> None:
    uid = dcmread(broken.paths["base"], stop_before_pixels=True).SOPInstanceUID

    def change(ds: Dataset) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid

    broken.edit("middle", change)


def meta(keyword: str, value: object, which: str = "middle") -> Callable[[Broken], None]:
    def change(ds: Dataset) -> None:
        if value is None:
            del ds.file_meta[keyword]
        else:
            setattr(ds.file_meta, keyword, value)

    return lambda broken: broken.edit(which, change)


def icc(change: Callable[[bytearray], None], which: str = "levels") -> Callable[[Broken], None]:
    def edit(ds: Dataset) -> None:
        profile = bytearray(ds.OpticalPathSequence[0].ICCProfile)
        change(profile)
        ds.OpticalPathSequence[0].ICCProfile = bytes(profile)

    return lambda broken: broken.edit(which, edit)


def overwrite(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(value)] = value

    return change


def preparation(ds: Dataset) -> None:
    """Give the specimen a preparation step with a code whose value is too long."""
    step = Dataset()
    step.ValueType = "CODE"
    step.ConceptNameCodeSequence = code("17636008", "SCT", "Specimen collection")
    step.ConceptCodeSequence = code("12345678901234567", "99TEST", "A long code")
    item = Dataset()
    item.SpecimenPreparationStepContentItemSequence = Items([step])
    ds.SpecimenDescriptionSequence[0].SpecimenPreparationSequence = Items([item])


def as_thumbnail(ds: Dataset) -> None:
    """Call a level a thumbnail: one frame of the level's size."""
    rows, columns = ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns
    picture = np.full((rows, columns, 3), 200, np.uint8)
    encode = make_encoder(parse_codec("jpeg:90:444"), dtype=np.dtype(np.uint8), samples_per_pixel=3).encode
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, 1
    put_frames(ds, [encode(picture)])
    flavor = ["DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED"]
    ds.ImageType = flavor
    ds.SharedFunctionalGroupsSequence[0].WholeSlideMicroscopyImageFrameTypeSequence[0].FrameType = flavor
    ds.InstanceNumber = 9


def of_one_series(keyword: str, value: object) -> Callable[[Broken], None]:
    """Set an attribute in all instances of one of the series of a study."""

    def apply(broken: Broken) -> None:
        for path in min(path.parent for path in broken.folder.rglob("*.dcm")).glob("*.dcm"):
            ds = dcmread(path)
            setattr(ds, keyword, value)
            ds.save_as(path)

    return apply


def differ(keyword: str, value: object) -> Callable[[Broken], None]:
    return put(keyword, value, "middle")


_MEASURES = "SharedFunctionalGroupsSequence.PixelMeasuresSequence"
_FILES = (
    Mutation("the prefix DICM is overwritten", "part10.unreadable", on_bytes("label", overwrite(128, b"MCID"))),
    Mutation("the group length is wrong", "part10.group-length", on_bytes("middle", overwrite(140, b"\x0a"))),
    Mutation("the file meta names another class", "part10.sop-class", meta("MediaStorageSOPClassUID", _OTHER_CLASS)),
    Mutation(
        "the file meta holds another UID", "part10.sop-instance", meta("MediaStorageSOPInstanceUID", UID("2.25.99"))
    ),
    Mutation("the file meta names no implementation", "part10.meta-missing", meta("ImplementationClassUID", None)),
    Mutation("the file is cut off", "frames.truncated", on_bytes("base", lambda data: data[: len(data) * 2 // 3])),
    Mutation("the sequence delimiter is missing", "frames.truncated", on_bytes("middle", lambda data: data[:-8])),
    Mutation("bytes follow the pixel data", "frames.trailing", on_bytes("middle", lambda data: data + b"appended")),
    Mutation("two levels have one instance UID", "series.duplicate-instance", same_sop_instance),
)
_FRAMES = (
    Mutation("the last frame is missing and not counted", "frames.tiled-full-count", without_last_frame),
    Mutation("a frame is missing", "frames.item-count", frames("base", lambda stored: stored[:-1])),
    Mutation("a frame is there twice", "frames.item-count", frames("base", lambda stored: [*stored, stored[-1]])),
    Mutation("two frames are exchanged", "pyramid.content", frames("base", swap)),
    Mutation("two frames are exchanged in a copy", "fidelity.frame-differs", frames("base", swap), "one level", True),
    Mutation("a frame's data are overwritten", "frames.corrupt", frames("base", corrupt)),
    Mutation("a frame is empty", "frames.empty", frames("middle", lambda stored: [b"", *stored[1:]])),
    Mutation("a frame's last byte is lost", "frames.padding", on_bytes("middle", odd_item)),
    Mutation("a frame is followed by rubbish", "frames.padding", frames("middle", rubbish)),
    Mutation("a frame is of another size", "frames.size", frames("middle", smaller_frame)),
    Mutation("a frame is gray", "frames.samples", frames("overview", gray_frame)),
    Mutation("a tile of the base is blank", "pyramid.content", recode("base", blank_tile)),
    Mutation("an offset is off by one", "frames.offset-table", on_bytes("base", second_offset(1))),
    Mutation("an offset is off by an item's header", "frames.offset-table", on_bytes("base", second_offset(8))),
    Mutation("an extended offset is off", "frames.offset-table", on("base", partial(extended, offset=2))),
    Mutation("an extended length is wrong", "frames.offset-table", on("base", partial(extended, length=-2))),
    Mutation("the transfer syntax is JPEG-LS", "frames.transfer-syntax", meta("TransferSyntaxUID", UID(_JPEG_LS))),
    Mutation("RGB is called YCbCr", "frames.photometric", put("PhotometricInterpretation", "YBR_FULL_422", "middle")),
    Mutation("YBR_RCT is called RGB", "frames.photometric", put("PhotometricInterpretation", "RGB", "top"), "lossless"),
    Mutation("there are too few rows", "frames.size", put("Rows", 255, "top")),
    Mutation("the label's matrix is too large", "frames.tiled-full-count", put("TotalPixelMatrixRows", 999, "label")),
    Mutation("there are two optical paths", "frames.tiled-full-count", put("NumberOfOpticalPaths", 2, "base")),
)
_MODULES = tuple(
    Mutation(f"{path.rpartition('.')[2]} is missing", "iod.missing", drop(path))
    for path in (
        "PatientID",
        "PatientBirthDate",
        "StudyDate",
        "AccessionNumber",
        "ReferringPhysicianName",
        "SeriesNumber",
        "Manufacturer",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "AcquisitionContextSequence",
        "ContainerTypeCodeSequence",
        "SpecimenDescriptionSequence.SpecimenUID",
        "AcquisitionDateTime",
        "ContentDate",
        "VolumetricProperties",
        "BurnedInAnnotation",
        "BitsAllocated",
        "HighBit",
        "DimensionOrganizationSequence",
        "SharedFunctionalGroupsSequence.WholeSlideMicroscopyImageFrameTypeSequence",
        f"{_MEASURES}.SliceThickness",
        "ImagedVolumeWidth",
        "ImagedVolumeDepth",
        "TotalPixelMatrixOriginSequence",
        "TotalPixelMatrixOriginSequence.YOffsetInSlideCoordinateSystem",
        "ImageOrientationSlide",
        "FocusMethod",
        "ExtendedDepthOfField",
        "OpticalPathSequence.IlluminationTypeCodeSequence",
        "NumberOfOpticalPaths",
        "TotalPixelMatrixFocalPlanes",
        "InstanceNumber",
    )
)
_VALUES = (
    Mutation("the orientation has five numbers", "iod.value", put("ImageOrientationSlide", [0, -1, 0, -1, 0])),
    Mutation("the slice thickness is zero", "iod.value", put(f"{_MEASURES}.SliceThickness", 0, "levels")),
    Mutation("the imaged volume has no depth", "iod.value", put("ImagedVolumeDepth", 0.0, "levels")),
    Mutation("a code is too long for its attribute", "iod.value", on("all", preparation)),
    Mutation("the patient's identifier is too long", "iod.value", put("PatientID", "9" * 65)),
    Mutation("the patient's sex is no term", "iod.term", put("PatientSex", "X")),
    Mutation("the position refers to no corner", "iod.term", put("PositionReferenceIndicator", "CORNER")),
    Mutation("the planes are separate", "iod.term", put("PlanarConfiguration", 2)),
    Mutation("texts are in another character set", "iod.value", put_raw(b"ISO_IR 192", b"ISO_IR 6")),
)
_PYRAMID = (
    Mutation(
        "the spacing of one level is shifted",
        "pyramid.spacing",
        put(f"{_MEASURES}.PixelSpacing", [0.000509, 0.000509], "middle"),
    ),
    Mutation(
        "one level has the spacing of the base",
        "pyramid.spacing",
        put(f"{_MEASURES}.PixelSpacing", [0.0002527, 0.0002527], "middle"),
    ),
    Mutation("the imaged volume is too wide", "pyramid.imaged-volume", put("ImagedVolumeWidth", 0.5, "middle")),
    Mutation("a level is there twice", "pyramid.duplicate-level", copy_level),
    Mutation("a level is mirrored", "pyramid.content", recode("middle", lambda picture: picture[:, ::-1])),
    Mutation("a level is upside down", "pyramid.content", recode("top", lambda picture: picture[::-1])),
    Mutation("a level is shifted", "pyramid.content", recode("middle", partial(np.roll, shift=40, axis=1))),
    Mutation("a level is of other colours", "pyramid.content", recode("middle", lambda picture: picture[..., ::-1])),
    Mutation("a lossless level is mirrored", "pyramid.content", recode("top", np.fliplr), "lossless"),
    Mutation("the slide is mirrored", "fidelity.orientation", lambda _broken: None, "mirrored", True),
    Mutation(
        "a lossless frame has other pixels",
        "fidelity.lossless-differs",
        recode("base", darker),
        "one lossless level",
        True,
    ),
    Mutation("the base calls itself resampled", "pyramid.image-type", image_type("base", "ORIGINAL", "RESAMPLED")),
    Mutation("a level calls itself original", "pyramid.image-type", image_type("middle", "ORIGINAL", "RESAMPLED")),
)
_CONSISTENCY = (
    Mutation("one level has another patient", "series.patient", differ("PatientID", "OTHER")),
    Mutation("one level has another name", "series.patient", differ("PatientName", "Other^Name")),
    Mutation("one level has another study date", "series.study", differ("StudyDate", "20200101")),
    Mutation("one level has another accession number", "series.study", differ("AccessionNumber", "A2")),
    Mutation("one level has another scanner", "series.equipment", differ("DeviceSerialNumber", "77")),
    Mutation("one level has another manufacturer", "series.equipment", differ("Manufacturer", "Other")),
    Mutation("one level has another container", "series.container", differ("ContainerIdentifier", "OTHER")),
    Mutation(
        "one level has another specimen",
        "series.specimen",
        differ("SpecimenDescriptionSequence.SpecimenUID", "2.25.5"),
    ),
    Mutation(
        "one level has another frame of reference",
        "series.frame-of-reference",
        differ("FrameOfReferenceUID", "2.25.5"),
    ),
    Mutation("one level has another acquisition", "series.acquisition", differ("AcquisitionUID", "2.25.5")),
    Mutation("one level has another pyramid", "series.pyramid-uid", differ("PyramidUID", "2.25.5")),
    Mutation("one level has another study", "series.study", differ("StudyInstanceUID", "2.25.5")),
    Mutation(
        "one level has another optical path",
        "series.optical-path",
        differ("OpticalPathSequence.ObjectiveLensPower", "20"),
    ),
    Mutation("a study has two patients", "study.patient", of_one_series("PatientID", "OTHER"), "study"),
    Mutation("a study has two birth dates", "study.patient", of_one_series("PatientBirthDate", "19700101"), "study"),
    Mutation("a study has two dates", "study.study", of_one_series("StudyDate", "20200101"), "study"),
)
_COLOUR = (
    Mutation("the profile is that of a display", "color.icc-class", icc(overwrite(12, b"mntr"))),
    Mutation("the profile is for gray", "color.icc-space", icc(overwrite(16, b"GRAY"))),
    Mutation("the profile leads to no connection space", "color.icc-connection", icc(overwrite(20, b"RGB "))),
    Mutation("the profile is cut off", "color.icc-damaged", icc(lambda profile: profile.__delitem__(slice(900, None)))),
    Mutation("the profile of one level is another", "color.icc-differs", icc(overwrite(-8, b"\x11\x22"), "middle")),
    Mutation(
        "the profile is missing on one level", "color.icc-levels", drop("OpticalPathSequence.ICCProfile", "middle")
    ),
    Mutation("there is no profile", "iod.missing", drop("OpticalPathSequence.ICCProfile")),
)
_LOSSY = (
    Mutation("lossy frames are called lossless", "lossy.flag", on("base", called_lossless)),
    Mutation("the ratio is not that of the frames", "lossy.ratio", put("LossyImageCompressionRatio", 300, "middle")),
    Mutation(
        "the method is not that of the frames", "lossy.method", put("LossyImageCompressionMethod", "ISO_15444_1", "top")
    ),
)
_ASSOCIATED = (
    Mutation("the label says that it shows none", "label.not-in-image", put("SpecimenLabelInImage", "NO", "label")),
    Mutation("the label belongs to the pyramid", "label.pyramid-uid", put("PyramidUID", "2.25.5", "label")),
    Mutation("the thumbnail is as large as a level", "label.thumbnail-size", partial(copy_level, change=as_thumbnail)),
)
_PRIVACY = (
    Mutation("the label claims to identify nobody", "privacy.claim", on("all", claims_anonymity)),
    Mutation(
        "a frame's comment holds a field of the slide",
        "privacy.source-value",
        frames("overview", comment),
        with_source=True,
    ),
    Mutation(
        "an attribute holds a field of the slide",
        "privacy.source-value",
        put("ImageComments", "scan b414003d-95c6-48b0-9369-8010ed517ba7", "base"),
        with_source=True,
    ),
    Mutation("there is a private attribute", "privacy.private-tag", on("middle", private)),
    Mutation("a description names a person", "privacy.person-name", put("PatientName", "Roe^Jane")),
    Mutation("a description holds a date", "privacy.date", put("ImageComments", "seen on 1950-01-17", "base")),
    Mutation("a description holds a number", "privacy.record-number", put("ImageComments", "MRN 00123456", "base")),
    Mutation("a date of birth is given", "privacy.date", put("PatientBirthDate", "19500117")),
)
_PLAUSIBILITY = (
    Mutation("the study is of a day that was not", "date.impossible", put("StudyDate", "20230230")),
    Mutation("the scan is of a day that was not", "date.impossible", put("AcquisitionDateTime", "20230230101010")),
    Mutation("the patient is born after the study", "date.birth", put("PatientBirthDate", "20300101")),
    Mutation("the scan is older than scanners", "date.early", put("AcquisitionDateTime", "19850101101010")),
    Mutation(
        "the specimen has no type", "specimen.no-type", drop("SpecimenDescriptionSequence.SpecimenTypeCodeSequence")
    ),
    Mutation("the operator is named", "privacy.identifying-attribute", put("OperatorsName", "Roe^Jane")),
    Mutation("a name contradicts the claim", "privacy.claim", on("all", claims_anonymity_of_a_named_one)),
)
_STORES = (Mutation("frames are HTJ2K", "idc.transfer-syntax", lambda _broken: None, "htj2k", profile="idc"),)

MUTATIONS = (
    *_FILES,
    *_FRAMES,
    *_MODULES,
    *_VALUES,
    *_PYRAMID,
    *_CONSISTENCY,
    *_COLOUR,
    *_LOSSY,
    *_ASSOCIATED,
    *_PRIVACY,
    *_PLAUSIBILITY,
    *_STORES,
)
