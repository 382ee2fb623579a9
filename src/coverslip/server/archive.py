"""What there is to serve: studies, series and instances with what searches ask of them, and where each file lies."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coverslip.server.indexed_attributes import (
    INSTANCE_KEYWORDS,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    Values,
    from_catalog,
    from_header,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pydicom.dataset import Dataset

__all__ = ["Archive", "IndexedInstance", "IndexedSeries", "IndexedStudy"]

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class IndexedInstance:
    """An instance as the index knows it.

    Parameters
    ----------
    study_instance_uid, series_instance_uid, sop_instance_uid : str
    transfer_syntax_uid : str
        Empty if it is not known.
    location : str
        Path or URL.
    size_bytes : int or None
    values : tuple
        Of `INSTANCE_KEYWORDS`, in their order.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    location: str
    size_bytes: int | None
    values: tuple[Values, ...]

    def value(self, keyword: str) -> Any:
        """Return the first value of an indexed attribute, or None."""
        values = self.values[INSTANCE_KEYWORDS.index(keyword)]
        return values[0] if values else None

    @property
    def flavor(self) -> str:
        """VOLUME, THUMBNAIL, LABEL, OVERVIEW or what else stands in the third value of Image Type."""
        image_type = self.values[INSTANCE_KEYWORDS.index("ImageType")]
        return str(image_type[2]) if len(image_type) > 2 else ""


@dataclass(slots=True)
class IndexedSeries:
    """A series and its instances by UID."""

    study_instance_uid: str
    series_instance_uid: str
    attributes: Mapping[str, Values]
    instances: dict[str, IndexedInstance] = field(default_factory=dict)

    @property
    def modality(self) -> str:
        """Empty if it is not known."""
        return str((self.attributes.get("Modality") or ("",))[0])

    def text(self, keyword: str) -> str:
        """Return the first value of an indexed attribute as text, empty without."""
        values = self.attributes.get(keyword) or ("",)
        return str(values[0])


@dataclass(slots=True)
class IndexedStudy:
    """A study and its series by UID."""

    study_instance_uid: str
    attributes: Mapping[str, Values]
    series: dict[str, IndexedSeries] = field(default_factory=dict)


class Archive:
    """All that is served; several threads may read while one adds.

    Attributes
    ----------
    studies, series, instances : dict
        By UID.
    """

    def __init__(self) -> None:
        self.studies: dict[str, IndexedStudy] = {}
        self.series: dict[str, IndexedSeries] = {}
        self.instances: dict[str, IndexedInstance] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_catalog(cls, connection: DuckDBPyConnection) -> Archive:
        """Read what a catalog tells; three queries over its columns, no file is opened.

        What has no UID that a path could name is left out.
        """
        archive = cls()
        for row in _rows(connection, "StudyInstanceUID", STUDY_KEYWORDS):
            study = _uid(row, "StudyInstanceUID")
            if study:
                archive.studies[study] = IndexedStudy(study, row)
        for row in _rows(connection, "SeriesInstanceUID", (*SERIES_KEYWORDS, "StudyInstanceUID")):
            study, uid = _uid(row, "StudyInstanceUID"), _uid(row, "SeriesInstanceUID")
            if study not in archive.studies or not uid:
                continue
            series = IndexedSeries(study, uid, row)
            archive.series[series.series_instance_uid] = series
            archive.studies[study].series[series.series_instance_uid] = series
        for instance in _instances(connection):
            owner = archive.series.get(instance.series_instance_uid)
            if owner is not None and _UID.fullmatch(instance.sop_instance_uid):
                owner.instances[instance.sop_instance_uid] = instance
                archive.instances[instance.sop_instance_uid] = instance
        return archive

    def add(self, header: Dataset, location: str, size_bytes: int) -> IndexedInstance:
        """Add an instance whose header was read."""
        study_uid, series_uid = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
        found = from_header(header, INSTANCE_KEYWORDS)
        instance = IndexedInstance(
            study_uid,
            series_uid,
            str(header.SOPInstanceUID),
            str(header.file_meta.get("TransferSyntaxUID", "")),
            location,
            size_bytes,
            tuple(found[keyword] for keyword in INSTANCE_KEYWORDS),
        )
        with self._lock:
            study = self.studies.get(study_uid)
            if study is None:
                study = self.studies[study_uid] = IndexedStudy(study_uid, from_header(header, STUDY_KEYWORDS))
            series = study.series.get(series_uid)
            if series is None:
                series = IndexedSeries(study_uid, series_uid, from_header(header, SERIES_KEYWORDS))
                study.series[series_uid] = self.series[series_uid] = series
            series.instances[instance.sop_instance_uid] = instance
            self.instances[instance.sop_instance_uid] = instance
        return instance

    def find(self, study: str, series: str = "", instance: str = "") -> list[IndexedInstance]:
        """Return the instances of a study, of a series of it or one of them; empty if there are none."""
        if instance:
            one = self.instances.get(instance)
            fits = one is not None and one.study_instance_uid == study and series in ("", one.series_instance_uid)
            return [one] if one is not None and fits else []
        found = self.studies.get(study)
        if found is None:
            return []
        if series:
            return list(found.series[series].instances.values()) if series in found.series else []
        return [each for one in list(found.series.values()) for each in list(one.instances.values())]


