"""Rendered pictures and tiles against pixels that are decoded here."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.factories.dicom_wsi import DicomCoding, write_dicom_wsi
from tests.factories.part10 import write_part10
from tests.server.conftest import Slide
from tests.server.running import Answer, Running, serving

Picture = NDArray[np.uint8]


def picture(answer: Answer) -> Picture:
    assert answer.status == 200, answer.body
    with Image.open(io.BytesIO(answer.body)) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def base(slide: Slide) -> Picture:
    """The base level, decoded by pydicom and put together here."""
    return whole(pydicom.dcmread(slide.files[slide.base]))


def whole(dataset: pydicom.Dataset) -> Picture:
    rows, columns = dataset.Rows, dataset.Columns
    across = -(-dataset.TotalPixelMatrixColumns // columns)
    tiles = dataset.pixel_array.reshape(-1, across, rows, columns, 3)
    matrix = tiles.swapaxes(1, 2).reshape(-1, across * columns, 3)
    return matrix[: dataset.TotalPixelMatrixRows, : dataset.TotalPixelMatrixColumns]


def assert_same(one: Picture, other: Picture, most: float = 2.0) -> None:
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other.astype(int)).mean() < most


def test_an_instance_is_rendered_whole_and_in_part(server: Running, slide: Slide, base: Picture) -> None:
    place = f"{slide.place(slide.base)}/rendered?iccprofile=no"
    assert_same(picture(server.ask(place, "image/png")), base)
    part = picture(server.ask(f"{place}&viewport=300,200,100,50,300,200", "image/png"))
    assert_same(part, base[50:250, 100:400])
    fitted = picture(server.ask(f"{place}&viewport=450,450", "image/png"))
    assert fitted.shape == (350, 450, 3)
    mirrored = picture(server.ask(f"{place}&viewport=300,200,100,50,-300,200", "image/png"))
    assert_same(mirrored, base[50:250, 100:400][:, ::-1])


def test_label_and_overview_are_rendered(server: Running, slide: Slide) -> None:
    for flavor in ("LABEL", "OVERVIEW"):
        uid = slide.named(flavor)
        expected = whole(pydicom.dcmread(slide.files[uid]))
        assert_same(picture(server.ask(f"{slide.place(uid)}/rendered?iccprofile=no", "image/png")), expected)


def test_a_frame_is_rendered_as_what_is_accepted(server: Running, slide: Slide) -> None:
    frame = pydicom.dcmread(slide.files[slide.base]).pixel_array[1]
    place = f"{slide.place(slide.base)}/frames/2/rendered?iccprofile=no"
    png = server.ask(place, "image/png")
    assert png.headers["content-type"] == "image/png"
    assert_same(picture(png), frame)
    jpeg = server.ask(f"{place}&quality=95", "image/jpeg, image/png;q=0.5")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert_same(picture(jpeg), frame, 4)
    assert server.ask(place, "image/gif").status == 406
    assert server.ask(place, "image/png", If_None_Match=png.headers["etag"]).status == 304


def test_thumbnails_show_the_slide(server: Running, slide: Slide, base: Picture) -> None:
    expected = np.asarray(Image.fromarray(base).resize((256, 199), Image.Resampling.BOX))
    study = f"/dicomweb/studies/{slide.study}"
    for place in (study, f"{study}/series/{slide.series}", slide.place(slide.base)):
        assert_same(picture(server.ask(f"{place}/thumbnail", "image/png")), expected, 6)


def test_deep_zoom_tiles_make_up_every_level(server: Running, slide: Slide, base: Picture) -> None:
    answer = server.ask(f"/deepzoom/{slide.series}.dzi?form=png")
    root = ET.fromstring(answer.body)
    side = int(root.attrib["TileSize"])
    assert (root[0].attrib["Width"], root[0].attrib["Height"]) == ("900", "700")
    top = 10
    for level, step in ((top, 1), (top - 1, 2), (top - 3, 8)):
        rows, columns = -(-700 // step), -(-900 // step)
        made = np.zeros((rows, columns, 3), np.uint8)
        for row in range(-(-rows // side)):
            for column in range(-(-columns // side)):
                tile = picture(server.ask(f"/deepzoom/{slide.series}_files/{level}/{column}_{row}.png"))
                y, x = row * side, column * side
                assert tile.shape == (min(side, rows - y), min(side, columns - x), 3)
                made[y : y + side, x : x + side] = tile
        expected = np.asarray(Image.fromarray(base).resize((columns, rows), Image.Resampling.BOX))
        # Levels are stored with losses; a shift by a pixel would correlate less.
        assert np.corrcoef(made.ravel(), expected.ravel())[0, 1] > 0.95
    assert picture(server.ask(f"/deepzoom/{slide.series}_files/0/0_0.png")).shape == (1, 1, 3)
    assert server.ask(f"/deepzoom/{slide.series}_files/{top}/9_0.png").status == 404
    assert server.ask(f"/deepzoom/{slide.series}_files/{top + 1}/0_0.png").status == 404


def test_xyz_tiles_are_full_size(server: Running, slide: Slide, base: Picture) -> None:
    told = server.ask(f"/xyz/{slide.series}/tilejson.json").json()
    side, last = told["tileSize"], told["maxzoom"]
    assert told["tiles"] == [f"{server.url}/xyz/{slide.series}/{{z}}/{{x}}/{{y}}.jpg"]
    corner = picture(server.ask(f"/xyz/{slide.series}/{last}/{900 // side}/{700 // side}.png"))
    assert corner.shape == (side, side, 3)
    y, x = 700 // side * side, 900 // side * side
    assert_same(corner[: 700 - y, : 900 - x], base[y:, x:])
    assert (corner[700 - y :] == 255).all()
    assert picture(server.ask(f"/xyz/{slide.series}/0/0/0.png")).shape == (side, side, 3)


def test_iiif_tells_of_the_slide(server: Running, slide: Slide) -> None:
    answer = server.ask(f"/iiif/{slide.series}")
    assert answer.status == 303
    assert answer.headers["location"] == f"{server.url}/iiif/{slide.series}/info.json"
    info = server.ask(f"/iiif/{slide.series}/info.json").json()
    assert info["id"] == f"{server.url}/iiif/{slide.series}"
    assert (info["width"], info["height"], info["profile"]) == (900, 700, "level2")
    assert info["sizes"][-1] == {"width": 900, "height": 700}
    answer = server.ask(f"/iiif/{slide.series}/info.json", "application/ld+json")
    assert answer.headers["content-type"].startswith("application/ld+json")


# The tables of requests of the specification, sections 4.1 to 4.4, for a slide of 900 x 700.
@pytest.mark.parametrize(
    ("request_", "size"),
    [
        ("full/max/0/default.png", (900, 700)),
        ("square/max/0/default.png", (700, 700)),
        ("125,15,120,140/max/0/default.png", (120, 140)),
        ("pct:41.6,7.5,40,70/max/0/default.png", (360, 490)),
        ("125,15,1200,1400/max/0/default.png", (775, 685)),
        ("full/^max/0/default.jpg", (2322, 1806)),
        ("full/150,/0/default.jpg", (150, 117)),
        ("0,0,100,100/^360,/0/default.jpg", (360, 360)),
        ("full/,150/0/default.jpg", (193, 150)),
        ("0,0,100,100/^,240/0/default.jpg", (240, 240)),
        ("full/pct:50/0/default.jpg", (450, 350)),
        ("0,0,100,100/^pct:120/0/default.jpg", (120, 120)),
        ("full/225,100/0/default.jpg", (225, 100)),
        ("0,0,100,100/^360,360/0/default.jpg", (360, 360)),
        ("full/!225,100/0/default.jpg", (129, 100)),
        ("0,0,100,100/^!360,380/0/default.jpg", (360, 360)),
        ("full/max/180/default.jpg", (900, 700)),
        ("full/max/90/default.jpg", (700, 900)),
        ("full/max/!0/default.jpg", (900, 700)),
        ("full/max/!180/default.jpg", (900, 700)),
        ("full/max/0/color.jpg", (900, 700)),
        ("full/max/0/gray.jpg", (900, 700)),
        ("full/max/0/bitonic.png", (900, 700)),
    ],
)
def test_iiif_answers_the_specification_s_requests(
    server: Running, slide: Slide, request_: str, size: tuple[int, int]
) -> None:
    found = picture(server.ask(f"/iiif/{slide.series}/{request_}"))
    assert (found.shape[1], found.shape[0]) == size


def test_iiif_turns_mirrors_and_cuts(server: Running, slide: Slide, base: Picture) -> None:
    part = base[15:155, 125:245]
    place = f"/iiif/{slide.series}/125,15,120,140/max"
    assert_same(picture(server.ask(f"{place}/0/default.png")), part)
    assert_same(picture(server.ask(f"{place}/90/default.png")), np.rot90(part, -1))
    assert_same(picture(server.ask(f"{place}/!0/default.png")), part[:, ::-1])
    assert_same(picture(server.ask(f"{place}/!270/default.png")), np.rot90(part[:, ::-1], 1))
    assert set(np.unique(picture(server.ask(f"{place}/0/bitonic.png")))) <= {0, 255}


@pytest.mark.parametrize(
    "request_",
    [
        "900,0,10,10/max/0/default.jpg",
        "0,0,0,10/max/0/default.jpg",
        "full/901,/0/default.jpg",
        "full/pct:120/0/default.jpg",
        "full/,/0/default.jpg",
        "full/max/45/default.jpg",
        "full/max/0/beautiful.jpg",
        "full/max/0/default.gif",
        "full/^9000,9000/0/default.jpg",
        "nonsense/max/0/default.jpg",
    ],
)
def test_iiif_refuses_what_the_specification_says(server: Running, slide: Slide, request_: str) -> None:
    assert server.ask(f"/iiif/{slide.series}/{request_}").status == 400


def write_channels(folder: Path) -> None:
    """Write two channels of 12 bits: one brighter to the right, one to the bottom."""
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 16, (256, 1))
    for number, pixels in enumerate((ramp, ramp.T), 1):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.6", f"2.25.70{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "2.25.71", "2.25.72", "SM"
        ds.PatientID, ds.InstanceNumber = "P", number
        ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        ds.Rows = ds.Columns = ds.TotalPixelMatrixRows = ds.TotalPixelMatrixColumns = 256
        ds.NumberOfFrames, ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.DimensionOrganizationType = "TILED_FULL"
        ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
        ds.FrameOfReferenceUID, ds.ContainerIdentifier = "2.25.73", "CHANNELS"
        origin, groups, measures, illumination, path = (Dataset() for _ in range(5))
        origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = "20"
        ds.TotalPixelMatrixOriginSequence = [origin]
        measures.PixelSpacing, measures.SliceThickness = ["0.0005", "0.0005"], "0.001"
        groups.PixelMeasuresSequence = [measures]
        ds.SharedFunctionalGroupsSequence = [groups]
        illumination.CodeValue, illumination.CodingSchemeDesignator = "111743", "DCM"
        illumination.CodeMeaning = "Epifluorescence illumination"
        path.IlluminationTypeCodeSequence = [illumination]
        path.OpticalPathIdentifier, path.OpticalPathDescription = str(number), f"marker {number}"
        ds.OpticalPathSequence = [path]
        ds.PixelData = pixels.tobytes()
        pydicom.dcmwrite(folder / f"{number}.dcm", ds, enforce_file_format=True)


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("channels")
    write_channels(folder)
    with serving(folder) as running:
        yield running


def test_channels_are_put_together_with_colours_and_windows(channels: Running) -> None:
    place = "/iiif/2.25.72/full/max/0/default.png?channels="
    one = picture(channels.ask(f"{place}1:ff0000:0-4080"))
    ramp = np.arange(256, dtype=np.uint8)
    assert np.array_equal(one[0, :, 0], ramp)
    assert not one[:, :, 1:].any()
    both = picture(channels.ask(f"{place}1:ff0000:0-4080,2:00ff00:0-2040"))
    assert np.array_equal(both[:, :, 0], one[:, :, 0])
    assert np.array_equal(both[:, 0, 1], np.minimum(ramp.astype(int) * 2, 255))
    for wrong in ("3", "1:red", "1:ff0000:9-3", "1," * 17 + "1"):
        assert channels.ask(place + wrong).status == 400
    default = picture(channels.ask("/iiif/2.25.72/full/max/0/default.png"))
    assert default.max() > 200


def test_a_window_is_applied_to_monochrome_frames(channels: Running) -> None:
    place = "/dicomweb/studies/2.25.71/series/2.25.72/instances/2.25.701"
    shown = picture(channels.ask(f"{place}/frames/1/rendered?window=2040,4080,linear-exact", "image/png"))
    assert np.array_equal(shown[0], np.arange(256))
    assert channels.ask(f"{place}/rendered?window=1,0,linear").status == 400


def test_16_bit_frames_come_native_and_lossless(channels: Running) -> None:
    import imagecodecs

    place = "/dicomweb/studies/2.25.71/series/2.25.72/instances/2.25.702/frames/1"
    ((_, raw),) = channels.ask(place, 'multipart/related; type="application/octet-stream"').parts
    ((_, coded),) = channels.ask(place, 'multipart/related; type="image/jp2"').parts
    assert np.array_equal(imagecodecs.jpeg2k_decode(coded), np.frombuffer(raw, "<u2").reshape(256, 256))
    assert channels.ask(place, "image/jpeg").status == 406


def test_a_frame_off_the_grid_of_tiles_is_not_shown_elsewhere(tmp_path: Path) -> None:
    write_dicom_wsi(tmp_path, rows=128, columns=384, coding=DicomCoding(sparse=True), downsamples=(), pictures=False)
    (path,) = tmp_path.glob("*.dcm")
    ds = pydicom.dcmread(path)
    for item in ds.PerFrameFunctionalGroupsSequence:
        position = item.PlanePositionSlideSequence[0]
        if position.ColumnPositionInTotalImagePixelMatrix == 129:
            position.ColumnPositionInTotalImagePixelMatrix = 137
        if position.ColumnPositionInTotalImagePixelMatrix == 257:
            position.RowPositionInTotalImagePixelMatrix = 9
    ds.save_as(path)
    with serving(tmp_path) as running:
        shown = picture(running.ask("/iiif/2.25.6/full/max/0/default.png"))
    assert (shown[:, 128:] == 255).all()
    assert not (shown[:, :128] == 255).all()


def test_a_frame_that_claims_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    path = write_part10(tmp_path).path
    ds = pydicom.dcmread(path)
    ds.Rows = ds.Columns = 10_000
    ds.save_as(path)
    with serving(tmp_path) as running:
        frame = "/dicomweb/studies/2.25.10/series/2.25.201/instances/2.25.3011/frames/1"
        for place, accept in ((f"{frame}/rendered", "image/png"), (frame, "image/jls")):
            answer = running.ask(place, accept)
            assert answer.status == 400
            assert "a frame of 100000000 pixels" in answer.json()["error"]
        assert running.ask(frame, "image/jpeg").status == 200
