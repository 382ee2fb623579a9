"""Every mistake in a map is told with its file, its place, what was found and what is wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coverslip.errors import UsageError
from coverslip.metadata_maps import language
from coverslip.metadata_maps.language import MetadataMap, builtin_maps, load_map, modifier_keyword

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "src" / "coverslip" / "metadata_maps" / "collections"


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], MetadataMap]:
    def load_text(text: str) -> MetadataMap:
        (tmp_path / "m.toml").write_text(text)
        return load_map(tmp_path / "m.toml")

    return load_text


MISTAKES = [
    ("[attributes", "is not TOML"),
    ("[atributes]", "atributes: is not known, wanted 'attributes'"),
    ("map = 1", "map: is a number, wanted a table"),
    ("[map]\nnam = 'x'", "map.nam: is not known, wanted 'name'"),
    ("[map]\nkey = { column = 'a' }", "map.key: has column, wanted column and equals"),
    ("[map]\ninclude = ['nothing']", "map.include: there is no 'nothing', wanted a shipped piece, or a file"),
    ("[map]\ninclude = ['m.toml']", "includes itself: m.toml > m.toml"),
    ("[attributes]\nPatientIDs = 'x'", "attributes.PatientIDs: is no keyword of the DICOM data dictionary"),
    ("[attributes]\nPatientIdd = 'x'", "wanted 'PatientID"),
    ("[attributes]\nPixelData = 'x'", "attributes.PixelData: follows from the slide and cannot be set"),
    ("[attributes]\nSpecimenIdentifier = 'x'", "does not belong here, wanted it in [specimen]"),
    ("[attributes]\nPatientID = { colum = 'x' }", "attributes.PatientID.colum: is not known, wanted 'column'"),
    ("[attributes]\nPatientID = {}", "has none, wanted one source"),
    ("[attributes]\nPatientID = { text = 'a', column = 'b' }", "has text, column, wanted one source"),
    ("[attributes]\nPatientID = []", "is empty, wanted alternatives"),
    ("[attributes]\nPatientID = [['a']]", "PatientID[0]: is an array, wanted a text or a table"),
    ("[attributes]\nPatientID = '{a'", "has a single {, wanted {{ for the character itself"),
    ("[attributes]\nPatientID = '{}'", "has empty braces"),
    ("[attributes]\nPatientID = '{a|title}'", "has the filter 'title', wanted one of id, lower, upper"),
    ("[attributes]\nPatientID = { column = 1 }", "column: is a number, wanted a text or an array of texts"),
    ("[attributes]\nPatientID = { in = '{a}', match = '(' }", "match: is no regular expression"),
    ("[attributes]\nPatientID = { column = 'a', with = '-' }", "with: joins nothing"),
    ("[attributes]\nPatientID = { column = 'a', required = 'yes' }", "required: is a text, wanted true or false"),
    ("[attributes]\nPatientID = { column = 'a', unmapped = 'keep' }", "unmapped: has no value table"),
    ("[attributes]\nPatientID = { column = 'a', values = 'v' }", "there is no value table 'v', wanted a table of"),
    ("[attributes]\nPatientID = { column = 'a', values = {}, codes = {} }", "has values and codes"),
    ("[attributes]\nPatientID = { column = 'a', values = { X = '1', x = '2' } }", "stands twice but for case"),
    ("[attributes]\nPatientID = { column = 'a', max_length = 0 }", "max_length: is 0, wanted a number above 0"),
    ("[attributes]\nPatientID = { column = 'a', on_too_long = 'cut' }", "is 'cut', wanted one of error, drop, clip"),
    ("[attributes]\nPatientID = { column = 'a', date = '%Y' }", "date: is given for a value of LO"),
    ("[attributes]\nPatientSize = { column = 'a', unit = 'parsec' }", "unit: unit 'parsec' is not known"),
    ("[attributes]\nPatientID = { column = 'a', vr = 'LO' }", "vr: is given for a standard attribute"),
    ("[attributes]\n'(0013,\"CTP\",10)' = 'x'", "vr: is missing, wanted the VR of a private attribute"),
    ("[attributes]\n'(0012,\"CTP\",10)' = 'x'", "is no keyword"),
    ("[attributes]\nPatientID = { text = 'a', when = { b = { is = 1 } } }", "when.b.is: is not known"),
    ("[attributes]\nPatientID = { text = 'a', when = { b = {} } }", "has nothing, wanted one of present, match, not"),
    ("[attributes]\nAdmittingDiagnosesCodeSequence = 'melanomma'", "no code is named 'melanomma'"),
    ("[attributes]\nAdmittingDiagnosesCodeSequence = { code = { value = '1' } }", "wanted value, scheme and meaning"),
    ("[attributes]\nAdmittingDiagnosesCodeSequence = { code = 'lung', modifier = 'normal' }", "has no modifier"),
    ("[attributes]\nAdmittingDiagnosesCodeSequence = [{ PatientID = 'x' }, 'lung']", "is no item of a sequence"),
    (
        "[specimen]\nSpecimenTypeCodeSequence = { column = 'a', codes = {}, unmapped = 'keep' }",
        "cannot be keep where codes are wanted",
    ),
    ("[specimen]\nsteps = ['embeding']", "there is no step 'embeding'"),
    ("[specimen]\nsteps = ['a']\n[steps.a]\ncontents = []", "steps.a.contents: is not known, wanted 'content'"),
    ("[specimen]\nsteps = ['a']\n[steps.a]\ncontent = 1", "content: is a number, wanted an array of tables"),
    ("[specimen]\nsteps = ['a']\n[steps.a]\ncontent = [{ concept = 'lung' }]", "has concept, wanted concept and value"),
    ("[specimen]\nsteps = ['a']\n[steps.a]\neach = 'b'", "there is no table 'b', wanted one of none"),
    ("[tables.a]", "tables.a.on: is a text, wanted a table"),
    ("[tables.a]\non = {}", "tables.a.on: is empty"),
    ("[collection]\ncolection_id = 'x'", "collection.colection_id: is not known, wanted 'collection_id'"),
    ("[variables]\na = '{b}'\nb = '{c}'\nc = '{A}'", "needs itself: a > b > c > a"),
    ("[values.v]\nx = { scheme = 'SCT' }", "values.v.'x': has scheme, wanted value, scheme and meaning, or code"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_with_file_and_place(load: Callable[[str], MetadataMap], text: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"^m\.toml") as caught:
        load(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_map_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"map 'tcgaa': is not shipped; there are .*tcga"):
        load_map("tcgaa")
    with pytest.raises(UsageError, match=r"no\.toml: cannot be read"):
        load_map(tmp_path / "no.toml")


def test_what_a_map_includes_comes_first_and_is_replaced_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.toml").write_text(
        "[map]\ninclude = 'more.toml'\n[variables]\na = 'base'\nb = '{a}'\n[attributes]\nPatientID = 'base'"
    )
    (tmp_path / "sub" / "more.toml").write_text("[attributes]\nStudyID = 'more'")
    (tmp_path / "m.toml").write_text(
        "[map]\ninclude = ['sub/base.toml']\n[variables]\na = 'own'\n[attributes]\nPatientID = 'own'"
    )
    found = load_map(tmp_path / "m.toml")
    places = {key: attribute.place for key, attribute in found.attributes.items()}
    assert places == {"StudyID": "more.toml: attributes.StudyID", "PatientID": "m.toml: attributes.PatientID"}
    assert list(found.variables) == ["a", "b"]


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[map]\ninclude = 'b.toml'")
    (tmp_path / "b.toml").write_text("[map]\ninclude = 'a.toml'")
    with pytest.raises(UsageError, match=r"a\.toml: includes itself: a\.toml > b\.toml > a\.toml"):
        load_map(tmp_path / "a.toml")


def test_a_variable_that_names_itself_means_the_column(load: Callable[[str], MetadataMap]) -> None:
    load("[variables]\nproject = '{project}'")


def test_keywords_of_modifiers_follow_from_their_sequences() -> None:
    assert modifier_keyword("PrimaryAnatomicStructureSequence") == "PrimaryAnatomicStructureModifierSequence"
    assert modifier_keyword("AnatomicRegionSequence") == "AnatomicRegionModifierSequence"


@pytest.mark.parametrize("name", sorted(path.stem for path in COLLECTIONS.glob("*.toml")))
def test_every_shipped_map_loads_and_has_a_title(name: str) -> None:
    assert load_map(name).name == name
    assert builtin_maps()[name]


def schema() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "map.schema.json").read_text())


def test_the_json_schema_has_the_words_of_the_language() -> None:
    definitions = schema()["definitions"]
    assert set(schema()["properties"]) == set(language.SECTIONS)
    for words, where in (
        (language.MAP_KEYS, schema()["properties"]["map"]),
        (language.COLLECTION_KEYS, schema()["properties"]["collection"]),
        (language.SPEC_KEYS, definitions["spec"]),
        (language.STEP_KEYS, definitions["step"]),
        (language.CONTENT_KEYS, definitions["content"]),
        (language.CODE_KEYS, definitions["inline_code"]),
        (language.TABLE_KEYS, definitions["second_table"]),
        (language.TEST_KEYS, definitions["test"]),
    ):
        assert set(where["properties"]) == set(words)
        assert where["additionalProperties"] is False


def test_the_json_schema_takes_shipped_maps_and_refuses_plain_mistakes() -> None:
    fastjsonschema = pytest.importorskip("fastjsonschema")
    import tomllib

    validate = fastjsonschema.compile(schema())
    for path in [*COLLECTIONS.glob("*.toml"), *(COLLECTIONS.parent / "chains").glob("*.toml")]:
        validate(tomllib.loads(path.read_text()))
    for text in (
        "[atributes]",
        "[attributes]\nPatientID = { colum = 'x' }",
        "[attributes]\nPatientID = { text = 'a', column = 'b' }",
        "[attributes]\nPatientID = { column = 'a', required = 'yes' }",
        "[specimen]\nsteps = ['a']\n[steps.a]\ncontents = []",
        "[collection]\ncolection_id = 'x'",
    ):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            validate(tomllib.loads(text))


def test_the_reference_page_names_every_word_of_the_language() -> None:
    page = (ROOT / "docs" / "map-language.md").read_text()
    words = {
        *language.SECTIONS, *language.MAP_KEYS, *language.COLLECTION_KEYS, *language.SPEC_KEYS, *language.STEP_KEYS,
        *language.CONTENT_KEYS, *language.CODE_KEYS, *language.TEST_KEYS, *language.TABLE_KEYS, *language.FACTS,
        *language.FILTERS,
    }  # fmt: skip
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    assert words - named == set()


def test_every_example_of_the_reference_page_loads(load: Callable[[str], MetadataMap]) -> None:
    page = (ROOT / "docs" / "map-language.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        load(example)
