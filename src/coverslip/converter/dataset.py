"""The DICOM header of every instance of a series: VL Whole Slide Microscopy Image IOD (PS3.3 A.32.8).

What all instances share is built once; each instance adds what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from unicodedata import category

from pydicom import config as pydicom_config
from pydicom import dcmwrite
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import VR

from coverslip.converter.sources.base import OpticalPath, SlideMetadata
from coverslip.converter.uids import OUTPUT_FORMAT, UUID_ROOT, derive_uid
from coverslip.errors import UsageError
from coverslip.metadata_maps import codes
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.computed import is_computed
from coverslip.metadata_maps.deid.claims import NOTHING_CLAIMED, DeidClaims
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.grid import TileGrid

__all__ = [
    "ABSENT_DATETIME",
    "InstanceDescription",
    "SeriesDescription",
    "SeriesIdentity",
    "add_specimen",
    "build_instance_dataset",
    "build_series_dataset",
    "check_attributes",
    "code_item",
    "encode_dataset",
    "encode_header",
    "format_decimal",
    "set_attribute",
    "set_deidentification",
]

ABSENT_DATETIME = "19000101000000"
"""Acquisition DateTime where the slide has none: required by the IOD, never taken from a clock."""

NOMINAL_ORIGIN_MM = (20.0, 40.0)
"""(X, Y) of the first pixel where the slide does not tell: amid the 25 x 75 mm slide."""

NOMINAL_DEPTH_UM = 1.0
"""Imaged Volume Depth and Slice Thickness where the scanner gives no depth of field: zero is not conformant."""

LABEL_ON_THE_LEFT = [0, -1, 0, -1, 0, 0]
"""Image Orientation (Slide): rows run along -Y, columns along -X."""

WSI_STORAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
WHITE_CIELAB = [0xFFFF, 0x8080, 0x8080]
UNKNOWN = "Unknown"

_OPTICAL_PATH_KEYWORDS = ("ObjectiveLensPower", "ObjectiveLensNumericalAperture")
_SPECIMEN_KEYWORDS = ("SpecimenIdentifier", "SpecimenShortDescription", "SpecimenDetailedDescription")
_NEVER_EMPTY = frozenset(
    (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "ContainerIdentifier",
        "SpecimenIdentifier",
        "AcquisitionDateTime",
        "ContentDate",
        "ContentTime",
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
    )
)
"""Type 1 attributes that the user may set."""
_ENUMERATED = {"PatientSex": ("M", "F", "O")}
"""Values of attributes that the IOD leaves no other (PS3.3 C.7.1.1)."""
_LONGEST_RESTRICTED = {"StationName": 16, "ImageComments": 10240}
_NUMBERS: Mapping[str, type[int | float]] = {
    **dict.fromkeys((VR.SS, VR.SL, VR.SV, VR.US, VR.UL, VR.UV), int),
    **dict.fromkeys((VR.FL, VR.FD), float),
}


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """UIDs and identifiers that all instances of a series share."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    acquisition_uid: str
    pyramid_uid: str
    dimension_organization_uid: str
    specimen_uid: str
    container_identifier: str


