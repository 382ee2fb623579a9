"""Every rule that `coverslip validate` knows: the ids, what they mean and what they rest on (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coverslip.validators.report import Finding, Severity

__all__ = ["RULES", "Rule", "finding", "rules_page"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Parameters
    ----------
    id : str
        Stable; the part before the dot is the subject.
    severity : Severity
    title : str
        What is wrong, in a few words.
    reference : str
        Section of the standard or document the rule rests on.
    explanation : str
        Why it matters, and what to do.
    """

    id: str
    severity: Severity
    title: str
    reference: str
    explanation: str = ""


_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

_ALL = (
    Rule("validator.failed", _ERROR, "A check could not be made", "", "The file is damaged in a way no rule foresees."),
    Rule(
        "validator.dependency",
        _WARNING,
        "A check was left out because a library is missing",
        "",
        "`pip install coverslip[validate]`",
    ),
    Rule("part10.unreadable", _ERROR, "The file is no DICOM file, or its header breaks off", "PS3.10 7.1"),
    Rule("part10.element", _ERROR, "The value of an element cannot be read", "PS3.5 6.2, 7.1"),
    Rule("part10.meta-missing", _ERROR, "A required attribute of the file meta information is absent", "PS3.10 7.1"),
    Rule(
        "part10.group-length",
        _ERROR,
        "The length of the file meta information is wrong",
        "PS3.10 7.1",
        "Readers that trust it start the data set in the wrong place.",
    ),
    Rule("part10.sop-class", _ERROR, "File meta information and data set name different SOP classes", "PS3.10 7.1"),
    Rule(
        "part10.sop-instance",
        _ERROR,
        "File meta information and data set hold different SOP instance UIDs",
        "PS3.10 7.1",
        "Stores file it under the one and answer for the other.",
    ),
    Rule("part10.transfer-syntax", _ERROR, "The transfer syntax is none of DICOM", "PS3.6 A"),
    Rule("iod.missing", _ERROR, "A required attribute is absent", "PS3.3 A.32.8"),
    Rule("iod.empty", _ERROR, "An attribute that needs a value has none", "PS3.3 A.32.8"),
    Rule("iod.not-allowed", _ERROR, "An attribute is present where its condition does not hold", "PS3.3 A.32.8"),
    Rule("iod.term", _ERROR, "A value is none of the enumerated ones", "PS3.3 A.32.8"),
    Rule("iod.value", _ERROR, "A value does not fit its value representation or multiplicity", "PS3.5 6.2"),
    Rule("iod.other", _ERROR, "Another error that dciodvfy tells", "PS3.3 A.32.8"),
    Rule("iod.remark", _WARNING, "A warning of dciodvfy", "PS3.3 A.32.8"),
    Rule("date.impossible", _ERROR, "A date that no calendar has, or no date at all", "PS3.5 6.2"),
    Rule("date.birth", _ERROR, "The patient is born after the study or scan", "PS3.3 C.7.1.1"),
    Rule(
        "date.early",
        _WARNING,
        "The slide was scanned before there were scanners",
        "PS3.3 C.8.12.4",
        "1900-01-01 stands for a date that is not known, and is not told.",
    ),
    Rule(
        "specimen.no-type",
        _WARNING,
        "A specimen has no Specimen Type Code Sequence",
        "PS3.3 C.7.6.22",
        "The standard leaves it optional; newer profiles and the search for slides want it: SCT 1179252003, Slide.",
    ),
    Rule("frames.no-pixel-data", _ERROR, "There are no pixel data", "PS3.3 C.7.6.3"),
    Rule("frames.functional-groups", _ERROR, "Per-frame items and frames differ in number", "PS3.3 C.7.6.16"),
    Rule(
        "frames.tiled-full-count",
        _ERROR,
        "A TILED_FULL image has not one frame for each tile",
        "PS3.3 C.7.6.17.3",
        "Readers compute positions from the number of tiles: all frames after the gap are shown in wrong places.",
    ),
    Rule("frames.position", _ERROR, "A frame lies outside the matrix, or two in one place", "PS3.3 C.8.12.6.1"),
    Rule("frames.native-length", _ERROR, "The length of the pixel data is not what the frames take", "PS3.5 8.1.1"),
    Rule("frames.truncated", _ERROR, "The file ends within its pixel data", "PS3.5 A.4", "Get the whole file."),
    Rule("frames.empty", _ERROR, "A frame of no bytes", "PS3.5 A.4"),
    Rule(
        "frames.padding", _ERROR, "A frame is not padded to an even number of bytes, or padded otherwise", "PS3.5 A.4"
    ),
    Rule("frames.item-count", _ERROR, "Items and Number of Frames differ", "PS3.5 A.4"),
    Rule(
        "frames.fragments",
        _WARNING,
        "Frames are of several fragments",
        "PS3.5 A.4",
        "Allowed, but many viewers read one fragment per frame.",
    ),
    Rule(
        "frames.offset-table",
        _ERROR,
        "An offset table does not fit the items",
        "PS3.5 A.4, PS3.3 C.7.6.3.1.8",
        "Readers that trust it show the wrong frames.",
    ),
    Rule("frames.trailing", _ERROR, "Bytes follow the pixel data that are no element", "PS3.10 7.2"),
    Rule("frames.transfer-syntax", _ERROR, "A codestream is not what the transfer syntax says", "PS3.5 10"),
    Rule("frames.size", _ERROR, "A codestream has another size than Rows and Columns", "PS3.5 8.2"),
    Rule("frames.samples", _ERROR, "A codestream has other components or bits than the header says", "PS3.5 8.2"),
    Rule(
        "frames.photometric",
        _ERROR,
        "The photometric interpretation is not what the codestream holds",
        "PS3.3 C.8.12.4.1.1, PS3.5 8.2",
        "Readers show wrong colours.",
    ),
    Rule(
        "frames.rgb-unmarked",
        _WARNING,
        "An RGB JPEG does not say that it is one",
        "PS3.5 8.2.1",
        "Readers that do not pass the photometric interpretation to the decoder show wrong colours.",
    ),
    Rule("frames.corrupt", _ERROR, "A frame cannot be decoded", "PS3.5 8.2"),
    Rule("frames.not-decoded", _WARNING, "There is no decoder for the transfer syntax, so frames were not decoded", ""),
)

