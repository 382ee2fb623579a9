"""Generic TIFF and plain OME-TIFF, against the pictures written and against tifffile and OpenSlide."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import openslide
import pytest
import tifffile
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.damage import corrupt_tile
from tests.factories.generic import write_tiled_tiff
from tests.factories.tissue import tissue

from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.grid import TileAddress

OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" SizeX="80" SizeY="60" {}>'
    "{}</Pixels></Image></OME>"
)
RGB = 'Type="uint8" SizeC="3" SizeZ="1" SizeT="1"'
CHANNEL = '<Channel ID="Channel:0" SamplesPerPixel="3"/>'


class TestJpeg(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "slide.tif"
        write_tiled_tiff(path)
        return path

    def test_pixels_are_those_of_tifffile(self, source, slide):
        with tifffile.TiffFile(slide) as tiff:
            for level, page in zip(source.pyramids[0].levels, tiff.pages, strict=True):
                rows, columns = page.shape[:2]
                assert np.array_equal(level.read_region(0, 0, rows, columns)[0], page.asarray())

    def test_tiles_are_reused(self, source):
        assert [level.frame_format.photometric_interpretation for level in source.pyramids[0].levels] == [
            "YBR_FULL_422"
        ] * 3
        assert source.format_name == "generic-tiff"

    def test_spacing_is_that_of_the_resolution_tags(self, source):
        # 39573 pixels per centimetre
        spacing = source.pyramids[0].levels[0].pixel_spacing
        assert spacing.row_mm == pytest.approx(10 / 39573)
        assert spacing.origin == "TIFF resolution"


class TestUncompressedBigEndian(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "slide.tif"
        self.picture = write_tiled_tiff(path, compression="none", byteorder=">", downsamples=())
        return path

    def test_tiles_are_native_frames(self, source):
        level = source.pyramids[0].levels[0]
        assert level.frame_format == FrameFormat("1.2.840.10008.1.2.1", "RGB", 3)
        assert level.read_frame(TileAddress(1, 2)) == self.picture[256:512, 512:768].tobytes()
        assert level.lossy_method is None


@pytest.mark.parametrize("striped", [False, True])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "none", "jpeg"])
class TestEveryCompression(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path, compression, striped):
        path = tmp_path / "slide.tif"
        self.picture = write_tiled_tiff(
            path, rows=210, columns=330, tile=64, compression=compression, striped=striped, downsamples=(2,)
        )
        return path

    def test_pixels_are_those_written(self, source, slide, compression):
        expected = tifffile.imread(slide, key=0) if compression == "jpeg" else self.picture
        assert np.array_equal(source.pyramids[0].levels[0].read_region(0, 0, 210, 330)[0], expected)

    def test_only_tiles_of_a_dicom_compression_are_reused(self, source, compression, striped):
        level = source.pyramids[0].levels[0]
        assert (level.frame_format is not None) == (not striped and compression in ("jpeg", "none"))
        assert level.grid.rows == (512 if striped else 64)
        assert (level.lossy_method is not None) == (compression == "jpeg")


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_horizontal_differencing_is_undone(tmp_path, compression):
    picture = tissue(100, 130, 0)
    tifffile.imwrite(
        tmp_path / "slide.tif", picture, photometric="rgb", tile=(64, 64), compression=compression, predictor=2
    )
    with open_slide(tmp_path / "slide.tif") as source:
        assert np.array_equal(source.pyramids[0].levels[0].read_region(0, 0, 100, 130)[0], picture)


def test_sub_directories_are_levels(tmp_path):
    picture = tissue(200, 160, 0)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiff.write(picture, photometric="rgb", subifds=2, tile=(64, 64))
        tiff.write(picture[::2, ::2], photometric="rgb", subfiletype=1, tile=(64, 64))
        tiff.write(picture[::4, ::4], photometric="rgb", subfiletype=1, tile=(64, 64))
    with open_slide(tmp_path / "slide.tif") as source:
        levels = source.pyramids[0].levels
        assert [level.grid.total_pixel_matrix_rows for level in levels] == [200, 100, 50]
        assert np.array_equal(levels[2].read_region(0, 0, 50, 40)[0], picture[::4, ::4])


def test_a_page_of_another_shape_is_left_out_with_a_finding(tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiff.write(tissue(200, 160, 0), photometric="rgb", tile=(64, 64))
        tiff.write(tissue(40, 90, 0), photometric="rgb", tile=(64, 64))
    with open_slide(tmp_path / "slide.tif") as source:
        assert len(source.pyramids[0].levels) == 1
        assert "source.page-unused" in [finding.rule for finding in source.findings]


def test_pages_of_one_size_are_channels_or_planes_and_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        for _ in range(3):
            tiff.write(tissue(64, 64, 0), photometric="rgb", tile=(64, 64))
    with pytest.raises(UnsupportedSourceError, match="3 images of one size"):
        open_slide(tmp_path / "slide.tif")


@pytest.mark.parametrize(
    ("resolution", "unit", "expected_um"),
    [
        ((20000, 1), 3, 0.5),
        ((50800, 1), 2, 0.5),
        ((50800, 1), None, 0.5),  # the unit is inch where none is given (TIFF 6.0)
        ((20000, 1), 1, None),
        ((72, 1), 2, None),
        ((10, 1), 3, None),
        ((0, 1), 3, None),
        ((1, 0), 3, None),
        (None, 3, None),
    ],
)
def test_a_resolution_is_believed_only_if_it_is_a_slides(tmp_path, resolution, unit, expected_um):
    path = tmp_path / "slide.tif"
    write_tiled_tiff(path, rows=64, columns=64, tile=64, resolution=resolution, resolution_unit=unit, downsamples=())
    with open_slide(path) as source:
        spacing = source.pyramids[0].levels[0].pixel_spacing
        found = [finding.rule for finding in source.findings]
    assert (spacing and spacing.row_mm) == (expected_um and expected_um / 1000)
    assert found == ([] if expected_um else ["source.spacing-unknown"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 1}, "8-bit monochrome"),
        ({"samples": 1, "dtype": np.uint16}, "16-bit monochrome"),
        ({"dtype": np.uint16}, "16-bit samples"),
        ({"samples": 1, "dtype": np.float32}, "floating point"),
    ],
)
def test_what_is_not_8_bit_rgb_is_refused_with_what_it_is(tmp_path, options, words):
    path = tmp_path / "slide.tif"
    write_tiled_tiff(path, rows=64, columns=64, tile=64, compression="none", downsamples=(), **options)
    with pytest.raises(UnsupportedSourceError, match=words):
        open_slide(path)


def test_an_unknown_compression_is_refused_by_number(tmp_path):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, tissue(64, 64, 0), photometric="rgb", tile=(64, 64), compression="lzma")
    with pytest.raises(UnsupportedSourceError, match="TIFF compression 34925"):
        open_slide(path)


def test_cmyk_is_refused(tmp_path):
    path = tmp_path / "slide.tif"
    picture = np.zeros((64, 64, 4), np.uint8)
    tifffile.imwrite(path, picture, photometric="separated", tile=(64, 64))
    with pytest.raises(UnsupportedSourceError, match="8-bit CMYK"):
        open_slide(path)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("striped", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", ["none", "zstd", "lzw", "deflate"])
def test_pixels_in_any_arrangement_are_those_written(tmp_path, planar, striped, byteorder, compression):
    path = tmp_path / "slide.tif"
    picture = tissue(210, 330, 0)
    options = {"rowsperstrip": 50} if striped else {"tile": (64, 64)}
    data = np.moveaxis(picture, 2, 0) if planar else picture
    tifffile.imwrite(
        path, data, photometric="rgb", planarconfig="separate" if planar else "contig", byteorder=byteorder,
        compression=None if compression == "none" else compression, predictor=compression != "none", **options,
    )  # fmt: skip
    with open_slide(path) as source:
        level = source.pyramids[0].levels[0]
        assert np.array_equal(level.read_region(0, 0, 210, 330)[0], picture)
        assert np.array_equal(level.read_region(100, 101, 90, 200)[0], picture[100:190, 101:301])
        assert (level.frame_format is None) == (planar or striped or compression != "none")
        assert level.lossy_method is None


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_is_read_as_tifffile_reads_it_and_its_loss_is_told(tmp_path, lossless):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, tissue(200, 300, 0), photometric="rgb", tile=(64, 64), compression="webp",
        compressionargs={"level": -1 if lossless else 60, "lossless": lossless},
    )  # fmt: skip
    with open_slide(path) as source:
        level = source.pyramids[0].levels[0]
        assert np.array_equal(level.read_region(0, 0, 200, 300)[0], tifffile.imread(path))
        assert level.lossy_method == (None if lossless else "WEBP")
        assert level.not_reusable == "WebP has no DICOM transfer syntax"


def test_colours_of_a_palette_are_read(tmp_path):
    path = tmp_path / "slide.tif"
    palette = np.random.default_rng(1).integers(0, 65536, (3, 256)).astype(np.uint16)
    indices = np.random.default_rng(2).integers(0, 256, (100, 130)).astype(np.uint8)
    tifffile.imwrite(path, indices, photometric="palette", colormap=palette, tile=(64, 64), compression="lzw")
    with open_slide(path) as source:
        found, _ = source.pyramids[0].levels[0].read_region(0, 0, 100, 130)
    assert np.array_equal(found, (palette >> 8).astype(np.uint8).T[indices])


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(
    ("kind", "premultiplied"), [("unassalpha", False), ("assocalpha", True), ("unspecified", None)]
)
def test_alpha_lies_over_the_background(tmp_path, planar, kind, premultiplied):
    path = tmp_path / "slide.tif"
    colour = tissue(100, 130, 0)
    alpha = np.random.default_rng(3).integers(0, 256, (100, 130, 1)).astype(np.uint8)
    stored = np.rint(colour * (alpha / 255)).astype(np.uint8) if premultiplied else colour
    picture = np.concatenate([stored, alpha], axis=2)
    tifffile.imwrite(
        path, np.moveaxis(picture, 2, 0) if planar else picture, photometric="rgb", extrasamples=[kind], tile=(64, 64),
        planarconfig="separate" if planar else "contig",
    )  # fmt: skip
    with open_slide(path, background=(10, 200, 255)) as source:
        level = source.pyramids[0].levels[0]
        found, _ = level.read_region(0, 0, 100, 130)
        assert level.color == "RGBA"
        assert "source.alpha-flattened" in [finding.rule for finding in source.findings]
    expected = (
        colour if premultiplied is None else colour * (alpha / 255) + np.array((10, 200, 255)) * (1 - alpha / 255)
    )
    assert np.abs(found - expected).max() <= (0 if premultiplied is None else 1)


def test_a_plane_that_is_not_in_the_file_makes_its_tiles_missing(tmp_path):
    path = tmp_path / "slide.tif"
    write_tiled_tiff(path, rows=128, columns=128, tile=64, compression="none", planar=True, downsamples=())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
        counts[4 * 2 + 1] = 0  # the blue of the second tile
        tag.overwrite(counts)
    with open_slide(path, background=(1, 2, 3)) as source:
        found, missing = source.pyramids[0].levels[0].read_region(0, 0, 128, 128)
        assert missing == 1
        assert (found[:64, 64:] == (1, 2, 3)).all()
        assert [finding.rule for finding in source.findings] == ["source.missing-tile"]


@pytest.mark.parametrize("compression", ["deflate", "lzw", "jpeg"])
def test_a_corrupt_tile_is_named(tmp_path, compression):
    path = tmp_path / "slide.tif"
    write_tiled_tiff(path, rows=200, columns=200, tile=64, compression=compression, downsamples=())
    corrupt_tile(path, tile=6)
    with open_slide(path) as source, pytest.raises(CorruptSourceError) as caught:
        source.pyramids[0].levels[0].read_region(0, 0, 200, 200)
    assert (caught.value.level_index, caught.value.frame_index) == (0, 6)


def test_metadata_are_those_of_the_tags(tmp_path):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, tissue(64, 64, 0), photometric="rgb", tile=(64, 64), datetime="2020:01:02 03:04:05", software="scan 1.0",
        description="Jane Doe", metadata=None, iccprofile=b"profile", extratags=[(271, 2, 0, "Maker", True)],
    )  # fmt: skip
    with open_slide(path) as source:
        metadata = source.metadata
    assert (metadata.manufacturer, metadata.software_versions) == ("Maker", ("scan 1.0",))
    assert metadata.acquisition_datetime == datetime(2020, 1, 2, 3, 4, 5)
    assert metadata.icc_profile == b"profile"
    assert metadata.identifying["tiff.ImageDescription"] == "Jane Doe"


def write_ome(path, attributes, channels=CHANNEL):
    text = OME.format(attributes, channels)
    tifffile.imwrite(path, tissue(60, 80, 0), photometric="rgb", tile=(64, 64), description=text, metadata=None)


def test_an_ome_tiff_of_one_rgb_plane_is_read_with_its_physical_size(tmp_path):
    path = tmp_path / "slide.ome.tif"
    write_ome(path, RGB + ' PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"')
    with open_slide(path) as source:
        level = source.pyramids[0].levels[0]
        assert source.format_name == "ome-tiff"
        assert (level.pixel_spacing.row_mm, level.pixel_spacing.column_mm) == (0.0005, 0.00025)
        assert np.array_equal(level.read_region(0, 0, 60, 80)[0], tissue(60, 80, 0))


@pytest.mark.parametrize(
    "attributes",
    ["", 'PhysicalSizeX="x" PhysicalSizeY="1"', 'PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"'],
)
def test_an_ome_tiff_without_a_size_in_micrometres_has_no_spacing(tmp_path, attributes):
    path = tmp_path / "slide.ome.tif"
    write_ome(path, f"{RGB} {attributes}")
    with open_slide(path) as source:
        assert source.pyramids[0].levels[0].pixel_spacing is None
        assert [finding.rule for finding in source.findings] == ["source.spacing-unknown"]


@pytest.mark.parametrize(
    ("attributes", "channels", "words"),
    [
        (RGB.replace("uint8", "uint16"), CHANNEL, "uint16"),
        (RGB.replace('SizeC="3"', 'SizeC="12"'), CHANNEL.replace('"3"', '"1"') * 12, "12 samples in 12 channels"),
        (RGB, CHANNEL.replace('"3"', '"1"') * 3, "3 samples in 3 channels"),
        (RGB.replace('SizeZ="1"', 'SizeZ="5"'), CHANNEL, "5 focal planes"),
        (RGB, CHANNEL + "</Pixels></Image><Image><Pixels>", "2 images"),
        (RGB.replace('SizeC="3"', 'SizeC="6"'), CHANNEL * 2, "6 samples in 2 channels"),
        (RGB, "<", "does not parse"),
    ],
)
def test_an_ome_tiff_of_anything_else_is_refused_with_what_it_is(tmp_path, attributes, channels, words):
    path = tmp_path / "slide.ome.tif"
    write_ome(path, attributes, channels)
    with pytest.raises(UnsupportedSourceError, match=words):
        open_slide(path)


def test_the_shared_deflate_pyramid_has_the_pixels_of_openslide(shared):
    path = shared / "slides/synthetic/generic_deflate.tif"
    with open_slide(path) as source, openslide.OpenSlide(path) as other:
        assert len(source.pyramids[0].levels) == other.level_count
        for level in source.pyramids[0].levels:
            columns, rows = other.level_dimensions[level.level_index]
            expected = np.asarray(other.read_region((0, 0), level.level_index, (columns, rows)))[..., :3]
            assert np.array_equal(level.read_region(0, 0, rows, columns)[0], expected)
            assert level.pixel_spacing.row_mm == 0.0005 * 2**level.level_index


def test_ycbcr_under_a_tag_that_says_rgb_is_read_as_tifffile_does(shared):
    path = shared / "slides/real/OS-2-ndpi.ome.tif"
    with open_slide(path) as source:
        level = source.pyramids[0].levels[0]
        assert level.color == "YCbCr 4:2:0"
        assert np.array_equal(level.read_region(0, 0, 2202, 2202)[0], tifffile.imread(path, key=0))


def test_label_and_macro_images_of_an_ome_tiff_are_told_from_the_slide_by_their_names(tmp_path):
    path = tmp_path / "slide.ome.tif"
    sizes = {"S 1": (200, 160), "label image": (40, 50), "Macro Image": (60, 80)}
    images = "".join(
        f'<Image ID="Image:{index}" Name="{name}"><Pixels ID="Pixels:{index}" DimensionOrder="XYCZT" Type="uint8"'
        f' SizeX="{columns}" SizeY="{rows}" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5">'
        f'<Channel ID="Channel:{index}:0" SamplesPerPixel="3"/><TiffData IFD="{index}"/></Pixels></Image>'
        for index, (name, (rows, columns)) in enumerate(sizes.items())
    )
    text = f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{images}</OME>'
    pictures = [tissue(*size, seed) for seed, size in enumerate(sizes.values())]
    with tifffile.TiffWriter(path, byteorder=">", bigtiff=True) as tiff:
        tiff.write(pictures[0], photometric="rgb", tile=(64, 64), subifds=2, description=text, metadata=None)
        for factor in (2, 4):
            tiff.write(pictures[0][::factor, ::factor], photometric="rgb", tile=(64, 64), subfiletype=1, metadata=None)
        for picture in pictures[1:]:
            tiff.write(picture, photometric="rgb", rowsperstrip=16, compression="lzw", metadata=None)
    with open_slide(path) as source:
        levels = source.pyramids[0].levels
        assert [level.grid.total_pixel_matrix_rows for level in levels] == [200, 100, 50]
        assert np.array_equal(levels[1].read_region(0, 0, 100, 80)[0], pictures[0][::2, ::2])
        assert levels[0].pixel_spacing.row_mm == 0.0005
        assert np.array_equal(source.associated_images["label"].read(), pictures[1])
        assert np.array_equal(source.associated_images["overview"].read(), pictures[2])
        assert source.findings == ()


def test_the_shared_multiplexed_slide_is_recognised_and_never_read_as_rgb(shared):
    for name in ("synthetic/mcmicro_12ch.ome.tif", "real/cells-2c.ome.tif", "real/rand_uint16.ome.tiff"):
        with pytest.raises(UnsupportedSourceError, match="OME-TIFF of"):
            open_slide(shared / "slides" / name)
