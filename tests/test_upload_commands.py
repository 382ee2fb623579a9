"""`coverslip upload`, `handover` and `retract` on the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coverslip.cli import cli
from coverslip.errors import UsageError
from tests.factories.aperio import write_aperio_svs
from tests.faults.command_line import COMMAND, ENVIRONMENT, json_lines, run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with two series."""
    folder = tmp_path_factory.mktemp("commands")
    for number in (1, 2):
        slide = folder / f"{number}.svs"
        write_aperio_svs(slide, rows=200 + number, columns=300, native_downsamples=())
        options = ["--set", "PatientID=P1", "--set", f"ContainerIdentifier=S{number}"]
        assert run("convert", slide, "-o", folder / "out", *options).returncode == 0
    return folder / "out"


@pytest.fixture
def arguments(tmp_path: Path) -> list[Any]:
    """Store and ledger of an upload."""
    return ["--to", tmp_path / "archive", "--ledger", tmp_path / "ledger.sqlite"]


def series_of(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*/*"))


def test_an_upload_says_what_was_verified_and_ends_with_0(out: Path, arguments: list[Any]) -> None:
    done = run("upload", out, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith(": verified")] == [
        f"{path.name}: verified" for path in sorted(out.glob("*/*"), key=str)
    ]
    assert "instances" in lines[1]
    assert lines[1].endswith(", validated by its conversion")
    assert lines[2].endswith(" sent")
    assert lines[-1].startswith("2 series: 2 verified; ")
    again = run("upload", out, *arguments, "--json")
    assert [(line["state"], line["bytes_sent"], line["proof"]) for line in json_lines(again)] == [
        ("verified", 0, "verified before")
    ] * 2


def test_one_bad_series_and_one_bad_file_do_not_stop_the_others(
    out: Path, arguments: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "bad.dcm").write_text("no DICOM")
    bad, good = sorted(out.glob("*/*"), key=str)
    first = sorted(bad.glob("*.dcm"))[0]
    data = first.read_bytes()
    try:
        first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        done = run("upload", out, tmp_path / "bad.dcm", *arguments)
        told = run("upload", out, tmp_path / "bad.dcm", *arguments, "--json")
    finally:
        first.write_bytes(data)
    assert done.returncode == told.returncode == 6
    assert f"{bad.name}: REFUSED" in done.stdout
    assert f"{good.name}: verified" in done.stdout
    assert "was changed after its conversion" in done.stdout
    assert done.stderr == f"error: {tmp_path / 'bad.dcm'}: is no DICOM file\n"
    assert [line["state"] for line in json_lines(told)] == ["refused", "refused", "verified"]


@pytest.mark.parametrize(
    "extra, words",
    [
        (["--verify-only", "--no-verify"], "leave nothing to do"),
        (["--replace", "1.2.3", "--verify-only"], "--replace: the old series is removed after"),
        (["--replace", "x"], "--replace x: wanted a Series Instance UID"),
        (["--replace", "1.2.3"], "wanted the one series"),
        (["--frames", "0"], "--frames 0: wanted a number above 0, or all"),
        (["--credentials", "s3cret"], "credentials: wanted"),
        (["--credentials", "none", "--credentials", "none"], "--credentials is given 2 times"),
        (["--client-key", "key.pem"], "wanted with --client-certificate"),
        (["--also", "ftp://x"], "is not the URL of a store"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(out: Path, arguments: list[Any], extra: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        cli.main(["upload", *map(str, [out, *arguments, *extra])], standalone_mode=False)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_store_named_twice_is_a_usage_error(out: Path, arguments: list[Any], tmp_path: Path) -> None:
    done = run("upload", out, *arguments, "--also", tmp_path / "archive")
    assert (done.returncode, done.stderr) == (2, "error: a store is named twice\n")


def test_the_ledger_may_be_named_by_the_environment(out: Path, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "COVERSLIP_LEDGER": str(tmp_path / "named.sqlite")}
    command = [*COMMAND, "upload", out, "--to", tmp_path / "archive", "--validate", "off"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "named.sqlite").exists()


def test_a_hand_over_follows_an_upload(out: Path, arguments: list[Any], tmp_path: Path) -> None:
    of = ["--of", tmp_path / "archive", "-o", tmp_path / "handover", *arguments[2:]]
    early = run("handover", out, *of, "--collection", "c1")
    assert early.returncode == 6
    assert "2 series" in early.stderr
    assert not (tmp_path / "handover").exists()
    assert run("upload", out, *arguments).returncode == 0
    missing = run("handover", out, *of)
    assert missing.returncode == 3
    assert "--collection names it" in missing.stderr
    done = run("handover", out, *of, "--collection", "c1", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["series"]) == (0, 2)
    assert all(Path(path).is_file() for path in told["files"])


def test_a_retraction_needs_a_yes_and_takes_everything(out: Path, arguments: list[Any], tmp_path: Path) -> None:
    assert run("upload", out, *arguments).returncode == 0
    series = series_of(out)[0]
    where = [series, "--from", tmp_path / "archive", *arguments[2:], "--reason", "label visible"]
    refused = run("retract", *where)
    assert refused.returncode == 2
    assert "--yes says so" in refused.stderr
    assert _answered("n", "retract", *where).returncode == 1
    assert list((tmp_path / "archive").glob("retracted/*")) == []
    done = _answered("y", "retract", *where)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{series}: retracted\n")
    again = json.loads(run("retract", *where, "--yes", "--json").stdout)
    assert (again["complete"], again["reason"], again["stores"][0]["instances"]) == (True, "label visible", 0)
    states = {
        line["series_instance_uid"]: line["state"] for line in json_lines(run("upload", out, *arguments, "--json"))
    }
    assert states.pop(series) == "refused"
    assert set(states.values()) == {"verified"}


def test_a_retraction_takes_a_series_out_of_a_catalog_with_its_history(
    out: Path, arguments: list[Any], tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.duckdb"
    assert run("index", out, "--to", catalog).returncode == 0
    assert run("upload", out, *arguments).returncode == 0
    gone, stays = series_of(out)
    where = [gone, "--from", tmp_path / "archive", *arguments[2:], "--reason", "label visible", "--yes"]
    assert run("retract", *where, "--catalog", catalog).returncode == 0
    found = run("search", "--catalog", catalog, "--json").stdout
    assert gone not in found
    assert stays in found


def test_a_retraction_wants_a_uid_and_a_reason_of_one_line(arguments: list[Any], tmp_path: Path) -> None:
    where = ["--from", tmp_path / "archive", "--yes"]
    assert "wanted a Series Instance UID" in run("retract", "../x", *where, "--reason", "r").stderr
    assert "wanted one line" in run("retract", "1.2.3", *where, "--reason", "two\nlines").stderr
    assert "wanted one line" in run("retract", "1.2.3", *where, "--reason", " ").stderr


def _answered(answer: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run ``coverslip ARGUMENTS`` with a terminal where somebody answers."""
    leader, terminal = pty.openpty()
    try:
        os.write(leader, f"{answer}\n".encode())
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=terminal,
            capture_output=True,
            env=ENVIRONMENT,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(leader)
        os.close(terminal)


def test_a_terminal_shows_a_bar_and_the_same_lines(out: Path, arguments: list[Any]) -> None:
    leader, terminal = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [*COMMAND, "upload", out, *arguments],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**ENVIRONMENT, "TERM": "xterm"},
    ) as process:
        os.close(terminal)
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:  # what a terminal says when its other end is closed
                break
            if not data:
                break
            shown += data
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    os.close(leader)
    assert process.returncode == 0
    assert printed.count(": verified") == 2
    assert "instances" in shown.decode()
