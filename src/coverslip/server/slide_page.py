"""The page of one slide: the viewer, and what is known of it beside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from coverslip.catalog.manifests import OHIF_BASE
from coverslip.catalog.search import SearchRequest
from coverslip.errors import CoverslipError
from coverslip.server.page import definitions, make_page, static_url
from coverslip.server.viewer_files import has_viewer

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from coverslip.catalog.radiology import RadiologySeries
    from coverslip.server.archive import IndexedSeries
    from coverslip.server.service import Service
    from coverslip.server.slide_image import SlideImage

__all__ = ["slide_page"]

_FACTS = (
    ("Patient", "PatientID"),
    ("Container", "ContainerIdentifier"),
    ("Study", "StudyDescription"),
    ("Series", "SeriesDescription"),
    ("Trial", "ClinicalTrialProtocolID"),
    ("Acquired", "AcquisitionDateTime"),
    ("Manufacturer", "Manufacturer"),
    ("Model", "ManufacturerModelName"),
    ("Photometric interpretation", "PhotometricInterpretation"),
    ("Lossy compression", "LossyImageCompressionRatio"),
)
_MOST_FINDINGS = 100


def slide_page(service: Service, series: IndexedSeries) -> str:
    """Return the page of a series."""
    name = series.text("ContainerIdentifier") or series.text("PatientID") or series.series_instance_uid
    image: SlideImage | None = None
    header: Dataset | None = None
    problem = ""
    try:
        instances = list(series.instances.values())
        image = service.slides.get(instances)
        header = service.read_header(next((each for each in instances if each.flavor == "VOLUME"), instances[0]))
    except CoverslipError:
        problem = "The files of this series cannot be shown: they are damaged, or hold no picture. See the findings."
    sections = [
        _section("Slide", _facts(image, header)),
        _section("Channels", _channels(service, image)),
        _section("Specimen", _specimen(service, series)),
        _section("Validation", _validation(service, series)),
        _section("Radiology of the patient", _radiology(service, series)),
        _section("Other pictures", _associated(series)),
        _section("Links", _links(service, series)),
    ]
    body = f"""<div class="slide-page">
<section class="stage" aria-label="Slide {escape(name, quote=True)}">
{_viewer(series, image, problem)}
</section>
<aside class="panel" aria-label="About this slide">
<h1>{escape(name)}</h1>
{"".join(sections)}
</aside>
</div>"""
    scripts = []
    if image is not None and has_viewer():
        scripts = [
            (static_url("viewer-base.js"), False),
            ("/viewer/dicomMicroscopyViewer.bundle.min.js", False),
            ("/viewer/dicomweb-client.js", False),
            (static_url("slide.js"), True),
        ]
    return make_page(name, body, scripts=scripts, kind="viewing")


def _viewer(series: IndexedSeries, image: SlideImage | None, problem: str) -> str:
    study, uid = escape(series.study_instance_uid, quote=True), escape(series.series_instance_uid, quote=True)
    place = f"/dicomweb/studies/{study}/series/{uid}"
    if image is None:
        return f'<p class="empty" role="alert">{escape(problem)}</p>'
    if not has_viewer():
        return f"""<figure class="still"><img src="{place}/thumbnail?viewport=1600,1200" alt="The whole slide">
<figcaption>The viewer is not part of this installation. In a checkout, <code>make viewer</code> fetches
dicom-microscopy-viewer; a wheel that is built after that holds it. Tiles and DICOMweb work without it.</figcaption>
</figure>"""
    spacing = image.spacing_mm[1] if image.spacing_mm else 0
    return f"""<div id="viewer" tabindex="0" role="application" data-state="loading"
 aria-label="Slide image. Arrow keys move, plus and minus zoom, 0 shows the whole slide."
 data-study="{study}" data-series="{uid}"
 data-spacing="{spacing}" data-color="{int(image.is_color)}"></div>
