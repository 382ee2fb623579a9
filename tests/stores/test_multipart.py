"""Parts are told apart wherever the pieces of an answer end."""

from __future__ import annotations

import pytest

from coverslip.errors import StoreError
from coverslip.stores.multipart import iter_parts

PARTS = [b"", b"\r\n", b"--b", b"\r\n--", b"x" * 50 + b"\r\n--bo", bytes(range(256)), b"end\r\n\r\n"]
KIND = 'multipart/related; type="application/octet-stream"; boundary="bound"'


def body(preamble: bytes = b"", head: bytes = b"Content-Type: x/y\r\nA: b\r\n") -> bytes:
    parts = b"".join(b"--bound\r\n" + head + b"\r\n" + part + b"\r\n" for part in PARTS)
    return preamble + parts + b"--bound--\r\n"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 64, 10_000])
@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"words of old\r\n"])
@pytest.mark.parametrize("head", [b"Content-Type: x/y\r\nA: b\r\n", b""])
def test_parts_come_whole(size, preamble, head) -> None:
    parts = iter_parts(KIND, iter(pieces(body(preamble, head), size)), "it")
    assert [b"".join(part) for part in parts] == PARTS


def test_parts_that_are_not_taken_are_passed_over() -> None:
    parts = iter_parts(KIND, iter(pieces(body(), 4)), "it")
    assert len(list(parts)) == len(PARTS)


def test_an_answer_that_is_not_multipart_is_one_part() -> None:
    (part,) = iter_parts("application/dicom", iter([b"one", b"two"]), "it")
    assert b"".join(part) == b"onetwo"


@pytest.mark.parametrize("length", range(10, len(body()) - 4, 7))
def test_an_answer_that_ends_early_is_a_passing_error(length) -> None:
    with pytest.raises(StoreError, match="in the middle") as caught:
        [b"".join(part) for part in iter_parts(KIND, iter([body()[:length]]), "it")]
    assert caught.value.retryable


def test_an_answer_without_boundary_is_an_error() -> None:
    with pytest.raises(StoreError, match="boundary"):
        next(iter_parts("multipart/related", iter([b""]), "it"))


def test_a_head_without_end_is_an_error() -> None:
    chunks = iter([b"--bound\r\n", *[b"x" * 1000] * 100])
    with pytest.raises(StoreError, match="told apart"):
        next(iter_parts(KIND, chunks, "it"))
