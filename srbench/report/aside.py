"""Work on parts of a large run's records in processes beside this one, which has other things to do.

A forked process sees the records without a copy of them. But Python writes a count into whatever
it looks at, and each page written to is copied after all: so each part has a process of its own,
one after the other, and only what one part touches is there twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType

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
