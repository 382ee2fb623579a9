"""The benchmark of indexing runs, on few instances; whether they are fast is for it to say."""

from __future__ import annotations

import re

from benchmarks.index_speed import measure


def test_indexing_is_timed_beside_pydicom_and_its_memory_for_few_and_for_all(capsys) -> None:
    assert measure(count=8, rounds=1) in {True, False}
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"8 instances, [\d.]+ kB each, 1 rounds, load [\d.]+", lines[0])
    assert re.fullmatch(r" +pydicom +[\d.]+ s +coverslip index +[\d.]+ s, +[\d.]+ s of CPU, \d+ MB", lines[1])
    assert re.fullmatch(r" +2 instances: +[\d.]+ s, +[\d.]+ s of CPU, \d+ MB", lines[2])
    assert re.match(r"[\d.]+ of the time of pydicom", lines[3])
    assert re.match(r"[\d.]+ of the memory for a quarter", lines[4])
