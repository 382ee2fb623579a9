"""Slides of any size, in tiles of any size, with levels of any ratio: nothing is lost, moved or made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openslide import OpenSlide
from pydicom import dcmread
from pydicom.encaps import generate_frames
from tests.factories.aperio import write_aperio_svs
from tests.factories.czi import CziScene, write_czi
from tests.factories.dicom_wsi import DicomCoding, write_dicom_wsi
from tests.factories.generic import write_tiled_tiff
from tests.factories.hamamatsu import NdpiCoding, write_ndpi
from tests.factories.leica import ScnRegion, write_scn
from tests.factories.mirax import write_mirax
from tests.factories.philips import write_philips
from tests.factories.vendor_tiff import write_argos, write_huron, write_trestle
from tests.factories.ventana import write_ventana

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide

EXAMPLES = 3


@dataclass(frozen=True)
class Shape:
    """What a slide is to be like; a format takes of it what it can."""

    rows: int
    columns: int
    tile: tuple[int, int]
    ratio: int


SHAPES = st.builds(
    Shape,
    st.integers(9, 150),
    st.integers(9, 150),
    st.tuples(*[st.sampled_from([16, 32, 48, 80, 240])] * 2),
    st.sampled_from([2, 3, 4, 5, 8]),
)


def _write_dicom(path: Path, shape: Shape, coding: DicomCoding) -> None:
    write_dicom_wsi(
        path.parent, rows=shape.rows, columns=shape.columns, tile=shape.tile, coding=coding,
        downsamples=(shape.ratio,), pictures=False,
    )  # fmt: skip
    (path.parent / "01-volume.dcm").rename(path)


def _tiff(compression: str, **options) -> Callable[[Path, Shape], object]:
    return lambda path, it: write_tiled_tiff(
        path, rows=it.rows, columns=it.columns, tile=it.tile, downsamples=(it.ratio,), compression=compression,
        **options,
    )  # fmt: skip


# What writes a slide, whether its base is copied, and whether OpenSlide shows the very same base.
FORMATS: dict[str, tuple[Callable[[Path, Shape], object], bool, bool]] = {
    "aperio": (
        lambda path, it: write_aperio_svs(
            path, rows=it.rows, columns=it.columns, tile=it.tile, native_downsamples=(it.ratio,)
        ),
        True,
        True,
    ),
    "tiff-jpeg": (_tiff("jpeg"), True, True),
    "tiff-444": (_tiff("jpeg", subsampling="444"), True, True),
    "tiff-none": (_tiff("none"), True, False),
    "tiff-big-endian": (_tiff("deflate", byteorder=">"), False, False),
    "tiff-planar": (_tiff("lzw", planar=True), False, False),
    "tiff-strips": (_tiff("deflate", striped=True), False, False),
    "ndpi": (
        lambda path, it: write_ndpi(
            path, rows=it.rows, columns=-(-it.columns // 32) * 32, coding=NdpiCoding(interval=32),
            downsamples=(it.ratio,), macro=False,
        ),
        True,
        False,
    ),
    "scn": (lambda path, it: write_scn(path, [ScnRegion(rows=it.rows, columns=it.columns)]), True, False),
    "philips": (lambda path, it: write_philips(path, rows=it.rows, columns=it.columns, levels=2), True, False),
    "ventana": (
        lambda path, it: write_ventana(
            path, tile=it.tile[0], tile_rows=2 + it.ratio % 3, tile_columns=1 + it.ratio // 2
        ),
        True,
        True,
    ),
    "trestle": (
        lambda path, it: write_trestle(path, rows=it.rows, columns=it.columns, tile=it.tile[0]),
        True,
        True,
    ),
    "huron": (lambda path, it: write_huron(path, rows=it.rows, columns=it.columns, tile=it.tile[0]), True, True),
    "argos": (lambda path, it: write_argos(path, rows=it.rows, columns=it.columns, tile=it.tile[0]), True, True),
    "mirax": (
        lambda path, it: write_mirax(
            path, photos=(2, 4), photo=it.tile[0], overlap=(it.rows % 8, it.columns % 8), levels=2, pictures=False
        ),
        False,
        True,
    ),
    "czi": (
        lambda path, it: write_czi(path, [CziScene(it.rows, it.columns)], tile=it.tile[0], attachments=False),
        False,
        True,
    ),
    "dicom": (lambda path, it: _write_dicom(path, it, DicomCoding()), True, True),
    "dicom-sparse": (lambda path, it: _write_dicom(path, it, DicomCoding("j2k", sparse=True)), True, True),
}  # fmt: skip


@contextmanager
def made(name: str, shape: Shape) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        slide = Path(folder, "slides", "case-7731.mrxs" if name == "mirax" else "case-7731.tif")
        slide.parent.mkdir()
        FORMATS[name][0](slide, shape)
        yield slide


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a slide is found small enough as it is
)
@given(shape=SHAPES)
def test_every_frame_is_where_it_was_and_what_it_was(name: str, shape: Shape) -> None:
    _, copied, seen_by_openslide = FORMATS[name]
    with made(name, shape) as slide, open_slide(slide) as source:
        (series,) = convert_slide(
            ConversionRequest(slide, slide.parents[1] / "out", spacing_mm=(0.0005, 0.0005), validate="off")
        ).series
        base = source.pyramids[0].levels[0]
        size = base.grid.total_pixel_matrix_rows, base.grid.total_pixel_matrix_columns
        pixels, _ = base.read_region(0, 0, *size)
        if seen_by_openslide:
            with OpenSlide(slide) as other:
                assert other.dimensions == size[::-1]
                assert np.array_equal(np.asarray(other.read_region((0, 0), 0, size[::-1]))[..., :3], pixels)
        assert series.instances[0].reuses_frames == copied
        for instance in series.instances:
            ds = dcmread(series.folder / instance.file_name)
            stored = next(
                (
                    level
                    for level in source.pyramids[0].levels
                    if (level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns)
                    == (ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns)
                ),
                None,
            )
            if not instance.reuses_frames or stored is None:
                continue
            for address, frame in zip(stored.grid.iter_addresses(), _frames(ds), strict=True):
                expected = stored.read_frame(address)
                assert frame == expected + bytes(len(expected) % 2)
        with OpenSlide(series.folder / series.instances[0].file_name) as other:
            shown = np.asarray(other.read_region((0, 0), 0, size[::-1]))[..., :3].astype(int)
        lossy = base.lossy_method is not None and not copied
        assert np.abs(shown - pixels).mean() < (8 if lossy else 1e-9)


def _frames(ds) -> list[bytes]:
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    length = ds.Rows * ds.Columns * 3
    frames = [ds.PixelData[at : at + length] for at in range(0, length * ds.NumberOfFrames, length)]
    return [frame + bytes(len(frame) % 2) for frame in frames]