<div class="tools" role="toolbar" aria-label="View">
<button type="button" data-do="in" aria-label="Zoom in">+</button>
<button type="button" data-do="out" aria-label="Zoom out">−</button>
<button type="button" data-do="whole" aria-label="Show the whole slide">⤢</button>
</div>
<div class="scale" aria-hidden="true"><span id="scale-bar"></span><span id="scale-text"></span></div>
<p id="state" class="state" role="status">Loading the slide…</p>
<noscript><p class="empty">The viewer needs JavaScript. <a href="{place}/thumbnail?viewport=1600,1200">See a picture
of the whole slide.</a></p></noscript>"""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _facts(image: SlideImage | None, header: Dataset | None) -> str:
    pairs = []
    if image is not None:
        levels = f"{len(image.levels)} level{'' if len(image.levels) == 1 else 's'}"
        pairs.append(("Size", f"{image.columns} × {image.rows} pixels, {levels}"))
        if image.spacing_mm:
            row, column = (each * 1000 for each in image.spacing_mm)
            pairs.append(("Pixel spacing", f"{column:.4g} × {row:.4g} µm"))
    if header is not None:
        pairs += [(name, _text(header.get(keyword))) for name, keyword in _FACTS]
        for item in header.get("OpticalPathSequence") or ():
            pairs.append(
                ("Objective", f"{_text(item.get('ObjectiveLensPower'))}×" if "ObjectiveLensPower" in item else "")
            )
            break
    return definitions(pairs)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if not isinstance(value, str) and isinstance(value, Sequence) else str(value)


def _channels(service: Service, image: SlideImage | None) -> str:
    if image is None or image.is_color:
        return ""
    most = (1 << image.bits) - 1
    rows = []
    for index, path in enumerate(image.paths):
        try:
            low, high = service.renderer.window(image, path.identifier)
        except CoverslipError:
            low, high = 0, most
        name = escape(path.description or path.identifier)
        identifier = escape(path.identifier, quote=True)
        color = path.color if len(image.paths) > 1 else "ffffff"
        rows.append(
            f'<fieldset class="channel" data-path="{identifier}"><legend>{name}</legend>'
            f'<label><input type="checkbox" data-part="shown"{" checked" if index < 4 else ""}> shown</label>'
            f'<label>colour <input type="color" data-part="color" value="#{color}"></label>'
            f'<label>from <input type="number" data-part="low" min="0" max="{most}" value="{low:.0f}"></label>'
            f'<label>to <input type="number" data-part="high" min="0" max="{most}" value="{high:.0f}"></label>'
            "</fieldset>"
        )
    return f'<div id="channels">{"".join(rows)}</div>'


def _specimen(service: Service, series: IndexedSeries) -> str:
    if service.search is None:
        return ""
    rows = service.search.rows(
        "SELECT * FROM sm_specimen_index WHERE SeriesInstanceUID = ? ORDER BY specimen_number, step_number",
        [series.series_instance_uid],
    )
    if not rows:
        return ""
    first = rows[0]
    head = definitions(
        [
            ("Specimen", first["SpecimenIdentifier"] or ""),
            ("Description", first["SpecimenShortDescription"] or ""),
            ("Type", first["specimenType_CodeMeaning"] or ""),
            ("Anatomy", first["primaryAnatomicStructure_CodeMeaning"] or ""),
            ("Modifier", first["primaryAnatomicStructureModifier_CodeMeaning"] or ""),
        ]
    )
    steps = []
    for row in rows:
        parts = [row["processingType_CodeMeaning"], row["step_method_CodeMeaning"], row["tissueFixative_CodeMeaning"]]
        parts += [row["embeddingMedium_CodeMeaning"], *(row["usingSubstance_CodeMeaning"] or ())]
        shown = ": ".join(each for each in [row["step_specimen_identifier"], ", ".join(p for p in parts if p)] if each)
        if shown:
            steps.append(f"<li>{escape(shown)}</li>")
    return head + (f"<ol>{''.join(steps)}</ol>" if steps else "")


def _validation(service: Service, series: IndexedSeries) -> str:
    if service.search is None:
        return ""
    rows = service.search.rows(
        "SELECT findings, validation_mode, validation_profile, validation_passed, validation_counts FROM conversions "
        "WHERE SeriesInstanceUID = ?",
        [series.series_instance_uid],
    )
    if not rows:
        return "<p>Nothing is known; <code>coverslip validate</code> checks a series.</p>"
    row = rows[0]
    if row["validation_mode"] in (None, "off"):
        head = "It was converted without being validated."
    elif row["validation_passed"] is False:
        head = f"It failed validation ({row['validation_mode']}, profile {row['validation_profile']})."
    else:
        head = (
            f"It was validated when it was converted ({row['validation_mode']}, profile {row['validation_profile']})."
        )
    findings = "".join(
        f'<li><span class="severity">{escape(str(each["severity"]).lower())}</span> {escape(each["message"] or "")} '
        f"<code>{escape(each['rule'] or '')}</code></li>"
        for each in (row["findings"] or [])[:_MOST_FINDINGS]
    )
    counts = "".join(
        f"<li>{each['count']} × <code>{escape(each['name'])}</code></li>" for each in row["validation_counts"] or []
    )
    return f'<p>{escape(head)}</p><ul class="findings">{findings}{counts}</ul>'


def _radiology(service: Service, series: IndexedSeries) -> str:
    if service.search is None:
        return ""
    request = SearchRequest(filters={"series": (series.series_instance_uid,)}, limit=1, radiology_series=True)
    found = service.search.search(request).radiology_series
    if not found:
        return ""
    rows = "".join(_scan(service, each) for each in found)
    return (
        '<div class="wide"><table><thead><tr><th scope="col">Modality</th><th scope="col">Series</th>'
        f'<th scope="col">Date</th><th scope="col">Viewer</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _scan(service: Service, scan: RadiologySeries) -> str:
    base = service.settings.ohif or (OHIF_BASE if scan.published else "")
    link = "not published"
    if base:
        separator = "&" if "?" in base else "?"
        series = f"&initialSeriesInstanceUID={scan.SeriesInstanceUID}"
        url = f"{base}{separator}StudyInstanceUIDs={scan.StudyInstanceUID}{series}"
        link = f'<a href="{escape(url, quote=True)}" rel="noreferrer noopener" target="_blank">OHIF</a>'
    return (
        f"<tr><td>{escape(scan.Modality)}</td><td>{escape(scan.SeriesDescription or '')}</td>"
        f"<td>{escape(scan.StudyDate or '')}</td><td>{link}</td></tr>"
    )


def _associated(series: IndexedSeries) -> str:
    path = f"/dicomweb/studies/{series.study_instance_uid}/series/{series.series_instance_uid}/instances"
    pictures = [each for each in series.instances.values() if each.flavor in ("LABEL", "OVERVIEW", "THUMBNAIL")]
    found = []
    for each in pictures:
        place = escape(f"{path}/{each.sop_instance_uid}", quote=True)
        found.append(
            f'<figure class="associated"><a href="{place}/rendered">'
            f'<img loading="lazy" src="{place}/thumbnail" alt="{each.flavor.lower()}"></a>'
            f"<figcaption>{each.flavor.lower()}</figcaption></figure>"
        )
    return "".join(found)


def _links(service: Service, series: IndexedSeries) -> str:
    study, uid = series.study_instance_uid, series.series_instance_uid
    links = [
        ("DICOMweb metadata", f"/dicomweb/studies/{study}/series/{uid}/metadata"),
        ("IIIF", f"/iiif/{uid}/info.json"),
        ("DeepZoom", f"/deepzoom/{uid}.dzi"),
        ("XYZ tiles", f"/xyz/{uid}/tilejson.json"),
    ]
    if service.settings.slim is not None:
        links.insert(0, ("Open in Slim", f"/slim/studies/{study}/series/{uid}"))
    items = "".join(f'<li><a href="{escape(url, quote=True)}">{name}</a></li>' for name, url in links)
    return f"<ul>{items}</ul>"