def _uid(row: Mapping[str, Values], keyword: str) -> str:
    """Return a UID that a path can name, else an empty text."""
    text = str((row.get(keyword) or ("",))[0])
    return text if _UID.fullmatch(text) else ""


def _rows(connection: DuckDBPyConnection, key: str, keywords: tuple[str, ...]) -> Iterator[dict[str, Values]]:
    """Yield the values of attributes of each study or series, by keyword; those of its first instance."""
    have = _columns(connection)
    asked = [keyword for keyword in keywords if keyword in have]
    columns = ", ".join(f'any_value("{each}" ORDER BY SOPInstanceUID) AS "{each}"' for each in asked if each != key)
    cursor = connection.execute(
        f'SELECT "{key}", {columns} FROM dicom_metadata WHERE "{key}" IS NOT NULL GROUP BY 1 ORDER BY 1'
    )
    names = [column[0] for column in cursor.description or ()]
    for row in cursor.fetchall():
        yield {name: from_catalog(name, value) for name, value in zip(names, row, strict=True)}


def _instances(connection: DuckDBPyConnection) -> Iterator[IndexedInstance]:
    have = _columns(connection)
    columns = ", ".join(f'm."{each}"' if each in have else "NULL" for each in INSTANCE_KEYWORDS)
    cursor = connection.execute(
        f"""SELECT m.StudyInstanceUID, m.SeriesInstanceUID, m.SOPInstanceUID, m.TransferSyntaxUID, i.location,
            i.instance_size, {columns}
        FROM dicom_metadata AS m JOIN instances AS i ON i.SOPInstanceUID = m.SOPInstanceUID
        WHERE i.location IS NOT NULL
        ORDER BY m.StudyInstanceUID, m.SeriesInstanceUID, TRY_CAST(m.InstanceNumber AS BIGINT), m.SOPInstanceUID"""
    )
    known: dict[Any, Values] = {}  # most values are the same in many instances
    while rows := cursor.fetchmany(10_000):
        for study, series, uid, syntax, location, size, *values in rows:
            found = []
            for keyword, value in zip(INSTANCE_KEYWORDS, values, strict=True):
                key = keyword, tuple(value) if isinstance(value, list) else value
                if key not in known:
                    known[key] = from_catalog(keyword, value)
                found.append(known[key])
            yield IndexedInstance(study, series, uid, syntax or "", location, size, tuple(found))


def _columns(connection: DuckDBPyConnection) -> set[str]:
    return {
        row[0]
        for row in connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'dicom_metadata'"
        ).fetchall()
    }
