"""Options of the command line that say how slides are converted: the same for every command that converts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import UsageError

if TYPE_CHECKING:
    from coverslip.converter.request import ConversionRequest, Replacement
    from coverslip.metadata_maps.evaluate import MappedSlide

__all__ = ["convert_arguments", "parse_size", "request_maker"]

_OPTIONS = (
    click.option(
        "--levels",
        default="dyadic",
        show_default=True,
        metavar="dyadic|native|N",
        help="Every power of two down to one frame, using stored levels where they coincide; the stored levels only; "
        "or the first N powers of two, the base included.",
    ),
    click.option("--regenerate", is_flag=True, help="Derive every level from the base, using no stored lower level."),
    click.option(
        "--fast-pyramid",
        is_flag=True,
        help="Decode at half scale for the first derived level: faster, not an exact mean, said in the DICOM "
        "attributes.",
    ),
    click.option("--tile-size", type=int, help="Side of the square tiles in pixels; default: as stored."),
    click.option(
        "--codec",
        metavar="CODEC",
        help="jpeg:QUALITY[:444|422|420], jpeg2000, jpeg2000:lossless, htj2k, jpegls or none. Stored frames of another "
        "compression are then re-encoded. Default: stored frames are kept; what must be encoded is jpeg:80:420 from a "
        "lossy source, jpeg2000:lossless from a lossless one.",
    ),
    click.option("--reencode", is_flag=True, help="Encode every frame, even where stored ones could be copied."),
    click.option("--include", metavar="NAMES", help="Also write these, joined by commas: label, overview, thumbnail."),
    click.option("--mpp", metavar="UM", help="Micrometres per pixel of the base level: one number, or ROW,COLUMN."),
    click.option("--region", type=click.IntRange(1), metavar="N", help="Convert one of several regions only, from 1."),
    click.option(
        "--focal-planes",
        default="all",
        show_default=True,
        metavar="all|middle|N",
        help="Which focal planes are written: all, the middle one, or one by its number, the lowest being 1.",
    ),
    click.option(
        "--on-bad-tile",
        type=click.Choice(["stop", "blank"]),
        default="stop",
        show_default=True,
        help="What a tile that does not decode does: end the slide, or become background, recorded in the series.",
    ),
    click.option(
        "--metadata", type=click.Path(path_type=Path, dir_okay=False), help="A table that says what slides show."
    ),
    click.option("--map", "map_name", metavar="NAME|FILE", help="How it becomes DICOM: tcga, htan, cmb, ccdi, a file."),
    click.option("--table", "pairs", metavar="NAME=FILE", multiple=True, help="Second table that the map asks for."),
    click.option(
        "--set", "settings", metavar="KEYWORD=VALUE", multiple=True, help="Set a DICOM attribute; may be repeated."
    ),
    click.option(
        "--deid",
        default="default",
        show_default=True,
        metavar="POLICY",
        help="What of the slide's own text may be written: default, remove-dates, shift-dates or a TOML file.",
    ),
    click.option(
        "--deid-key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The project's key, at least 32 random bytes: needed by policies that hash or shift.",
    ),
    click.option(
        "--overview",
        type=click.Choice(["whole", "mask-label"]),
        default="whole",
        show_default=True,
        help="How an overview that is included is written: mask-label paints the slide's label over.",
    ),
    click.option("--uid-root", metavar="ROOT", help="Root of derived UIDs; default: 2.25."),
    click.option(
        "--offset-table",
        type=click.Choice(["auto", "bot", "eot", "none"]),
        default="auto",
        show_default=True,
        help="Basic, extended or empty offset table; auto: basic while its 32 bits reach.",
    ),
    click.option(
        "--memory",
        metavar="SIZE",
        help="Budget for pixels and frames in flight; default: 64M, or as much as large tiles need at the least.",
    ),
    click.option(
        "--validate",
        type=click.Choice(["fast", "thorough", "off"]),
        default="fast",
        show_default=True,
        help="How a series is validated before it is delivered: by its headers, offsets, copied frames and a sample of "
        "the others; by every frame; or not. One that fails goes to OUT/.coverslip-quarantine.",
    ),
)


def convert_arguments[F: Callable[..., Any]](command: F) -> F:
    """Give a command the options by which slides are converted."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def request_maker(options: Mapping[str, Any]) -> Callable[[Path], ConversionRequest]:
    """Parse the options once, and return what makes the request of each slide from its path; it need not be there.

    Parameters
    ----------
    options : mapping
        Those of `convert_arguments`, and `output`; also `workers`, `overwrite`, `replaces` and `reason` where a command
        has them.
    """
    from coverslip.converter.request import ConversionRequest, parse_settings
    from coverslip.converter.uids import UUID_ROOT, require_uid_root
    from coverslip.metadata_maps.deid.keys import load_key
    from coverslip.metadata_maps.deid.policy import load_policy
    from coverslip.tiler.codecs import parse_codec
    from coverslip.tiler.pyramid import PyramidOptions

    pyramid = PyramidOptions(
        levels=_parse_levels(options["levels"]),
        tile_size=options["tile_size"],
        codec=parse_codec(options["codec"]) if options["codec"] else None,
        reencode=options["reencode"],
        regenerate=options["regenerate"],
        fast=options["fast_pyramid"],
    )
    policy = load_policy(options["deid"])
    key = load_key(options["deid_key_file"]) if options["deid_key_file"] else None
    if policy.needs_key and key is None:
        raise UsageError(f"--deid {options['deid']} hashes or shifts: --deid-key-file is needed")
    shared = {
        "policy": policy,
        "deid_key": key,
        "mask_label": options["overview"] == "mask-label",
        "output": options["output"],
        "pyramid": pyramid,
        "include": _parse_include(options["include"]),
        "spacing_mm": _parse_mpp(options["mpp"]),
        "region": options["region"],
        "blank_bad_tiles": options["on_bad_tile"] == "blank",
        "focal_planes": _parse_focal_planes(options["focal_planes"]),
        "attributes": parse_settings(options["settings"]),
        "uid_root": require_uid_root(options["uid_root"]) if options["uid_root"] else UUID_ROOT,
        "offset_table": options["offset_table"],
        "workers": options.get("workers") or len(os.sched_getaffinity(0)),
        "memory_bytes": parse_size("--memory", options["memory"]) if options["memory"] else None,
        "overwrite": options.get("overwrite", False),
        "validate": options["validate"],
        "replaces": _parse_replacement(options.get("replaces"), options.get("reason")),
    }
    mapped_slide = _metadata_of(options["metadata"], options["map_name"], options["pairs"])
    return lambda slide: ConversionRequest(path=slide, mapped=mapped_slide(slide), **shared)


