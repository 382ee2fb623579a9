"""The synthetic slides are what they claim to be, as independent readers see them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile

from tests.factories import damage
from tests.factories.aperio import block_mean, write_aperio_svs
from tests.factories.big import write_big_svs, write_big_tiff
from tests.factories.generic import write_tiled_tiff
from tests.factories.jpeg_tiles import encode_jpeg, merge_tables, split_tables
from tests.factories.tissue import tissue, tissue_mask


def read(slide: openslide.OpenSlide, level: int = 0) -> np.ndarray:
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_windows_of_tissue_agree_where_they_overlap() -> None:
    whole = tissue(300, 260, seed=3, row=5000, column=70_000)
    assert np.array_equal(tissue(100, 90, seed=3, row=5150, column=70_121), whole[150:250, 121:211])


def test_about_half_of_a_large_slide_is_tissue() -> None:
    share = (tissue_mask(np.arange(0, 30_000, 64), np.arange(0, 40_000, 64)) > 0).mean()
    assert 0.4 < share < 0.6


def test_tissue_compresses_like_tissue() -> None:
    picture = tissue(512, 512, row=8192, column=4096)
    mask = tissue_mask(np.arange(8192, 8704), np.arange(4096, 4608)) > 0
    assert mask.mean() > 0.9
    assert 0.12 < len(encode_jpeg(picture, 80, subsampling="420")) / mask.sum() < 0.35


def test_tables_split_and_merged_decode_to_the_same_pixels() -> None:
    stream = encode_jpeg(tissue(64, 64), 80, subsampling="422")
    tables, frame = split_tables(stream)
    assert len(frame) < len(stream) - 500
    assert np.array_equal(simplejpeg.decode_jpeg(merge_tables(tables, frame)), simplejpeg.decode_jpeg(stream))


@pytest.mark.parametrize(
    "compression, quality, tolerance",
    [("jpeg-rgb", 90, 3), ("jpeg-ycbcr", 90, 4), ("j2k-33003", 0, 1), ("j2k-33005", 0, 0)],
)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_openslide_reads_an_aperio_slide(
    tmp_path: Path, compression: str, quality: int, tolerance: float, *, bigtiff: bool
) -> None:
    path = tmp_path / "slide.svs"
    picture = write_aperio_svs(
        path, rows=500, columns=600, compression=compression, quality=quality, bigtiff=bigtiff, tile=(240, 256)
    )
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2527)
        assert slide.level_dimensions == ((600, 500), (150, 125))
        assert set(slide.associated_images) == {"thumbnail", "label", "macro"}
        assert slide.associated_images["label"].size == (387, 463)
        assert slide.associated_images["macro"].size == (1280, 431)
        assert mean_difference(read(slide), picture) <= tolerance
        assert mean_difference(read(slide, 1), block_mean(picture, 4)) <= tolerance + 2


def test_pages_of_an_aperio_slide_come_in_the_scanners_order(aperio_slide: Path) -> None:
    with tifffile.TiffFile(aperio_slide) as tiff:
        assert tiff.is_svs
        assert [page.is_tiled for page in tiff.pages] == [True, False, True, False, False]
        assert [int(page.subfiletype) for page in tiff.pages] == [0, 0, 0, 1, 9]
        assert all(page.jpegtables for page in tiff.pages if page.compression == 7)


def test_missing_tile_has_no_bytes_and_its_neighbours_stay(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    picture = write_aperio_svs(
        path, rows=512, columns=512, compression="j2k-33005", quality=0, missing_tiles=[(0, 0, 1)]
    )
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].databytecounts[1] == 0
        assert tiff.pages[0].dataoffsets[1] == 0
    with openslide.OpenSlide(path) as slide:
        assert np.array_equal(read(slide)[256:], picture[256:])


def test_text_of_mpp_is_written_as_given_or_left_out(tmp_path: Path) -> None:
    write_aperio_svs(tmp_path / "comma.svs", rows=64, columns=64, mpp="0,2527", native_downsamples=())
    write_aperio_svs(tmp_path / "none.svs", rows=64, columns=64, mpp=None, native_downsamples=())
    assert b"MPP = 0,2527|" in (tmp_path / "comma.svs").read_bytes()
    assert b"MPP" not in (tmp_path / "none.svs").read_bytes()


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.svs", "two.svs"):
        write_aperio_svs(tmp_path / name, rows=300, columns=200, icc=b"profile", seed=7)
    assert (tmp_path / "one.svs").read_bytes() == (tmp_path / "two.svs").read_bytes()


@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
@pytest.mark.parametrize(
    "samples, dtype", [(1, np.uint8), (3, np.uint8), (4, np.uint8), (3, np.uint16), (1, np.float32)]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("striped", [False, True])
def test_tifffile_reads_a_generic_tiff_exactly(
    tmp_path: Path, compression: str, samples: int, dtype: type[np.generic], byteorder: str, *, striped: bool
) -> None:
    path = tmp_path / "slide.tif"
    picture = write_tiled_tiff(
        path,
        rows=150,
        columns=170,
        tile=64,
        compression=compression,
        samples=samples,
        dtype=dtype,
        byteorder=byteorder,
        striped=striped,
        planar=samples == 3 and dtype is np.uint16,
    )
    with tifffile.TiffFile(path) as tiff:
        assert [page.is_reduced for page in tiff.pages] == [False, True, True]
        stored = tiff.pages[0].asarray()
        planar = tiff.pages[0].planarconfig == 2
        assert np.array_equal(np.moveaxis(stored, 0, 2) if planar else stored, picture)


@pytest.mark.parametrize("bigtiff, samples", [(False, 3), (True, 3), (False, 1)])
def test_openslide_reads_a_generic_jpeg_pyramid(tmp_path: Path, samples: int, *, bigtiff: bool) -> None:
    path = tmp_path / "slide.tif"
    picture = write_tiled_tiff(path, rows=400, columns=500, bigtiff=bigtiff, samples=samples, quality=90)
    colour = picture if samples == 3 else np.stack([picture] * 3, axis=-1)
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((500, 400), (250, 200), (125, 100))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(10_000 / 39_573)
        assert mean_difference(read(slide), colour) < 4


def test_corrupt_tile_keeps_its_ends_and_does_not_decode(tmp_path: Path, aperio_slide: Path) -> None:
    path = damage.copy_slide(aperio_slide, tmp_path / "slide.svs")
    damage.corrupt_tile(path, tile=4)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        data, tables = path.read_bytes(), page.jpegtables
        sound, corrupt = (data[page.dataoffsets[tile] :][: page.databytecounts[tile]] for tile in (5, 4))
    assert corrupt[:2] == b"\xff\xd8"
    assert corrupt[-2:] == b"\xff\xd9"
    simplejpeg.decode_jpeg(merge_tables(tables, sound), strict=True)
    with pytest.raises(ValueError, match=r".+"):
        simplejpeg.decode_jpeg(merge_tables(tables, corrupt), strict=True)


def test_damaged_tags_hold_the_damage_and_nothing_else(tmp_path: Path, aperio_slide: Path) -> None:
    path = damage.copy_slide(aperio_slide, tmp_path / "slide.svs")
    with tifffile.TiffFile(path) as tiff:
        offsets, byte_counts = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    damage.tile_past_the_end(path, tile=2)
    damage.zero_length_tile(path, tile=3)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert page.dataoffsets == (*offsets[:2], path.stat().st_size - 10, *offsets[3:])
        assert page.databytecounts == (*byte_counts[:3], 0, *byte_counts[4:])


@pytest.mark.parametrize("bigtiff", [False, True])
def test_directory_loop_ends_where_it_began(tmp_path: Path, *, bigtiff: bool) -> None:
    path = tmp_path / "slide.svs"
    write_aperio_svs(path, rows=64, columns=64, native_downsamples=(), bigtiff=bigtiff)
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages[0].offset
    damage.ifd_loop(path)
    assert first.to_bytes(8 if bigtiff else 4, "little") == path.read_bytes()[-8 if bigtiff else -4 :]


def test_truncation_keeps_the_beginning(tmp_path: Path, aperio_slide: Path) -> None:
    path = damage.copy_slide(aperio_slide, tmp_path / "slide.svs")
    whole = path.read_bytes()
    damage.cut_tail(path, 10)
    assert path.read_bytes() == whole[:-10]
    damage.truncate_half(path)
    assert path.read_bytes() == whole[: (len(whole) - 10) // 2]
    damage.truncate(path, 16)
    assert path.read_bytes() == whole[:16]


def test_garbage_mpp_replaces_every_mpp(tmp_path: Path, aperio_slide: Path) -> None:
    path = damage.copy_slide(aperio_slide, tmp_path / "slide.svs")
    before = path.read_bytes()
    damage.garbage_mpp(path)
    after = path.read_bytes()
    assert len(after) == len(before)
    assert after.count(b"MPP = a.bcd ") == before.count(b"MPP = 0.2527") == 3


def test_lossless_jpeg_2000_tiles_are_bare_codestreams(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    picture = write_aperio_svs(path, rows=256, columns=256, compression="j2k-33005", quality=0)
    with tifffile.TiffFile(path) as tiff:
        tile = path.read_bytes()[tiff.pages[0].dataoffsets[0] :][: tiff.pages[0].databytecounts[0]]
    assert tile[:4] == b"\xff\x4f\xff\x51"
    assert np.array_equal(imagecodecs.jpeg2k_decode(tile), picture)


@pytest.fixture(scope="module")
def big_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks by two with partial ones at the edges; the smallest that has all kinds of tile."""
    path = tmp_path_factory.mktemp("slides") / "big.svs"
    write_big_svs(path, 2500, 3100, field_side=2176, workers=2)
    return path


