"""Write validation reports as one HTML page that needs nothing else, for the screen, a phone and paper."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final, Self

import cv2
import numpy as np

from coverslip import __version__
from coverslip.errors import CorruptSourceError, StoreError
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding, Severity, ValidationReport
from coverslip.validators.rules import RULES
from coverslip.validators.series import SeriesView, find_series, local_files

if TYPE_CHECKING:
    from types import TracebackType

    from pydicom import Dataset

    from coverslip.tiler.codecs.base import Pixels

__all__ = ["HtmlReport", "write_html_report"]

_MOST_SHOWN: Final = 20  # findings of one rule
_MOST_MARKED: Final = 2000  # frames on one map
_MOST_DECODED: Final = 16 << 20  # pixels of the level that the thumbnail is made from
_THUMBNAIL_SIDE: Final = 480
_MAP_SIDE: Final = 520
_FRAME_PLACE: Final = re.compile(r"(?P<name>.+): frame (?P<number>\d+)")
_USING_SUBSTANCE: Final = "424361007"  # SCT, of PS3.16 TID 8003
_FAILED: Final = "failed"
_HEADINGS: Final = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Remarks"}


class HtmlReport:
    """A page about one or many series, which are added one after the other; none is held in memory.

    Pixels of labels and overviews are not shown.

    Parameters
    ----------
    path : Path
        Of the page, which appears when `write` is called.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sections = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as this object
        self._rows: list[_Row] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sections.close()

    def add(self, report: ValidationReport, series: SeriesView | None) -> None:
        """Add a series; what it looks like is told if it is given and open."""
        self._rows.append(_Row.of(report, series))
        self._sections.writelines(_section(len(self._rows), report, series))

    def write(self) -> None:
        """Write the page.

        Raises
        ------
        StoreError
            If the page cannot be written.
        """
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.writelines(_head(self._rows))
                self._sections.seek(0)
                shutil.copyfileobj(self._sections, file)
                file.write("</main>\n</body>\n</html>\n")
            draft.replace(self._path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise StoreError(f"{self._path} cannot be written: {error.strerror}") from error


def write_html_report(reports: Sequence[ValidationReport], path: Path) -> None:
    """Write a page about series that lie in folders, which are opened again one after the other.

    Of a series that is no longer there the findings alone are told.

    Parameters
    ----------
    reports : sequence of ValidationReport
    path : Path

    Raises
    ------
    StoreError
        If the page cannot be written.
    """
    with HtmlReport(path) as page:
        for report in reports:
            series = _open(report)
            page.add(report, series)
            if series is not None:
                series.close()
        page.write()


@dataclass(frozen=True, slots=True)
class _Row:
    """What the summary says of a series."""

    name: str
    verdict: str
    numbers: tuple[int, ...]
    counts: Mapping[str, int]
    severities: Mapping[str, Severity]

    @classmethod
    def of(cls, report: ValidationReport, series: SeriesView | None) -> Self:
        return cls(
            _name(report, series),
            _verdict(report),
            tuple(sum(finding.severity is severity for finding in report.findings) for severity in _HEADINGS),
            report.counts(),
            {finding.rule: finding.severity for finding in report.findings},
        )


def _head(rows: Sequence[_Row]) -> Iterator[str]:
    failed = sum(row.verdict == _FAILED for row in rows)
    verdict = f"{len(rows)} series, {failed} failed" if len(rows) != 1 else rows[0].verdict
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>Validation report: {escape(verdict)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<header>\n<h1>Validation report</h1>\n"
        f'<p class="quiet">coverslip {escape(__version__)}</p>\n</header>\n<main>\n'
    )
    if len(rows) != 1:
        yield from _summary(rows, verdict)


def _open(report: ValidationReport) -> SeriesView | None:
    if not report.series_instance_uid:
        return None
    try:
        found, _unreadable = find_series(local_files([Path(report.place)]))
    except StoreError:
        return None
    return next((each.open() for each in found if each.series_instance_uid == report.series_instance_uid), None)


def _verdict(report: ValidationReport) -> str:
    if not report.passed:
        return _FAILED
    return "passed with warnings" if report.worst is Severity.WARNING else "passed"


def _badge(verdict: str) -> str:
    kind = {_FAILED: "error", "passed": "passed"}.get(verdict, "warning")
    return f'<span class="badge {kind}">{verdict}</span>'


def _name(report: ValidationReport, series: SeriesView | None) -> str:
    container = _first(series, "ContainerIdentifier") if series else ""
    return container or report.series_instance_uid or "Files that cannot be read"


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Return a table of HTML cells, the first of each row its heading, that scrolls where the screen is narrow."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def _summary(rows: Sequence[_Row], verdict: str) -> Iterator[str]:
    yield f'<section>\n<h2>Summary</h2>\n<p class="lead">{escape(verdict)}</p>\n'
    counts: Counter[str] = Counter()
    affected: Counter[str] = Counter()
    severities: dict[str, Severity] = {}
    for row in rows:
        counts.update(row.counts)
        affected.update(row.counts.keys())
        severities.update(row.severities)
    if counts:
        yield _table(
            "Findings by rule",
            ("Rule", "Severity", "What is wrong", "Findings", "Series"),
            (
                (
                    f"<code>{escape(rule)}</code>",
                    _severity(severities[rule]),
                    escape(_title(rule)),
                    f"{counts[rule]:,}",
                    f"{affected[rule]:,}",
                )
                for rule in sorted(counts, key=lambda rule: (-severities[rule].rank, rule))
            ),
            "rules",
        )
    yield _table(
        "Series",
        ("Slide", "Verdict", "Errors", "Warnings", "Remarks"),
        (
            (f'<a href="#series-{number}">{escape(row.name)}</a>', _badge(row.verdict), *map(str, row.numbers))
            for number, row in sorted(enumerate(rows, 1), key=_worst_first)
        ),
        "numbers",
    )
    yield "</section>\n"


def _worst_first(numbered: tuple[int, _Row]) -> tuple[bool, int, int, int]:
    number, row = numbered
    return row.verdict != _FAILED, -row.numbers[0], -row.numbers[1], number


def _severity(severity: Severity) -> str:
    return f'<span class="badge {severity.lower()}">{severity.lower()}</span>'


def _title(rule: str) -> str:
    return RULES[rule].title if rule in RULES else ""


def _section(number: int, report: ValidationReport, series: SeriesView | None) -> Iterator[str]:
    checked = report.checked
    heading = f"{escape(_name(report, series))} {_badge(_verdict(report))}"
    yield f'<section class="series" id="series-{number}">\n<h2>{heading}</h2>\n'
    thumbnail = _thumbnail(series) if series else None
    if series:
        yield '<div class="overview">\n'
        if thumbnail:
            yield f'<figure><img src="{thumbnail}" alt="The slide, from its coarsest level"></figure>\n'
        yield _facts(report, series) + "</div>\n"
    yield (
        f'<p class="quiet">Profile {escape(report.profile)}. {checked.instances:,} instances and '
        f"{checked.frames:,} frames checked, {checked.frames_decoded:,} decoded, in {checked.seconds:.1f} s.</p>\n"
    )
    labels = _labels(series) if series else {}
    yield from _findings(report.findings, labels)
    if series:
        yield from _maps(report.findings, labels, series, thumbnail)
        yield _images(series, labels)
    yield "</section>\n"


# What the series is.


def _first(series: SeriesView, keyword: str) -> str:
    values = (str(instance.header.get(keyword) or "") for instance in series.instances)
    return next(filter(None, values), "")


def _facts(report: ValidationReport, series: SeriesView) -> str:
    specimens = [
        item for image in series.slide_images[:1] for item in image.header.get("SpecimenDescriptionSequence") or ()
    ]
    scanner = " ".join(filter(None, (_first(series, "Manufacturer"), _first(series, "ManufacturerModelName"))))
    facts = {
        "Patient ID": _first(series, "PatientID"),
        "Container": _first(series, "ContainerIdentifier"),
        "Specimen": ", ".join(str(item.get("SpecimenIdentifier", "")) for item in specimens),
        "Stain": ", ".join(dict.fromkeys(stain for item in specimens for stain in _stains(item))),
        "Scanner": scanner,
        "Study": _first(series, "StudyInstanceUID"),
        "Series": report.series_instance_uid,
    }
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value) or 'not told'}</dd></div>\n" for name, value in facts.items()
    )
    return f"<dl>\n{rows}</dl>\n"


