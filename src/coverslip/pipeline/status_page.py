"""The status of a run as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from coverslip.pipeline.status import RunStatus

__all__ = ["status_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #ddd; height: 1rem; display: flex } .done { background: #2a7 } .failed { background: #c33 }
code { font-size: .85em }
"""


def status_page(status: RunStatus) -> str:
    """Return the page."""
    slides = max(1, status.slides)
    counts = (
        f"{status.done} of {status.slides} slides done, {status.failed} failed, {status.under_way} under way, "
        f"{status.pending} pending"
    )
    rate = f"{status.slides_per_hour:.0f} slides an hour" if status.slides_per_hour else ""
    left = f"{status.left_s / 3600:.1f} h left" if status.left_s else ""
    stages = [
        (
            str(each.stage),
            each.done,
            each.failed,
            each.under_way,
            f"{each.seconds / 3600:.2f}",
            f"{each.size_bytes / 1e9:.3f}",
            f"{each.cost:.2f}",
        )
        for each in status.stages
    ]
    slowest = [(each.row, each.key[:12], str(each.stage), f"{each.seconds:.1f}") for each in status.slowest]
    failures = [
        (each.row, each.key[:12], str(each.stage), each.error_class, each.error_message) for each in status.failures
    ]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{escape(status.run)}</title><style>{_STYLE}</style>',
            f"<h1>{escape(status.run)}</h1>",
            '<div class="bar">',
            f'<div class="done" style="width:{100 * status.done / slides:.2f}%"></div>',
            f'<div class="failed" style="width:{100 * status.failed / slides:.2f}%"></div></div>',
            f"<p>{', '.join(part for part in (counts, rate, left) if part)}</p>",
            "<h2>Stages</h2>",
            _table(("stage", "done", "failed", "under way", "hours", "GB", "cost"), stages),
            "<h2>Failures by class</h2>",
            _table(("class", "slides"), list(status.classes.items())),
            "<h2>Failures</h2>",
            _table(("row", "slide", "stage", "class", "message"), failures),
            "<h2>Slowest slides</h2>",
            _table(("row", "slide", "longest stage", "seconds"), slowest),
            "</html>\n",
        ]
    )


def _table(headings: Sequence[str], rows: Sequence[Iterable[object]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(each))}</td>' for each in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
