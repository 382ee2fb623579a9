"""The digest of a slide that is begun before the slide is opened."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from coverslip.converter.source_digest import DigestAhead, digest_files, file_identity


def test_digest_begun_ahead_is_that_of_the_file(tmp_path: Path):
    path = tmp_path / "slide"
    path.write_bytes(os.urandom(20_000_000))
    with DigestAhead(path) as ahead:
        assert ahead.result(path, file_identity(path.stat())) == hashlib.sha256(path.read_bytes()).digest()
        assert digest_files([path], ahead) == digest_files([path]) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_digest_of_several_files_is_that_of_their_digests_whichever_was_begun_ahead(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    parts = [hashlib.sha256(path.read_bytes()).digest() for path in (first, second)]
    for path in (first, second):
        with DigestAhead(path) as ahead:
            assert digest_files([first, second], ahead) == hashlib.sha256(b"".join(parts)).hexdigest()


def test_digest_of_what_the_file_was_before_is_not_used(tmp_path: Path):
    path = tmp_path / "slide"
    path.write_bytes(b"before")
    with DigestAhead(path) as ahead:
        before = file_identity(path.stat())
        assert ahead.result(path, before) is not None
        path.write_bytes(b"changed since")
        assert ahead.result(path, file_identity(path.stat())) is None
        assert digest_files([path], ahead) == hashlib.sha256(b"changed since").hexdigest()


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "unreadable"])
def test_what_cannot_be_hashed_is_left_to_others_to_complain_of(tmp_path: Path, kind: str):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.symlink_to(path)
    with DigestAhead(path) as ahead:
        assert ahead.result(path, (0, 0, 0)) is None