def _stains(specimen: Dataset) -> Iterator[str]:
    for step in specimen.get("SpecimenPreparationSequence") or ():
        for item in step.get("SpecimenPreparationStepContentItemSequence") or ():
            name = (item.get("ConceptNameCodeSequence") or [{}])[0]
            if name.get("CodeValue") == _USING_SUBSTANCE:
                code = (item.get("ConceptCodeSequence") or [{}])[0]
                yield str(code.get("CodeMeaning") or item.get("TextValue") or "")


def _labels(series: SeriesView) -> dict[str, str]:
    """Return what to call each file, in the order of the table: levels first, the largest before the others."""
    order = {"VOLUME": 0, "THUMBNAIL": 1}
    images = sorted(
        series.instances, key=lambda each: (order.get(each.flavor, 2), -each.matrix_size[0] * each.matrix_size[1])
    )
    sizes = [level[0].matrix_size for level in series.levels]
    labels: dict[str, str] = {}
    for image in images:
        level = f"level {sizes.index(image.matrix_size)}" if image.flavor == "VOLUME" else image.flavor.lower()
        label = level or str(image.header.get("Modality", "file"))
        same = sum(each.partition(" (")[0] == label for each in labels.values())
        labels[image.name] = f"{label} ({same + 1})" if same else label
    return labels


