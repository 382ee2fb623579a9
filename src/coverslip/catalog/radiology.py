"""The radiology of the patients whose slides were found.

A slide and a scan belong together by collection and patient, and by nothing else: no study holds both, their dates are
far apart, and the same PatientID in another collection may be another person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coverslip.catalog.search_filters import Condition
from coverslip.catalog.search_table import VALID, exact_sum
from coverslip.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "HAS_SCANS",
    "NO_RADIOLOGY",
    "ModalityCount",
    "RadiologySeries",
    "count_modalities",
    "parse_radiology",
    "read_series",
]

NO_RADIOLOGY = (
    "('SM', 'ANN', 'PR', 'SEG', 'SR', 'KO', 'RTSTRUCT', 'RTPLAN', 'RTDOSE', 'REG', 'RWV', 'FID', 'M3D', 'OT')"
)
"""Modalities that are slides, or say something of other images."""

HAS_SCANS = (
    "EXISTS (SELECT 1 FROM search_patient AS scans WHERE scans.Modality = ? "
    "AND scans.collection_id = search_slide.collection_id AND scans.PatientID = search_slide.PatientID)"
)
"""The condition that the patient of a slide has a modality."""

_MODALITY = re.compile(r"[A-Z][A-Z0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class ModalityCount:
    """Series and patients of one modality."""

    modality: str
    series: int
    patients: int
    size_mb: float


@dataclass(frozen=True, slots=True)
class RadiologySeries:
    """A radiology series of a patient who has slides."""

    collection_id: str
    PatientID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    Modality: str
    StudyDate: str | None
    StudyDescription: str | None
    SeriesDescription: str | None
    instance_count: int | None
    size_mb: float | None
    published: bool
    license_short_name: str | None
    source_doi: str | None
    crdc_series_uuid: str | None
    series_revised_version: int | None


def parse_radiology(text: str) -> Condition | None:
    """Return the condition that the patient of a slide has scans: ``CT,MR`` one of these, ``CT+PT`` both.

    Raises
    ------
    UsageError
        If it is no list of modalities.
    """
    if not text.strip():
        return None
    found = []
    parameters: list[object] = []
    for alternative in text.upper().split(","):
        modalities = [each.strip() for each in alternative.split("+")]
        for modality in modalities:
            if not _MODALITY.fullmatch(modality):
                raise UsageError(f"--with-radiology {text}: expected modalities such as CT,MR,PT or CT+PT")
            parameters.append(modality)
        # A subquery for each, so that the engine can make a join of it.
        found.append(" AND ".join(HAS_SCANS for _ in modalities))
    return Condition("with-radiology", " OR ".join(f"({each})" for each in found), tuple(parameters))


def count_modalities(connection: DuckDBPyConnection, slides: str) -> tuple[ModalityCount, ...]:
    """Count the radiology of the patients of a table of slides."""
    rows = connection.execute(
        f"""SELECT Modality, sum(series), count(*), {exact_sum("size_mb")} FROM search_patient
        SEMI JOIN (SELECT DISTINCT collection_id, PatientID FROM {slides}) USING (collection_id, PatientID)
        WHERE Modality NOT IN {NO_RADIOLOGY} GROUP BY Modality ORDER BY Modality"""
    ).fetchall()
    return tuple(ModalityCount(modality, int(series), patients, size) for modality, series, patients, size in rows)


def read_series(connection: DuckDBPyConnection, slides: str) -> tuple[RadiologySeries, ...]:
    """Read the radiology series of the patients of a table of slides."""
    # The series of these patients are looked for first: a join of all series with all would cost seconds.
    rows = connection.execute(
        f"""WITH patients AS MATERIALIZED (SELECT DISTINCT collection_id, PatientID FROM {slides}),
        theirs AS MATERIALIZED (
            SELECT * FROM series SEMI JOIN patients USING (collection_id, PatientID)),
        found AS (
            SELECT theirs.collection_id, theirs.PatientID, idc.StudyInstanceUID, idc.SeriesInstanceUID, idc.Modality,
                CAST(idc.StudyDate AS VARCHAR) AS StudyDate, idc.StudyDescription, idc.SeriesDescription,
                idc.instanceCount, idc."series_size_MB", false AS published, theirs.license_short_name,
                theirs.source_doi, theirs.series_uuid, theirs.revised_version
            FROM theirs JOIN (SELECT * FROM history.idc_index WHERE {VALID}) AS idc
                ON idc.SeriesInstanceUID = theirs.SeriesInstanceUID
            UNION ALL
            SELECT collection_id, PatientID, StudyInstanceUID, SeriesInstanceUID, Modality,
                CAST(StudyDate AS VARCHAR), StudyDescription, SeriesDescription, instanceCount, "series_size_MB", true,
                license_short_name, source_DOI, crdc_series_uuid, series_revised_idc_version
            FROM published_series SEMI JOIN patients USING (collection_id, PatientID)
            WHERE SeriesInstanceUID NOT IN (SELECT SeriesInstanceUID FROM theirs))
        SELECT * FROM found WHERE Modality NOT IN {NO_RADIOLOGY}
        ORDER BY collection_id, PatientID, Modality, StudyInstanceUID, SeriesInstanceUID"""
    ).fetchall()
    return tuple(RadiologySeries(*row) for row in rows)
