"""Mistakes a user can mend, told in three lines; everything else keeps its traceback."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import errno
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO, TypeVar

Result = TypeVar("Result")

EXIT_FAILED_CELLS, EXIT_USER, EXIT_INTERRUPTED, EXIT_UNREAD = 1, 2, 130, 141


class UserError(Exception):
    """What was given, what was expected, what to do.

    >>> print(UserError("δ = -1", "a number above 0", "set method.srdiffusion.delta"))
    given:    δ = -1
    expected: a number above 0
    do:       set method.srdiffusion.delta

    command: what to type, before whatever else there is to do; `otherwise` is that.
    """

    def __init__(self, got: str, expected: str, do: str, command: str = "") -> None:
        super().__init__(got, expected, do, command)
        self.got, self.expected = got, expected
        self.otherwise, self.command = do, command
        self.do = f"{command}; {do}" if command else do

    def __str__(self) -> str:
        got, expected, do = (one_line(part, 300) for part in (self.got, self.expected, self.do))
        return f"given:    {got}\nexpected: {expected}\ndo:       {do}"


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
            lines += [f"- {one_line(m.got)}; expected {one_line(m.expected)}", f"  {one_line(m.do, 300)}"]
        if len(self.mistakes) > 5:
            rest = ", ".join(one_line(m.got, 40) for m in self.mistakes[5:10])
            lines.append(f"… and {len(self.mistakes) - 5} more: {rest}" + ", …" * (len(self.mistakes) > 10))
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type[UserErrors], tuple[tuple[UserError, ...]]]:
        # made from mistakes, not from the three words: a worker sends it to the first process
        return type(self), (self.mistakes,)


class Mistakes:
    """Collects mistakes instead of stopping at the first one."""

    def __init__(self) -> None:
        self.found: list[UserError] = []

    def attempt(self, work: Callable[[], Result]) -> Result | None:
        """`work()`, or None with its mistakes noted."""
        try:
            return work()
        except UserErrors as errors:
            self.found += errors.mistakes
        except UserError as error:
            self.found.append(error)
        return None

    def note(self, got: str, expected: str, do: str) -> None:
        self.found.append(UserError(got, expected, do))

    def stop_if_any(self) -> None:
        if self.found:
            raise UserErrors(self.found)


class UserErrorList(UserError):
    """A mistake that many things share; all are listed, one a line, below what was given.

    >>> print(UserErrorList("2 videos that differ", ["a: 2 frames", "b: 3 frames"], "81 frames", "cut none"))
    given:    2 videos that differ
      a: 2 frames
      b: 3 frames
    expected: 81 frames
    do:       cut none
    """

    def __init__(self, got: str, items: Iterable[str], expected: str, do: str) -> None:
        super().__init__(got, expected, do)
        self.items = tuple(items)

    def __str__(self) -> str:
        given, *rest = super().__str__().split("\n")
        return "\n".join([given, *(f"  {one_line(item, 400)}" for item in self.items), *rest])

    def __reduce__(self) -> tuple[type[UserErrorList], tuple[str, tuple[str, ...], str, str]]:
        return type(self), (self.got, self.items, self.expected, self.do)


class CannotWrite(UserError):
    """The disk is full, or may not be written to: nothing that follows could be kept."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def cannot_write(error: Exception, path: Path) -> CannotWrite | None:
    """The mistake behind an error raised while writing below `path`; None for any other error.

    Libraries that write for us pass the system's word on without its number.
    """
    number = getattr(error, "errno", None)
    if number in _FULL or "No space left on device" in str(error) or "os error 28" in str(error):
        return CannotWrite(
            f"no space left while writing to {path}",
            "room for videos and states",
            "free some, or lower what is kept (keep=none); the same command goes on from what is there",
        )
    if number in _REFUSED:
        return CannotWrite(
            f"{path} cannot be written ({os.strerror(number)})",
            "a folder that this user may write to",
            "change its permissions, or set results=… or store=… to another folder",
        )
    return None