@dataclass(frozen=True, slots=True)
class SeriesDescription:
    """What the shared part of the headers is built from.

    Parameters
    ----------
    identity : SeriesIdentity
    metadata : SlideMetadata
        De-identified.
    optical_paths : tuple of OpticalPath
    focal_planes : int
    base_size : tuple of int
        (rows, columns) of the base level.
    base_spacing_mm : tuple of float
        (row, column).
    origin_mm : tuple of float or None
        (X, Y) of the first pixel in the slide coordinate system.
    icc_profile : bytes or None
        Input class; None for monochrome.
    deid : DeidClaims
    series_number : int
    lowest_plane_um : float
        Z of the first focal plane.
    orientation : tuple of float or None
        Image Orientation (Slide); None for the label on the left.
    """

    identity: SeriesIdentity
    metadata: SlideMetadata
    optical_paths: tuple[OpticalPath, ...]
    focal_planes: int
    base_size: tuple[int, int]
    base_spacing_mm: tuple[float, float]
    origin_mm: tuple[float, float] | None
    icc_profile: bytes | None
    deid: DeidClaims = NOTHING_CLAIMED
    series_number: int = 1
    lowest_plane_um: float = 0.0
    orientation: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class InstanceDescription:
    """What one instance adds.

    Parameters
    ----------
    sop_instance_uid : str
    instance_number : int
    image_type : tuple of str
    grid : TileGrid
    frame_format : FrameFormat
    pixel_spacing_mm : tuple of float or None
        (row, column); None for a label or overview of unknown scale.
    earlier_lossy : tuple of (str, float)
        Method and ratio of each lossy compression before this instance's own.
    derivation : tuple of Code
    derivation_description : str
    shows_label : bool
        Whether the slide's label can be read in the picture.
    barcode : str
        Of the label, if the de-identification policy lets it out.
    origin_mm : tuple of float or None
        (X, Y) of the first pixel in the slide coordinate system; None for the pyramid's.
    plane_spacing_um : float or None
        From one focal plane to the next; None where there is one.
    """

    sop_instance_uid: str
    instance_number: int
    image_type: tuple[str, ...]
    grid: TileGrid
    frame_format: FrameFormat
    pixel_spacing_mm: tuple[float, float] | None
    earlier_lossy: tuple[tuple[str, float], ...] = ()
    derivation: tuple[Code, ...] = ()
    derivation_description: str = ""
    shows_label: bool = False
    barcode: str = ""
    origin_mm: tuple[float, float] | None = None
    plane_spacing_um: float | None = None

    @property
    def flavor(self) -> str:
        """VOLUME, THUMBNAIL, LABEL or OVERVIEW."""
        return self.image_type[2]


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Check what the user sets with ``--set`` before any work is done.

    Raises
    ------
    UsageError
        If a keyword is not in the data dictionary, is computed from the pixels, or the value does not fit its VR or is
        empty where it must not be.
    """
    for keyword, text in attributes.items():
        set_attribute(Dataset(), keyword, text)


def build_series_dataset(series: SeriesDescription) -> Dataset:
    """Return the attributes that all instances of a series share."""
    identity, metadata = series.identity, series.metadata
    acquired = _format_datetime(metadata)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = WSI_STORAGE
    ds.Modality = "SM"
    # Patient and General Study: empty until a curator's table says more.
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID = identity.study_instance_uid
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.SeriesInstanceUID = identity.series_instance_uid
    ds.SeriesNumber = series.series_number
    ds.FrameOfReferenceUID = identity.frame_of_reference_uid
    ds.PositionReferenceIndicator = "SLIDE_CORNER"
    set_deidentification(ds, series.deid)
    # Enhanced General Equipment wants a value for each.
    ds.Manufacturer = _long_string(metadata.manufacturer)
    ds.ManufacturerModelName = _long_string(metadata.manufacturer_model_name)
    ds.DeviceSerialNumber = _long_string(metadata.device_serial_number)
    ds.SoftwareVersions = [_long_string(version) for version in metadata.software_versions] or UNKNOWN
    ds.AcquisitionUID = identity.acquisition_uid
    ds.AcquisitionDateTime = acquired
    ds.ContentDate, ds.ContentTime = acquired[:8], acquired[8:14]
    if metadata.acquisition_datetime is not None:
        ds.SeriesDate, ds.SeriesTime = ds.ContentDate, ds.ContentTime
    ds.AcquisitionContextSequence = Sequence()
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=identity.dimension_organization_uid)]
    add_specimen(ds, identity.container_identifier, identity.specimen_uid)
    _add_geometry(ds, series)
    _add_optical_paths(ds, series)
    ds.ContributingEquipmentSequence = [
        _item(
            PurposeOfReferenceCodeSequence=[code_item(codes.MODIFYING_EQUIPMENT)],
            Manufacturer="coverslip",
            ManufacturerModelName="coverslip",
            # Not the program's version, which changes without changing the output.
            SoftwareVersions=f"output format {OUTPUT_FORMAT}",
            ContributionDescription="Conversion of the whole slide image to DICOM",
        )
    ]
    for keyword, text in metadata.restricted.items():
        if keyword != "BarcodeValue":  # stands with the pictures of the label
            setattr(ds, keyword, _long_string(text, "", _LONGEST_RESTRICTED.get(keyword, 64)))
    return ds


def build_instance_dataset(shared: Dataset, instance: InstanceDescription) -> Dataset:
    """Return the whole header of one instance, without its pixel data and lossy compression ratio.

    `shared` is not changed; the items of its sequences are referred to, not copied.
    """
    ds = Dataset()
    # Elements of its own: assigning to one that is shared would change it in every instance.
    ds.update({element.tag: copy(element) for element in shared})
    grid, pixels = instance.grid, instance.frame_format
    ds.ImageType = list(instance.image_type)
    ds.SOPInstanceUID = instance.sop_instance_uid
    ds.InstanceNumber = instance.instance_number
    ds.BurnedInAnnotation = "NO"
    ds.SpecimenLabelInImage = "NO"
    ds.VolumetricProperties = "VOLUME"
    ds.SamplesPerPixel = pixels.samples_per_pixel
    ds.PhotometricInterpretation = pixels.photometric_interpretation
    if pixels.samples_per_pixel > 1:
        ds.PlanarConfiguration = 0
    else:
        ds.PresentationLUTShape = "IDENTITY"
        ds.RescaleIntercept, ds.RescaleSlope = 0, 1
    ds.NumberOfFrames = grid.number_of_frames
    ds.Rows, ds.Columns = grid.rows, grid.columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = pixels.bits_allocated, pixels.bits_stored, pixels.bits_stored - 1
    ds.PixelRepresentation = 0
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = grid.total_pixel_matrix_rows, grid.total_pixel_matrix_columns
    ds.LossyImageCompression = "01" if instance.earlier_lossy or pixels.lossy_method else "00"
    methods = [method for method, _ in instance.earlier_lossy]
    if pixels.lossy_method:
        methods.append(pixels.lossy_method)
    if methods:
        ds.LossyImageCompressionMethod = methods
    if instance.derivation:
        ds.DerivationCodeSequence = [code_item(code) for code in instance.derivation]
    if instance.derivation_description:
        ds.DerivationDescription = instance.derivation_description
    measures = _item(SliceThickness=format_decimal(NOMINAL_DEPTH_UM / 1000))
    if instance.plane_spacing_um is not None and grid.focal_planes > 1:
        measures.SpacingBetweenSlices = format_decimal(instance.plane_spacing_um / 1000)
    if instance.pixel_spacing_mm is not None:
        measures.PixelSpacing = [format_decimal(value) for value in instance.pixel_spacing_mm]
    groups = _item(
        PixelMeasuresSequence=[measures],
        WholeSlideMicroscopyImageFrameTypeSequence=[_item(FrameType=list(instance.image_type))],
    )
    if grid.optical_paths == 1:
        identifier = ds.OpticalPathSequence[0].OpticalPathIdentifier
        groups.OpticalPathIdentificationSequence = [_item(OpticalPathIdentifier=identifier)]
    ds.SharedFunctionalGroupsSequence = [groups]
    if instance.flavor in ("LABEL", "OVERVIEW"):
        _make_outside_the_pyramid(ds, instance)
    elif "PyramidUID" not in ds:
        raise ValueError("a volume or thumbnail needs a pyramid UID")
    return ds


def _make_outside_the_pyramid(ds: Dataset, instance: InstanceDescription) -> None:
    """Change what differs in a label or overview: they show the slide's label, and not the scanned volume."""
    ds.SpecimenLabelInImage = "YES"  # as it must be, be the label painted over or not
    ds.BurnedInAnnotation = "YES" if instance.shows_label else "NO"
    del ds.PyramidUID
    if instance.pixel_spacing_mm is None:
        del ds.ImagedVolumeWidth, ds.ImagedVolumeHeight, ds.ImagedVolumeDepth
    else:
        ds.ImagedVolumeHeight = ds.TotalPixelMatrixRows * instance.pixel_spacing_mm[0]
        ds.ImagedVolumeWidth = ds.TotalPixelMatrixColumns * instance.pixel_spacing_mm[1]
    if instance.origin_mm is not None:
        ds.TotalPixelMatrixOriginSequence = [_origin_item(*instance.origin_mm)]
    ds.setdefault("BarcodeValue", _long_string(instance.barcode, ""))
    ds.setdefault("LabelText", "")


