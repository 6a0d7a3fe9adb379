"""Work on a large run's records in a second process: what this one has no time for, or half of what it does.

A forked process sees the records without a copy of them. But Python writes a count into whatever
it looks at, and each page written to is copied after all: so each part of Aside has a process of
its own, one after the other, and only what one part touches is there twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MANY = 5_000  # cells from which on a second process is worth its while


def is_worthwhile(cells: int) -> bool:
    """For so many cells, with a second core, and a fork that is safe: on Linux."""
    return cells >= MANY and sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


class Aside:
    """`work(part)` for every part, begun on entering and done at the latest on leaving.

    Where a process fails, or beside is False, the work is done here, so that what goes wrong
    is raised here.  work must write whole files alone: a part may be done twice.
    """

    def __init__(self, work: Callable[[int], None], parts: int, beside: bool) -> None:
        self._work, self._parts, self._beside = work, parts, beside
        self._process = 0

    def __enter__(self) -> Aside:
        if self._beside and self._parts:
            self._process = os.fork()
            if not self._process:
                self._all_parts()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        done = bool(self._process) and os.waitpid(self._process, 0)[1] == 0
        if not done and kind is None:
            for part in range(self._parts):
                self._work(part)

    def _all_parts(self) -> None:
        """In the process beside: does not return."""
        code = 1
        try:
            for part in range(self._parts):
                process = os.fork()
                if not process:
                    self._work(part)
                    code = 0
                    return
                if os.waitpid(process, 0)[1] != 0:
                    return
            code = 0
        finally:
            os._exit(code)  # past whatever else of this process would be cleaned up twice


def mapped(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], beside: bool
) -> Iterator[tuple[int, Result]]:
    """work(item) of every item, with its place, in no order; of those done beside, in theirs.

    make: gives a process its own `work`.  Both take the next item that nobody has taken, this one
    only where no result from beside waits.  Results come pickled, so they must be lean.  What a
    process that failed leaves is done here, so that what goes wrong is raised here.
    """
    work = make()
    if not beside:
        yield from ((i, work(item)) for i, item in enumerate(items))
        return
    queue = _queue(len(items))
    if queue is None:
        yield from ((i, work(item)) for i, item in enumerate(items))
        return
    results, process = _begun(make, items, queue)
    missing = set(range(len(items)))
    try:
        while True:
            if results.poll(0) or not (taken := os.read(queue, _PLACE.size)):
                try:
                    i, result = results.recv()
                except (EOFError, OSError):  # all done, or the process failed, maybe amid a result
                    break
            else:
                (i,) = _PLACE.unpack(taken)
                result = work(items[i])
            missing.discard(i)
            yield i, result
    finally:
        os.close(queue)
        results.close()  # a process that still works there ends at its next result
        os.waitpid(process, 0)
    yield from ((i, work(items[i])) for i in sorted(missing))


_PLACE = struct.Struct("i")
_WIDE = 1 << 20  # bytes of results that may wait; what an unprivileged process may ask for on Linux


def _queue(count: int) -> int | None:
    """A pipe with the places 0 … count − 1, each read by one of two processes, and nothing after them.

    None where the system's pipes are too small for all of them.
    """
    queue, source = os.pipe()
    places = b"".join(map(_PLACE.pack, range(count)))
    _widen(source, len(places))
    os.set_blocking(source, False)
    try:
        written = os.write(source, places) if places else 0
    except BlockingIOError:  # not even a part fits
        written = -1
    os.close(source)
    if written == len(places):
        return queue
    os.close(queue)
    return None


def _widen(pipe: int, size: int) -> None:
    """Let a pipe hold so many bytes, where the system allows it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def _begun(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], queue: int
) -> tuple[Connection, int]:
    """Results as they come from a process that has begun, and its number."""
    here, there = os.pipe()
    _widen(there, _WIDE)
    process = os.fork()
    if process:
        os.close(there)
        return Connection(here, writable=False), process
    try:
        os.close(here)
        out, work = Connection(there, readable=False), make()
        while taken := os.read(queue, _PLACE.size):
            (i,) = _PLACE.unpack(taken)
            out.send((i, work(items[i])))
    finally:
        os._exit(0)  # past whatever else of this process would be cleaned up twice
