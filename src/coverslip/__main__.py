"""Run the command line as ``python -m coverslip``."""

from coverslip.cli import main

main()
