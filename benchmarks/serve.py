"""``python -m benchmarks.serve``: frames per second of `coverslip serve`, beside a bare ASGI application and others.

One instance of 40,000 frames is asked for random frames by wrk, at 1, 8 and 64 connections: of the server, of an ASGI
application on the same uvicorn that returns the bytes of one frame from memory, of nginx that returns them from a file,
and, some frames only, of Orthanc. Then 100,000 requests tell whether memory stays flat, and a catalog of 10,000 slides
how long it takes from the start of the server to the first tile. Exits with 1 if a promise is broken:

- median at most 2 ms at one connection, and at least 0.6 of the bare application's requests per second at each;
- the memory after 100,000 requests at most 10 MB above that after the first 10,000.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import simplejpeg
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit
from tests.orthanc import start_orthanc

from coverslip.catalog.database import make_tables, open_catalog
from coverslip.catalog.search_table import refresh_search

TILE = 256
SIDE = 200  # tiles: 40,000 frames
CONNECTIONS = (1, 8, 64)
MEDIAN_MS = 2.0
RATIO = 0.6
GROWTH_MB = 10.0
STUDY, SERIES, INSTANCE = "2.25.811", "2.25.812", "2.25.813"
PLACE = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
ACCEPT = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
_LUA = """
math.randomseed({seed})
request = function()
  return wrk.format("GET", "{path}" .. math.random(1, {frames}), {{["Accept"] = '{accept}'}})
end
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """What wrk has measured."""

    requests_per_s: float
    median_ms: float
    p99_ms: float


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.partition(": ")[2])
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--part", action="append", choices=["rate", "orthanc", "memory", "catalog"])
    parser.add_argument("--slides", type=int, default=10_000)
    options = parser.parse_args()
    parts = options.part or ["rate", "orthanc", "memory", "catalog"]
    kept = True
    with tempfile.TemporaryDirectory(prefix="coverslip-serve-") as name:
        folder = Path(name)
        (folder / "slides").mkdir()
        instance = folder / "slides" / "instance.dcm"
        write_instance(instance)
        print(f"{SIDE * SIDE} frames, {instance.stat().st_size / 1e6:.0f} MB", flush=True)
        if "rate" in parts:
            kept &= compare_rates(folder, options.seconds)
        if "memory" in parts:
            kept &= watch_memory(folder)
        if "orthanc" in parts:
            ask_orthanc(folder)
        if "catalog" in parts:
            start_with_catalog(folder, options.slides)
    return int(not kept)


def write_instance(path: Path, sop_instance_uid: str = INSTANCE, side: int = SIDE) -> None:
    """Write one level whose frames are some pictures over and over, with an Extended Offset Table."""
    random = np.random.default_rng(8)
    rows, columns = np.mgrid[0:TILE, 0:TILE]
    tiles = []
    for number in range(32):
        waves = 128 + 60 * np.sin(rows / (7 + number)) * np.cos(columns / (5 + number % 7))
        picture = np.stack([waves + 40, waves - 40, waves], axis=2) + random.normal(0, 6, (TILE, TILE, 3))
        tile = simplejpeg.encode_jpeg(picture.clip(0, 255).astype(np.uint8), 80, "RGB", "422")
        tiles.append(tile + b"\0" * (len(tile) % 2))
    frames = [tiles[index % 32] for index in range(side * side)]
    lengths = np.fromiter(map(len, frames), np.uint64)
    offsets = np.concatenate([[0], np.cumsum(lengths + 8)[:-1]]).astype(np.uint64)
    header = _header(sop_instance_uid, side)
    header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = offsets.tobytes(), lengths.tobytes()
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    with open(path, "ab", buffering=1 << 20) as file:
        file.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0")
        for frame in frames:
            file.write(b"\xfe\xff\x00\xe0" + len(frame).to_bytes(4, "little"))
            file.write(frame)
        file.write(b"\xfe\xff\xdd\xe0\0\0\0\0")