def as_text(name: str | Path) -> str:
    r"""A file's name or a command's word as valid text: bytes that are not UTF-8 as escapes.

    >>> as_text("caf\udce9.mp4")
    'caf\\xe9.mp4'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def counted(n: int, word: str) -> str:
    """A number of things, in the plural where it is not one.

    >>> counted(1, "video"), counted(2400, "video")
    ('1 video', '2,400 videos')
    """
    return f"{n:,} {word}{'s' * (n != 1)}"


def one_line(text: str, most: int = 160) -> str:
    """Text of a message on one line of at most `most` characters.

    >>> one_line("a\\nb"), one_line("abcdefgh", 5)
    ('a b', 'abcd…')
    """
    # str.split knows every kind of line end; the rest that a terminal would act on goes too
    line = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def wrapped(text: str, stream: TextIO) -> str:
    """Text for a stream: its lines broken between words where that is a terminal, else as they are."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(
            line,
            max(width, 40),
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 4),
            break_long_words=False,  # paths and URLs are to be copied
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def raise_all(mistakes: Sequence[UserError]) -> None:
    """Raise the mistakes together, if there are any."""
    if mistakes:
        raise UserErrors(mistakes)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint with the nearest names, or the whole list where none is near.

    >>> did_you_mean("srdifusion", ["large", "srdiffusion"])
    'did you mean srdiffusion? (known: large, srdiffusion)'
    >>> did_you_mean("wan_480", ["fig1", "wan480_delta_sweep"])  # its beginning
    'did you mean wan480_delta_sweep? (known: fig1, wan480_delta_sweep)'
    """
    names = sorted(known)
    bare = {n.lstrip("-+"): n for n in names}  # dashes make options no more alike than they are
    near = [bare[n] for n in difflib.get_close_matches(str(name).lstrip("-+"), bare, n=3, cutoff=0.5)]
    near = near or [n for n in names if _letters(name) and _letters(n).startswith(_letters(name))][:3]
    listed = ", ".join(names) if names else "none"
    return f"did you mean {' or '.join(near)}? (known: {listed})" if near else f"known: {listed}"


def _letters(name: object) -> str:
    """Letters and digits alone."""
    return "".join(c for c in str(name).lower() if c.isalnum())


class Parser(argparse.ArgumentParser):
    """argparse's, with the nearest option for one that a command does not know.

    Its commands (`add_subparsers`) are of this class too and refuse for themselves, so it is
    their usage that is shown.  argparse would first ask for what is required, though that is
    what was misspelt, and then show all commands' usage.

    >>> parser = Parser(prog="score")
    >>> _ = parser.add_argument("--dimension", required=True)
    >>> print(parser.unknown(["run", "--dimensions", "color"]))
    given:    --dimensions
    expected: an option of score
    do:       did you mean --dimension? (known: --dimension, --help)
    """

    def unknown(self, given: Sequence[str]) -> UserError | None:
        """The mistake in the first option of a command line that is none, nor the beginning of one."""
        options = list(self._option_string_actions)
        for word in given[: given.index("--")] if "--" in given else given:
            name = word.partition("=")[0]
            if not re.fullmatch(r"--?[A-Za-z][\w-]*", name):
                continue  # a value, such as a negative number
            if not any(o == name or (name.startswith("--") and o.startswith(name)) for o in options):
                long = [o for o in options if o.startswith("--")]
                return UserError(name, f"an option of {self.prog}", did_you_mean(name, long))
        return None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; what is left over is refused here.  Exits with 2 after a mistake."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None and (mistake := self.unknown(given)):
            self.exit(EXIT_USER, wrapped(f"srbench: {mistake}\n", sys.stderr))
        found, rest = super().parse_known_args(given, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def except_hook(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    """For `sys.excepthook`: a user's mistake is shown without a traceback."""
    if isinstance(error, UserError):
        print(wrapped(f"srbench: {error}", sys.stderr), file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("srbench: interrupted; what was recorded is kept", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, tb)


class _Unbroken:
    """A stream for which a reader that stops, as `| head` does, is no reason to stop: the rest is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.is_broken = stream, False

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BrokenPipeError:
            self.is_broken = True
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # what is still in the stream's buffer goes there
            os.close(null)


def finish(main: Callable[[], int], interrupted: str = "what was recorded is kept") -> NoReturn:
    """Run a command and exit with its code, 2 after a user's mistake, 130 after Ctrl-C.

    Where whoever reads what it prints stops reading, as `| head` does, the command does all its work
    and writes all its files, and ends with 141.

    interrupted: what Ctrl-C leaves and how to go on.  Whatever else goes wrong keeps its traceback.
    """
    out, err = (_Unbroken(s) if s else None for s in (sys.stdout, sys.stderr))  # None: closed from the start
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _ended(main, interrupted)
        for stream in (s for s in (out, err) if s):
            stream.flush()
            code = EXIT_UNREAD if stream.is_broken else code
    leave(code)


def _ended(main: Callable[[], int], interrupted: str) -> int:
    """The exit code of a command; a mistake or an interruption is printed."""
    try:
        return main()
    except SystemExit as stop:
        if isinstance(stop.code, str):  # a message, which Python prints
            raise
        return stop.code or 0
    except UserError as error:
        print(wrapped(f"srbench: {error}", sys.stderr), file=sys.stderr)
        return EXIT_USER
    except KeyboardInterrupt:
        print(f"srbench: interrupted; {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED


def leave(code: int) -> NoReturn:
    """Exit, without forty lines of leaks that triton's binding tells of when the interpreter is taken apart.

    torch brings it in; what is registered for the exit is done as ever.  Only for the end of a command.
    """
    if "triton" in sys.modules:
        atexit._run_exitfuncs()
        for stream in (s for s in (sys.stdout, sys.stderr) if s):
            stream.flush()
        os._exit(code)
    sys.exit(code)