def _images(series: SeriesView, labels: dict[str, str]) -> str:
    headings = (
        "Image",
        "Columns × rows",
        "Spacing, µm",
        "Frames",
        "Frame size",
        "Transfer syntax",
        "Photometric interpretation",
        "MB",
        "File",
    )
    images = sorted(series.instances, key=lambda image: list(labels).index(image.name))
    return _table("Images", headings, ([escape(labels[image.name]), *_image_row(image)] for image in images), "images")


def _image_row(image: InstanceView) -> list[str]:
    spacing = image.pixel_spacing_mm
    rows, columns = image.matrix_size
    tile_rows, tile_columns = image.tile_size
    syntax = image.file_meta.get("TransferSyntaxUID")
    return [
        f"{columns:,} × {rows:,}",
        "×".join(f"{1000 * each:.4g}" for each in dict.fromkeys(spacing[::-1])) if spacing else "–",
        f"{image.number_of_frames:,}",
        f"{tile_columns} × {tile_rows}",
        escape(str(getattr(syntax, "name", "none"))),
        escape(str(image.header.get("PhotometricInterpretation", "–"))),
        f"{image.size / 1e6:,.2f}",
        f"<code>{escape(image.name)}</code>",
    ]


# What is wrong with it.


def _findings(findings: Sequence[Finding], labels: dict[str, str]) -> Iterator[str]:
    if not findings:
        yield '<p class="lead">No findings.</p>\n'
    for severity, heading in _HEADINGS.items():
        by_rule: dict[str, list[Finding]] = {}
        for finding in findings:
            if finding.severity is severity:
                by_rule.setdefault(finding.rule, []).append(finding)
        if by_rule:
            rows = [row for rule, same in by_rule.items() for row in _finding_rows(rule, same, labels)]
            number = sum(map(len, by_rule.values()))
            caption = f"{heading}: {number:,}"
            yield _table(caption, ("Rule", "Finding", "Where", "Reference"), rows, f"findings {severity.lower()}")


def _finding_rows(rule: str, findings: Sequence[Finding], labels: dict[str, str]) -> Iterator[list[str]]:
    about = RULES.get(rule)
    why = f'<small class="quiet">{escape(about.explanation)}</small>' if about and about.explanation else ""
    for finding in findings[:_MOST_SHOWN]:
        yield [
            f"<code>{escape(rule)}</code>",
            escape(_named(finding.message, labels)) + (f"<br>{why}" if why else ""),
            escape(_named(finding.place, labels)) or "the series",
            escape(finding.reference),
        ]
        why = ""  # once
    if len(findings) > _MOST_SHOWN:
        yield [f"<code>{escape(rule)}</code>", f"and {len(findings) - _MOST_SHOWN:,} more", "", ""]


def _named(text: str, labels: dict[str, str]) -> str:
    """Return a text with the names of files, which are UIDs as a rule, replaced by those of the table of images."""
    for name, label in labels.items():
        text = text.replace(name, label)
    return text