def _header(sop_instance_uid: str, side: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.6", sop_instance_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY, SERIES, "2.25.814"
    ds.Modality, ds.PatientID, ds.PatientName, ds.ContainerIdentifier = "SM", "P", "P^", "C"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames, ds.Rows, ds.Columns = side * side, TILE, TILE
    ds.TotalPixelMatrixRows = ds.TotalPixelMatrixColumns = side * TILE
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL_422", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.InstanceNumber = 7, 0, 1
    ds.DimensionOrganizationType = "TILED_FULL"
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    ds.OpticalPathSequence = Sequence([path])
    return ds


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run `coverslip serve`; yields its URL and process."""
    command = [sys.executable, "-m", "coverslip", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+?(?=/$)", line.strip()).group(), process.pid
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[str]:
    """Run another server, and wait until it answers."""
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def fetch(url: str) -> tuple[bytes, list[tuple[str, str]]]:
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read(), response.getheaders()


def wrk(folder: Path, url: str, path: str, connections: int, seconds: int, frames: int = SIDE * SIDE) -> Rate:
    script = folder / "requests.lua"
    script.write_text(_LUA.format(seed=connections, path=path, frames=frames, accept=ACCEPT))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    times = {int(name): _ms(value) for name, value in re.findall(r"^\s+(50|99)%\s+(\S+)", text, re.MULTILINE)}
    return Rate(float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)), times[50], times[99])


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def compare_rates(folder: Path, seconds: int) -> bool:
    """Measure all servers in turns; returns whether promises are kept."""
    with contextlib.ExitStack() as stack:
        url, _ = stack.enter_context(serving(str(folder / "slides")))
        body, headers = fetch(f"{url}{PLACE}/frames/1")
        (folder / "frame").write_bytes(body)
        told = [each for each in headers if each[0].lower() not in ("date", "server")]
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "benchmarks.bare_asgi:app", "--port", str(port)]
        command += ["--no-access-log", "--log-level", "warning"]
        body_file = str(folder / "frame")
        bare = stack.enter_context(running(command, port, BARE_BODY=body_file, BARE_HEADERS=json.dumps(told)))
        servers = {"coverslip": (url, f"{PLACE}/frames/"), "bare": (bare, f"{PLACE}/frames/")}
        if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
            servers["nginx"] = (stack.enter_context(nginx(folder)), "/frame?")
        print(
            f"frame of {len(body) / 1e3:.1f} KB\n{'':12}{'connections':>12}{'req/s':>9}{'median ms':>11}{'p99 ms':>9}"
        )
        rates: dict[tuple[str, int], list[Rate]] = {}
        for _ in range(3):
            for connections in CONNECTIONS:
                for name, (server, path) in servers.items():
                    rate = wrk(folder, server, path, connections, seconds)
                    rates.setdefault((name, connections), []).append(rate)
    kept = True
    for connections in CONNECTIONS:
        for name in servers:
            some = rates[name, connections]
            median = statistics.median(each.requests_per_s for each in some)
            at, late = (statistics.median(getattr(each, one) for each in some) for one in ("median_ms", "p99_ms"))
            print(f"{name:12}{connections:12}{median:9.0f}{at:11.2f}{late:9.2f}")
            kept &= name != "coverslip" or connections > 1 or at <= MEDIAN_MS
        pairs = zip(rates["coverslip", connections], rates["bare", connections], strict=True)
        ratio = statistics.median(one.requests_per_s / other.requests_per_s for one, other in pairs)
        print(f"  {ratio:.2f} of the bare application at {connections}; promised {RATIO}", flush=True)
        kept &= ratio >= RATIO
    return kept


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[str]:
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000; server {{ listen 127.0.0.1:{port}; "
        f"root {folder}; }} }}\n"
    )
    folder.chmod(0o755)
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    with running([program, "-c", str(configuration)], port) as url:
        yield url


def watch_memory(folder: Path) -> bool:
    """Ask for 100,000 frames; returns whether memory stays flat."""

    def resident_mb(process: int) -> float:
        text = Path(f"/proc/{process}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024

    with serving(str(folder / "slides")) as (url, process):
        fetch(f"{url}{PLACE}/frames/1")
        asked, sizes = 0, []
        while asked < 100_000:
            rate = wrk(folder, url, f"{PLACE}/frames/", 16, 5)
            asked += int(rate.requests_per_s * 5)
            sizes.append((asked, resident_mb(process)))
        print(", ".join(f"{size:.1f} MB after {count}" for count, size in sizes), flush=True)
    return sizes[-1][1] - sizes[0][1] <= GROWTH_MB


def ask_orthanc(folder: Path) -> None:
    """Report how long Orthanc takes for a frame of the same instance."""
    with start_orthanc(folder / "orthanc", MaximumStorageSize=0) as orthanc:
        with open(folder / "slides" / "instance.dcm", "rb") as file:
            request = urllib.request.Request(f"{orthanc.rest_url}/instances", data=file, method="POST")
            request.add_header("Content-Length", str((folder / "slides" / "instance.dcm").stat().st_size))
            urllib.request.urlopen(request, timeout=300).read()
        place = PLACE.removeprefix("/dicomweb")
        seconds = []
        for number in (1, 20_000, 40_000):
            start = time.perf_counter()
            fetch(f"{orthanc.dicomweb_url}{place}/frames/{number}")
            seconds.append(time.perf_counter() - start)
        print(f"Orthanc: {', '.join(f'{each:.2f}' for each in seconds)} s for a frame", flush=True)


def start_with_catalog(folder: Path, slides: int) -> None:
    """Report the time from start to the first tile, over a catalog of many slides of six levels."""
    path = folder / "catalog.duckdb"
    with open_catalog(path) as connection:
        connection.execute("BEGIN")
        make_tables(connection)
        connection.execute("INSERT INTO versions VALUES (1, 'generated', NULL)")
        for statement in _statements(folder, slides):
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        refresh_search(connection)
        connection.execute("COMMIT")
    start = time.perf_counter()
    with serving(str(path)) as (url, _):
        up = time.perf_counter() - start
        fetch(f"{url}{PLACE}/frames/20000")
        first = time.perf_counter() - start
        begun = time.perf_counter()
        with urllib.request.urlopen(f"{url}/dicomweb/studies?limit=100", timeout=60) as response:
            found = len(json.loads(response.read()))
        asked = time.perf_counter() - begun
    print(
        f"{slides} slides: {up:.2f} s until it listens, {first:.2f} s until the first tile; "
        f"{found} studies listed in {asked * 1000:.0f} ms"
    )


def _statements(folder: Path, slides: int) -> Iterator[str]:
    file = folder / "slides" / "instance.dcm"
    size = file.stat().st_size
    real = "n = 0 AND level = 0"
    yield f"""CREATE TEMP TABLE made AS SELECT n, level,
        CASE WHEN {real} THEN '{INSTANCE}' ELSE '2.25.3' || (n * 10 + level) END AS sop,
        CASE WHEN n = 0 THEN '{SERIES}' ELSE '2.25.2' || n END AS series,
        CASE WHEN n = 0 THEN '{STUDY}' ELSE '2.25.1' || n END AS study
        FROM range({slides}) AS a(n), range(6) AS b(level)"""
    yield """INSERT INTO history.dicom_metadata BY NAME SELECT sop AS SOPInstanceUID, series AS SeriesInstanceUID,
        study AS StudyInstanceUID, 'SM' AS Modality, 'P' || n AS PatientID, 'S' || n AS ContainerIdentifier,
        '1.2.840.10008.5.1.4.1.1.77.1.6' AS SOPClassUID, '1.2.840.10008.1.2.4.50' AS TransferSyntaxUID,
        ['ORIGINAL', 'PRIMARY', 'VOLUME', 'NONE'] AS ImageType, 1 AS revised_version, 0 AS final_version FROM made"""
    yield f"""INSERT INTO history.instances BY NAME SELECT sop AS SOPInstanceUID, series AS SeriesInstanceUID,
        study AS StudyInstanceUID, 'P' || n AS PatientID, '{file}' AS location, {size} AS instance_size,
        1 AS init_version, 1 AS revised_version, 0 AS final_version FROM made"""


if __name__ == "__main__":
    sys.exit(main())
