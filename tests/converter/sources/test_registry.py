"""What `open_slide` makes of files that are slides, and of files that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.factories.damage import truncate, write_empty, write_text
from tests.factories.generic import write_tiled_tiff

from coverslip.converter.sources import open_slide, registry
from coverslip.converter.sources.registry import FORMATS, SlideFormat
from coverslip.errors import CorruptSourceError, MissingDependencyError, SourceError, UnsupportedSourceError

BAD = {
    "empty.svs": (UnsupportedSourceError, "the file is empty"),
    "text.svs": (UnsupportedSourceError, "looks like a text file"),
    "trunc_header.svs": (CorruptSourceError, "truncated"),
    "trunc_half.svs": (CorruptSourceError, "truncated"),
    "float32_tiled.tif": (UnsupportedSourceError, "floating point"),
    "ome_badxml.ome.tif": (UnsupportedSourceError, "does not parse"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_shared_file_ends_in_its_error(shared, name):
    kind, words = BAD[name]
    with pytest.raises(kind, match=words) as caught:
        open_slide(shared / "slides/bad" / name)
    assert "\n" not in str(caught.value)
    assert name not in str(caught.value)  # the caller names the file as the user did


@pytest.mark.parametrize("name", ["rgba_tiled.tif", "planar_tiled.tif"])
def test_odd_shared_files_are_read_as_tifffile_reads_them(shared, name):
    picture = tifffile.imread(shared / "slides/bad" / name)
    picture = np.moveaxis(picture, 0, 2) if picture.shape[0] == 3 else picture
    cover = picture[..., 3:] / 255 if picture.shape[2] == 4 else 1.0
    expected = picture[..., :3] * cover + 255 * (1 - cover)
    with open_slide(shared / "slides/bad" / name) as source:
        found, missing = source.pyramids[0].levels[0].read_region(0, 0, 512, 512)
    assert missing == 0
    assert np.abs(found - expected).max() <= 0.5


def test_the_bad_shared_files_that_open_say_what_is_wrong(shared):
    with open_slide(shared / "slides/bad/no_mpp.svs") as source:
        assert source.pyramids[0].levels[0].pixel_spacing is None
    with open_slide(shared / "slides/bad/strip_noresolution.tif") as source:
        assert [finding.rule for finding in source.findings] == ["source.spacing-unknown"]
    with open_slide(shared / "slides/bad/corrupt_tile.svs") as source:
        level = source.pyramids[0].levels[0]
        with pytest.raises(CorruptSourceError, match=r"level 0, frame 65, byte offset 539442"):
            level.read_region(0, 0, 2967, 2220)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xd8\xff\xe0 picture", "JPEG picture"),
        (b"\x89PNG\r\n\x1a\n", "PNG picture"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (bytes(128) + b"DICM" + bytes(64), "DICOM of another kind|header cannot be read"),
        (bytes(range(256)), "unknown kind"),
        ("schöne Grüße\n".encode(), "text file"),
    ],
)
def test_a_file_that_is_no_slide_is_named_for_what_it_looks_like(tmp_path, data, words):
    path = tmp_path / "file.svs"
    path.write_bytes(data)
    with pytest.raises(UnsupportedSourceError, match=words):
        open_slide(path)


def test_empty_and_text_are_told_from_slides(tmp_path):
    path = tmp_path / "slide.svs"
    write_empty(path)
    with pytest.raises(UnsupportedSourceError, match="empty"):
        open_slide(path)
    write_text(path)
    with pytest.raises(UnsupportedSourceError, match="text"):
        open_slide(path)


def test_a_slide_cut_in_its_header_is_corrupt(tmp_path, aperio_slide):
    path = tmp_path / "slide.svs"
    path.write_bytes(aperio_slide.read_bytes())
    truncate(path, 6)
    with pytest.raises(CorruptSourceError, match="header"):
        open_slide(path)


def test_a_directory_a_missing_file_and_a_pipe_are_source_errors(tmp_path):
    with pytest.raises(SourceError, match="is a directory"):
        open_slide(tmp_path)
    with pytest.raises(SourceError, match="No such file"):
        open_slide(tmp_path / "none.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SourceError, match="no regular file"):
        open_slide(tmp_path / "pipe.svs")


@pytest.mark.parametrize("name", ["a b.svs", "a\nb.svs", "🔬.svs", "-rf.svs", "no suffix"])
def test_the_name_of_a_file_does_not_matter(tmp_path, aperio_slide, name):
    path = tmp_path / name
    path.write_bytes(aperio_slide.read_bytes())
    with open_slide(str(path)) as source:
        assert source.format_name == "aperio-svs"


def test_a_nul_in_the_name_is_a_source_error():
    with pytest.raises(SourceError, match="cannot be read"):
        open_slide("a\0b.svs")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import a_library_that_nobody_has", "lacks a_library_that_nobody_has: pip install it"),
        ("raise OSError('no such shared object')", r"does not load \(OSError\): pip install it"),
        (None, "needy, which is not installed: pip install it"),
    ],
)
def test_a_library_that_is_missing_or_broken_is_named_with_its_install_command(
    tmp_path, aperio_slide, monkeypatch, code, words
):
    if code is not None:
        (tmp_path / "needy.py").write_text(f"{code}\n")
        monkeypatch.syspath_prepend(tmp_path)
    needy = SlideFormat("needy", "Needy", "aperio", lambda _: True, dependency="needy", install="pip install it")
    monkeypatch.setattr(registry, "FORMATS", (needy,))
    with pytest.raises(MissingDependencyError, match=words):
        open_slide(aperio_slide)


def test_a_broken_library_breaks_no_other_format(tmp_path, aperio_slide):
    (tmp_path / "openslide.py").write_text("raise OSError('libopenslide is broken')\n")
    (tmp_path / "slide.mrxs").write_bytes(b"index")
    program = (
        "import sys\n"
        "from coverslip.converter.sources import open_slide\n"
        "open_slide(sys.argv[1]).close()\n"
        "try:\n"
        "    open_slide(sys.argv[2])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(aperio_slide), str(tmp_path / "slide.mrxs")],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(
        "MissingDependencyError 3DHISTECH MIRAX slides are read with openslide, which does not"
    )
    assert "pip install openslide-python openslide-bin" in done.stdout


def test_every_format_has_a_module_that_opens_it_and_says_all_of_itself():
    for slide_format in FORMATS:
        if isinstance(slide_format, SlideFormat):
            module = import_module(f"coverslip.converter.sources.{slide_format.module}")
            assert callable(module.open_source)
            assert all(getattr(slide_format, field.name) for field in fields(slide_format)[4:10])
            assert bool(slide_format.dependency) == bool(slide_format.install)


def test_names_and_titles_of_formats_are_each_its_own():
    for words in ([one.name for one in FORMATS], [one.title for one in FORMATS]):
        assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("name", "data"), [("frame_t.ets", b"SIS\0" + bytes(60)), ("slide.vsi", b"II*\0"), ("slide.VSI", None)]
)
def test_a_format_that_is_known_and_not_read_is_refused_with_a_way_out(tmp_path, name, data):
    write_tiled_tiff(tmp_path / name, rows=64, columns=64)  # as the small pictures of a .vsi are
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UnsupportedSourceError, match=r"Olympus VSI and ETS.*bfconvert"):
        open_slide(tmp_path / name)


def test_detection_reads_the_file_through_one_descriptor(tmp_path, aperio_slide):
    program = (
        "import sys\n"
        "from coverslip.converter.sources import open_slide\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == 'open' else None)\n"
        "open_slide(sys.argv[1]).close()\n"
        "print(opened.count(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(aperio_slide)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "1"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=400), magic=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"]))
def test_detection_of_any_bytes_ends_in_a_source_error(tmp_path, data, magic):
    path = tmp_path / "file"
    path.write_bytes(magic + data)
    with pytest.raises(SourceError):
        open_slide(path)


def test_a_file_that_is_refused_is_closed(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(bytes(range(200)))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(UnsupportedSourceError):
        open_slide(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_opening_an_aperio_slide_loads_no_library_that_is_slow_to_start(aperio_slide):
    program = (
        "import sys\n"
        "from coverslip.converter.sources import open_slide\n"
        "from coverslip.tiler.grid import TileAddress\n"
        "with open_slide(sys.argv[1]) as source:\n"
        "    level = source.pyramids[0].levels[0]\n"
        "    level.decode_frame(level.read_frame(TileAddress(0, 0)), TileAddress(0, 0))\n"
        "print([name for name in ('tifffile', 'imagecodecs', 'openslide', 'cv2', 'PIL') if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(aperio_slide)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
