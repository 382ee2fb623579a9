"""A slide and a table full of invented names, dates and numbers: none may appear in anything that is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from coverslip.validators.privacy import Secret, check_privacy, is_identifying_column, secrets_of_fields
from tests.factories import aperio
from tests.factories.aperio import FIELDS, write_aperio_svs
from tests.in_process import run_in_process

PLANTED = {
    "ScanScope ID": "SSQX7719",
    "Filename": "Zyxwvut_Quimby_H20-55512",
    "User": "Quimby Zyxwvut",
    "Operator": "Brandybuck",
    "Title": "Case of Zyxwvut",
    "Barcode": "QB-20-99187-A1",
    "Patient": "Zyxwvut^Quimby",
    "PatientID": "MRN0047811",
    "Comment": "born 17.08.1931 in Quahog",
    "Host": "pathscan-qx9",
    "ImageID": "8812007",
}
WORDS = [
    b"Zyxwvut",
    b"Quimby",
    b"H20-55512",
    b"SSQX7719",
    b"Brandybuck",
    b"QB-20-99187",
    b"MRN0047811",
    b"1931",
    b"Quahog",
]
WORDS += [b"pathscan", b"8812007"]


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line, as a process where its environment is another one."""
    if not environment:
        return run_in_process(arguments, cwd)
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "coverslip", *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=False,
    )


def with_comment(encode):
    """Return an encoder of JPEG tiles that plants a comment and Exif data in each."""

    def encode_planted(self, pixels):
        tables, tile = encode(self, pixels)
        text = b"Quimby Zyxwvut 17.08.1931"
        segments = b"".join(bytes((0xFF, marker, 0, len(text) + 2)) + text for marker in (0xFE, 0xE1))
        return tables, tile[:2] + segments + tile[2:]

    return encode_planted


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "Zyxwvut_Quimby_H20-55512.svs"
    patch = pytest.MonkeyPatch()
    patch.setattr(aperio.AperioCoding, "encode", with_comment(aperio.AperioCoding.encode))
    write_aperio_svs(path, fields=FIELDS | PLANTED)
    patch.undo()
    return path


@pytest.mark.parametrize("zone,locale", [("UTC", "C"), ("Asia/Kathmandu", "C.UTF-8")])
def test_no_planted_text_is_in_any_byte_that_is_written(tmp_path, planted, zone, locale):
    assert b"Quimby Zyxwvut 17.08.1931" in planted.read_bytes()
    options = ("-o", tmp_path, "--include", "thumbnail,overview", "--overview", "mask-label", "--set", "PatientID=P1")
    # The slide is named on standard output and error only as the user named it.
    done = run("convert", planted.name, *options, cwd=planted.parent, TZ=zone, LC_ALL=locale)
    assert (done.returncode, done.stderr) == (0, b"")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 3
    texts = {path.name: path.read_bytes() for path in written}
    texts |= {"stdout": done.stdout.replace(planted.name.encode(), b""), "paths": "\n".join(map(str, written)).encode()}
    for word in WORDS:
        for coded in (word, word.lower(), word.decode().encode("utf-16-le")):
            assert [name for name, data in texts.items() if coded in data] == [], word


def test_deid_check_finds_nothing_in_what_convert_made(tmp_path, planted):
    assert run("convert", planted, "-o", tmp_path, "--set", "PatientID=P1").returncode == 0
    done = run("deid", "check", tmp_path, "--source", planted, "--every-byte")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"nothing found that identifies\n", b"")


@pytest.fixture
def series(tmp_path, aperio_slide):
    assert run("convert", aperio_slide, "-o", tmp_path / "out").returncode == 0
    return tmp_path / "out"


def rules(findings):
    return {finding.rule for finding in findings}


def change(series: Path, **attributes: object) -> Path:
    path = sorted(series.rglob("*.dcm"))[0]
    ds = dcmread(path)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.save_as(path)
    return path


