"""A table, its map and its second tables, read once and asked for one slide after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coverslip.errors import MissingMetadataError
from coverslip.metadata_maps.evaluate import MappedSlide, Problem, apply_map, require_tables, slide_facts
from coverslip.metadata_maps.language import load_map
from coverslip.metadata_maps.matching import RowFinder
from coverslip.metadata_maps.tables import Table, read_table
from coverslip.validators.report import Severity

__all__ = ["MetadataJoin", "warning_texts"]

_UNQUOTED = {
    "unmapped": "the map has no entry for its value; coverslip map check shows it",
    "invalid": "its value is not of the kind wanted; coverslip map check shows it",
}
"""Told in place of messages that quote a cell: what a conversion says is logged, and a cell may hold anything."""


class MetadataJoin:
    """What a curator's table says of slides, by way of a map.

    Parameters
    ----------
    table : Path
    map_name : str
        Name of a shipped map, or a TOML file.
    second_tables : mapping
        By the name the map gives them.

    Raises
    ------
    UsageError
        If a file cannot be read, or table and map do not go together.
    """

    def __init__(self, table: Path, map_name: str, second_tables: Mapping[str, Table]) -> None:
        self._map = load_map(map_name)
        self._tables = second_tables
        self._finder = RowFinder(self._map, read_table(table))
        require_tables(self._map, second_tables)

    def mapped_slide(self, path: Path) -> MappedSlide:
        """Return what is said of a slide.

        Raises
        ------
        MissingMetadataError
            If the slide has no row or not just its own, or if a required value is missing or does not fit.
        """
        facts = slide_facts(path)
        match = self._finder.find(facts)
        if match.ambiguous:
            rows = ", ".join(str(row.number) for row in match.ambiguous)
            raise MissingMetadataError(f"may be that of the rows {rows} of the table, by the column {match.column!r}")
        if not match.rows:
            raise MissingMetadataError(f"has no row in the table, by the column {match.column!r}")
        return _without_errors(apply_map(self._map, facts, match.rows, self._tables))

    def mapped_container(self, identifier: str) -> MappedSlide:
        """Return what is said of the slide that has a Container Identifier, where its file's name is not known.

        Its row is the one that the identifier finds as a file's name or key would; else the one from which the map
        makes that identifier, for which the map is applied to every row.

        Raises
        ------
        MissingMetadataError
            As `mapped_slide` does.
        """
        if self._finder.find(slide_facts(identifier)).rows:
            return self.mapped_slide(Path(identifier))
        groups = self._finder.groups()
        slides = (apply_map(self._map, self._finder.facts_of(rows[0]), rows, self._tables) for rows in groups)
        found = [mapped for mapped in slides if mapped.container_identifier == identifier]
        if len(found) != 1:
            raise MissingMetadataError(f"is the container of {len(found)} slides of the table, expected one")
        return _without_errors(found[0])


def _without_errors(mapped: MappedSlide) -> MappedSlide:
    """Return what a map says of a slide, unless it cannot be written."""
    errors = [problem for problem in mapped.problems if problem.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more; coverslip map check lists them)" if len(errors) > 1 else ""
        raise MissingMetadataError(f"{_problem_text(errors[0])}{more}")
    return mapped


def warning_texts(mapped: MappedSlide) -> tuple[str, ...]:
    """Return what is odd in a slide's rows but no error, a line each: for the curator, and no part of any result."""
    return tuple(_problem_text(problem) for problem in mapped.problems if problem.severity is not Severity.ERROR)


def _problem_text(problem: Problem) -> str:
    """Return a problem as one line, such as ``row 3: PatientID of column 'case': is empty``; it quotes no cell."""
    column = f"column {problem.column!r}" if problem.column else ""
    place = " of ".join(part for part in (problem.keyword, column) if part)
    message = _UNQUOTED.get(problem.kind, problem.message)
    return ": ".join(part for part in (f"row {problem.row}", place, message) if part)
