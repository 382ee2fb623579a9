"""Write the tables of a catalog in BigQuery as deploy/terraform makes them: ``make tables``.

`tables.json` has a table's partition, clusters and description by its name, ``schemas/NAME.json`` its columns. What is
written is what `coverslip index` would make where there is no table; it adds columns later, which Terraform leaves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coverslip.catalog.bigquery.tables import STATE_TABLE, shapes
from coverslip.catalog.schema import Field, baseline_fields

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "terraform"


def texts() -> dict[Path, str]:
    """Return what the files hold, by their path in the folder of Terraform."""
    # The table of the catalog's own state is made last, by whoever writes first: its absence says that none has.
    tables = [shape for shape in shapes(baseline_fields()) if shape.name != STATE_TABLE]
    told = {
        shape.name: {"bucket": shape.bucket, "clustering": list(shape.cluster), "description": shape.description}
        for shape in tables
    }
    schemas = {
        Path("schemas") / f"{shape.name}.json": "[\n"
        + ",\n".join(json.dumps(_column(field), separators=(",", ":")) for field in shape.fields)
        + "\n]\n"
        for shape in tables
    }
    return {Path("tables.json"): json.dumps(told, indent=2) + "\n", **schemas}


def _column(field: Field) -> dict[str, Any]:
    column: dict[str, Any] = {"name": field.name, "type": field.type, "mode": field.mode}
    if field.description:
        column["description"] = field.description
    if field.fields:
        column["fields"] = [_column(inner) for inner in field.fields]
    return column


if __name__ == "__main__":
    for path, text in texts().items():
        (FOLDER / path).parent.mkdir(exist_ok=True)
        (FOLDER / path).write_text(text, encoding="utf-8")
