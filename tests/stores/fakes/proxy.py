"""A TCP proxy on loopback that resets connections and changes bytes, at planned places."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from typing import Self

__all__ = ["SpoilingProxy"]


class SpoilingProxy:
    """Passes connections on to a port of this machine.

    Parameters
    ----------
    target_port : int
    reset_after : iterable of int or None
        For each connection in turn, how many bytes of the client pass before both ends see a reset; None for never,
        as for all later connections.
    corrupt_upload_at, corrupt_download_at : iterable of int
        Places among all bytes that ever pass in that direction, at which a bit is flipped.
    """

    def __init__(
        self,
        target_port: int,
        *,
        reset_after: Iterable[int | None] = (),
        corrupt_upload_at: Iterable[int] = (),
        corrupt_download_at: Iterable[int] = (),
    ) -> None:
        self._target_port = target_port
        self._resets = iter(reset_after)
        self._corrupt = {"up": sorted(corrupt_upload_at), "down": sorted(corrupt_download_at)}
        self.passed = {"up": 0, "down": 0}
        self.resets = 0
        self.corrupted = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            with self._lock:
                limit = next(self._resets, None)
                self._sockets |= {client, server}
            self._start(self._pass, client, server, "up", limit)
            self._start(self._pass, server, client, "down", None)

    def _pass(self, origin: socket.socket, target: socket.socket, direction: str, limit: int | None) -> None:
        passed = 0
        try:
            while data := origin.recv(1 << 16):
                if limit is not None and passed + len(data) >= limit:
                    target.sendall(self._spoil(data[: limit - passed], direction))
                    with self._lock:
                        self.resets += 1
                    self._reset(origin, target)
                    return
                passed += len(data)
                target.sendall(self._spoil(data, direction))
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self._reset(origin, target)

    def _spoil(self, data: bytes, direction: str) -> bytes:
        with self._lock:
            start = self.passed[direction]
            self.passed[direction] += len(data)
            places = [place - start for place in self._corrupt[direction] if start <= place < start + len(data)]
            self.corrupted += len(places)
        if not places:
            return data
        changed = bytearray(data)
        for place in places:
            changed[place] ^= 0x10
        return bytes(changed)

    @staticmethod
    def _reset(*ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)  # wakes the other direction
            with contextlib.suppress(OSError):
                end.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends = list(self._sockets)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