def _metadata_of(
    table: Path | None, map_name: str | None, pairs: tuple[str, ...]
) -> Callable[[Path], MappedSlide | None]:
    """Read table and map once, and return what tells the metadata of each slide."""
    if table is None or map_name is None:
        if table or map_name or pairs:
            raise UsageError("--metadata and --map go together, and --table goes with them")
        return lambda _slide: None
    from coverslip.map_commands import read_second_tables
    from coverslip.metadata_maps.join import MetadataJoin

    return MetadataJoin(table, map_name, read_second_tables(pairs)).mapped_slide


def _parse_levels(text: str) -> str | int:
    if text in ("dyadic", "native"):
        return text
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--levels {text}: wanted dyadic, native or a number above 0")


def _parse_focal_planes(text: str) -> str:
    if text in ("all", "middle") or (text.isascii() and text.isdigit() and int(text) > 0):
        return text
    raise UsageError(f"--focal-planes {text}: wanted all, middle or a number above 0")


def _parse_include(text: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()
    for name in names:
        if name not in ("label", "overview", "thumbnail"):
            raise UsageError(f"--include {name}: wanted label, overview or thumbnail")
    return names


def _parse_mpp(text: str | None) -> tuple[float, float] | None:
    """Return (row, column) spacing in mm."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(0.001 <= number <= 1000 for number in numbers):
        raise UsageError(f"--mpp {text}: wanted micrometres per pixel from 0.001 to 1000, e.g. 0.25 or 0.25,0.26")
    if max(numbers) > 2 * min(numbers):
        raise UsageError(f"--mpp {text}: pixels of {numbers[0]:g} x {numbers[-1]:g} µm; is the comma a decimal point?")
    return numbers[0] / 1000, numbers[-1] / 1000


def _parse_replacement(series: str | None, reason: str | None) -> Replacement | None:
    """Return what ``--replaces`` and ``--reason`` say."""
    from coverslip.converter.request import Replacement

    if series is None:
        if reason:
            raise UsageError("--reason: wanted with --replaces, the UID of the series that is corrected")
        return None
    if re.fullmatch(r"[0-9.]{1,64}", series) is None:
        raise UsageError(f"--replaces {series}: wanted a Series Instance UID")
    return Replacement(series, reason or "")


def parse_size(option: str, text: str) -> int:
    """Return the bytes that a size such as ``64M`` stands for."""
    match = re.fullmatch(r"(\d+)([KMGT]?)i?B?", text, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise UsageError(f"{option} {text}: wanted a size such as 64M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]
