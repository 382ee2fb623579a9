"""Searches, headers, instances, frames and bulk data as clients ask for them."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from pydicom.encaps import generate_frames
from wsidicom import WsiDicom, WsiDicomWebClient

from tests.server.conftest import Slide
from tests.server.running import Running

ANY = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
JPEG = "1.2.840.10008.1.2.4.50"
NATIVE = "1.2.840.10008.1.2.1"


def stored_frames(slide: Slide, uid: str) -> list[bytes]:
    dataset = pydicom.dcmread(slide.files[uid])
    return list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))


def test_studies_series_and_instances_are_found(server: Running, slide: Slide) -> None:
    (study,) = server.ask("/dicomweb/studies?ModalitiesInStudy=SM").json()
    assert study["0020000D"]["Value"] == [slide.study]
    assert study["00080061"]["Value"] == ["SM"]
    assert study["00201208"]["Value"] == [len(slide.files)]
    (series,) = server.ask(f"/dicomweb/series?Modality=SM&StudyInstanceUID={slide.study}").json()
    assert series["0020000E"]["Value"] == [slide.series]
    found = server.ask(f"/dicomweb/studies/{slide.study}/series/{slide.series}/instances").json()
    assert {each["00080018"]["Value"][0] for each in found} == set(slide.files)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("PatientID=TCGA-05-4244", 1),
        ("00100020=TCGA-05-4244", 1),
        ("PatientID=TCGA-05-*", 1),
        ("PatientID=*4244*", 1),
        ("PatientID=TCGA-05-424?", 1),
        ("PatientID=tcga-05-4244", 0),
        ("PatientName=tcga-05-4244", 1),
        ("PatientName=tcga&fuzzymatching=true", 1),
        ("PatientName=4244x&fuzzymatching=true", 0),
        ("ModalitiesInStudy=CT", 0),
        ("AccessionNumber=", 1),
        ("StudyInstanceUID=1.2,1.3", 0),
        ("StudyDate=19000101-20991231", 0),
        ("StudyDate=20990101-", 0),
        ("limit=0", 0),
        ("offset=1", 0),
    ],
)
def test_filters_match_as_the_standard_says(server: Running, query: str, found: int) -> None:
    answer = server.ask(f"/dicomweb/studies?{query}")
    assert answer.status == (200 if found else 204)
    assert len(json.loads(answer.body or b"[]")) == found


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "Nonsense=1", "StudyDate=yesterday", "includefield=Nonsense"])
def test_a_query_that_makes_no_sense_is_refused(server: Running, query: str) -> None:
    answer = server.ask(f"/dicomweb/studies?{query}")
    assert answer.status == 400
    assert set(answer.json()) == {"error"}


def test_an_attribute_that_is_not_matched_is_told(server: Running) -> None:
    answer = server.ask("/dicomweb/studies?SpecimenUID=1.2.3")
    assert answer.status == 200
    assert "SpecimenUID is not matched" in answer.headers["warning"]


def test_more_fields_come_when_they_are_asked_for(server: Running, slide: Slide) -> None:
    (plain,) = server.ask("/dicomweb/series").json()
    assert "00100020" not in plain
    (more,) = server.ask("/dicomweb/series?includefield=PatientID,ClinicalTrialProtocolID").json()
    assert more["00100020"]["Value"] == ["TCGA-05-4244"]
    assert more["00120020"]["Value"] == [slide.headers[slide.base].ClinicalTrialProtocolID]
    (all_of_them,) = server.ask("/dicomweb/series?includefield=all").json()
    assert len(all_of_them) > len(more)


def test_metadata_are_the_header_with_bulk_data_behind_uris(server: Running, slide: Slide) -> None:
    models = server.ask(f"/dicomweb/studies/{slide.study}/series/{slide.series}/metadata").json()
    assert {model["00080018"]["Value"][0] for model in models} == set(slide.files)
    (model,) = server.ask(f"{slide.place(slide.base)}/metadata").json()
    uri = model["00480105"]["Value"][0]["00282000"]["BulkDataURI"]
    assert uri.startswith(f"{server.url}{slide.place(slide.base)}/bulkdata/")
    path = uri.removeprefix(server.url)
    profile = slide.headers[slide.base].OpticalPathSequence[0].ICCProfile
    assert server.ask(path, "application/octet-stream").body == profile
    answer = server.ask(path, 'multipart/related; type="application/octet-stream"')
    assert answer.parts == [("application/octet-stream", profile)]
    assert server.ask(path, "image/png").status == 406


def test_a_frame_comes_as_it_is_stored_again_and_again(server: Running, slide: Slide) -> None:
    frames = stored_frames(slide, slide.base)
    for _ in range(2):  # through a thread first, then at once
        for number in (1, 2, len(frames)):
            answer = server.ask(f"{slide.place(slide.base)}/frames/{number}", ANY)
            assert answer.status == 200
            assert answer.parts == [(f"application/octet-stream; transfer-syntax={JPEG}", frames[number - 1])]
    answer = server.ask(f"{slide.place(slide.base)}/frames/3,1", 'multipart/related; type="image/jpeg"')
    assert [part for _, part in answer.parts] == [frames[2], frames[0]]
    assert answer.parts[0][0] == f"image/jpeg; transfer-syntax={JPEG}"
    single = server.ask(f"{slide.place(slide.base)}/frames/2", "image/jpeg")
    assert single.body == frames[1]
    assert single.headers["content-type"] == f"image/jpeg; transfer-syntax={JPEG}"


def test_frames_are_encoded_anew_when_another_form_is_accepted(server: Running, slide: Slide) -> None:
    header = slide.headers[slide.base]
    pixels = pydicom.dcmread(slide.files[slide.base]).pixel_array[1]
    place = f"{slide.place(slide.base)}/frames/2"
    native = server.ask(place, 'multipart/related; type="application/octet-stream"')
    ((kind, raw),) = native.parts
    assert kind.endswith(NATIVE)
    decoded = np.frombuffer(raw, np.uint8).reshape(header.Rows, header.Columns, 3)
    assert np.abs(decoded.astype(int) - pixels).mean() < 2  # pydicom's decoder rounds otherwise
    import imagecodecs

    lossless = server.ask(place, 'multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90')
    assert np.array_equal(imagecodecs.jpeg2k_decode(lossless.parts[0][1]), decoded)
    jpeg_ls = server.ask(place, "image/jls")
    assert np.array_equal(imagecodecs.jpegls_decode(jpeg_ls.body), decoded)
    label = slide.named("LABEL")
    baseline = server.ask(f"{slide.place(label)}/frames/1", "image/jpeg")
    size = slide.headers[label].Rows, slide.headers[label].Columns, 3
    assert imagecodecs.jpeg8_decode(baseline.body).shape == size


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/frames/0", ANY, 400),
        ("/frames/x", ANY, 400),
        ("/frames/100000", ANY, 404),
        ("/frames/1", "text/html", 406),
        ("/frames/1,2", "image/jpeg", 406),
        ("/frames/1", 'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.91', 406),
        ("/metadata", "application/dicom+xml", 406),
        ("/bulkdata/00100010", "*/*", 404),
        ("/bulkdata/nonsense", "*/*", 400),
        ("", "image/png", 406),
    ],
)
def test_what_cannot_be_given_is_told(server: Running, slide: Slide, path: str, accept: str, status: int) -> None:
    answer = server.ask(f"{slide.place(slide.base)}{path}", accept)
    assert answer.status == status
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("wrong", ["study", "series", "instance"])
def test_an_instance_is_only_found_at_its_own_place(server: Running, slide: Slide, wrong: str) -> None:
    uids = {"study": slide.study, "series": slide.series, "instance": slide.base, wrong: "1.2.3"}
    server.ask(f"{slide.place(slide.base)}/frames/1", ANY)  # open, so that the short way may answer
    path = f"/dicomweb/studies/{uids['study']}/series/{uids['series']}/instances/{uids['instance']}/frames/1"
    assert server.ask(path, ANY).status == 404


def test_instances_come_as_they_are_stored(server: Running, slide: Slide) -> None:
    stored = slide.files[slide.base].read_bytes()
    answer = server.ask(slide.place(slide.base), 'multipart/related; type="application/dicom"')
    assert answer.parts == [("application/dicom", stored)]
    assert server.ask(slide.place(slide.base), "application/dicom").body == stored
    whole = server.ask(f"/dicomweb/studies/{slide.study}/series/{slide.series}")
    assert sorted(part for _, part in whole.parts) == sorted(path.read_bytes() for path in slide.files.values())
    other = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2'
    assert server.ask(slide.place(slide.base), other).status == 406


def test_what_a_client_has_is_not_sent_again(server: Running, slide: Slide) -> None:
    for path, accept in (("/frames/1", ANY), ("/metadata", ""), ("", "")):
        first = server.ask(f"{slide.place(slide.base)}{path}", accept)
        assert "private" in first.headers["cache-control"]
        again = server.ask(f"{slide.place(slide.base)}{path}", accept, If_None_Match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert again.headers["cache-control"] == first.headers["cache-control"]
        assert server.ask(f"{slide.place(slide.base)}{path}", accept, If_None_Match='"other"').status == 200


def test_dicomweb_client_reads_a_slide(server: Running, slide: Slide) -> None:
    client = DICOMwebClient(f"{server.url}/dicomweb")
    (study,) = client.search_for_studies(search_filters={"PatientID": "TCGA-05-4244"})
    assert study["0020000D"]["Value"] == [slide.study]
    assert client.search_for_studies(search_filters={"PatientID": "none"}) == []
    metadata = client.retrieve_series_metadata(slide.study, slide.series)
    assert len(metadata) == len(slide.files)
    frames = client.retrieve_instance_frames(
        slide.study, slide.series, slide.base, [1, 3], media_types=(("image/jpeg", JPEG),)
    )
    expected = stored_frames(slide, slide.base)
    assert frames == [expected[0], expected[2]]
    dataset = client.retrieve_instance(slide.study, slide.series, slide.base)
    assert dataset.PixelData == pydicom.dcmread(slide.files[slide.base]).PixelData


@pytest.mark.filterwarnings("ignore:no bulk data URI handler provided:UserWarning")
def test_wsidicom_reads_the_same_pixels_as_from_the_files(server: Running, slide: Slide) -> None:
    client = WsiDicomWebClient.create_client(f"{server.url}/dicomweb")
    with (
        WsiDicom.open_web(client, slide.study, slide.series) as web,
        WsiDicom.open(list(slide.files.values())) as files,
    ):
        assert web.size == files.size
        assert len(web.pyramid) == len(files.pyramid)
        for level in (0, 1):
            one = web.read_region((10, 20), level, (300, 200))
            other = files.read_region((10, 20), level, (300, 200))
            assert np.array_equal(np.asarray(one), np.asarray(other))
