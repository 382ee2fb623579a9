"""What a slide holds, and what a conversion with the default options would make of it: the content of ``info``.

Nothing that may identify a person or a slide is told: no file name, free text, date, barcode or serial number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from coverslip.converter.request import ConversionRequest, InstanceResult
from coverslip.converter.series_plan import SeriesPlan, plan_pixels, plan_series
from coverslip.converter.sources import open_slide
from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SlideSource, SourceLevel, SourcePyramid
from coverslip.metadata_maps.icc import as_input_profile, profile_name

__all__ = ["describe_slide", "print_description"]

_PLACEHOLDER_MM = (0.00025, 0.00025)
"""Spacing to plan with where the slide states none; shapes no level, and is not shown."""

_THUMBNAIL_TOO_LARGE = "source.thumbnail-too-large"


def describe_slide(path: Path) -> dict[str, Any]:
    """Describe a slide in values that JSON can hold.

    Sizes are in pixels, spacing in micrometres; what is not known is None.

    Raises
    ------
    SourceError
        If the slide cannot be read.
    """
    with open_slide(path) as source:
        metadata = source.metadata
        plans = [_plan(source, index) for index in range(len(source.pyramids))]
        findings = dict.fromkeys(finding for plan in plans for finding in plan.findings)
        return {
            "format": {"name": source.format_name, "title": source.format_title},
            "files": len(source.files),
            "bytes": sum(file.stat().st_size for file in source.files),
            "scanner": {
                "manufacturer": _printable(metadata.manufacturer),
                "model": _printable(metadata.manufacturer_model_name),
                "software": [_printable(text) for text in metadata.software_versions],
            },
            "objective": {
                "power": metadata.objective_lens_power,
                "numerical_aperture": metadata.objective_lens_numerical_aperture,
            },
            "icc_profile": _describe_profile(metadata.icc_profile),
            "regions": [_describe_region(*both) for both in zip(source.pyramids, plans, strict=True)],
            "associated_images": [_describe_associated(image, plans[0]) for image in source.associated_images.values()],
            "findings": [asdict(finding) for finding in findings if finding.rule != _THUMBNAIL_TOO_LARGE],
        }


def _plan(source: SlideSource, index: int) -> SeriesPlan:
    """Plan a region with the default options and all associated images; its UIDs and folder mean nothing."""
    known = source.pyramids[index].levels[0].pixel_spacing is not None
    request = ConversionRequest(
        source.path,
        Path(),
        include=tuple(source.associated_images),
        spacing_mm=None if known else _PLACEHOLDER_MM,
        region=index + 1,
    )
    (pixels,) = plan_pixels(source, request)
    return plan_series(source, pixels, request, digest="")


def _describe_region(pyramid: SourcePyramid, plan: SeriesPlan) -> dict[str, Any]:
    base = pyramid.levels[0]
    volumes = [instance.result() for instance in plan.instances if instance.associated is None]
    return {
        "spacing": _describe_spacing(base.pixel_spacing),
        "spacing_supplied_by": None if base.pixel_spacing else "--mpp",
        "origin_mm": list(pyramid.origin_mm) if pyramid.origin_mm else None,
        "stitched": pyramid.stitched,
        "optical_paths": len(pyramid.optical_paths),
        "focal_planes": len(pyramid.focal_plane_offsets_um),
        "levels": [_describe_level(level, base) for level in pyramid.levels],
        "conversion": {
            "levels": [
                _describe_planned(volume, level.stored_level_index, pyramid.levels)
                for volume, level in zip(volumes, plan.pyramid.levels, strict=True)
            ],
            "unused_levels": [asdict(unused) for unused in plan.pyramid.unused_levels],
        },
    }


def _describe_level(level: SourceLevel, base: SourceLevel) -> dict[str, Any]:
    grid = level.grid
    return {
        "level_index": level.level_index,
        "total_pixel_matrix_rows": grid.total_pixel_matrix_rows,
        "total_pixel_matrix_columns": grid.total_pixel_matrix_columns,
        "downsampling": round(base.grid.total_pixel_matrix_columns / grid.total_pixel_matrix_columns, 4),
        "tile_rows": grid.rows,
        "tile_columns": grid.columns,
        "number_of_tiles": grid.number_of_frames,
        "compression": level.compression,
        "color": level.color,
        "lossy_method": level.lossy_method,
        "stored_bytes": level.stored_bytes,
        "spacing": _describe_spacing(level.pixel_spacing),
        "not_reusable": level.not_reusable,
    }


def _describe_planned(
    volume: InstanceResult, stored_level_index: int | None, levels: Sequence[SourceLevel]
) -> dict[str, Any]:
    reason = None
    if stored_level_index is not None and not volume.reuses_frames:
        # With the default options all that could be reused is, but for what no level can be derived from.
        reason = levels[stored_level_index].not_reusable or "tiles of odd size cannot be halved one by one"
    return {
        "total_pixel_matrix_rows": volume.total_pixel_matrix_rows,
        "total_pixel_matrix_columns": volume.total_pixel_matrix_columns,
        "rows": volume.rows,
        "columns": volume.columns,
        "number_of_frames": volume.number_of_frames,
        "transfer_syntax_uid": volume.transfer_syntax_uid,
        "photometric_interpretation": volume.photometric_interpretation,
        "stored_level_index": stored_level_index,
        "reuses_frames": volume.reuses_frames,
        "origin": volume.origin,
        "reencoded_because": reason,
    }


def _describe_associated(image: AssociatedImage, plan: SeriesPlan) -> dict[str, Any]:
    planned = any(instance.associated is image for instance in plan.instances)
    return {
        "name": image.name,
        "rows": image.rows,
        "columns": image.columns,
        "lossy_method": image.lossy_method,
        "written_with": f"--include {image.name}" if planned else None,
        "left_out_because": None if planned else "it must be smaller than the coarsest level",
    }


def _describe_spacing(spacing: PixelSpacing | None) -> dict[str, Any] | None:
    if spacing is None:
        return None
    return {
        "row_um": round(spacing.row_mm * 1000, 9),
        "column_um": round(spacing.column_mm * 1000, 9),
        "origin": spacing.origin,
    }


def _describe_profile(profile: bytes | None) -> dict[str, Any] | None:
    if profile is None:
        return None
    usable, remark = as_input_profile(profile)
    return {
        "bytes": len(profile),
        "device_class": _printable(profile[12:16].decode("ascii", "replace").strip()),
        "description": _printable(profile_name(profile)),
        "usable": usable is not None,
        "remark": remark and _printable(remark),
    }


def _printable(text: str | None) -> str | None:
    """Return a text of the file without characters that could steer a terminal."""
    return text if text is None else "".join(character for character in text if character.isprintable())


def print_description(description: dict[str, Any]) -> None:
    """Print what `describe_slide` returned, for people, as wide as the terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(description):
        facts.add_row(name, text)
    console.print(facts)
    regions = description["regions"]
    for number, region in enumerate(regions, start=1):
        title = f"Region {number} of {len(regions)}: " if len(regions) > 1 else ""
        console.print(f"\n{title}Stored levels", style="bold")
        console.print(_stored_table(region))
        console.print(f"\n{title}Conversion with the default options", style="bold")
        console.print(_conversion_table(region))
        for unused in region["conversion"]["unused_levels"]:
            console.print(f"level {unused['stored_level_index']} is not used: {unused['reason']}")
        if region["spacing_supplied_by"]:
            console.print("Only with the option --mpp UM: the slide states no pixel spacing.")
    if description["associated_images"]:
        console.print("\nAssociated images", style="bold")
        console.print(_associated_table(description["associated_images"]))
    if description["findings"]:
        console.print("\nFindings", style="bold")
        console.print(_finding_table(description["findings"]))


