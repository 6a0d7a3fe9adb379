"""Tables that a user hands over: strict CSV files, and the latencies of videos of other tools in one."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from srbench.config import texts
from srbench.errors import UserErrorList, as_text

Key = TypeVar("Key", bound=Hashable)


class Line(NamedTuple):
    """A line of a CSV: its number in the file, from 1, and its cells by column."""

    number: int
    cells: Mapping[str, str]


def table(path: Path, needed: Sequence[str], known: Sequence[str]) -> list[Line]:
    """A CSV's lines by column; blank ones are left out.

    Raises UserError, with the line's number, where the file is not exactly a header and lines of as many
    cells: a column that is missing, unknown or there twice, a line that is too short or too
    long, a quote that is not closed, text that is not UTF-8.
    """
    named = str(path)
    return [Line(*row) for row in texts.table(texts.read(path, named), named, needed, known)]


SHORTEST, LONGEST = 1e-6, 1e9  # seconds that a video can take


def latencies(path: Path, rows: Mapping[str, Mapping[Key, Path]]) -> dict[str, dict[Key, tuple[float, int]]]:
    """Read the seconds of each video by the row's name, and for how many videos that number was given.

    A line by method is one number for all videos of that row.

    Args:
        path: A CSV with the columns seconds, and method or video or both.
        rows: The videos of each row.

    Raises:
        UserError: With every line that does not name seconds and one row's videos, or that names
            videos which another line has.
    """
    found: dict[str, dict[Key, tuple[float, int]]] = {name: {} for name in rows}
    taken: dict[tuple[str, Key], int] = {}
    wrong = []
    for number, line in table(path, ("seconds",), ("method", "video", "seconds")):
        try:
            seconds = _seconds(line["seconds"])
            name, keys = _named(rows, line.get("method", ""), line.get("video", ""))
            _refuse_second(name, keys, taken, number)
        except ValueError as error:
            wrong.append(f"line {number} ({', '.join(line.values())}): {error}")
            continue
        taken |= {(name, key): number for key in keys}
        found[name] |= dict.fromkeys(keys, (seconds, len(keys)))
    if wrong:
        raise UserErrorList(
            f"{path}: {len(wrong)} line{'s' * (len(wrong) != 1)} that cannot be used",
            wrong,
            f"one number of seconds for each video; the rows are {', '.join(rows)}",
            "correct the lines",
        )
    return found


def _seconds(text: str) -> float:
    """Raises ValueError for what is no number that a latency can be, NaN and infinity included."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SHORTEST <= seconds <= LONGEST:  # false for NaN
        raise ValueError(f"seconds {text!r} is not a number from {SHORTEST:g} to {LONGEST:g}")
    return seconds


def _named(rows: Mapping[str, Mapping[Key, Path]], name: str, file: str) -> tuple[str, list[Key]]:
    """The row that a line is of, and which of its videos.  Raises ValueError unless that is one row."""
    if not name and not file:
        raise ValueError("it names neither a method nor a video")
    if name and name not in rows:
        raise ValueError(f"no row is called {name!r}")
    of = {row: keys for row in ([name] if name else rows) if (keys := _keys_of(rows[row], file))}
    if not of:
        raise ValueError(f"no video is called {file!r}{f' in {name}' if name else ''}")
    if len(of) > 1:
        raise ValueError(f"{file!r} is a video of {', '.join(of)}; name the method too")
    return next(iter(of.items()))


def _keys_of(videos: Mapping[Key, Path], file: str) -> list[Key]:
    """The videos with a file's name, with or without its suffix; all of them without a name."""
    if not file:
        return list(videos)
    names = {key: unicodedata.normalize("NFC", as_text(path.name)) for key, path in videos.items()}
    wanted = unicodedata.normalize("NFC", file)
    whole = [key for key, name in names.items() if name == wanted]
    return whole or [key for key, name in names.items() if Path(name).stem == wanted]


def _refuse_second(name: str, keys: Sequence[Key], taken: Mapping[tuple[str, Key], int], number: int) -> None:
    """Raise ValueError where another line has given a number for one of the videos."""
    others = sorted({taken[name, key] for key in keys if (name, key) in taken})
    if others:
        raise ValueError(f"line {others[0]} has given a number for the same video of {name}")
