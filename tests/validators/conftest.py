"""A converted slide for the tests of validators."""

from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest


@pytest.fixture(scope="session")
def good(aperio_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a good series with label and overview; copy it to break it."""
    folder = tmp_path_factory.mktemp("good")
    convert_slide(ConversionRequest(aperio_slide, folder, include=("label", "overview")))
    return folder
