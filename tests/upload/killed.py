"""Run the command line, and kill it right after its Nth step that changes a disk: ``-m tests.upload.killed N ...``

Steps are transactions of the ledger, writes of chunks into a store, and names given and taken. With N = 0 nothing is
killed, and the number of steps is printed last.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coverslip.stores import local, whole_file

KILL_AT = int(sys.argv.pop(1))
CHUNK_BYTES = 100_000
_steps = itertools.count(1)


def step() -> None:
    if next(_steps) == KILL_AT:
        os.kill(os.getpid(), signal.SIGKILL)


class Connection(sqlite3.Connection):
    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *arguments)
        if sql == "COMMIT":
            step()
        return cursor


def followed_by_step[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        result = function(*arguments, **options)
        step()
        return result

    return call


def small_chunks(path: Path, _chunk_bytes: int) -> Iterator[bytes]:
    for chunk in whole_file.iter_chunks(path, CHUNK_BYTES):
        yield chunk
        step()


def main() -> None:
    from coverslip.cli import main

    connect = sqlite3.connect
    sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Connection, **options)
    local.iter_chunks = small_chunks
    os.link = followed_by_step(os.link)
    Path.rename = followed_by_step(Path.rename)
    Path.unlink = followed_by_step(Path.unlink)
    try:
        main()
    finally:
        print(next(_steps) - 1, file=sys.stderr)


if __name__ == "__main__":
    main()
