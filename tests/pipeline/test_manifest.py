"""Slides of tables, folders and buckets, and the keys they are known by."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from coverslip.errors import UsageError
from coverslip.metadata_maps.check import is_slide_name
from coverslip.metadata_maps.tables import read_table
from coverslip.pipeline.manifest import Checksums, list_bucket, list_folder, read_manifest, slide_key
from coverslip.stores.base import StoredInstance


def table_of(folder: Path, text: str, name: str = "slides.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_names_are_relative_to_the_manifest_or_to_a_root(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "file,md5\na/b.svs,0AB\ngs://bucket/c.svs,\n"))
    assert [slide.location for slide in read_manifest(table)] == [f"{tmp_path}/a/b.svs", "gs://bucket/c.svs"]
    in_bucket = read_manifest(table, "gs://other/prefix/")
    assert in_bucket[0].location == "gs://other/prefix/a/b.svs"
    assert in_bucket[0].checksums == Checksums(md5="0ab")


def test_key_follows_name_and_checksum_and_not_the_place(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "file\na.svs\n"))
    here, there = read_manifest(table)[0], read_manifest(table, "gs://bucket")[0]
    assert here.key == there.key
    assert "a.svs" not in here.key
    assert len({here.key, slide_key("a.svs", Checksums(md5="0")), slide_key("a.svs", Checksums(), "secret")}) == 3


def test_column_may_be_named_by_the_map_or_be_a_usual_one(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "scan\tfile_name\tfile_size\nx.svs\ty.svs\t17\n", "slides.tsv"))
    assert read_manifest(table, columns=["scan"])[0].name == "x.svs"
    assert (read_manifest(table)[0].name, read_manifest(table)[0].size_bytes) == ("y.svs", 17)


def test_parquet_is_a_manifest_too(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"file": ["a.svs"], "size": [5]}), tmp_path / "slides.parquet")
    assert read_manifest(read_table(tmp_path / "slides.parquet"))[0].size_bytes == 5


def test_several_rows_of_one_file_are_one_slide(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "file,specimen\na.svs,1\na.svs,2\nb.svs,1\n"))
    assert [slide.number for slide in read_manifest(table)] == [2, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide\na.svs\n", "has no column 'file'"),
        ("file,note\n,x\n", "row 2"),
        ("file,md5\na.svs,1\na.svs,2\n", "different checksums"),
    ],
)
def test_manifest_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_manifest(read_table(table_of(tmp_path, text)))


def test_companions_are_listed_or_follow_from_the_format(tmp_path: Path) -> None:
    table = read_table(
        table_of(tmp_path, "file,companions\ngs://b/x/m.mrxs,\ngs://b/x/o.ome.tif,o2.ome.tif; sub/\ngs://b/v/s.vms,\n")
    )
    assert [slide.companions for slide in read_manifest(table)] == [
        ("gs://b/x/m/",),
        ("gs://b/x/o2.ome.tif", "gs://b/x/sub/"),
        ("gs://b/v/",),
    ]


def test_folder_is_listed_with_the_sizes_of_all_files_of_a_slide(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m.mrxs").write_bytes(b"12")
    (tmp_path / "m" / "Data.dat").write_bytes(b"345")
    (tmp_path / "notes.txt").write_text("no slide")
    (tmp_path / ".hidden.svs").write_bytes(b"1")
    slides = list_folder(tmp_path)
    assert [(slide.name, slide.size_bytes) for slide in slides] == [("m.mrxs", 5)]


def test_bucket_is_listed_alike() -> None:
    objects = [
        StoredInstance(f"gs://b/p/{name}", size_bytes=size)
        for name, size in [("m/Data.dat", 3), ("m.mrxs", 2), ("a.svs", 7), ("x/.trash/b.svs", 1), ("readme.txt", 1)]
    ]
    slides = list_bucket("gs://b/p", iter(objects), is_slide_name)
    assert [(slide.name, slide.size_bytes, slide.companions) for slide in slides] == [
        ("a.svs", 7, ()),
        ("m.mrxs", 5, ("gs://b/p/m/",)),
    ]
