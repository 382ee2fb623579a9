"""The command line within the process of the test, which spares the half second that a process of its own needs.

For tests of what a command does and says. What a process has of its own (signals, encodings, limits, what it loads, how
it ends) is tested with a process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from unittest import mock

from coverslip.cli import main

__all__ = ["run_in_process"]


def run_in_process(
    arguments: Sequence[object], cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run ``coverslip ARGUMENTS`` to its end, and return what a process would have given."""
    words = ["coverslip", *(os.fsdecode(each) if isinstance(each, bytes) else str(each) for each in arguments)]
    terminate = signal.getsignal(signal.SIGTERM)
    code: object = 0
    try:
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            stack.enter_context(mock.patch.object(sys, "argv", words))
            stack.enter_context(mock.patch.dict(os.environ, environment))
            stack.enter_context(mock.patch.object(sys, "stdin", stack.enter_context(open(os.devnull))))
            stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
            stack.enter_context(_written_to(out, "stdout"))
            stack.enter_context(_written_to(err, "stderr"))
            try:
                main()
            except SystemExit as end:
                code = end.code
            told = []
            for file, stream in ((out, sys.stdout), (err, sys.stderr)):
                stream.flush()
                file.seek(0)
                told.append(file.read())
    finally:
        signal.signal(signal.SIGTERM, terminate)
    assert code is None or isinstance(code, int), code
    return subprocess.CompletedProcess(words, code or 0, *told)


@contextlib.contextmanager
def _written_to(file: IO[bytes], name: str) -> Iterator[None]:
    """Let everything that goes to a stream go to a file, also what libraries in C and child processes write."""
    number = {"stdout": 1, "stderr": 2}[name]
    getattr(sys, name).flush()
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        with (
            open(number, "w", encoding="utf-8", closefd=False) as stream,
            mock.patch.object(sys, name, stream),
        ):
            yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
