"""URLs and options of stores."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coverslip.errors import UsageError
from coverslip.stores.options import (
    Anonymous,
    ApplicationDefault,
    BasicFromEnvironment,
    ServiceAccountFile,
    StoreDefault,
    StoreOptions,
    TokenFromCommand,
    TokenFromEnvironment,
    parse_credentials,
)
from coverslip.stores.registry import STORE_KINDS, open_store


@pytest.mark.parametrize(
    "text, credentials",
    [
        ("default", StoreDefault()),
        ("none", Anonymous()),
        ("adc", ApplicationDefault()),
        ("service-account:a:b.json", ServiceAccountFile(Path("a:b.json"))),
        ("token-env:TOKEN", TokenFromEnvironment("TOKEN")),
        ("token-command:gcloud auth 'print access'", TokenFromCommand(("gcloud", "auth", "print access"))),
        ("basic-env:LOGIN", BasicFromEnvironment("LOGIN")),
    ],
)
def test_credentials_are_named_by_one_text(text: str, credentials: object) -> None:
    assert parse_credentials(text) == credentials


@pytest.mark.parametrize(
    "text", ["", "token", "Bearer s3cret", "token-env:", "token-env", "token-command:'", "s3cret:x"]
)
def test_what_names_no_credentials_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_credentials(text)
    assert "s3cret" not in str(caught.value)


def test_options_show_no_argument_of_a_command() -> None:
    options = StoreOptions(credentials=TokenFromCommand(("vault", "--pin", "s3cret")))
    assert "s3cret" not in repr(options)
    assert "s3cret" not in str(options)


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host/x", "https://host/x", "gcs://bucket"])
def test_an_unknown_scheme_is_refused_with_those_there_are(url: str) -> None:
    with pytest.raises(UsageError, match=re.escape("gs://")):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "dicomweb+https://me:s3cret@host/x",
        "dicomweb+https://host/x?sig=s3cret",
        "gs://bucket/x#s3cret",
        "s3://k:s3cret@b",
    ],
)
def test_a_url_with_a_login_or_query_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url, module, extra",
    [
        ("s3://bucket/x", "obstore", "s3"),
        ("gs://bucket/x", "google", "cloud"),
        ("dicomweb+https://host/x", "httpx", "cloud"),
        ("healthcare://p/l/d/s", "httpx", "cloud"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(url: str, module: str, extra: str) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from coverslip.errors import MissingDependencyError\n"
        "from coverslip.stores.registry import open_store\n"
        f"try: open_store({url!r})\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == f"{url.partition(':')[0]}:// needs {module}: pip install 'coverslip[{extra}]'\n"


def test_each_scheme_is_there_once() -> None:
    schemes = [kind.scheme for kind in STORE_KINDS]
    assert len(set(schemes)) == len(schemes)
