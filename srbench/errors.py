"""Mistakes a user can mend, told in three lines; everything else keeps its traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType

EXIT_FAILED_CELLS, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130


class UserError(Exception):
    """What was given, what was expected, what to do.

    >>> print(UserError("δ = -1", "a number above 0", "set method.srdiffusion.delta"))
    given:    δ = -1
    expected: a number above 0
    do:       set method.srdiffusion.delta
    """

    def __init__(self, got: str, expected: str, do: str) -> None:
        super().__init__(got, expected, do)
        self.got, self.expected, self.do = got, expected, do

    def __str__(self) -> str:
        return f"given:    {self.got}\nexpected: {self.expected}\ndo:       {self.do}"


class NotOnThisMachine(UserError):
    """Weights that are named well but not here: a plan can do without them, a run cannot."""


class UserErrors(UserError):
    """Several mistakes of one configuration, told together in at most 12 lines."""

    def __init__(self, mistakes: Iterable[UserError]) -> None:
        self.mistakes = tuple(mistakes)
        first = self.mistakes[0]
        super().__init__(first.got, first.expected, first.do)

    def __str__(self) -> str:
        if len(self.mistakes) == 1:
            return str(self.mistakes[0])
        lines = [f"{len(self.mistakes)} mistakes"]
        for m in self.mistakes[:5]:
            lines += [f"- {m.got}; expected {m.expected}", f"  {m.do}"]
        if len(self.mistakes) > 5:
            lines.append(f"… and {len(self.mistakes) - 5} more")
        return "\n".join(lines)


def raise_all(mistakes: Sequence[UserError]) -> None:
    """Raise the mistakes together, if there are any."""
    if mistakes:
        raise UserErrors(mistakes)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest names, or the whole list where none is near.

    >>> did_you_mean("srdifusion", ["large", "srdiffusion"])
    'did you mean srdiffusion? (known: large, srdiffusion)'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listed = ", ".join(names) if names else "none"
    return f"did you mean {' or '.join(near)}? (known: {listed})" if near else f"known: {listed}"


def except_hook(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    """For `sys.excepthook`: a user's mistake is shown without a traceback."""
    if isinstance(error, UserError):
        print(f"srbench: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, tb)
