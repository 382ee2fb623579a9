"""Run the command line with rows merged for every N slides: ``-m tests.pipeline.merging N ...``"""

from __future__ import annotations

import sys


def main() -> None:
    from coverslip.cli import main
    from coverslip.pipeline import engine

    engine._MERGE_AT = int(sys.argv.pop(1))
    main()


if __name__ == "__main__":
    main()