def _maps(
    findings: Sequence[Finding], labels: dict[str, str], series: SeriesView, thumbnail: str | None
) -> Iterator[str]:
    """Draw where the frames lie that have findings, one map for each image that has any."""
    frames: dict[str, dict[int, Finding]] = {}
    for finding in reversed(findings):  # the gravest come first: they are to be kept
        if match := _FRAME_PLACE.fullmatch(finding.place):
            frames.setdefault(match["name"], {})[int(match["number"]) - 1] = finding
    yield '<div class="maps">\n' if frames else ""
    for image in sorted(series.slide_images, key=lambda image: list(labels).index(image.name)):
        if image.name in frames:
            background = thumbnail if image.flavor in ("VOLUME", "THUMBNAIL") else None
            yield _map(image, labels[image.name], frames[image.name], background)
    yield "</div>\n" if frames else ""


def _map(image: InstanceView, label: str, frames: dict[int, Finding], thumbnail: str | None) -> str:
    rows, columns = image.matrix_size
    tile_rows, tile_columns = image.tile_size
    try:
        positions = image.frame_positions
    except CorruptSourceError:
        return ""
    if not (rows and columns and tile_rows and tile_columns):
        return ""
    scale = _MAP_SIDE / max(rows, columns)
    marks = "".join(
        f'<rect class="{finding.severity.lower()}" x="{scale * positions[index][1]:.1f}" '
        f'y="{scale * positions[index][0]:.1f}" width="{max(2, scale * tile_columns):.1f}" '
        f'height="{max(2, scale * tile_rows):.1f}">'
        f"<title>{escape(f'frame {index + 1}: {finding.message}')}</title></rect>"
        for index, finding in sorted(frames.items())[:_MOST_MARKED]
        if index < len(positions)
    )
    lines = "".join(
        f"M{scale * at:.1f} 0V{scale * rows:.1f}" for at in range(0, columns + 1, _line_step(tile_columns, scale))
    ) + "".join(f"M0 {scale * at:.1f}H{scale * columns:.1f}" for at in range(0, rows + 1, _line_step(tile_rows, scale)))
    width, height = scale * columns, scale * rows
    picture = f'<image href="{thumbnail}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none"/>'
    caption = f"{len(frames):,} of {image.number_of_frames:,} frames have findings: {label}"
    return (
        f'<figure class="map"><svg role="img" aria-label="{escape(caption)}" viewBox="0 0 {width:.1f} {height:.1f}" '
        f'width="{width:.0f}" height="{height:.0f}">'
        f'{picture if thumbnail else ""}<path d="{lines}"/>{marks}</svg>\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _line_step(tile: int, scale: float) -> int:
    """Return the distance of grid lines in pixels of the image: one tile, or as many as stay apart on the map."""
    return tile * max(1, round(4 / (scale * tile)))


# What it looks like.


def _thumbnail(series: SeriesView) -> str | None:
    """Return the coarsest level, or the thumbnail if that is too large, shrunk, as a data URI; None without either."""
    coarsest = [image for level in series.levels[-1:] for image in level[:1]]
    thumbnails = [image for image in series.slide_images if image.flavor == "THUMBNAIL"]
    matrix = next(filter(lambda found: found is not None, map(_matrix_to_show, coarsest + thumbnails)), None)
    if matrix is None:
        return None
    scale = min(1.0, _THUMBNAIL_SIDE / max(matrix.shape[:2]))
    size = max(1, round(matrix.shape[1] * scale)), max(1, round(matrix.shape[0] * scale))
    small = np.atleast_3d(cv2.resize(matrix, size, interpolation=cv2.INTER_AREA))
    if small.dtype != np.uint8:
        small = (small / max(1, small.max()) * 255).astype(np.uint8)
    _done, encoded = cv2.imencode(".jpg", small[..., ::-1] if small.shape[2] == 3 else small)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _matrix_to_show(image: InstanceView) -> Pixels | None:
    rows, columns = image.tile_size
    if not image.decodable or image.number_of_frames * rows * columns > _MOST_DECODED:
        return None
    try:
        return _matrix(image)
    except (CorruptSourceError, StoreError, ValueError):
        return None  # told by the findings


def _matrix(image: InstanceView) -> Pixels:
    """Return the Total Pixel Matrix of the first optical path, (rows, columns, samples); what is missing is white."""
    rows, columns = image.matrix_size
    matrix: Pixels | None = None
    path = image.frame_positions[0][2] if image.frame_positions else ""
    for index, (row, column, identifier, _depth) in enumerate(image.frame_positions):
        if identifier != path or row >= rows or column >= columns:
            continue
        pixels = image.decode(index)
        if matrix is None:
            matrix = np.full((rows, columns, pixels.shape[2]), 255 if pixels.dtype == np.uint8 else 0, pixels.dtype)
        part = matrix[row : row + pixels.shape[0], column : column + pixels.shape[1]]
        part[:] = pixels[: part.shape[0], : part.shape[1]]
    if matrix is None:
        raise ValueError("no frames")
    return matrix


_STYLE: Final = """
:root { color-scheme: light; --line: #d4d8dd; --quiet: #59616b; --ink: #1d2329; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header { display: flex; align-items: baseline; justify-content: space-between; gap: 1rem;
  border-bottom: 2px solid var(--ink); }
h1 { font-size: 1.5rem; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
section { margin-top: 2.25rem; }
section.series + section.series, section + section.series { border-top: 1px solid var(--line); padding-top: 1.75rem; }
a { color: #0b4f80; }
code { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); font-size: .875rem; }
td .quiet { font-size: inherit; }
h1, header .quiet { white-space: nowrap; }
.lead { font-size: 1.1rem; }
.badge { display: inline-block; padding: .1em .6em; border: 1px solid; border-radius: .25rem; font-size: .8rem;
  font-weight: 600; white-space: nowrap; vertical-align: middle; }
.badge.error { color: #9b1c10; background: #fdeeec; }
.badge.warning { color: #744700; background: #fff5df; }
.badge.info { color: #0b4f80; background: #ebf4fb; }
.badge.passed { color: #1b5e20; background: #eaf6eb; }
.overview { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
figure { margin: 0; }
.overview img { display: block; max-width: 20rem; max-height: 15rem; width: auto; border: 1px solid var(--line); }
dl { flex: 1 1 22rem; margin: 0; }
.images td:last-child { min-width: 14rem; }
dl div { display: grid; grid-template-columns: 7rem 1fr; border-bottom: 1px solid var(--line); padding: .25rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
caption { text-align: left; font-weight: 600; font-size: 1rem; padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; border-bottom-color: var(--quiet); white-space: nowrap; }
tbody th { font-weight: 400; }
.images th:first-child, .images td:nth-child(-n+5) { white-space: nowrap; font-variant-numeric: tabular-nums; }
.findings { table-layout: fixed; min-width: 44rem; overflow-wrap: anywhere; }
.findings th:nth-child(1) { width: 22%; } .findings th:nth-child(3) { width: 26%; }
.findings th:nth-child(4) { width: 14%; }
.findings caption::before { content: ""; display: inline-block; width: .7rem; height: .7rem; margin-right: .5rem; }
.findings.error caption::before { background: #b3261e; } .findings.warning caption::before { background: #b97700; }
.findings.info caption::before { background: #2f78ad; }
.maps { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.map { margin: 1.25rem 0; max-width: 100%; } .map svg { display: block; max-width: 100%; height: auto;
  border: 1px solid var(--line); background: #f5f6f7; }
.map path { stroke: #6a737d; stroke-opacity: .35; stroke-width: .6; fill: none; }
.map image { filter: grayscale(1); opacity: .45; }
.map rect { fill-opacity: .55; stroke-width: 1.2; }
.map rect.error { fill: #d93025; stroke: #8c150c; } .map rect.warning { fill: #f0a400; stroke: #744700; }
.map rect.info { fill: #4d9bd3; stroke: #0b4f80; }
figcaption { color: var(--quiet); font-size: .875rem; padding-top: .35rem; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) { h1 { font-size: 1.25rem; }
  body { padding: 1rem .8rem 3rem; } dl div { grid-template-columns: 5.5rem 1fr; }
  .overview img { max-width: 100%; }
  .findings, .findings tbody, .findings tr, .findings th, .findings td, .findings caption { display: block; }
  .findings { min-width: 0; } .findings thead { position: absolute; left: -100vw; }
  .findings tbody tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .findings tbody th:nth-child(n), .findings td:nth-child(n) { width: auto; border: 0; padding: .1rem 0; }
  .findings td:nth-child(3)::before { content: "Where: "; color: var(--quiet); } }
@page { margin: 14mm 12mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .wide { overflow: visible; } table { font-size: 8pt; } .findings { min-width: 0; }
  thead { display: table-header-group; } tr, figure, dl { break-inside: avoid; } h2, caption { break-after: avoid; }
  section.series + section.series, section + section.series { break-before: page; border-top: 0; padding-top: 0;
    margin-top: 0; }
  a { color: inherit; text-decoration: none; }
}
"""