def encode_header(ds: Dataset, instance: InstanceDescription, ratio: float | None) -> bytes:
    """Return preamble, file meta information and data set up to the pixel data.

    Parameters
    ----------
    ds : Dataset
        From `build_instance_dataset` of the same instance; its Lossy Image Compression Ratio is set.
    instance : InstanceDescription
    ratio : float or None
        Of the instance's own lossy compression; its text has the same length whatever the value.
    """
    ratios = [earlier for _, earlier in instance.earlier_lossy] + ([] if ratio is None else [ratio])
    if ratios:
        ds.LossyImageCompressionRatio = [_ratio(value) for value in ratios]
    return encode_dataset(ds, instance.frame_format.transfer_syntax_uid)


def encode_dataset(ds: Dataset, transfer_syntax_uid: str) -> bytes:
    """Return preamble, file meta information and a data set that lacks nothing but its pixel data."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(derive_uid(UUID_ROOT, "coverslip", "implementation class"))
    meta.ImplementationVersionName = "COVERSLIP"
    # The data set is written by the rules of explicit VR little endian, which all our transfer syntaxes share.
    ds.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def format_decimal(value: float) -> str:
    """Return a Decimal String (PS3.5 6.2) of at most 16 characters, to 12 decimals.

    Doubling a length that was rounded to 12 decimals stays exact, so each derived level's spacing is its base's times
    a power of two to the last digit.
    """
    text = f"{value:.12f}".rstrip("0").rstrip(".")
    if len(text) > 16:
        raise ValueError(f"{value} does not fit a Decimal String")
    return text


def _ratio(ratio: float) -> str:
    """Return a compression ratio in six characters, whatever its size, so that a header can be filled in later."""
    if ratio >= 999999.5:
        return "999999"
    whole = len(str(int(ratio)))
    text = f"{ratio:.{max(0, 5 - whole)}f}"
    return text[:6].rjust(6, "0")


def _format_datetime(metadata: SlideMetadata) -> str:
    acquired = metadata.acquisition_datetime
    if acquired is None:
        return ABSENT_DATETIME
    return acquired.strftime("%Y%m%d%H%M%S") + acquired.strftime("%z").replace(":", "")


def _long_string(text: str | None, absent: str = UNKNOWN, longest: int = 64) -> str:
    """Return text of the slide's file as a Long String (PS3.5 6.2): 64 characters, none of control, no backslash."""
    allowed = "".join(character for character in text or "" if character.isprintable() and character != "\\")
    return allowed.strip()[:longest].strip() or absent


