"""Searches for studies, series and instances (QIDO-RS, PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from coverslip.errors import CoverslipError, UsageError
from coverslip.server.archive import Archive, IndexedInstance, IndexedSeries, IndexedStudy
from coverslip.server.indexed_attributes import (
    INSTANCE_KEYWORDS,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    JsonElement,
    Values,
    as_element,
    tag_and_vr,
)
from coverslip.server.matching import Matcher, make_matcher
from coverslip.stores.quiet import no_pydicom_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Query", "SearchAnswer", "parse_query", "search"]

_LEVELS = {
    "studies": STUDY_KEYWORDS,
    "series": (*STUDY_KEYWORDS, *SERIES_KEYWORDS),
    "instances": (*STUDY_KEYWORDS, *SERIES_KEYWORDS, *INSTANCE_KEYWORDS),
}
_RETURNED = {
    # What results say without being asked (PS3.18 10.6.3.3): of their own level, and the UIDs above it.
    "studies": STUDY_KEYWORDS,
    "series": (*SERIES_KEYWORDS, "StudyInstanceUID"),
    "instances": (*INSTANCE_KEYWORDS, "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ContainerIdentifier"),
}
_UNSTORED = {"ModalitiesInStudy", "SOPClassesInStudy"}
_IGNORED = {"access_token", "accept", "charset"}
_MOST_HEADERS = 200
"""Results whose headers are opened for what only they tell."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    Parameters
    ----------
    level : str
        ``studies``, ``series`` or ``instances``.
    matchers : mapping
        By keyword.
    included : tuple of str
        Tags besides those that results have anyway.
    include_all : bool
    limit, offset : int
    warnings : tuple of str
        What of the query has no effect.
    """

    level: str
    matchers: Mapping[str, Matcher] = field(default_factory=dict)
    included: tuple[str, ...] = ()
    include_all: bool = False
    limit: int = 1000
    offset: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Results in the DICOM JSON model, and what is to be said in Warning headers."""

    results: list[dict[str, JsonElement]]
    warnings: tuple[str, ...]


def parse_query(level: str, parameters: Sequence[tuple[str, str]], most: int) -> Query:
    """Read the parameters of a search.

    Raises
    ------
    UsageError
        If one is none, or its value is not of its kind.
    """
    matchers: dict[str, Matcher] = {}
    included: list[str] = []
    warnings: list[str] = []
    numbers = {"limit": most, "offset": 0}
    include_all = False
    fuzzy = any(name == "fuzzymatching" and value.lower() == "true" for name, value in parameters)
    for name, value in parameters:
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "fuzzymatching":
            if value.lower() not in ("true", "false"):
                raise UsageError("fuzzymatching: expected true or false")
        elif name == "includefield":
            for each in value.split(","):
                include_all |= each.lower() == "all"
                if each.lower() != "all" and each:
                    included.append(_included(each))
        elif name.lower() not in _IGNORED:
            keyword, vr = _attribute(name)
            if keyword not in _LEVELS[level] and keyword not in _UNSTORED:
                warnings.append(f"{keyword} is not matched")
                continue
            matcher = make_matcher(keyword, vr, value, fuzzy=fuzzy)
            if matcher is not None:
                before = matchers.get(keyword)
                matchers[keyword] = matcher if before is None else _both(before, matcher)
    limit = min(numbers["limit"], most)
    return Query(level, matchers, tuple(included), include_all, limit, numbers["offset"], tuple(warnings))


def _both(one: Matcher, other: Matcher) -> Matcher:
    return lambda values: one(values) and other(values)


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise UsageError(f"{name}: expected a number from 0")
    return int(value)


def _attribute(name: str) -> tuple[str, str]:
    """Return keyword and VR of an attribute named by keyword or tag; of one in a sequence only the sequence is told."""
    from pydicom.datadict import dictionary_keyword

    known = tag_and_vr(name.split(".", maxsplit=1)[0])
    if known is None:
        raise UsageError("a parameter that is neither an attribute of DICOM nor one of a search")
    return dictionary_keyword(int(known[0], 16)), known[1] if "." not in name else "SQ"


def _included(name: str) -> str:
    known = tag_and_vr(name.split(".", maxsplit=1)[0])
    if known is None:
        raise UsageError("includefield: expected all, keywords or tags of DICOM")
    return known[0]


