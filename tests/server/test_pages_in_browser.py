"""The pages as a person uses them, in headless Chromium; screenshots are left in .screenshots/serve."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coverslip.server.viewer_files import has_viewer
from tests.conftest import ROOT
from tests.server.conftest import Slide
from tests.server.running import Running, serving
from tests.server.test_pictures import write_channels
from tests.viewer.conftest import Viewer, viewer

__all__ = ["viewer"]


@pytest.fixture(scope="module")
def pages(slide: Slide, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(slide.folder, folder / "slide")
    (folder / "channels").mkdir()
    write_channels(folder / "channels")
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def seen(pages: Running, slide: Slide, viewer: Viewer) -> dict[str, Any]:
    if not has_viewer():
        pytest.skip("the pages need the viewer: make viewer")
    folder = ROOT / ".screenshots" / "serve"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    script = ROOT / "tests" / "viewer" / "pages.mjs"
    command = [viewer.node, str(script), viewer.chromium, pages.url, slide.series, "2.25.72", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pixels(file: str) -> np.ndarray:
    with Image.open(Path(file)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def tissue(file: str) -> float:
    """Return the part of the stage that is stained."""
    stage = pixels(file)[60:, 60:900]
    return float((np.ptp(stage, axis=2) > 40).mean())


def test_nothing_is_complained_of_and_no_other_host_is_asked(seen: dict[str, Any]) -> None:
    expected = "status of 404"  # of the page that is not there
    assert [each for each in seen["messages"] if expected not in each] == []
    assert seen["failedRequests"] == []
    assert seen["otherHosts"] == []


def test_the_search_page_counts_and_filters(seen: dict[str, Any]) -> None:
    assert seen["all"]["count"] == "2 slides of 2 patients"
    assert len(seen["all"]["slides"]) == 2
    assert all(width > 0 for width in seen["all"]["pictures"])
    assert seen["all"]["facets"]["embedding=Paraffin wax"] == 1
    assert seen["filtered"]["count"] == "1 slide of 1 patient"
    assert seen["filtered"]["slides"] == ["TCGA-05-4244-01Z-00-DX1"]
    assert "No slide fits all filters" in seen["none"]["text"]
    assert seen["skip"] == "Skip to content"
    assert "No such slide" in seen["missing"]["text"]


def test_a_slide_is_shown_with_what_is_known_of_it(seen: dict[str, Any]) -> None:
    page = seen["slide"]
    assert (page["state"], page["said"]) == ("ready", "")
    assert tissue(page["file"]) > 0.05
    assert page["scale"].endswith(("µm", "mm"))
    assert {"Slide", "Specimen", "Validation", "Other pictures", "Links"} <= set(page["headings"])
    for text in ("TCGA-05-4244", "Paraffin wax", "hematoxylin", "It was validated when it was converted"):
        assert text in page["text"]


def test_zooming_loads_frames_of_the_base_level_and_the_address_can_be_shared(
    seen: dict[str, Any], slide: Slide
) -> None:
    assert seen["framesOf"].get(slide.base, 0) > 0
    assert seen["zoomed"]["resolution"] <= 1
    assert tissue(seen["zoomed"]["file"]) > 0.05
    assert seen["shared"]["resolution"] == pytest.approx(seen["zoomed"]["resolution"], rel=1e-3)


def test_a_phone_shows_the_results_without_scrolling_sideways(seen: dict[str, Any]) -> None:
    assert seen["phone"]["width"] <= 390


def test_channels_are_shown_in_their_colours(seen: dict[str, Any]) -> None:
    assert seen["channels"]["state"] == "ready"
    assert seen["channels"]["names"] == ["marker 1", "marker 2"]
    shown, changed = (pixels(seen[name]["file"])[200:700, 200:700] for name in ("channels", "recoloured"))
    assert np.ptp(shown.reshape(-1, 3), axis=0).max() > 100
    red, green, blue = changed.reshape(-1, 3).max(axis=0)
    assert red > 150
    assert max(green, blue) < 100