def set_deidentification(ds: Dataset, deid: DeidClaims) -> None:
    """Say what was done for the patient's privacy (PS3.3 C.7.1.1, C.12.1.1.7), and nothing else."""
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"):
        ds.pop(keyword, None)
    if deid.longitudinal:
        ds.LongitudinalTemporalInformationModified = deid.longitudinal
    if deid.patient_identity_removed:
        # Else absent, not NO: the slides of a patient must not contradict each other, and some may show their label.
        ds.PatientIdentityRemoved = "YES"
        ds.DeidentificationMethod = deid.method
        ds.DeidentificationMethodCodeSequence = [code_item(code) for code in deid.codes]


def add_specimen(ds: Dataset, container_identifier: str, specimen_uid: str) -> None:
    """Add the Specimen Module (PS3.3 C.7.6.22): one slide holding one specimen of which nothing more is known."""
    ds.ContainerIdentifier = container_identifier
    ds.IssuerOfTheContainerIdentifierSequence = Sequence()
    ds.ContainerTypeCodeSequence = [code_item(codes.MICROSCOPE_SLIDE)]
    ds.SpecimenDescriptionSequence = [
        _item(
            SpecimenIdentifier=container_identifier,
            IssuerOfTheSpecimenIdentifierSequence=Sequence(),
            SpecimenUID=specimen_uid,
            SpecimenTypeCodeSequence=[code_item(codes.SLIDE)],
            SpecimenPreparationSequence=Sequence(),
        )
    ]