def test_openslide_reads_a_big_slide_whose_levels_are_means_of_its_base(big_slide: Path) -> None:
    with openslide.OpenSlide(big_slide) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.level_dimensions == ((3100, 2500), (775, 625), (193, 156), (96, 78))
        base = read(slide)
        for level, downsample in enumerate((4, 16, 32), start=1):
            stored, expected = read(slide, level), block_mean(base, downsample)
            assert mean_difference(stored, expected) < 9
            assert stored.mean() == pytest.approx(expected.mean(), abs=0.5)


def test_no_two_tiles_of_a_big_slide_are_alike(big_slide: Path) -> None:
    with tifffile.TiffFile(big_slide) as tiff:
        page, data = tiff.pages[0], big_slide.read_bytes()
        tiles = {data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)}
        assert len(tiles) == len(page.dataoffsets) == 10 * 13
        assert list(page.dataoffsets) == sorted(page.dataoffsets)


def test_big_slide_does_not_depend_on_the_number_of_workers(tmp_path: Path, big_slide: Path) -> None:
    write_big_svs(tmp_path / "big.svs", 2500, 3100, field_side=2176, workers=1)
    assert (tmp_path / "big.svs").read_bytes() == big_slide.read_bytes()


def test_openslide_reads_a_big_tiff_that_is_not_jpeg(tmp_path: Path, big_slide: Path) -> None:
    write_big_tiff(tmp_path / "big.tif", 2500, 3100, field_side=2176)
    with openslide.OpenSlide(tmp_path / "big.tif") as slide, openslide.OpenSlide(big_slide) as lossy:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((3100, 2500), (775, 625), (193, 156))
        assert mean_difference(read(slide), read(lossy)) < 5
        assert np.array_equal(read(slide, 1), block_mean(read(slide), 4))