def _facts(description: dict[str, Any]) -> list[tuple[str, str]]:
    files, scanner, objective = description["files"], description["scanner"], description["objective"]
    names = [scanner["manufacturer"], scanner["model"]]
    if scanner["manufacturer"] and (scanner["model"] or "").startswith(scanner["manufacturer"]):
        names = [scanner["model"]]
    power, aperture = objective["power"], objective["numerical_aperture"]
    lens = [f"{power:g}x"] if power is not None else []
    lens += [f"numerical aperture {aperture:g}"] if aperture is not None else []
    facts = [
        ("format", description["format"]["title"]),
        ("size", f"{_size(description['bytes'])} in {_count(files, 'file')}"),
        ("scanner", " ".join(name for name in names if name) or "not stated"),
        ("software", "; ".join(scanner["software"]) or "not stated"),
        ("objective", ", ".join(lens) or "not stated"),
    ]
    facts += [("pixel spacing", _spacing_text(region["spacing"])) for region in description["regions"]]
    facts.append(("ICC profile", _profile_text(description["icc_profile"])))
    return facts


def _spacing_text(spacing: dict[str, Any] | None) -> str:
    if spacing is None:
        return "unknown: supply it with --mpp"
    return f"{_micrometres(spacing)} µm, from {spacing['origin']}"


