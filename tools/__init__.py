"""Programs that write files of the package; `make` runs them, users do not."""
