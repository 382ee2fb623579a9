"""Collections of small slides, runs over them, and what runs leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.factories.aperio import write_aperio_svs
from tests.factories.damage import truncate_half, write_text

from coverslip.pipeline.ledger import Kind, Ledger

ROOT = Path(__file__).resolve().parents[2]
_OF_SYSTEMS = ("CLOUD_RUN_", "SLURM_", "BATCH_", "K_", "KUBERNETES_", "OTEL_", "PORT")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(_OF_SYSTEMS)},
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
}


def write_slide(path: Path, seed: int, **changes: Any) -> Path:
    """Write a slide that takes little time to convert."""
    options = {"rows": 200 + 8 * seed, "columns": 300, "label": False, "macro": False, "thumbnail": False}
    write_aperio_svs(path, **(options | {"native_downsamples": (), "seed": seed} | changes))
    return path


def coverslip(*arguments: object, module: str = "coverslip", timeout: float = 240, **variables: str) -> Done:
    """Run the command line to its end; what hangs has its stacks printed."""
    with start(*arguments, module=module, **variables) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            family = [process.pid, *(each.pid for each in psutil.Process(process.pid).children(recursive=True))]
            for pid in family:
                os.kill(pid, signal.SIGABRT)
            pytest.fail(f"hangs: {process.communicate(timeout=20)[1]}")
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def start(*arguments: object, module: str = "coverslip", **variables: str) -> subprocess.Popen[str]:
    """Start the command line."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", *module.split(), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**ENVIRONMENT, "XDG_STATE_HOME": "/nonexistent/state", **variables},
    )


@dataclass(frozen=True)
class Done:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, Any]:
        return json.loads(self.out)


@dataclass(frozen=True)
class Collection:
    """A folder of slides, and where a run over it puts things.

    Parameters
    ----------
    slides, place : Path
    """

    slides: Path
    place: Path

    @property
    def work(self) -> Path:
        return self.place / "work"

    @property
    def store(self) -> Path:
        return self.place / "store"

    @property
    def catalog(self) -> Path:
        return self.place / "catalog.duckdb"

    def arguments(self, *more: object) -> list[object]:
        return ["run", self.slides, "--work", self.work, "--to", self.store, "--catalog", self.catalog,
                "--validate", "off", "--set", "PatientID=P1", *more]  # fmt: skip

    def run(self, *more: object, **options: Any) -> Done:
        self.place.mkdir(exist_ok=True)
        return coverslip(*self.arguments(*more), **options)

    def states(self) -> dict[tuple[str, str], tuple[str, str | None]]:
        """Return state and digest by slide and stage."""
        with Ledger(self.work / "ledger.sqlite") as ledger:
            return {
                (each.task.subject, str(each.task.stage)): (str(each.state), each.digest)
                for each in ledger.records_of_kind(Kind.SLIDE)
            }

    def stored(self) -> dict[str, str]:
        return digests_below(self.store)

    def indexed(self) -> list[tuple[str, str]]:
        """Return UID and MD5 of what the catalog has."""
        import duckdb

        with duckdb.connect(str(self.catalog), read_only=True) as connection:
            return sorted(connection.execute("SELECT SOPInstanceUID, instance_hash FROM auxiliary_metadata").fetchall())


def digests_below(folder: Path, ignored: Sequence[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ignored
    }


@pytest.fixture(scope="session")
def many_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 slides, all different."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(24):
        write_slide(folder / f"slide-{seed:02}.svs", seed)
    return folder


@pytest.fixture(scope="session")
def undisturbed(many_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The 24 slides after a run that nothing has disturbed."""
    collection = Collection(many_slides, tmp_path_factory.mktemp("undisturbed"))
    done = collection.run("--json")
    assert (done.code, done.told["done"]) == (0, 24), done.err
    return collection


@pytest.fixture(scope="session")
def mixed_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good slides, one that is cut off and one that is none."""
    folder = tmp_path_factory.mktemp("mixed")
    for seed in range(3):
        write_slide(folder / f"good-{seed}.svs", seed)
    truncate_half(write_slide(folder / "cut-off.svs", 4))
    write_text(folder / "none.svs")
    return folder


@pytest.fixture
def mixed(mixed_slides: Path, tmp_path: Path) -> Collection:
    return Collection(mixed_slides, tmp_path / "run")


@pytest.fixture(scope="session")
def mixed_done(mixed_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, Done]:
    """A run over good and bad slides, and what it told."""
    collection = Collection(mixed_slides, tmp_path_factory.mktemp("mixed-run"))
    return collection, collection.run("--log-format", "json")
