"""Run the command line, and kill it right before its Nth change of the ledger: ``-m tests.pipeline.killed N ...``"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any


def main() -> None:
    from coverslip.cli import main
    from coverslip.pipeline.ledger import Ledger

    kill_at = int(sys.argv.pop(1))
    steps = itertools.count(1)
    put_records = Ledger.put_records

    def put_records_or_die(self: Ledger, records: Any) -> None:
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        put_records(self, records)

    Ledger.put_records = put_records_or_die
    main()


if __name__ == "__main__":
    main()
