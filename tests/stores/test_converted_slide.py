"""A slide that was converted here arrives in stores of every kind as it is, and is told apart from one that differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from tests.factories.part10 import local_instance, write_part10
from tests.stores.fakes.dicomweb import StrictDicomWeb

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.stores.base import InstanceUids, LocalInstance
from coverslip.stores.options import RetryPolicy, StoreOptions
from coverslip.stores.part10 import Part10File
from coverslip.stores.registry import open_store

OPTIONS = StoreOptions(retry=RetryPolicy(first_wait_s=0.001, seed=1))


@pytest.fixture(scope="module")
def series(aperio_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> list[LocalInstance]:
    """Instances of a slide with label and overview, some levels passed through and some encoded."""
    folder = tmp_path_factory.mktemp("converted")
    convert_slide(
        ConversionRequest(aperio_slide, folder, include=("label", "overview"), attributes={"PatientName": "Maß^Ünser"})
    )
    return [described(path) for path in sorted(folder.rglob("*.dcm"))]


def described(path: Path) -> LocalInstance:
    header = dcmread(path, stop_before_pixels=True)
    uids = InstanceUids(header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
    return local_instance(path, uids, header.file_meta.TransferSyntaxUID)


def all_frames(instance: LocalInstance) -> range:
    return range(1, Part10File(instance.path).number_of_frames + 1)


@pytest.mark.parametrize("kind", ["folder", "Orthanc", "strict"])
def test_every_instance_is_equal_in_metadata_and_all_frames(series, kind, request, tmp_path) -> None:
    if kind == "folder":
        url = str(tmp_path)
    elif kind == "Orthanc":
        orthanc = request.getfixturevalue("orthanc")
        orthanc.clear()
        url = f"dicomweb+{orthanc.dicomweb_url}"
    else:
        service = StrictDicomWeb()
        request.addfinalizer(service.close)
        url = f"dicomweb+{service.dicomweb_url}"
    with open_store(url, OPTIONS) as store:
        for instance in series:
            store.put(instance)
            comparison = store.compare(instance, all_frames(instance))
            assert comparison.differences == ()
        assert len(list(store.iter_instances())) == len(series) > 4


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda ds: setattr(ds, "PatientID", "secret-id"), "PatientID: not in the store"),
        (lambda ds: delattr(ds, "ContainerIdentifier"), "ContainerIdentifier: only in the store"),
        (lambda ds: setattr(ds, "StudyDescription", "new"), "StudyDescription: not in the store"),
        (
            lambda ds: setattr(ds.OpticalPathSequence[0], "ICCProfile", ds.OpticalPathSequence[0].ICCProfile[:-2]),
            "OpticalPathSequence[1].ICCProfile: another value",
        ),
        (lambda ds: ds.SpecimenDescriptionSequence.append(ds.SpecimenDescriptionSequence[0]), "2"),
        (
            lambda ds: setattr(
                ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [0.001, 0.001]
            ),
            "PixelSpacing: another value",
        ),
    ],
)
def test_a_header_that_differs_in_one_place_is_told_by_its_place(series, tmp_path, change, line) -> None:
    with StrictDicomWeb() as service, open_store(f"dicomweb+{service.dicomweb_url}", OPTIONS) as store:
        instance = max(series, key=lambda each: each.size_bytes)
        store.put(instance)
        ds = dcmread(instance.path)
        change(ds)
        dcmwrite(tmp_path / "changed.dcm", ds)
        differences = store.compare(described(tmp_path / "changed.dcm")).differences
    assert len(differences) == 1
    assert line in differences[0]
    assert "secret-id" not in differences[0]


def test_positions_of_frames_are_those_that_pydicom_finds(series) -> None:
    from pydicom.encaps import get_frame

    for instance in series:
        ds = dcmread(instance.path)
        file = Part10File(instance.path)
        assert file.number_of_frames == int(ds.NumberOfFrames)
        offsets = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if "ExtendedOffsetTable" in ds else None
        for number in all_frames(instance):
            wanted = get_frame(
                ds.PixelData, number - 1, number_of_frames=file.number_of_frames, extended_offsets=offsets
            )
            assert file.read_frame(number) == wanted


@pytest.mark.parametrize("kind", ["folder", "strict"])
def test_values_that_dicom_does_not_allow_are_compared_without_a_warning_that_shows_them(tmp_path, kind) -> None:
    path = write_part10(tmp_path / "local").path
    path.write_bytes(path.read_bytes().replace(b"20240102", b"MusterXY").replace(b"030405.25", b"half past"))
    odd = described(path)
    with StrictDicomWeb() as service:
        url = f"dicomweb+{service.dicomweb_url}" if kind == "strict" else str(tmp_path / "store")
        with open_store(url, OPTIONS) as store:
            stored = store.put(odd).stored
            assert store.compare(odd, (1,)).equal
            assert store.read_header(stored).StudyInstanceUID == odd.uids.study_instance_uid
