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

RULES: Mapping[str, Rule] = {rule.id: rule for rule in (*_ALL, *_FIDELITY)}


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
        "findings of conversions and those about privacy are in [findings.md](findings.md).",
    ]
    for subject in dict.fromkeys(rule_id.partition(".")[0] for rule_id in RULES):
        lines += ["", f"## `{subject}`", "", "| rule | severity | what is wrong | reference | why, and what to do |"]
        lines += ["|---|---|---|---|---|"]
        for rule in RULES.values():
            if rule.id.startswith(f"{subject}."):
                cells = (f"`{rule.id}`", rule.severity.lower(), rule.title, rule.reference, rule.explanation)
                lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