def test_a_leak_ends_with_5_and_is_not_repeated(series, planted):
    change(series, StudyDescription="scanned by Zyxwvut, Quimby")
    done = run("deid", "check", series, "--source", planted, "--json")
    assert done.returncode == 5
    found = json.loads(done.stdout)["findings"]
    assert {each["rule"] for each in found} == {"privacy.source-value"}
    assert "StudyDescription (0008,1030)" in found[0]["place"]
    assert b"Zyxwvut" not in done.stdout + done.stderr
    assert b"Quimby" not in done.stdout + done.stderr


def test_names_and_birth_dates_of_the_table_are_found_and_curated_columns_are_not(series, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("patient_name,dob,ward,project\nQuimby Zyxwvut,08/17/1931,North 17b,Unknown\n")
    change(series, PatientName="Zyxwvut^Quimby", PatientBirthDate="19310817", StudyDescription="North 17b Unknown")
    done = run("deid", "check", series, "--metadata", table, "--column", "Ward")
    assert done.returncode == 5
    assert done.stdout.count(b"[privacy.table-value]") == 3
    assert b"'project'" not in done.stdout
    missing = run("deid", "check", series, "--metadata", table, "--column", "bed")
    assert (missing.returncode, b"no such column" in missing.stderr) == (2, True)


def test_patterns_are_warnings_and_end_with_0(series):
    path = change(series, PatientName="Roe^Jane", PatientBirthDate="19310817", StudyDescription="MRN: 0047811")
    ds = dcmread(path)
    ds.private_block(0x0099, "ACME", create=True).add_new(1, "LO", "x")
    ds.preamble = b"x" * 128
    ds.save_as(path)
    done = run("deid", "check", path)
    assert done.returncode == 0
    for rule in ("person-name", "date", "record-number", "private-tag", "preamble"):
        assert f"[privacy.{rule}]".encode() in done.stdout


def test_comments_in_stored_frames_are_found(series, planted):
    path = sorted(series.rglob("*.dcm"), key=lambda path: path.stat().st_size)[0]
    data = path.read_bytes()
    at = data.index(b"\xff\xd8\xff")
    text = b"Quimby Zyxwvut"
    segment = b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text
    item = data.rindex(b"\xfe\xff\x00\xe0", 0, at)
    length = int.from_bytes(data[item + 4 : item + 8], "little") + len(segment)
    path.write_bytes(
        data[: item + 4] + length.to_bytes(4, "little") + data[item + 8 : at + 2] + segment + data[at + 2 :]
    )
    findings = check_privacy([path], [Secret("Quimby Zyxwvut", "source field 'User'")])
    assert rules(findings) == {"privacy.source-value", "privacy.pixel-metadata"}
    assert "frame 1" in " ".join(finding.place for finding in findings)


def test_a_label_that_claims_to_be_de_identified_is_an_error(tmp_path, aperio_slide):
    run("convert", aperio_slide, "-o", tmp_path, "--include", "label", "--set", "PatientIdentityRemoved=YES")
    assert rules(check_privacy([tmp_path])) == {"privacy.claim"}


def test_nothing_to_check_and_files_that_are_no_dicom_end_with_6(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"not DICOM at all" * 20)
    assert run("deid", "check", tmp_path / "a.dcm").returncode == 6
    (tmp_path / "a.dcm").unlink()
    assert run("deid", "check", tmp_path).returncode == 6


def test_texts_that_say_too_little_are_not_searched_for():
    fields = {"a": "40", "b": "0.4990", "c": "Jo", "d": "Aperio Image Library v11.2.1 |AppMag = 20|User = Jane Roe"}
    secrets = secrets_of_fields(fields, "source field", ["Aperio Image Library v11.2.1"])
    assert [secret.text for secret in secrets] == ["Jane Roe"]


@pytest.mark.parametrize("name", ["Patient Name", "patientname", "MRN", "birth_date", "DOB", "E-Mail"])
def test_columns_of_names_and_numbers_identify(name):
    assert is_identifying_column(name)


@pytest.mark.parametrize("name", ["file_name", "project", "participant_id", "tissue", "channel name"])
def test_other_columns_do_not(name):
    assert not is_identifying_column(name)
