"""The catalog that searches are tried on: slides converted with the maps of TCGA, CMB and HTAN, and a few scans."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb
import pytest
from examples.collection import build_catalog

from coverslip.catalog.published import PublishedFiles
from coverslip.catalog.search import SearchableCatalog, SearchRequest, open_search


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of slides, DICOM files and catalog.duckdb; copy the catalog to change it."""
    folder = tmp_path_factory.mktemp("collection")
    build_catalog(folder)
    return folder


@pytest.fixture
def catalog_file(collection: Path, tmp_path: Path) -> Path:
    """A copy of the catalog."""
    return Path(shutil.copy(collection / "catalog.duckdb", tmp_path / "catalog.duckdb"))


@pytest.fixture
def catalog(collection: Path) -> Iterator[SearchableCatalog]:
    """The catalog, without IDC's index."""
    with open_search(collection / "catalog.duckdb") as opened:
        yield opened


@pytest.fixture
def published(shared: Path) -> PublishedFiles:
    """A part of IDC's index: cmb_crc, cptac_pda, htan_hms and htan_ohsu."""
    return PublishedFiles(shared / "idc" / "idc_index_slice.parquet")


@pytest.fixture(scope="session")
def sm_index(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """IDC's sm_index for the slides of cmb_crc and cptac_pda in the slice, with stains and anatomy made up."""
    path = tmp_path_factory.mktemp("idc") / "sm_index.parquet"
    connection = duckdb.connect()
    connection.execute(
        f"""COPY (
            SELECT SeriesInstanceUID, 'slide-' || row_number() OVER (ORDER BY SeriesInstanceUID) AS ContainerIdentifier,
                ['Paraffin wax'] AS "embeddingMedium_CodeMeaning",
                ['SCT:311731000'] AS "embeddingMedium_code_designator_value_str",
                CAST([] AS VARCHAR[]) AS "tissueFixative_CodeMeaning",
                CAST([] AS VARCHAR[]) AS "tissueFixative_code_designator_value_str",
                ['hematoxylin stain', 'water soluble eosin stain'] AS "staining_usingSubstance_CodeMeaning",
                ['SCT:12710003', 'SCT:36879007'] AS "staining_usingSubstance_code_designator_value_str",
                0.00025 AS "min_PixelSpacing_2sf", 60000 AS "max_TotalPixelMatrixColumns",
                40000 AS "max_TotalPixelMatrixRows", 40 AS "ObjectiveLensPower",
                CASE collection_id WHEN 'cmb_crc' THEN 'Colon' ELSE 'Pancreas' END
                    AS "primaryAnatomicStructure_CodeMeaning",
                CASE collection_id WHEN 'cmb_crc' THEN 'SCT:71854001' ELSE 'SCT:15776009' END
                    AS "primaryAnatomicStructure_code_designator_value_str",
                CAST(NULL AS VARCHAR) AS "primaryAnatomicStructureModifier_CodeMeaning",
                CAST(NULL AS VARCHAR) AS "primaryAnatomicStructureModifier_code_designator_value_str",
                'Brightfield illumination' AS "illuminationType_CodeMeaning",
                'DCM:111744' AS "illuminationType_code_designator_value_str",
                CAST(NULL AS VARCHAR) AS "admittingDiagnosis_CodeMeaning",
                CAST(NULL AS VARCHAR) AS "admittingDiagnosis_code_designator_value_str"
            FROM read_parquet('{shared / "idc" / "idc_index_slice.parquet"}')
            WHERE Modality = 'SM' AND collection_id IN ('cmb_crc', 'cptac_pda')
        ) TO '{path}'"""
    )
    connection.close()
    return path


@pytest.fixture
def find(catalog: SearchableCatalog) -> Callable[..., list[str]]:
    """Search by filters, and return the containers of the slides."""

    def containers(text: str = "", radiology: str = "", **filters: str | Sequence[str]) -> list[str]:
        given = {
            name.replace("_", "-"): (values,) if isinstance(values, str) else tuple(values)
            for name, values in filters.items()
        }
        found = catalog.search(SearchRequest(filters=given, text=text, radiology=radiology))
        assert found.total == len(found.slides)
        return [str(slide.ContainerIdentifier) for slide in found.slides]

    return containers