def search(
    archive: Archive,
    query: Query,
    base_url: str,
    read_header: Callable[[IndexedInstance], Dataset],
    study_uid: str = "",
    series_uid: str = "",
) -> SearchAnswer:
    """Answer a query, within a study or series if one is named.

    Parameters
    ----------
    base_url : str
        Of the DICOMweb service, for Retrieve URL.
    read_header : callable
        Opens an instance for what only its header tells.
    """
    found = iter(_matches(archive, query, study_uid, series_uid))
    page = list(islice(found, query.offset, query.offset + query.limit))
    warnings = list(query.warnings)
    if next(found, None) is not None:
        warnings.append("there are more results that can be requested")
    extra = query.included or query.include_all
    if extra and len(page) > _MOST_HEADERS:
        warnings.append(f"includefield is followed for {_MOST_HEADERS} results")
    results = []
    for number, match in enumerate(page):
        result = _result(query.level, match, base_url)
        if extra and number < _MOST_HEADERS:
            _include(result, query, match, read_header)
        results.append(dict(sorted(result.items())))
    return SearchAnswer(results, tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Match:
    study: IndexedStudy
    series: IndexedSeries | None = None
    instance: IndexedInstance | None = None

    def values(self, keyword: str) -> Values:
        if keyword == "ModalitiesInStudy":
            return tuple(sorted({each.modality for each in self.study.series.values()} - {""}))
        if keyword == "SOPClassesInStudy":
            classes = {
                each.value("SOPClassUID") for one in self.study.series.values() for each in one.instances.values()
            }
            return tuple(sorted(str(each) for each in classes if each))
        if keyword in self.study.attributes and keyword in STUDY_KEYWORDS:
            return self.study.attributes[keyword]
        if self.series is not None and keyword in SERIES_KEYWORDS:
            return self.series.attributes.get(keyword, ())
        if self.instance is not None and keyword in INSTANCE_KEYWORDS:
            return self.instance.values[INSTANCE_KEYWORDS.index(keyword)]
        return ()

    def an_instance(self) -> IndexedInstance | None:
        if self.instance is not None:
            return self.instance
        series: Iterable[IndexedSeries] = [self.series] if self.series is not None else self.study.series.values()
        return next((each for one in series for each in one.instances.values()), None)


def _matches(archive: Archive, query: Query, study_uid: str, series_uid: str) -> Iterator[_Match]:
    def fits(match: _Match, keywords: Sequence[str]) -> bool:
        return all(matcher(match.values(each)) for each, matcher in query.matchers.items() if each in keywords)

    of_study = (*STUDY_KEYWORDS, *_UNSTORED)
    for study in _studies(archive, study_uid, series_uid):
        match = _Match(study)
        if not fits(match, of_study):
            continue
        if query.level == "studies":
            yield match
            continue
        for series in list(study.series.values()):
            match = _Match(study, series)
            if series_uid not in ("", series.series_instance_uid) or not fits(match, SERIES_KEYWORDS):
                continue
            if query.level == "series":
                yield match
                continue
            for instance in list(series.instances.values()):
                match = _Match(study, series, instance)
                if fits(match, INSTANCE_KEYWORDS):
                    yield match


def _studies(archive: Archive, study_uid: str, series_uid: str) -> list[IndexedStudy]:
    if study_uid:
        found = archive.studies.get(study_uid)
        return [found] if found is not None and (not series_uid or series_uid in found.series) else []
    return list(archive.studies.values())


def _result(level: str, match: _Match, base_url: str) -> dict[str, JsonElement]:
    result = {}
    for keyword in _RETURNED[level]:
        tag, vr = tag_and_vr(keyword) or ("", "")
        result[tag] = as_element(vr, match.values(keyword))
    url = f"{base_url}/studies/{match.study.study_instance_uid}"
    series = list(match.study.series.values())
    if level == "studies":
        result["00080061"] = as_element("CS", match.values("ModalitiesInStudy"))
        result["00201206"] = as_element("IS", (len(series),))
        result["00201208"] = as_element("IS", (sum(len(each.instances) for each in series),))
    if match.series is not None:
        url += f"/series/{match.series.series_instance_uid}"
        if level == "series":
            result["00201209"] = as_element("IS", (len(match.series.instances),))
    if match.instance is not None:
        url += f"/instances/{match.instance.sop_instance_uid}"
        syntax = match.instance.transfer_syntax_uid
        result["00083002"] = as_element("UI", (syntax,) if syntax else ())
    result["00080056"] = as_element("CS", ("ONLINE",))
    result["00081190"] = as_element("UR", (url,))
    return result


def _include(
    result: dict[str, JsonElement], query: Query, match: _Match, read_header: Callable[[IndexedInstance], Dataset]
) -> None:
    """Add attributes that were asked for: indexed ones, and others from the header of one instance."""
    for keyword in _LEVELS[query.level]:
        tag, vr = tag_and_vr(keyword) or ("", "")
        if tag not in result and (query.include_all or tag in query.included):
            result[tag] = as_element(vr, match.values(keyword))
    missing = [tag for tag in query.included if tag not in result]
    instance = match.an_instance()
    if instance is None or not (missing or query.include_all):
        return
    try:
        header = read_header(instance)
    except CoverslipError:
        return  # what is indexed is told even if the file cannot be read now
    tags: Iterable[Any] = header if query.include_all else (header.get_item(int(tag, 16)) for tag in missing)
    for element in tags:
        if element is None or element.tag.is_private or element.tag.group in (0x0002, 0x7FE0):
            continue
        tag = f"{element.tag:08X}"
        with suppress(Exception), no_pydicom_warnings():  # one damaged value must not hide the others
            element = header[element.tag]
            if element.VR not in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN"):
                result.setdefault(tag, _as_json(element.to_json_dict(None, 1 << 20)))
            elif element.VR == "SQ" and tag in query.included:
                result[tag] = _as_json(element.to_json_dict(lambda _: "", 1))


def _as_json(element: JsonElement) -> JsonElement:
    json.dumps(element, allow_nan=False)  # JSON knows no NaN
    return element
