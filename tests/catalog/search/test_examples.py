"""The example notebook and queries run as they are, and find what is in the collection they are tried on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest

from coverslip.catalog.search import SearchableCatalog
from coverslip.catalog.sql import run_sql

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = ROOT / "examples" / "search.ipynb"
QUERIES = sorted((ROOT / "examples" / "sql").glob("*.sql"))

FIRST_ROWS: dict[str, tuple[object, ...]] = {
    "channel_search": (ANY, "CD3, CD45, DNA, Ki-67"),  # the UID changes with every format of the output
    "channels_in_order": ("HTA9_1_94", 0, "Channel:DAPI", 395.0),
    "dashboard_collections": ("tcga_luad", 3, 2, 6),
    "dashboard_missing": ("cmb_crc", 1, 0, 0, 0, 0, 0),
    "dashboard_modalities": ("CT", 1, 2),
    "dashboard_quality": ("cmb_crc", 0, 0, 1),
    "dashboard_scanners": ("Aperio", "ScanScope", 20, 0.5, 5),
    "ffpe_slides_with_ct": ("tcga_luad", "TCGA-05-4244", "TCGA-05-4244-01Z-00-DX1"),
    "preparation_steps": ("cmb_crc", "MSB-00643-01-02", 1, "Specimen Collection", None),
    "slides_with_clinical": ("IV", 3, 2),
    "stain_counts": ("hematoxylin stain", 7),
}


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_an_example_query_is_bigquerys_and_finds_what_it_says(catalog: SearchableCatalog, path: Path) -> None:
    text = path.read_text()
    assert text.startswith("-- ")
    result = run_sql(catalog, text)
    assert result.dialect == "bigquery"
    wanted = FIRST_ROWS[path.stem]
    assert result.rows[0][: len(wanted)] == wanted
    assert run_sql(catalog, text).rows == result.rows


def test_every_example_query_is_tried() -> None:
    assert [path.stem for path in QUERIES] == sorted(FIRST_ROWS)


def test_the_notebook_is_kept_without_what_it_prints() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


RUN = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def test_the_notebook_runs_and_draws_what_it_finds(collection: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    done = tmp_path / "done.ipynb"
    environment = {
        **os.environ,
        "COVERSLIP_CATALOG": str(collection / "catalog.duckdb"),
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }
    command = [sys.executable, "-c", RUN, str(NOTEBOOK), str(ROOT), str(done)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr[-2000:]
    outputs = [output for cell in json.loads(done.read_text())["cells"] for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    assert len(pictures) == 3
    assert "9 slides of 6 patients in 5 collections" in text
    assert "TCGA-05-4244-01Z-00-DX1" in text
    assert "CHEST CT LUNG" in text
    assert "HTA9_1_94 Ki-67 Ki-67" in text
    assert "ffpe_slides_with_ct (bigquery)" in text