_FIDELITY = (
    Rule("pyramid.no-volume", _WARNING, "The series has no VOLUME image", "PS3.3 C.8.12.4.1.1"),
    Rule(
        "pyramid.duplicate-level",
        _ERROR,
        "Two levels of one size and optical path",
        "PS3.3 C.7.6.28",
        "Viewers refuse the slide or show either.",
    ),
    Rule("pyramid.order", _ERROR, "A level is smaller than another on one side only", "PS3.3 C.7.6.28"),
    Rule("pyramid.no-spacing", _ERROR, "A level has no Pixel Spacing", "PS3.3 C.7.6.16.2.1"),
    Rule(
        "pyramid.imaged-volume",
        _ERROR,
        "Imaged Volume Width or Height is not size times spacing, to within a pixel",
        "PS3.3 C.8.12.4.1.2",
    ),
    Rule(
        "pyramid.spacing",
        _ERROR,
        "A level does not take as much of the slide as the base, to within a pixel",
        "PS3.3 C.7.6.28",
        "Spacing or size is wrong; measurements and overlays are off.",
    ),
    Rule(
        "pyramid.image-type",
        _WARNING,
        "Image Type says wrongly which level is resampled",
        "PS3.3 C.8.12.4.1.1",
        "Viewers warn unless exactly one level is not RESAMPLED.",
    ),
    Rule(
        "pyramid.content",
        _ERROR,
        "A level shows something else than the next one does",
        "PS3.3 C.7.6.28",
        "Frames may be swapped, blank or turned. Both are blurred first, so that filters tell nothing.",
    ),
    Rule(
        "pyramid.missing-tile",
        _WARNING,
        "A frame is blank where the slide holds no tile, and the next level shows something there",
        "",
        "The scanner left a tile out of one level only: `conversion.json` or the slide tells that there is none. "
        "Whoever reads the level sees background there.",
    ),
    Rule("series.duplicate-instance", _ERROR, "Two files have one SOP Instance UID", "PS3.3 C.12.1"),
    Rule("series.patient", _ERROR, "The instances are of different patients", "PS3.3 C.7.1.1"),
    Rule("series.study", _ERROR, "The instances differ in an attribute of the study", "PS3.3 C.7.2.1"),
    Rule("series.series", _ERROR, "The instances differ in an attribute of the series", "PS3.3 C.7.3.1"),
    Rule("series.equipment", _ERROR, "The instances differ in their equipment", "PS3.3 C.7.5.1"),
    Rule(
        "series.container",
        _ERROR,
        "The instances are of different containers",
        "PS3.3 C.7.6.22",
        "Viewers group by it: the slide falls apart.",
    ),
    Rule(
        "series.frame-of-reference",
        _ERROR,
        "The levels are in different frames of reference",
        "PS3.3 C.7.4.1",
        "Viewers group by it: the slide falls apart.",
    ),
    Rule(
        "series.acquisition",
        _ERROR,
        "The levels are of different acquisitions",
        "PS3.3 C.8.12.4",
        "Viewers group by it: the slide falls apart.",
    ),
    Rule("series.specimen", _ERROR, "The levels show different specimens", "PS3.3 C.7.6.22"),
    Rule("series.pyramid-uid", _ERROR, "The levels are of different pyramids", "PS3.3 C.7.6.28"),
    Rule("series.orientation", _ERROR, "The levels are oriented differently", "PS3.3 C.8.12.4"),
    Rule("series.origin", _ERROR, "The levels start at different points of the slide", "PS3.3 C.8.12.4"),
    Rule("series.optical-path", _ERROR, "The levels describe an optical path differently", "PS3.3 C.8.12.5"),
    Rule("series.instance-number", _WARNING, "Two instances have one instance number", "PS3.3 C.7.6.1"),
    Rule("study.study", _ERROR, "The series of a study differ in an attribute of the study", "PS3.3 C.7.2.1"),
    Rule(
        "study.patient",
        _ERROR,
        "The series of a study or patient differ in an attribute of the patient",
        "PS3.3 C.7.1.1",
    ),
    Rule("study.duplicate-instance", _ERROR, "Instances of two series have one SOP Instance UID", "PS3.3 C.12.1"),
    Rule("color.icc-damaged", _ERROR, "An ICC profile is damaged", "PS3.3 C.11.15"),
    Rule("color.icc-class", _ERROR, "An ICC profile is not of input class", "PS3.3 C.11.15"),
    Rule("color.icc-space", _ERROR, "An ICC profile is not one of RGB", "PS3.3 C.11.15"),
    Rule("color.icc-connection", _ERROR, "An ICC profile leads neither to XYZ nor to Lab", "PS3.3 C.11.15"),
    Rule(
        "color.icc-levels",
        _ERROR,
        "Some colour levels have an ICC profile and some have none",
        "PS3.3 C.8.12.5",
        "Colours change when zooming, and viewers refuse the slide.",
    ),
    Rule(
        "color.icc-differs",
        _WARNING,
        "Levels have different ICC profiles",
        "PS3.3 C.8.12.5",
        "Colours change when zooming.",
    ),
    Rule("lossy.flag", _ERROR, "Lossily compressed frames are said to be without loss", "PS3.3 C.7.6.1.1.5"),
    Rule(
        "lossy.history",
        _ERROR,
        "A level made from a lossy one is said to be without loss",
        "PS3.3 C.7.6.1.1.5",
        "Once lossy, always lossy.",
    ),
    Rule("lossy.values", _ERROR, "Methods and ratios do not belong together", "PS3.3 C.7.6.1.1.5"),
    Rule(
        "lossy.method", _ERROR, "The last method of lossy compression is not that of the frames", "PS3.3 C.7.6.1.1.5.1"
    ),
    Rule(
        "lossy.ratio", _ERROR, "The compression ratio is not that of the bytes, to within 10 %", "PS3.3 C.7.6.1.1.5.2"
    ),
    Rule("label.several", _WARNING, "More than one label or overview", "PS3.3 C.8.12.4.1.1"),
    Rule("label.frames", _WARNING, "A label, overview or thumbnail of several frames", "PS3.3 C.8.12.4.1.1"),
    Rule("label.pyramid-uid", _WARNING, "A label or overview is said to be of the pyramid", "PS3.3 C.7.6.28"),
    Rule("label.not-in-image", _ERROR, "A label or overview is said not to show the label", "PS3.3 C.8.12.4"),
    Rule("label.burned-in", _WARNING, "A label is said to hold no burned in text", "PS3.3 C.7.6.1"),
    Rule(
        "label.thumbnail-size",
        _WARNING,
        "The thumbnail is not smaller than every level",
        "dicom-microscopy-viewer",
        "Viewers drop levels that are not larger than a thumbnail.",
    ),
    Rule("label.thumbnail-shape", _WARNING, "The thumbnail has other proportions than the base", "PS3.3 C.8.12.4.1.1"),
    Rule("reader.openslide-limits", _INFO, "OpenSlide 4 does not read such frames", "OpenSlide 4"),
    Rule(
        "reader.openslide",
        _ERROR,
        "OpenSlide does not open the series, or finds other levels",
        "OpenSlide 4",
        "In the profile `openslide` only.",
    ),
    Rule("store.uid", _ERROR, "A UID that stores file by is absent or none", "PS3.5 9.1"),
    Rule(
        "store.healthcare-native",
        _ERROR,
        "More than 2 GiB of uncompressed pixels, which the Healthcare API refuses",
        "Cloud Healthcare API",
        "In the profile `healthcare` only.",
    ),
    Rule(
        "idc.transfer-syntax",
        _ERROR,
        "A transfer syntax that the SQL of IDC's index refuses",
        "idc-index-data",
        "In the profile `idc` only: HTJ2K, RLE and near-lossless JPEG-LS among others.",
    ),
    Rule("idc.patient-id", _ERROR, "No Patient ID", "IDC", "In the profile `idc` only."),
    Rule(
        "idc.objective-power",
        _ERROR,
        "Objective Lens Power is no whole number",
        "IDC",
        "In the profile `idc` only: its tables cast it to an integer.",
    ),
    Rule("concatenation.parts", _ERROR, "Parts of a concatenation are missing or double", "PS3.3 C.7.6.16.2.2.4"),
    Rule("concatenation.differs", _ERROR, "Parts of a concatenation differ in what they share", "PS3.3 C.7.6.16.2.2.4"),
    Rule("concatenation.offset", _ERROR, "The frame offset of a part is wrong", "PS3.3 C.7.6.16.2.2.4"),
    Rule(
        "concatenation.frames",
        _ERROR,
        "The parts of a concatenation have not one frame for each tile",
        "PS3.3 C.7.6.17.3",
    ),
    Rule(
        "privacy.source-value",
        _ERROR,
        "An identifying text of the slide's own file stands in the series",
        "PS3.15 E.1",
        "With `--source`.",
    ),
    Rule(
        "privacy.table-value",
        _ERROR,
        "An identifying text of the curator's table stands in the series",
        "PS3.15 E.1",
        "`deid check` only.",
    ),
    Rule(
        "privacy.claim",
        _ERROR,
        "What shows the label, or names a person, says that the patient's identity is removed",
        "PS3.3 C.7.1.1",
    ),
    Rule(
        "privacy.identifying-attribute",
        _WARNING,
        "An attribute that names or locates a person has a value",
        "PS3.15 E.1",
        "An error, `privacy.claim`, if the patient's identity is said to be removed.",
    ),
    Rule(
        "privacy.label-image",
        _INFO,
        "An image shows the slide's label",
        "PS3.15 E.3.1",
        "Labels often hold names and numbers; whether this one does is for a person to see.",
    ),
    Rule("privacy.date", _WARNING, "A date outside the attributes of scan, study and series", "PS3.15 E.1"),
    Rule("privacy.person-name", _WARNING, "What looks like a person's name", "PS3.15 E.1"),
    Rule("privacy.record-number", _WARNING, "What looks like the number of a person or case", "PS3.15 E.1"),
    Rule("privacy.private-tag", _WARNING, "A private attribute of unknown meaning", "PS3.15 E.1"),
    Rule("privacy.pixel-metadata", _WARNING, "Frames hold comments or application data", "PS3.15 E.1"),
    Rule("privacy.preamble", _WARNING, "The preamble is not empty", "PS3.15 E.1"),
    Rule("privacy.tiff-tag", _WARNING, "The TIFF directory of a dual file says who, where or when", "PS3.15 E.1"),
    Rule(
        "fidelity.source-unreadable",
        _ERROR,
        "The slide given as the source cannot be read",
        "",
        "Nothing, or not everything, could be compared with it.",
    ),
    Rule(
        "fidelity.size",
        _ERROR,
        "The base has not the size of the slide",
        "PS3.3 C.8.12.4",
        "It was made from another slide or region, cropped, or turned.",
    ),
    Rule(
        "fidelity.spacing",
        _WARNING,
        "The base has not the spacing that the slide states",
        "PS3.3 10.7.1.3",
        "Right if the slide states nonsense and the spacing was given at the conversion; otherwise measurements are "
        "wrong.",
    ),
    Rule(
        "fidelity.frame-differs",
        _ERROR,
        "A frame that should be a copy of the slide's tile is none",
        "",
        "A level is held to be copied if it says so, if its base is ORIGINAL and lossy, or if most frames are copies.",
    ),
    Rule(
        "fidelity.lossless-differs",
        _ERROR,
        "A losslessly coded frame has not the slide's pixels",
        "",
        "Of a lossless slide the pixels are the same; of a lossy one, decoders may differ down to a PSNR of 45 dB.",
    ),
    Rule(
        "fidelity.pixels-differ",
        _ERROR,
        "A frame shows something else than the slide does there",
        "",
        "PSNR below 25 dB with structural similarity below 0.6, or PSNR below 20 dB, against the slide's pixels, or "
        "their 2x2 means for a reduced level.",
    ),
    Rule(
        "fidelity.orientation",
        _ERROR,
        "A level is mirrored or rotated",
        "PS3.3 C.8.12.4",
        "Its frames are those of the slide only when they are turned.",
    ),
    Rule(
        "fidelity.colour",
        _ERROR,
        "The colours are not those that OpenSlide reads from the slide",
        "",
        "Mean CIE 1976 colour difference above 8: often components of another colour space than the header states.",
    ),
    Rule(
        "fidelity.missing-tile-filled",
        _ERROR,
        "There is a picture where the slide holds no tile",
        "",
        "Frames may have been shifted.",
    ),
    Rule(
        "fidelity.missing-tiles",
        _INFO,
        "The slide holds no tile for some frames",
        "",
        "They are background.",
    ),
    Rule(
        "fidelity.not-compared",
        _WARNING,
        "A level could not be compared with the slide",
        "",
        "The slide has no level of that size, halved or not, or there is no decoder for the frames.",
    ),
    Rule(
        "fidelity.compared",
        _INFO,
        "A level has been compared with the slide",
        "",
        "How many frames, and how near they come.",
    ),
)