def _add_geometry(ds: Dataset, series: SeriesDescription) -> None:
    """Add what the Whole Slide Microscopy Image Module says of place and extent (PS3.3 C.8.12.4)."""
    ds.PyramidUID = series.identity.pyramid_uid
    # The same on every level: the volume imaged does not shrink with the resolution.
    ds.ImagedVolumeHeight = series.base_size[0] * series.base_spacing_mm[0]
    ds.ImagedVolumeWidth = series.base_size[1] * series.base_spacing_mm[1]
    ds.ImagedVolumeDepth = NOMINAL_DEPTH_UM
    ds.ImageOrientationSlide = [format_decimal(cosine) for cosine in series.orientation or LABEL_ON_THE_LEFT]
    ds.TotalPixelMatrixOriginSequence = [_origin_item(*(series.origin_mm or NOMINAL_ORIGIN_MM), series.lowest_plane_um)]
    ds.TotalPixelMatrixFocalPlanes = series.focal_planes
    ds.NumberOfOpticalPaths = len(series.optical_paths)
    ds.FocusMethod = series.metadata.focus_method
    ds.ExtendedDepthOfField = "NO"
    ds.RecommendedAbsentPixelCIELabValue = WHITE_CIELAB


def _origin_item(x_mm: float, y_mm: float, z_um: float = 0.0) -> Dataset:
    return _item(
        XOffsetInSlideCoordinateSystem=format_decimal(round(x_mm, 6)),
        YOffsetInSlideCoordinateSystem=format_decimal(round(y_mm, 6)),
        ZOffsetInSlideCoordinateSystem=format_decimal(z_um),
    )


def _add_optical_paths(ds: Dataset, series: SeriesDescription) -> None:
    """Add the Optical Path Module (PS3.3 C.8.12.5)."""
    items = []
    for path in series.optical_paths:
        bright = path.illumination == "brightfield"
        item = _item(
            OpticalPathIdentifier=path.identifier,
            IlluminationTypeCodeSequence=[
                code_item(codes.BRIGHTFIELD_ILLUMINATION if bright else codes.EPIFLUORESCENCE_ILLUMINATION)
            ],
        )
        if path.description:
            item.OpticalPathDescription = path.description
        if path.illumination_wave_length_nm is not None:
            item.IlluminationWaveLength = path.illumination_wave_length_nm
        else:
            item.IlluminationColorCodeSequence = [code_item(codes.FULL_SPECTRUM if bright else codes.NARROW_SPECTRUM)]
        if path.filter_pass_through_wave_length_nm is not None:
            item.LightPathFilterPassThroughWavelength = round(path.filter_pass_through_wave_length_nm)
        if series.icc_profile is not None:
            item.ICCProfile = series.icc_profile + bytes(len(series.icc_profile) % 2)
        if series.metadata.objective_lens_power is not None:
            # "40", not "40.0": indexes cast the text to an integer.
            item.ObjectiveLensPower = format_decimal(series.metadata.objective_lens_power)
        if series.metadata.objective_lens_numerical_aperture is not None:
            item.ObjectiveLensNumericalAperture = format_decimal(series.metadata.objective_lens_numerical_aperture)
        items.append(item)
    ds.OpticalPathSequence = items