def _micrometres(spacing: dict[str, Any]) -> str:
    """Return column x row, as sizes are told; one number if they agree to the digits shown."""
    column, row = f"{spacing['column_um']:.5g}", f"{spacing['row_um']:.5g}"
    return column if column == row else f"{column} x {row}"


def _profile_text(profile: dict[str, Any] | None) -> str:
    if profile is None:
        return "none: sRGB is assumed"
    name = f"{profile['description'] or 'without a name'}, class {profile['device_class']}, {_size(profile['bytes'])}"
    if not profile["usable"]:
        return f"{name}; not used, sRGB is assumed: {profile['remark']}"
    return f"{name}; used {'as it is' if profile['remark'] is None else 'with ' + profile['remark']}"


def _table(*columns: str) -> Table:
    """Return a table whose last column takes what width there is."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, header_style="", pad_edge=False)
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table


def _stored_table(region: dict[str, Any]) -> Table:
    table = _table("level", "size", "read in tiles", "µm per pixel", "stored as")
    for level in region["levels"]:
        table.add_row(
            str(level["level_index"]),
            _pixels(level, "total_pixel_matrix_columns", "total_pixel_matrix_rows"),
            f"{level['number_of_tiles']} of {_pixels(level, 'tile_columns', 'tile_rows')}",
            _micrometres(level["spacing"]) if level["spacing"] else "unknown",
            f"{level['compression']}, {level['color']}",
        )
    return table


def _conversion_table(region: dict[str, Any]) -> Table:
    table = _table("size", "frames", "made from")
    for level in region["conversion"]["levels"]:
        stored = level["stored_level_index"]
        if stored is None:
            words = level["origin"]
        elif level["reuses_frames"]:
            words = f"level {stored}, passed through bit for bit"
        else:
            encoded = level["origin"].rpartition("; ")[2]
            words = f"level {stored}, encoded again as {encoded} because {level['reencoded_because']}"
        table.add_row(
            _pixels(level, "total_pixel_matrix_columns", "total_pixel_matrix_rows"),
            f"{level['number_of_frames']} of {_pixels(level, 'columns', 'rows')}",
            words,
        )
    return table


def _associated_table(images: list[dict[str, Any]]) -> Table:
    table = _table("image", "size", "written")
    for image in images:
        words = f"with {image['written_with']}" if image["written_with"] else f"never: {image['left_out_because']}"
        table.add_row(image["name"], _pixels(image, "columns", "rows"), words)
    return table


def _finding_table(findings: list[dict[str, Any]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        place = f" ({finding['place']})" if finding["place"] else ""
        table.add_row(finding["severity"].lower(), f"{finding['message']}{place} [{finding['rule']}]")
    return table


def _pixels(values: dict[str, Any], columns: str, rows: str) -> str:
    return f"{values[columns]} x {values[rows]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return _count(count, "byte")
