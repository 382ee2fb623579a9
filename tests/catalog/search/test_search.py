"""Searches: which slides a filter finds, in which order, with which counts beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coverslip.catalog.database import open_catalog
from coverslip.catalog.search import Facet, SearchableCatalog, SearchRequest, SearchResult, open_search
from coverslip.catalog.search_filters import FIELDS, Kind
from coverslip.errors import CatalogError, UsageError

Find = Callable[..., list[str]]

CRC, PCA, UNSTAINED = "MSB-00643-01-02", "MSB-00043-01-02", "MSB-00043-01-03"
HE, CYCIF = "HTA9_1_93", "HTA9_1_94"
GBM = "TCGA-12-0819-01Z-00-DX1"
FROZEN, FFPE, NORMAL = "TCGA-05-4244-01A-01-TS1", "TCGA-05-4244-01Z-00-DX1", "TCGA-05-4250-11A-01-TS1"
ALL = [CRC, PCA, UNSTAINED, HE, CYCIF, GBM, FROZEN, FFPE, NORMAL]
STAINED = [CRC, PCA, HE, GBM, FROZEN, FFPE, NORMAL]


def test_without_filters_all_slides_are_found_in_the_order_of_collection_patient_and_container(find: Find) -> None:
    assert find() == ALL


@pytest.mark.parametrize(
    "value",
    ["hematoxylin", "HEMATOXYLIN stain", "hemat*", "SCT:12710003", "sct:12710003", "12710003", "H&E", "haematoxylin",
     "eosin hematoxylin", "hematoxylin AND eosin"],
)  # fmt: skip
def test_a_stain_is_found_by_words_in_any_case_by_their_beginning_by_code_and_by_its_other_names(
    find: Find, value: str
) -> None:
    assert find(stain=value) == STAINED


@pytest.mark.parametrize("value", ["hemat", "SCT:1271000", "hematoxylin AND giemsa", "toxylin"])
def test_parts_of_words_and_codes_find_nothing(find: Find, value: str) -> None:
    assert find(stain=value) == []


def test_what_is_not_stated_is_found_by_none_and_what_lacks_a_value_by_not(find: Find) -> None:
    assert find(stain="none") == [UNSTAINED]
    assert find(stain="NOT eosin") == [UNSTAINED, CYCIF]
    assert find(stain="NOT none AND NOT eosin") == [CYCIF]


def test_a_whole_value_is_asked_for_with_an_equals_sign(find: Find) -> None:
    assert find(tissue="Neoplasm, Primary") == [CRC, PCA, GBM, FROZEN, FFPE]
    assert find(tissue="=neoplasm, primary") == [GBM, FROZEN, FFPE]
    assert find(scanner="=Leica Biosystems Aperio AT2") == [HE, CYCIF]
    assert find(channel="=Ki-67") == [CYCIF]
    assert find(channel="=ki67") == []


def test_values_of_one_filter_are_alternatives_and_filters_have_to_hold_together(find: Find) -> None:
    assert find(anatomy=["lung", "colon"]) == [CRC, FROZEN, FFPE, NORMAL]
    assert find(anatomy=["lung", "colon"], embedding="FFPE") == [CRC, FFPE]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("collection", "TCGA-LUAD", [FROZEN, FFPE, NORMAL]),
        ("collection", "cmb_*", [CRC, PCA, UNSTAINED]),
        ("collection", "cmb", []),
        ("cancer_type", "lung adenocarcinoma", [FROZEN, FFPE, NORMAL]),
        ("anatomy", "SCT:41216001", [PCA, UNSTAINED]),
        ("anatomy", "none", [HE, CYCIF]),
        ("tissue", "normal", [UNSTAINED, NORMAL]),
        ("fixative", "formalin", [CRC, PCA, UNSTAINED, HE, CYCIF, GBM, FFPE]),
        ("embedding", "frozen", [FROZEN, NORMAL]),
        ("illumination", "epifluorescence", [CYCIF]),
        ("objective", "40", [GBM, FFPE]),
        ("objective", "30..", [GBM, FFPE]),
        ("spacing", "0.25", [GBM, FFPE]),
        ("spacing", "..0.3", [GBM, FFPE]),
        ("spacing", "0.253..0.6", [CRC, PCA, UNSTAINED, HE, CYCIF, FROZEN, NORMAL]),
        ("size", "..430", [FROZEN, FFPE]),
        ("size", "1000..1030", [HE, CYCIF]),
        ("megabytes", "0.5..", [HE, CYCIF]),
        ("scanner", "leica at2", [HE, CYCIF]),
        ("specimen_type", "SCT:1179252003", ALL),
        ("diagnosis", "prostate", [PCA, UNSTAINED]),
        ("patient", "msb-00043", [PCA, UNSTAINED]),
        ("patient", "TCGA-05-*", [FROZEN, FFPE, NORMAL]),
        ("container", "*_94", [CYCIF]),
        ("license", "CC BY 3.0", [GBM, FROZEN, FFPE, NORMAL]),
        ("validation", "none", ALL),
        ("validation", "passed", []),
        ("source", "catalog", ALL),
        ("source", "idc", []),
    ],
)
def test_filter(find: Find, name: str, value: str, found: list[str]) -> None:
    assert find(**{name: value}) == found


def test_filters_of_channels_have_to_fit_one_channel(find: Find) -> None:
    assert find(target="CD3") == [CYCIF]
    assert find(target="CD3", fluorophore="Alexa Fluor 488") == [CYCIF]
    assert find(target="CD3", fluorophore="Alexa Fluor 555") == []


def test_a_channel_is_asked_for_beside_another_by_and(find: Find) -> None:
    assert find(target="CD3 AND CD45") == [CYCIF]
    assert find(target="CD3 AND CD8") == []
    assert find(target="NOT CD3 AND NOT none") == []
    assert find(target="none") == [each for each in ALL if each != CYCIF]


def test_a_marker_is_found_with_and_without_its_hyphen_and_not_by_another_that_begins_like_it(find: Find) -> None:
    assert find(target="Ki-67") == find(target="ki67") == find(channel="KI 67") == [CYCIF]
    assert find(target="CD4") == []
    assert find(target="CD4*") == [CYCIF]


def test_an_antibody_is_found_by_its_identifier(find: Find) -> None:
    assert find(antibody="AB_2889189") == find(antibody="anti-CD3") == [CYCIF]


def test_words_are_looked_for_in_all_descriptions_at_once(find: Find) -> None:
    assert find("lung formalin") == [FFPE]
    assert find("PROSTATE biopsy") == [PCA, UNSTAINED]
    assert find("cycif") == [CYCIF]
    assert find("xyzzy") == []
    assert find("  ") == ALL


def test_slides_are_found_by_the_radiology_of_their_patient(find: Find) -> None:
    assert find(radiology="CT,MR,PT") == [GBM, FROZEN, FFPE]
    assert find(radiology="ct+pt") == [FROZEN, FFPE]
    assert find(radiology="MR+CT") == []


def test_radiology_is_counted_for_all_slides_and_told_for_those_that_are_shown(catalog: SearchableCatalog) -> None:
    found = catalog.search(SearchRequest(radiology="CT", limit=1, radiology_series=True))
    assert found.total == 2
    assert found.slides[0].radiology == {"CT": 2, "PT": 1}
    assert [(each.modality, each.series, each.patients) for each in found.radiology] == [("CT", 2, 1), ("PT", 1, 1)]
    assert [each.SeriesDescription for each in found.radiology_series if each.Modality == "PT"] == ["PET WB"]
    assert len(found.radiology_series) == 3


def test_the_same_patient_id_in_another_collection_is_another_patient(catalog_file: Path) -> None:
    with open_catalog(catalog_file) as connection:
        connection.execute("UPDATE history.search_patient SET collection_id = 'other' WHERE Modality = 'CT'")
    with open_search(catalog_file) as catalog:
        assert catalog.search(SearchRequest(radiology="CT")).total == 0


def test_limit_and_offset_give_pages_and_leave_counts_as_they_are(catalog: SearchableCatalog) -> None:
    whole = catalog.search(SearchRequest())
    pages = [catalog.search(SearchRequest(limit=4, offset=offset)) for offset in (0, 4, 8)]
    assert [slide for page in pages for slide in page.slides] == list(whole.slides)
    assert {page.total for page in pages} == {9}
    assert catalog.search(SearchRequest(limit=0)) == replace(whole, slides=())
    assert (whole.patients, whole.collections) == (6, 5)


def test_a_slide_has_meanings_codes_and_channels(catalog: SearchableCatalog) -> None:
    (slide,) = catalog.search(SearchRequest(filters={"container": (CYCIF,)})).slides
    assert slide.embedding == ("Paraffin wax",)
    assert slide.embedding_codes == ("SCT:311731000",)
    assert slide.channels is not None
    assert {(each.target, each.fluorophore) for each in slide.channels} == {
        ("DNA", "DAPI"),
        ("CD3", "Alexa Fluor 488"),
        ("CD45", "Alexa Fluor 555"),
        ("Ki-67", "Alexa Fluor 647"),
    }
    assert (slide.matrix_columns, slide.matrix_rows, slide.spacing_um, slide.objective) == (1030, 720, 0.5021, 20)


def facet(result: SearchResult, name: str) -> Facet:
    return next(each for each in result.facets if each.name == name)


def counts(found: Facet) -> dict[str, int]:
    return {each.value: each.count for each in found.values}


def test_facets_count_values_of_the_slides_found(catalog: SearchableCatalog) -> None:
    found = catalog.search(
        SearchRequest(filters={"collection": ("tcga_luad", "cmb_pca")}, facets=("anatomy", "stain", "embedding"))
    )
    assert counts(facet(found, "anatomy")) == {"Lung": 3, "Prostate": 2}
    assert facet(found, "anatomy").values[0].code == "SCT:39607008"
    assert counts(facet(found, "stain")) == {"hematoxylin stain": 4, "water soluble eosin stain": 4}
    assert facet(found, "stain").not_stated == 1
    assert counts(facet(found, "embedding")) == {"Paraffin wax": 3, "Tissue freezing medium": 2}


def test_a_disjunctive_facet_is_counted_without_its_own_filter(catalog: SearchableCatalog) -> None:
    request = SearchRequest(
        filters={"anatomy": ("lung",), "embedding": ("FFPE",)}, facets=("anatomy", "embedding"), disjunctive=True
    )
    found = catalog.search(request)
    assert counts(facet(found, "anatomy")) == {"Brain": 1, "Colon": 1, "Lung": 1, "Prostate": 2}
    assert counts(facet(found, "embedding")) == {"Paraffin wax": 1, "Tissue freezing medium": 2}
    assert [slide.ContainerIdentifier for slide in found.slides] == [FFPE]
    plain = catalog.search(replace(request, disjunctive=False))
    assert counts(facet(plain, "anatomy")) == {"Lung": 1}


def test_facets_show_so_many_values_and_count_the_others(catalog: SearchableCatalog) -> None:
    found = facet(catalog.search(SearchRequest(facets=("target",), facet_values=3)), "target")
    assert [each.value for each in found.values] == ["CD3", "CD45", "DNA"]
    assert (found.more, found.not_stated, found.unknown) == (1, 8, 0)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.facet])
def test_every_value_of_a_facet_finds_as_many_slides_as_it_counts(catalog: SearchableCatalog, name: str) -> None:
    found = facet(catalog.search(SearchRequest(facets=(name,), limit=0)), name)
    assert found.values
    for each in found.values:
        value = f"={each.value}" if FIELDS[name].kind in (Kind.WORDS, Kind.CHANNEL) else each.value
        assert catalog.search(SearchRequest(filters={name: (value,)}, limit=0)).total == each.count, each


def test_refreshing_again_or_slide_by_slide_gives_the_same_rows(catalog_file: Path) -> None:
    from coverslip.catalog.search_table import refresh_search

    with open_catalog(catalog_file) as connection:
        rows = "SELECT * FROM history.search_slide ORDER BY ALL"
        patients = "SELECT * FROM history.search_patient ORDER BY ALL"
        before = connection.execute(rows).fetchall(), connection.execute(patients).fetchall()
        assert len(before[0]) == 9
        connection.execute(
            "CREATE TEMP TABLE affected AS SELECT SeriesInstanceUID FROM idc_index WHERE collection_id = 'tcga_luad'"
        )
        connection.execute("UPDATE history.search_slide SET stain_words = NULL WHERE collection_id = 'tcga_luad'")
        refresh_search(connection)
        assert (connection.execute(rows).fetchall(), connection.execute(patients).fetchall()) == before
        connection.execute("DROP TABLE history.search_slide")
        refresh_search(connection)
        assert (connection.execute(rows).fetchall(), connection.execute(patients).fetchall()) == before


def test_a_catalog_without_the_table_of_slides_is_searched_all_the_same(catalog_file: Path) -> None:
    with open_search(catalog_file) as catalog:
        before = catalog.search(SearchRequest(facets=("stain",)))
    with open_catalog(catalog_file) as connection:
        connection.execute("DROP TABLE history.search_slide")
    with open_search(catalog_file) as catalog:
        assert catalog.search(SearchRequest(facets=("stain",))) == before


def test_an_earlier_version_is_searched_as_it_was(catalog_file: Path, collection: Path) -> None:
    from coverslip.catalog.index import IndexRequest, index_paths

    only = collection / "dicom" / "scans"
    index_paths(IndexRequest((str(only),), str(catalog_file)))
    with open_catalog(catalog_file) as connection:
        connection.execute("INSERT INTO versions VALUES (2, NULL, NULL)")
        for table in ("instances", "series", "dicom_metadata", "idc_index", "sm_index"):
            connection.execute(
                f"UPDATE history.{table} SET final_version = 1 WHERE SeriesInstanceUID IN "
                "(SELECT SeriesInstanceUID FROM history.search_slide WHERE collection_id = 'cmb_pca')"
            )
        connection.execute("DELETE FROM history.search_slide WHERE collection_id = 'cmb_pca'")
    with open_search(catalog_file) as catalog:
        assert catalog.version == 2
        assert catalog.search(SearchRequest()).total == 7
    with open_search(catalog_file, as_of="1") as catalog:
        assert catalog.version == 1
        assert [slide.ContainerIdentifier for slide in catalog.search(SearchRequest()).slides] == ALL


def test_several_search_one_catalog_at_the_same_time(collection: Path) -> None:
    path = collection / "catalog.duckdb"
    with open_search(path) as one, open_search(path) as other:
        assert one.search(SearchRequest()) == other.search(SearchRequest())


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"stan": ("x",)}, "filter stan: there is none"),
        ({"stain": ("",)}, "--stain '': expected words or a code"),
        ({"stain": ("eosin AND ",)}, "expected words or a code"),
        ({"spacing": ("x",)}, "--spacing 'x': expected a number or a range"),
        ({"spacing": ("..",)}, "expected a number or a range"),
        ({"spacing": ("0.5..0.2",)}, "the first number is larger"),
        ({"validation": ("good",)}, "expected one of passed, failed, none"),
        ({"patient": (" ",)}, "--patient: expected an identifier"),
    ],
)
def test_a_filter_or_value_that_is_none_is_told(
    catalog: SearchableCatalog, filters: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.search(SearchRequest(filters=filters))
    assert message in str(caught.value)


def test_an_unknown_facet_or_modality_is_told(catalog: SearchableCatalog) -> None:
    with pytest.raises(UsageError, match="facet patient: there is none"):
        catalog.search(SearchRequest(facets=("patient",)))
    with pytest.raises(UsageError, match="expected modalities such as CT,MR,PT"):
        catalog.search(SearchRequest(radiology="CT,'; DROP TABLE versions; --"))


def test_values_are_never_taken_for_sql(find: Find) -> None:
    assert find(patient="x' OR true --") == []
    assert find(stain="x') OR (true") == []
    assert find("') OR true OR contains(text_words, '") == []
    assert find(container="100%") == []


@pytest.mark.parametrize("content", ["", "no database at all, only some words"])
def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.duckdb"
    path.write_text(content)
    with pytest.raises(CatalogError), open_search(path):
        pass


def test_a_catalog_of_a_newer_format_is_refused(catalog_file: Path) -> None:
    with open_catalog(catalog_file) as connection:
        connection.execute("UPDATE history.catalog_format SET format = 99")
    with pytest.raises(CatalogError, match="format 99, this coverslip knows 1"), open_search(catalog_file):
        pass