def set_attribute(ds: Dataset, keyword: str, text: str) -> None:
    """Set one of the user's attributes where it belongs: in the data set, its optical paths or its specimens."""
    tag = tag_for_keyword(keyword) if keyword else None
    if tag is None:
        raise UsageError(f"--set {keyword}: not a keyword of the DICOM data dictionary")
    if keyword in _OPTICAL_PATH_KEYWORDS:
        targets = list(ds.get("OpticalPathSequence", [Dataset()]))
    elif keyword in _SPECIMEN_KEYWORDS:
        targets = list(ds.get("SpecimenDescriptionSequence", [Dataset()]))
    elif is_computed(keyword, tag):
        raise UsageError(f"--set {keyword}: this attribute follows from the slide and cannot be set")
    else:
        targets = [ds]
    if keyword in _NEVER_EMPTY and not text.strip():
        raise UsageError(f"--set {keyword}: needs a value")
    vr = dictionary_VR(tag)
    lines = "\t\n\f\r" if vr in (VR.ST, VR.LT, VR.UT) else ""
    # Lone surrogates (Cs) stand for bytes of the command line that are not UTF-8.
    if any(category(character) in ("Cc", "Cs") and character not in lines for character in text):
        raise UsageError(f"--set {keyword}: wanted text without control characters, in UTF-8")
    value = _parse_value(keyword, vr, text)
    try:
        element = DataElement(tag, vr, value, validation_mode=pydicom_config.RAISE)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"--set {keyword}: {str(error).splitlines()[0]}") from None
    if text and text not in _ENUMERATED.get(keyword, (text,)):
        raise UsageError(f"--set {keyword}: wanted {', '.join(_ENUMERATED[keyword])} or nothing")
    count, wanted = len(value) if isinstance(value, list) else 1, dictionary_VM(tag)
    if text and not _may_have(count, wanted):
        raise UsageError(f"--set {keyword}: number of values, parted by backslashes, is {count}, wanted {wanted}")
    for target in targets:
        target[tag] = element


def _parse_value(keyword: str, vr: str, text: str) -> Any:
    """Turn the text of ``--set`` into a value of a VR; several values are parted by a backslash (PS3.5 6.4)."""
    if vr in (VR.SQ, VR.OB, VR.OW, VR.OD, VR.OF, VR.OL, VR.OV, VR.UN, VR.AT):
        raise UsageError(f"--set {keyword}: a value of type {vr} cannot be given as text")
    parts: list[Any] = text.split("\\") if vr not in (VR.ST, VR.LT, VR.UT) else [text]
    if vr in _NUMBERS:
        try:
            parts = [_NUMBERS[vr](part) for part in parts]
        except ValueError:
            raise UsageError(f"--set {keyword}: {text!r} is not a number") from None
    elif vr == VR.PN:
        # A name of one component is the family name, and says so (PS3.5 6.2.1).
        parts = [f"{part}^" if part.strip() and not set(part) & set("^=") else part for part in parts]
    return parts if len(parts) > 1 else parts[0]


def _may_have(count: int, multiplicity: str) -> bool:
    """Say whether so many values fit a Value Multiplicity such as ``1``, ``1-3``, ``1-n`` or ``2-2n`` (PS3.5 6.4)."""
    least, _, most = multiplicity.rpartition("-")
    if most.endswith("n"):
        return count >= int(least) and count % int(most[:-1] or 1) == 0
    return int(least or most) <= count <= int(most)


def _item(**attributes: Any) -> Dataset:
    """Return a sequence item with the given attributes."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def code_item(code: Code) -> Dataset:
    """Return a coded concept as the item of a code sequence."""
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)
