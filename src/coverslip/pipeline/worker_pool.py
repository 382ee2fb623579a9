"""Processes that work on one thing after another, and may be lost without harm to the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Protocol

from coverslip.pipeline.budget import Budget, Need

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["Lost", "Place", "Pool", "Worker", "WorkerPool"]

type Serve = Callable[[Any, Callable[[Any], None]], None]
"""Does a job, and tells what happens; all that it raises ends the process."""

_POLL_S = 0.25
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


@dataclass(frozen=True, slots=True)
class Lost:
    """The process of a worker has ended without being asked to.

    Parameters
    ----------
    exit_code : int
        Negative: the signal that ended it.
    reason : str
        What is told in place of the exit code, where that is not known.
    """

    exit_code: int
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        if self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            short = "; the memory may not suffice" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{short}"
        return f"its process ended with exit code {self.exit_code}"


class Place(Protocol):
    """Where one thing after another is worked on; `job` is None while nothing is."""

    job: Any

    def submit(self, job: object, need: Need | None = None) -> None:
        """Give it something to do, and tell what that is expected to need."""
        ...


class Pool(Protocol):
    """Places that work, on this machine or on others."""

    spreads: bool
    """Whether a slide can be alone in its place while others are worked on elsewhere."""

    @property
    def workers(self) -> Sequence[Place]:
        """All places that there are."""
        ...

    @property
    def busy(self) -> Sequence[Place]:
        """Those that have something to do."""
        ...

    def room(self) -> Budget:
        """Return what all that is under way may take together."""
        ...

    def idle(self) -> Place | None:
        """Return a place that has nothing to do; None if all there may be are busy."""
        ...

    def resident_bytes(self) -> int:
        """Return how much memory of this machine all have now."""
        ...

    def wait(self, timeout_s: float = ...) -> Iterator[tuple[Place, Any]]:
        """Yield what is told from places, and `Lost` for one that is gone."""
        ...

    def retire(self, worker: Place) -> None:
        """End one that has nothing to do."""
        ...

    def stop(self, grace_s: float) -> None:
        """End all."""
        ...


class Worker:
    """One process.

    Parameters
    ----------
    make_serve : callable
        Called in the process, with `context`: gives what does jobs, as a context manager.
    context : object
    """

    def __init__(self, make_serve: Callable[[Any], contextlib.AbstractContextManager[Serve]], context: object) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        alive, self._alive = spawn.Pipe(duplex=False)
        self.process: SpawnProcess = spawn.Process(
            target=_serve, args=(make_serve, context, theirs, alive), name="coverslip-worker", daemon=True
        )
        self.process.start()
        theirs.close()
        alive.close()
        self.job: Any = None

    def submit(self, job: object, need: Need | None = None) -> None:
        """Give it something to do; it was begun because what it needs is there."""
        self.job = job
        with contextlib.suppress(OSError):  # an end that has come meanwhile is told by `WorkerPool.wait`
            self.connection.send(job)

    def close(self) -> None:
        """Let go of a process that has ended."""
        self.process.join()
        self.connection.close()
        self._alive.close()

    def resident_bytes(self) -> int:
        """Return how much memory the process has now."""
        try:
            with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0


class WorkerPool:
    """Workers, started when they are needed.

    Parameters
    ----------
    make_serve, context
        See `Worker`.
    most : int
        Processes at once.
    room : Budget
        For all that they do together.
    """

    spreads = False

    def __init__(
        self,
        make_serve: Callable[[Any], contextlib.AbstractContextManager[Serve]],
        context: object,
        most: int,
        room: Budget,
    ) -> None:
        self._make = make_serve, context
        self._room = room
        self.most = most
        self.workers: list[Worker] = []

    def idle(self) -> Worker | None:
        """Return a worker that has nothing to do; None if all there may be are busy."""
        for worker in self.workers:
            if worker.job is None:
                return worker
        if len(self.workers) < self.most:
            self.workers.append(Worker(*self._make))
            return self.workers[-1]
        return None

    @property
    def busy(self) -> list[Worker]:
        """Workers that have something to do."""
        return [worker for worker in self.workers if worker.job is not None]

    def room(self) -> Budget:
        """Return what all may take together."""
        return self._room

    def resident_bytes(self) -> int:
        """Return how much memory all workers have now."""
        return sum(worker.resident_bytes() for worker in self.workers)

    def wait(self, timeout_s: float = _POLL_S) -> Iterator[tuple[Worker, Any]]:
        """Yield what workers tell, and `Lost` for one that has ended; its place is free again.

        What a worker told before it ended comes first.
        """
        by_handle: dict[Any, Worker] = {}
        for worker in self.workers:
            by_handle[worker.connection] = by_handle[worker.process.sentinel] = worker
        if not by_handle:
            return
        ready = {id(by_handle[handle]): by_handle[handle] for handle in wait(list(by_handle), timeout_s)}
        for worker in ready.values():
            ended = not worker.process.is_alive()
            try:
                while worker in self.workers and worker.connection.poll():
                    yield worker, worker.connection.recv()
            except (EOFError, OSError):
                ended = True
            if worker not in self.workers:
                continue  # retired by whoever was told
            if ended:
                self.workers.remove(worker)
                worker.close()
                yield worker, Lost(worker.process.exitcode or 0)

    def retire(self, worker: Place) -> None:
        """End a worker that has nothing to do."""
        assert isinstance(worker, Worker)
        with contextlib.suppress(OSError):
            worker.connection.send(None)
        self.workers.remove(worker)
        worker.close()

    def stop(self, grace_s: float) -> None:
        """End all workers: those that have nothing to do at once, the others when they have cleaned up."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            if worker.job is not None and worker.process.is_alive():
                worker.process.terminate()
        deadline = time.monotonic() + grace_s
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
            worker.close()
        self.workers.clear()


def _serve(
    make_serve: Callable[[Any], contextlib.AbstractContextManager[Serve]],
    context: object,
    connection: Connection,
    alive: Connection,
) -> None:
    """Do jobs until there are no more."""
    # An interrupt goes to all processes of a terminal; what becomes of the work is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _die_with_parent()
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    lock = threading.Lock()

    def tell(message: object) -> None:
        with lock:
            connection.send(message)

    with make_serve(context) as serve, contextlib.suppress(EOFError, BrokenPipeError):
        while (job := connection.recv()) is not None:
            serve(job, tell)


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is gone, whatever it is doing then; Linux alone can."""
    import ctypes

    parent = multiprocessing.parent_process()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it was gone before


def _end_with_parent(alive: Connection) -> None:
    """End at once when the parent is gone, however it went: another run may start where this one stopped."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)
