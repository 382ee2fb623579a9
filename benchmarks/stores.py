"""``python -m benchmarks.stores``: memory and rate of putting a large instance; exit 1 if memory grows with its size.

The instance is sparse. The services are those of the tests, on loopback: their work is part of the time, not of the
memory, which is that of a process which does nothing but put.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.factories.part10 import write_sparse_part10
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.healthcare import StrictHealthcare

from benchmarks import ROOT
from coverslip.stores.base import LocalInstance

__all__ = ["SERVICES", "Put", "Service", "measure_put"]

_LARGEST_GROWTH_MB = 32


@dataclass(frozen=True, slots=True)
class Service:
    """Where a child process finds a store.

    Parameters
    ----------
    url, endpoint : str
    environment : dict
        Variables to set.
    chunk_mib : int
    """

    url: str
    endpoint: str
    environment: dict[str, str]
    chunk_mib: int = 8


@dataclass(frozen=True, slots=True)
class Put:
    """What putting one instance took."""

    size_mb: float
    peak_mb: float
    put_s: float


@contextlib.contextmanager
def _strict_gcs(_place: Path) -> Iterator[Service]:
    with StrictGcs() as gcs:
        yield Service("gs://bucket/soak", "", {"STORAGE_EMULATOR_HOST": gcs.url})


@contextlib.contextmanager
def _strict_dicomweb(_place: Path) -> Iterator[Service]:
    with StrictDicomWeb() as service:
        yield Service(f"dicomweb+{service.dicomweb_url}", "", {})


@contextlib.contextmanager
def _strict_healthcare(_place: Path) -> Iterator[Service]:
    with StrictHealthcare() as service:
        yield Service("healthcare://p/l/d/s", service.url, {"TOKEN": "right"})


@contextlib.contextmanager
def _emulator(folder: Path) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "--data-dir", str(folder / "emulator"), "start"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--default-bucket", "bucket", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        # The emulator reads and writes all that it has with every chunk, so there must not be many.
        yield Service("gs://bucket/soak", "", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}, chunk_mib=64)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _moto(_place: Path) -> Iterator[Service]:
    import logging
    import urllib.request

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT"), timeout=10).close()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    try:
        yield Service("s3://bucket/soak", "", {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    finally:
        server.stop()


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[Service]:
    yield Service(str(folder / "store"), "", {})


SERVICES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Service]]] = {
    "folder": _folder,
    "strict GCS": _strict_gcs,
    "GCS emulator": _emulator,
    "S3 (moto)": _moto,
    "strict STOW-RS": _strict_dicomweb,
    "strict Healthcare": _strict_healthcare,
}


def measure_put(service: Service, instance: LocalInstance) -> Put:
    """Put and compare an instance in a process of its own."""
    with tempfile.NamedTemporaryFile() as log:
        described = json.dumps(asdict(instance), default=str)
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py")), log.name]
        child = [sys.executable, "-m", "benchmarks.put_child", service.url, described, service.endpoint]
        child.append(str(service.chunk_mib << 20))
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **service.environment}
        run = subprocess.run([*launcher, *child], check=True, capture_output=True, text=True, env=environment, cwd=ROOT)
        used = json.loads(run.stdout)
        output = Path(log.name).read_text()
        if used["exit_code"]:
            raise RuntimeError(output[-2000:])
        return Put(instance.size_bytes / 1e6, used["peak_mb"], json.loads(output)["put_s"])


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__.partition(": ")[2])
    parser.add_argument("--mb", type=int, default=2000, help="size of the large instance")
    parser.add_argument("--service", action="append", choices=SERVICES, help="one of them; may be repeated")
    options = parser.parse_args()
    is_flat = True
    print(f"{'':20}{'MB':>7}{'peak MB':>9}{'growth':>8}{'put s':>7}{'MB/s':>7}")
    for name in options.service or SERVICES:
        with tempfile.TemporaryDirectory() as folder, SERVICES[name](Path(folder)) as service:
            small = measure_put(service, write_sparse_part10(Path(folder, "small"), 150_000_000, number=1))
            large = measure_put(service, write_sparse_part10(Path(folder, "large"), options.mb * 1_000_000, number=2))
        growth = large.peak_mb - small.peak_mb
        is_flat = is_flat and growth < _LARGEST_GROWTH_MB
        print(
            f"{name:20}{large.size_mb:7.0f}{large.peak_mb:9.0f}{growth:8.0f}{large.put_s:7.1f}"
            f"{large.size_mb / large.put_s:7.0f}",
            flush=True,
        )
    return int(not is_flat)


if __name__ == "__main__":
    sys.exit(main())
