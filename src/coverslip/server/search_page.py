"""The page of results: facets with counts, free text, and slides with thumbnails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from coverslip.catalog.search import SearchRequest
from coverslip.catalog.search_filters import FIELDS, Kind
from coverslip.errors import UsageError
from coverslip.server.page import make_page, message, static_url

if TYPE_CHECKING:
    from coverslip.catalog.search import Facet, FoundSlide, SearchResult
    from coverslip.server.archive import Archive
    from coverslip.server.catalog_search import CatalogSearch

__all__ = ["search_page"]

_FACETS = {
    "collection": "Collection",
    "anatomy": "Anatomy",
    "tissue": "Tissue",
    "stain": "Stain",
    "embedding": "Embedding",
    "fixative": "Fixative",
    "diagnosis": "Diagnosis",
    "channel": "Channel",
    "target": "Target",
    "objective": "Objective",
    "scanner": "Scanner",
    "validation": "Validation",
}
_NAMED = ("patient", "container", "series")
_PAGE = 24
_FACET_VALUES = 12
_MOST_PARAMETERS = 100
_NONE = "none"


def search_page(search: CatalogSearch, archive: Archive, parameters: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """Return the page for the parameters of a URL, and its status."""
    if len(parameters) > _MOST_PARAMETERS:
        return _message("This address asks for too much.", "Start a new search."), 400
    text, modalities, number = "", "", 1
    filters: dict[str, list[str]] = {}
    for name, value in parameters:
        if name == "q":
            text = value
        elif name == "radiology":
            modalities = value
        elif name == "page":
            number = int(value) if value.isascii() and value.isdigit() and 0 < len(value) < 6 else 1
        elif value and (name in _FACETS or name in _NAMED):
            filters.setdefault(name, []).append(value)
    number = max(1, number)
    request = SearchRequest(
        filters=filters,
        text=text,
        radiology=modalities,
        facets=tuple(_FACETS),
        facet_values=_FACET_VALUES,
        disjunctive=True,
        limit=_PAGE,
        offset=_PAGE * (number - 1),
    )
    try:
        found = search.search(request)
    except UsageError as error:
        return _message("This search cannot be understood.", str(error)), 400
    body = f"""<div class="results-page">
