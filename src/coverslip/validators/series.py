"""Find the series among files, and look at one: all its instances."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial

from coverslip.errors import StoreError
from coverslip.validators.decoded_frames import DecodedFrames
from coverslip.validators.instance import InstanceView, Tally
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.stored_file import LocalFile, StoredFile, open_stream

if TYPE_CHECKING:
    from pydicom.tag import BaseTag

__all__ = ["FoundSeries", "SeriesView", "find_series", "local_files", "open_series"]

_LAST_LOOKED_AT = 0x0020000E  # Series Instance UID: patient, study and instance come before
_OWN_FOLDERS = ".coverslip-"
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")


@dataclass(slots=True)
class SeriesView:
    """All instances of one series, in the order of their names.

    Parameters
    ----------
    series_instance_uid : str
    instances : list of InstanceView
    folder : str
        Where its first file lies: a folder or a URL.
    unreadable : list of Finding
        Of files of the series whose header cannot be read to its end.
    tally : Tally
    decoded : DecodedFrames
    on_close : callable
        Removes what the files were fetched to.
    missing_tiles : dict
        For how many frames of each file the slide held no tile, as far as its conversion or the slide tells.
    """

    series_instance_uid: str
    instances: list[InstanceView]
    folder: str = ""
    unreadable: list[Finding] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    decoded: DecodedFrames = field(default_factory=DecodedFrames)
    missing_tiles: dict[str, int] = field(default_factory=dict)
    on_close: Callable[[], None] = lambda: None

    @property
    def is_wsi(self) -> bool:
        """Whether any instance is a slide image."""
        return any(instance.is_wsi for instance in self.instances)

    @property
    def slide_images(self) -> list[InstanceView]:
        """The instances that are VL Whole Slide Microscopy Images."""
        return [instance for instance in self.instances if instance.is_wsi]

    @property
    def levels(self) -> list[list[InstanceView]]:
        """The VOLUME instances by size of their matrix, the largest first; several in one for channels and parts."""

        def area(instance: InstanceView) -> tuple[int, int, int]:
            rows, columns = instance.matrix_size
            return -rows * columns, -rows, -columns

        volumes = sorted((each for each in self.slide_images if each.flavor == "VOLUME"), key=area)
        return [list(group) for _size, group in groupby(volumes, key=area)]

    def read(self, files: Iterable[StoredFile]) -> None:
        """Add instances by their files."""
        for file in files:
            instance = _read(lambda file=file: InstanceView(file, self.tally), file, self.unreadable)  # type: ignore[misc]
            if instance is not None:
                self.instances.append(instance)

    def close(self) -> None:
        """Release the files and the frames."""
        self.decoded.clear()
        self.on_close()
        for instance in self.instances:
            instance.file.close()


@dataclass(slots=True)
class FoundSeries:
    """The files of a series, by what the beginnings of their headers say; nothing of it is held in memory or open.

    Parameters
    ----------
    series_instance_uid, study_instance_uid : str
    patient : tuple of str
        Patient ID, name, birth date and sex, as the first file says.
    files : list of StoredFile
    sop_instance_uids : list of str
    """

    series_instance_uid: str
    study_instance_uid: str
    patient: tuple[str, ...]
    files: list[StoredFile] = field(default_factory=list)
    sop_instance_uids: list[str] = field(default_factory=list)

    @property
    def fetched(self) -> bool:
        """Whether opening it brings its files to this machine."""
        return False

    def open(self) -> SeriesView:
        """Read the headers."""
        view = SeriesView(self.series_instance_uid, [], self.files[0].folder)
        view.read(self.files)
        view.missing_tiles.update(_stated_missing_tiles(self.files[0].local_path))
        return view


def _stated_missing_tiles(path: Path | None) -> dict[str, int]:
    """Return for how many frames of each file `conversion.json`, where there is one beside it, says that tiles lack."""
    try:
        stated = json.loads((path.parent / "conversion.json").read_bytes())["instances"] if path is not None else ()
        return {each["file_name"]: count for each in stated if (count := int(each.get("missing_tiles", 0)))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def open_series(paths: Sequence[Path]) -> tuple[list[SeriesView], list[Finding]]:
    """Find series and open them all.

    Raises
    ------
    StoreError
        If a path is not there, or there is nothing to validate.
    """
    found, unreadable = find_series(local_files(paths))
    return [each.open() for each in found], unreadable


def find_series(files: Iterable[StoredFile]) -> tuple[list[FoundSeries], list[Finding]]:
    """Group files by series.

    Returns
    -------
    list of FoundSeries
        In the order in which they are met.
    list of Finding
        Of files that cannot be read as DICOM.

    Raises
    ------
    StoreError
        If a file cannot be read, or there is nothing to validate.
    """
    series: dict[str, FoundSeries] = {}
    unreadable: list[Finding] = []
    for file in files:
        start = _read(lambda file=file: _read_start(file), file, unreadable)  # type: ignore[misc]
        file.close()
        if start is None:
            continue
        uid, study, sop_instance, *patient = start
        found = series.setdefault(uid, FoundSeries(uid, study, tuple(patient)))
        found.files.append(file)
        found.sop_instance_uids.append(sop_instance)
    if not series and not unreadable:
        raise StoreError("no DICOM files found")
    return list(series.values()), unreadable


def _read_start(file: StoredFile) -> list[str]:
    """Return what identifies series, study and instance, and the patient."""

    def stop(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > _LAST_LOOKED_AT

    with open_stream(file) as stream:
        ds = read_partial(stream, stop_when=stop)
    found = []
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", *_PATIENT):
        try:
            found.append(str(ds.get(keyword) or ""))
        except Exception:  # noqa: BLE001 - a value that cannot be read is told by the rules of the file
            found.append("")
    return found


def _read[T](read: Callable[[], T], file: StoredFile, unreadable: list[Finding]) -> T | None:
    """Return what is read of a file; of one that is no DICOM file, or damaged, add a finding."""
    place = f"{file.folder}/{file.name}"
    try:
        return read()
    except StoreError:
        raise
    except InvalidDicomError:
        unreadable.append(finding("part10.unreadable", "is no DICOM file", place))
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever a damaged header makes it stumble over
        unreadable.append(finding("part10.unreadable", f"header cannot be read: {type(error).__name__}", place))
    return None


def local_files(paths: Sequence[Path]) -> Iterator[StoredFile]:
    """Yield files, and of folders, at any depth, those that end with ``.dcm`` or start as DICOM files do; each once.

    Raises
    ------
    StoreError
        If a path is not there.
    """
    seen = set()
    for path in paths:
        if not path.exists():
            raise StoreError(f"{path} is not there")
        candidates = sorted(_searched(path)) if path.is_dir() else [path]
        for file in candidates:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield LocalFile(file)


def _searched(folder: Path) -> Iterator[Path]:
    """Yield what may be DICOM in a folder; work under way and quarantined series are not of it."""
    for inside, folders, names in folder.walk():
        folders[:] = [name for name in folders if not name.startswith(_OWN_FOLDERS)]
        yield from (path for name in names if _may_be_dicom(path := inside / name))


def _may_be_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
