"""UIDs made from what they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from coverslip.converter.uids import UUID_ROOT, derive_uid, require_uid_root
from coverslip.errors import UsageError

roots = st.lists(st.integers(0, 99_999), min_size=1, max_size=8).map(lambda arcs: ".".join(map(str, [2, *arcs])))


@given(roots.filter(lambda root: len(root) <= 39), st.lists(st.text(max_size=20), max_size=5))
def test_every_uid_is_valid_and_stands_under_its_root(root: str, parts: list[str]):
    uid = derive_uid(require_uid_root(root), *parts)
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert uid.startswith(f"{root}.")


def test_default_root_gives_a_version_8_uuid():
    number = int(derive_uid(UUID_ROOT, "study", "P1").removeprefix("2.25."))
    made = uuid.UUID(int=number)
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_longest_root_leaves_24_digits():
    root = "2." + "2" * 37
    assert len(require_uid_root(root)) == 39
    uids = {derive_uid(root, str(index)) for index in range(2000)}
    assert len(uids) == 2000
    assert max(map(len, uids)) == 64


def test_parts_do_not_run_together():
    lists = [("a", "bc"), ("ab", "c"), ("abc",), ("abc", ""), ("", "abc"), ("a", "b", "c"), ("1:a",), (), ("",)]
    assert len({derive_uid(UUID_ROOT, *parts) for parts in lists}) == len(lists)


def test_uid_is_the_same_in_every_process():
    code = "from coverslip.converter.uids import derive_uid; print(derive_uid('2.25', 'study', 'é', 'P1'))"
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": "src", "PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert made == {derive_uid("2.25", "study", "é", "P1") + "\n"}


def test_uids_never_change_between_releases():
    # Raise OUTPUT_FORMAT rather than change this.
    assert derive_uid("2.25", "study", "P1") == "2.25.163012792686163623331892012049165752340"


@pytest.mark.parametrize(
    "root",
    ["", "2", "2.", ".2", "2..5", "2.025", "3.1", "1.2.x", "1.2 ", "1.2\n", "1.２", "1.40", "0.99.1", "2." + "2" * 38],
)
def test_root_that_gives_no_valid_uids_is_refused(root: str):
    with pytest.raises(UsageError, match="UID root"):
        require_uid_root(root)


def test_message_of_a_refused_root_is_one_line():
    with pytest.raises(UsageError) as caught:
        require_uid_root("1.2\n3")
    assert not re.search(r"[\r\n]", str(caught.value))
