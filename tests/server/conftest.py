"""A converted slide, and a server that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner

from coverslip.cli import cli
from tests.factories.aperio import write_aperio_svs
from tests.server.running import Running, serving


@dataclass(frozen=True)
class Slide:
    """A converted slide."""

    folder: Path
    study: str
    series: str
    files: dict[str, Path]
    headers: dict[str, pydicom.Dataset]

    @property
    def base(self) -> str:
        """SOP Instance UID of the base level."""
        return max(self.headers, key=lambda uid: (self.flavor(uid) == "VOLUME", self.headers[uid].NumberOfFrames))

    def flavor(self, uid: str) -> str:
        return str(self.headers[uid].ImageType[2])

    def named(self, flavor: str) -> str:
        return next(uid for uid in self.headers if self.flavor(uid) == flavor)

    def place(self, uid: str) -> str:
        return f"/dicomweb/studies/{self.study}/series/{self.series}/instances/{uid}"


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    folder = tmp_path_factory.mktemp("served")
    source = folder / "TCGA-05-4244-01Z-00-DX1.svs"
    write_aperio_svs(source, rows=700, columns=900)
    (folder / "slides.csv").write_text(f"file,project\n{source.name},TCGA-LUAD\n")
    arguments = ["convert", str(source), "-o", str(folder / "out"), "--map", "tcga", "--include", "label,overview"]
    result = CliRunner().invoke(cli, [*arguments, "--metadata", str(folder / "slides.csv")])
    assert result.exit_code == 0, result.output
    files = sorted((folder / "out").rglob("*.dcm"))
    headers = {path.stem: pydicom.dcmread(path, stop_before_pixels=True) for path in files}
    first = next(iter(headers.values()))
    by_uid = {path.stem: path for path in files}
    return Slide(folder / "out", str(first.StudyInstanceUID), str(first.SeriesInstanceUID), by_uid, headers)


@pytest.fixture(scope="session")
def server(slide: Slide) -> Iterator[Running]:
    with serving(slide.folder) as running:
        yield running