<form id="filters" class="facets" action="/" method="get" aria-label="Filters">
<input type="hidden" name="q" value="{escape(text, quote=True)}">
{_hidden((name, value) for name in _NAMED for value in filters.get(name, ()))}
{"".join(_facet(facet, filters.get(facet.name, [])) for facet in found.facets)}
{_radiology(found, modalities)}
<p class="apply"><button>Apply filters</button> <a href="/">Clear all</a></p>
</form>
<section class="results" aria-labelledby="count">
<h1 id="count" role="status" data-total="{found.total}">{_counts(found)}</h1>
{_chosen(text, modalities, filters)}
{_slides(found, archive)}
{_pages(found.total, number, parameters)}
</section>
</div>"""
    return make_page("Slides", body, scripts=[(static_url("search.js"), True)], text=text), 200


def _message(title: str, text: str) -> str:
    return make_page(title, message(title, escape(text)))


def _counts(found: SearchResult) -> str:
    slides = f"{found.total} slide{'' if found.total == 1 else 's'}"
    return f"{slides} of {found.patients} patient{'' if found.patients == 1 else 's'}"


def _hidden(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value, quote=True)}">' for name, value in pairs
    )


def _facet(facet: Facet, chosen: Sequence[str]) -> str:
    exact = "=" if FIELDS[facet.name].kind in (Kind.WORDS, Kind.CHANNEL) else ""
    options = [(f"{exact}{each.value}", each.value, each.count) for each in facet.values]
    if facet.not_stated and (options or _NONE in chosen):
        options.append((_NONE, "not stated", facet.not_stated))
    known = {value for value, _, _ in options}
    options += [(value, value.removeprefix("="), 0) for value in chosen if value not in known]
    if not options:
        return ""
    items = "".join(
        f'<li><label><input type="checkbox" name="{facet.name}" value="{escape(value, quote=True)}"'
        f"{' checked' if value in chosen else ''}> <span>{escape(shown)}</span>"
        f'<span class="number">{count}</span></label></li>'
        for value, shown, count in options
    )
    more = f'<p class="more">and {facet.more} more</p>' if facet.more else ""
    is_open = " open" if chosen or facet.name in ("collection", "anatomy", "stain", "embedding") else ""
    return (
        f'<details class="facet"{is_open}><summary>{_FACETS[facet.name]}</summary>'
        f'<fieldset><legend class="unseen">{_FACETS[facet.name]}</legend><ul>{items}</ul>{more}</fieldset></details>'
    )


def _radiology(found: SearchResult, chosen: str) -> str:
    modalities = {each.modality: each.patients for each in found.radiology}
    options = sorted({*modalities, *([chosen] if chosen else [])})
    if not options:
        return ""
    items = "".join(
        f'<option value="{escape(each, quote=True)}"{" selected" if each == chosen else ""}>'
        f"{escape(each)} ({modalities.get(each, 0)} patients)</option>"
        for each in options
    )
    return (
        '<p class="facet"><label for="radiology">Radiology of the patient</label> '
        f'<select id="radiology" name="radiology"><option value="">any</option>{items}</select></p>'
    )


def _chosen(text: str, modalities: str, filters: Mapping[str, Sequence[str]]) -> str:
    """Return what is filtered by, each with a link that takes it away."""
    pairs = [("q", text)] if text else []
    pairs += [("radiology", modalities)] if modalities else []
    pairs += [(name, value) for name, values in filters.items() for value in values]
    if not pairs:
        return ""
    items = []
    for index, (name, value) in enumerate(pairs):
        rest = urlencode(pairs[:index] + pairs[index + 1 :])
        shown = f"{_FACETS.get(name, name)}: {value.removeprefix('=')}" if name != "q" else f"“{value}”"
        items.append(
            f'<li><a href="/?{escape(rest)}"><span class="unseen">Remove filter </span>{escape(shown)} '
            '<span aria-hidden="true">×</span></a></li>'
        )
    return f'<ul class="chosen">{"".join(items)}</ul>'


def _slides(found: SearchResult, archive: Archive) -> str:
    if not found.slides:
        if not archive.instances:
            text = "There is nothing here yet: <code>coverslip convert</code> makes slides, then serve their folder."
        else:
            text = "No slide fits all filters. Take one away above, or <a href='/'>see all slides</a>."
        return f'<p class="empty">{text}</p>'
    return f'<ul class="slides">{"".join(_slide(each, archive) for each in found.slides)}</ul>'


def _slide(slide: FoundSlide, archive: Archive) -> str:
    here = slide.SeriesInstanceUID in archive.series
    series = escape(slide.SeriesInstanceUID, quote=True)
    place = f"/dicomweb/studies/{escape(slide.StudyInstanceUID or '', quote=True)}/series/{series}"
    name = slide.ContainerIdentifier or slide.PatientID or slide.SeriesInstanceUID
    picture = (
        f'<img src="{place}/thumbnail" alt="" loading="lazy" width="256" height="192">'
        if here
        else '<span class="no-picture">published elsewhere</span>'
    )
    facts = [
        ", ".join(slide.anatomy or ()),
        ", ".join(slide.stain or ()),
        ", ".join(slide.embedding or ()),
        f"{slide.objective:g}×" if slide.objective else "",
        _size(slide, archive),
    ]
    badges = "".join(
        f'<span class="badge">{escape(modality)} {count}</span>' for modality, count in slide.radiology.items()
    )
    if slide.validation == "failed":
        badges += '<span class="badge bad">validation failed</span>'
    title = escape(name)
    link = f'<a href="/slides/{series}">{title}</a>' if here else title
    return (
        f'<li class="slide"><div class="picture">{picture}</div><h2>{link}</h2>'
        f"<p>{escape(slide.PatientID or 'no patient')}"
        f"{f' · {escape(slide.collection_id)}' if slide.collection_id else ''}</p>"
        f'<p class="facts">{" · ".join(escape(each) for each in facts if each)}</p><p>{badges}</p></li>'
    )


def _size(slide: FoundSlide, archive: Archive) -> str:
    """Return the size of the base level; the catalog tells the largest of any picture, of overviews too."""
    series = archive.series.get(slide.SeriesInstanceUID)
    instances = series.instances.values() if series is not None else ()
    sizes = [
        (each.value("TotalPixelMatrixColumns") or 0, each.value("TotalPixelMatrixRows") or 0)
        for each in instances
        if each.flavor == "VOLUME"
    ]
    columns, rows = max(sizes) if sizes else (slide.matrix_columns, slide.matrix_rows)
    return f"{columns} × {rows} px" if columns and rows else ""


def _pages(total: int, number: int, parameters: Sequence[tuple[str, str]]) -> str:
    last = max(1, -(-total // _PAGE))
    if last == 1:
        return ""
    kept = [(name, value) for name, value in parameters if name != "page" and value]

    def link(page: int, text: str, rel: str) -> str:
        return f'<a rel="{rel}" href="/?{escape(urlencode([*kept, ("page", str(page))]))}">{text}</a>'

    before = link(number - 1, "Previous", "prev") if number > 1 else ""
    after = link(number + 1, "Next", "next") if number < last else ""
    return f'<nav class="pages" aria-label="Pages">{before} <span>Page {number} of {last}</span> {after}</nav>'
