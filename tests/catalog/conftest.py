"""Slides and catalogs that several tests read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from coverslip.catalog.index import IndexReport, IndexRequest, index_paths
from coverslip.catalog.schema import baseline_fields
from coverslip.cli import cli

# What our own queries read, and what tests look at.
NARROW = set(
    """
    AdmittingDiagnosesCodeSequence BodyPartExamined Columns ContainerIdentifier ImageType Manufacturer
    ManufacturerModelName Modality OpticalPathSequence OtherElements PatientAge PatientID PatientName PatientSex
    PhotometricInterpretation PixelRepresentation PixelSpacing Rows SOPClassUID SOPInstanceUID SeriesDate
    SeriesDescription SeriesInstanceUID SeriesNumber SharedFunctionalGroupsSequence SpecimenDescriptionSequence
    StudyDate StudyDescription StudyInstanceUID TotalPixelMatrixColumns TotalPixelMatrixRows TransferSyntaxUID
    """.split()
)

type Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="session")
def tcga_series(tmp_path_factory: pytest.TempPathFactory, aperio_slide: Path) -> Path:
    """Folder of a converted slide with the map of TCGA; copy it to change it."""
    folder = tmp_path_factory.mktemp("tcga")
    slide = folder / "TCGA-05-4244-01Z-00-DX1.svs"
    shutil.copy(aperio_slide, slide)
    (folder / "slides.csv").write_text(f"file,project\n{slide.name},TCGA-LUAD\n")
    arguments = ["convert", str(slide), "-o", str(folder / "out"), "--map", "tcga"]
    result = CliRunner().invoke(
        cli, [*arguments, "--metadata", str(folder / "slides.csv"), "--include", "label,overview"]
    )
    assert result.exit_code == 0, result.output
    (record,) = (folder / "out").glob("*/*/conversion.json")
    return record.parent


@pytest.fixture
def narrow_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin few columns: what a test of versions asks is the same, and a table of 1,800 columns is slow to make."""
    fields = tuple(field for field in baseline_fields() if field.name in NARROW)
    for module in ("columns", "database"):
        monkeypatch.setattr(f"coverslip.catalog.{module}.baseline_fields", lambda: fields)


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., IndexReport]:
    """Index paths into catalog.duckdb of this test."""

    def run(*paths: Path | str, to: str = "", **options: Any) -> IndexReport:
        request = IndexRequest(tuple(str(path) for path in paths), to or str(tmp_path / "catalog.duckdb"), **options)
        return index_paths(request)

    return run


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Rows]:
    """Ask the catalog of this test, as any user of DuckDB."""

    def run(query: str, parameters: Any = (), as_of: int | None = None, file: str = "catalog.duckdb") -> Rows:
        with duckdb.connect(str(tmp_path / file), read_only=True) as connection:
            if as_of is not None:
                connection.execute(f"SET VARIABLE as_of = {as_of}")
            return connection.execute(query, parameters).fetchall()

    return run