_DMV = "dicom-microscopy-viewer 0.48.24"
_SLIM = "Slim 0.46.10"

# What Slim and its viewer, dicom-microscopy-viewer, do with a series: facts about programs, not about the standard.
_VIEWER = (
    Rule(
        "viewer.missing-attribute",
        _ERROR,
        "An attribute is absent without which the viewer stops",
        _DMV,
        "The viewer reads it without asking whether it is there.",
    ),
    Rule(
        "viewer.preparation-code",
        _ERROR,
        "A specimen preparation step holds a code that Slim cannot read",
        _SLIM,
        "Slim's page fails at a code without Code Value, as one in Long Code Value is. Codes of at most 16 "
        "characters are shown.",
    ),
    Rule(
        "viewer.transfer-syntax",
        _ERROR,
        "The viewer cannot decode the transfer syntax",
        _DMV,
        "It decodes baseline JPEG, JPEG-LS, JPEG 2000 and uncompressed frames.",
    ),
    Rule(
        "viewer.frame-type",
        _ERROR,
        "The viewer takes the compression of a frame for another",
        _DMV,
        "It tells it from the first and last bytes: an uncompressed frame that happens to end with FFD9 is "
        "taken for JPEG 2000, a JPEG 2000 frame that does not end so for uncompressed pixels, a JPEG frame "
        "that begins with an APP8 segment for JPEG-LS. The frame stays blank or is noise.",
    ),
    Rule(
        "viewer.frame-depth",
        _ERROR,
        "Frames are coded with other than Bits Allocated bits",
        _DMV,
        "The viewer wants the codestream's precision to be 8 or 16 and shows no frame otherwise; 12 bits must"
        " be coded as 16.",
    ),
    Rule(
        "viewer.colors",
        _WARNING,
        "The viewer shows wrong colours",
        _DMV,
        "It converts what the decoder converts by itself and nothing else, whatever Photometric "
        "Interpretation says. Re-encode with a component transform.",
    ),
    Rule(
        "viewer.no-volume",
        _WARNING,
        "Slim does not show the series",
        _SLIM,
        "A slide needs a VOLUME or THUMBNAIL image in the same series as its label and overview.",
    ),
    Rule("viewer.frame-of-reference", _ERROR, "Levels have different frames of reference", _DMV, "The viewer stops."),
    Rule(
        "viewer.container",
        _ERROR,
        "Images of one slide name different containers",
        _DMV,
        "The viewer stops if it is a level; Slim tells an error if it is the label or overview.",
    ),
    Rule(
        "viewer.mixed-colors",
        _ERROR,
        "The pyramid mixes colour and monochrome images",
        _DMV,
        "The viewer stops; Slim drops images that have not the first one's samples per pixel.",
    ),
    Rule(
        "viewer.photometric",
        _ERROR,
        "An image has a photometric interpretation that the viewer leaves out",
        _DMV,
        "It takes RGB, any YBR and MONOCHROME2.",
    ),
    Rule(
        "viewer.thumbnail-unused",
        _INFO,
        "A thumbnail is not shown",
        _DMV,
        "A level is as wide, and the viewer takes that.",
    ),
    Rule(
        "viewer.thumbnail-hides-level",
        _WARNING,
        "A thumbnail hides levels that are narrower",
        _DMV,
        "The viewer leaves out levels narrower than the thumbnail. Leave the thumbnail out, or make it "
        "smaller than every level.",
    ),
    Rule(
        "viewer.no-pyramid",
        _WARNING,
        "There is only one level",
        _SLIM,
        "Slim warns: the slide is missing a multi-resolution pyramid.",
    ),
    Rule(
        "viewer.several-bases",
        _WARNING,
        "More than one image of an optical path is not RESAMPLED",
        _SLIM,
        "Slim warns; series merged by mistake look like this. Another scan needs its own frame of reference.",
    ),
    Rule(
        "viewer.focal-planes",
        _ERROR,
        "An image is combined from several focal planes",
        _DMV,
        "The viewer stops if Number of Focal Planes is above 1.",
    ),
    Rule(
        "viewer.focal-stack",
        _WARNING,
        "Focal planes are not shown",
        _DMV,
        "The viewer knows one focal plane; frames of the others are not asked for, or are taken for those of "
        "another channel.",
    ),
    Rule(
        "viewer.optical-path-identifier",
        _ERROR,
        "Levels of a colour slide differ in their Optical Path Identifier",
        _DMV,
        "The viewer takes them for different images and shows one of them.",
    ),
    Rule(
        "viewer.no-profile",
        _WARNING,
        "No level has an ICC profile",
        _DMV,
        "The viewer warns and shows colours as they are stored.",
    ),
    Rule(
        "viewer.profile-count",
        _ERROR,
        "Some levels have an ICC profile and some have none",
        _DMV,
        "The viewer wants one for every level or none at all; otherwise no frame is shown.",
    ),
    Rule(
        "viewer.channel-count",
        _ERROR,
        "The number of optical paths is wrong or differs between levels",
        _DMV,
        "The viewer stops.",
    ),
    Rule(
        "viewer.channel-pyramid",
        _ERROR,
        "Channels have different pyramids",
        _DMV,
        "To blend channels, the viewer wants the same number of levels, sizes, tiles and spacings of each.",
    ),
    Rule(
        "viewer.equal-sizes",
        _ERROR,
        "Two images of one channel have the same size",
        _DMV,
        "The viewer stops unless they are parts of a concatenation. Series of equal frame of reference and "
        "container are merged into one slide; Slim compares Acquisition UIDs too, but cannot read them.",
    ),
    Rule(
        "viewer.equal-widths",
        _WARNING,
        "Two levels have the same width",
        _DMV,
        "The viewer warns, and shows the smaller one in a wrong place.",
    ),
    Rule(
        "viewer.concatenation",
        _ERROR,
        "A concatenation is TILED_FULL",
        _DMV,
        "The viewer counts the frames of every part from the first tile and asks the last part for all of "
        "them. Write TILED_SPARSE, or one instance.",
    ),
    Rule(
        "viewer.split-slide",
        _WARNING,
        "Parts of a slide become slides of their own",
        _SLIM,
        "Slim merges series of equal frame of reference and container: these differ in Frame of Reference UID.",
    ),
    Rule(
        "viewer.presentation-state-class",
        _WARNING,
        "A presentation state that Slim cannot read lies with a monochrome slide",
        _SLIM,
        "Slim reads every presentation state of the study as Advanced Blending.",
    ),
    Rule("viewer.presentation-state-ignored", _INFO, "Slim ignores the presentation state of a colour slide", _SLIM),
    Rule(
        "viewer.presentation-state-order",
        _INFO,
        "Slim applies one of several presentation states",
        _SLIM,
        "The others are offered in a menu.",
    ),
)

RULES: Mapping[str, Rule] = {rule.id: rule for rule in (*_ALL, *_FIDELITY, *_VIEWER)}


def finding(rule_id: str, message: str, place: str = "") -> Finding:
    """Return a finding of a registered rule.

    Raises
    ------
    KeyError
        If there is no such rule: a programming mistake.
    """
    rule = RULES[rule_id]
    return Finding(rule.id, rule.severity, message, place, rule.reference)


def rules_page() -> str:
    """Return the text of docs/rules.md."""
    lines = [
        "# Rules of `coverslip validate`",
        "",
        "Each finding names its rule by an id that stays the same when the wording changes. An error means that the",
        "series is not what it says, or that what it is for cannot be done with it; the command then ends with 5. The",
        "findings of conversions are in [findings.md](findings.md).",
    ]
    for subject in dict.fromkeys(rule_id.partition(".")[0] for rule_id in RULES):
        lines += ["", f"## `{subject}`", "", "| rule | severity | what is wrong | reference | why, and what to do |"]
        lines += ["|---|---|---|---|---|"]
        for rule in RULES.values():
            if rule.id.startswith(f"{subject}."):
                cells = (f"`{rule.id}`", rule.severity.lower(), rule.title, rule.reference, rule.explanation)
                lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
