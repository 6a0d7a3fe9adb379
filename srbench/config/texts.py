"""Strict reading of files of texts: a file gives exactly its texts, or is refused with the line at fault.

A line ends at `\\n`, `\\r\\n` or `\\r` and nowhere else: U+2028, U+0085 and form feeds belong to a text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from srbench.errors import UserError

ENDINGS = (".txt", ".csv", ".json", ".jsonl")
_LINE_END = re.compile(r"\r\n|\n|\r")
# RFC 4180: quotes stand around a whole cell, and are doubled inside it
_CELL = re.compile(r'(?:"((?:[^"]+|"")*+)"|([^",\r\n]*+))(,|\r\n|\n|\r|\Z)')


class Entry(NamedTuple):
    """A text and where it stands, as in `line 3`."""

    text: str
    where: str


def prompts(path: Path, setting: str) -> tuple[str, ...]:
    """The prompts of a file: one a line (.txt), the column `prompt` (.csv), or JSON (.json, .jsonl).

    setting: for messages, as in `suite.prompts`.
    Raises UserError for a file that cannot be read, is of another format, or has a text that is
    no prompt.
    """
    named = f"{setting} = {path}"
    text = read(path, named, f"check the path; a single prompt is written '{setting}=[\"…\"]'")
    reader = {".txt": _of_lines, ".csv": _of_table, ".json": _of_json, ".jsonl": _of_json_lines}
    if path.suffix.lower() not in reader:
        raise UserError(
            f"{named}, which ends in {path.suffix or 'nothing'}",
            f"a file that ends in one of {', '.join(ENDINGS)}",
            "rename the file, or save it in one of these formats",
        )
    return distinct(reader[path.suffix.lower()](text, named), named)


def distinct(entries: Iterable[Entry], named: str) -> tuple[str, ...]:
    """The texts of entries, as they are.

    Raises UserError where one is no prompt, where two are the same apart from blanks, or where
    there is none.
    """
    first: dict[str, str] = {}
    texts = []
    for text, where in entries:
        if wrong := flaw(text):
            raise UserError(f"{named}, {where}: {wrong}", "a text", "correct or remove it")
        same = " ".join(unicodedata.normalize("NFC", text).split())
        if (earlier := first.setdefault(same, where)) != where:
            raise UserError(
                f"{named}, {where}: {text!r} is the prompt of {earlier} again",
                "different prompts",
                "remove one of the two; for several videos of a prompt set suite.seeds",
            )
        texts.append(text)
    if not texts:
        raise UserError(f"no prompt in {named}", "at least one prompt", "write one into it")
    return tuple(texts)


def flaw(text: str) -> str:
    """Why a text is no prompt; empty for a prompt."""
    if not text.strip():
        return "an empty prompt"
    if "\0" in text:
        return "a NUL character; the file may be damaged, or UTF-16"
    if surrogate := re.search("[\ud800-\udfff]", text):
        return f"a lone surrogate, \\u{ord(surrogate[0]):04x}, which is no character"
    return "a byte order mark (U+FEFF) inside a prompt" if "\ufeff" in text else ""


# Files


def read(path: Path, named: str, do: str = "check the path") -> str:
    """A file's text without a byte order mark at its beginning.

    named: the file, for messages.  do: what to do where there is no such file.
    Raises UserError with the line at fault.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise UserError(
            f"{named} ({getattr(error, 'strerror', None) or error})",
            "a readable file",
            do,
        ) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = line_of(content[: error.start].decode("utf-8"), error.start)
        raise UserError(
            f"{named}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8",
            "a UTF-8 text file",
            "save it as UTF-8",
        ) from None


def line_of(text: str, position: int) -> int:
    """The number, from 1, of the line that a position is on."""
    return 1 + len(_LINE_END.findall(text[:position]))


def lines(text: str) -> list[str]:
    r"""Lines without their ends; the end of the last line begins no other.

    >>> lines("a\u2028b\r\nc\n")
    ['a\u2028b', 'c']
    """
    found = _LINE_END.split(text)
    return found[:-1] if not found[-1] else found


def _of_lines(text: str, named: str) -> Iterator[Entry]:
    for number, line in enumerate(lines(text), 1):
        if line.strip(" \t"):  # lines without a letter part paragraphs
            yield Entry(line, f"line {number}")


def _of_table(text: str, named: str) -> Iterator[Entry]:
    for number, row in table(text, named, ("prompt",)):
        yield Entry(row["prompt"], f"line {number}")


def _of_json(text: str, named: str) -> Iterator[Entry]:
    plain = parse_json(text, named)
    if not isinstance(plain, list):
        raise UserError(
            f"{named}, which holds no list", 'a list of texts, or of objects with a "prompt"', 'as ["a cat"]'
        )
    return (Entry(_prompt(p, f"{named}, entry {i}"), f"entry {i}") for i, p in enumerate(plain, 1))


def _of_json_lines(text: str, named: str) -> Iterator[Entry]:
    for number, line in enumerate(lines(text), 1):
        if line.strip(" \t"):
            plain = parse_json(line, named, number)
            yield Entry(_prompt(plain, f"{named}, line {number}"), f"line {number}")


def _prompt(plain: Any, where: str) -> str:
    """A JSON text, or the `prompt` of an object."""
    prompt = plain.get("prompt") if isinstance(plain, dict) else plain
    if not isinstance(prompt, str):
        raise UserError(
            f"{where}: {json.dumps(plain, ensure_ascii=False)}",
            'a JSON text, or an object with a "prompt"',
            'as {"prompt": "a cat"}',
        )
    return prompt


def parse_json(text: str, named: str, first_line: int = 1) -> Any:
    """JSON as plain data.  Raises UserError with the line at fault, and for a key that an object has twice.

    first_line: the number of the text's first line in its file.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        line, said = first_line + line_of(text, error.pos) - 1, error.msg
    except (ValueError, RecursionError) as error:  # a key twice, a number of 5,000 digits, 1,000 brackets
        line, said = first_line, str(error)
    raise UserError(f"{named}, line {line}: {said}", "JSON", "correct the line, or the one above it")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"an object has the key {twice!r} twice")
    return found


# CSV


def table(
    text: str, named: str, needed: Sequence[str], known: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV below its header, by column, each with the number of its first line.

    needed: columns that must be there.  known: those that may be there; any where None.
    Raises UserError where a row has more or fewer cells than the header, a quote is not closed or
    stands inside a cell without quotes, or a column comes twice, is missing or unknown.
    """
    rows = _rows(text, named)
    number, header = next(rows, (1, list[str]()))
    if len(set(header)) < len(header) or not set(needed) <= set(header) <= set(known or header):
        optional = "".join(f"; if wanted {k}" for k in known or () if k not in needed)
        raise UserError(
            f"{named}, line {number}: the columns {', '.join(map(repr, header)) or 'none'}",
            f"{', '.join(needed)}{optional}",
            "write each of them once as the first line",
        )
    for number, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{named}, line {number}: {len(cells)} cells ({', '.join(cells)})",
                f"{len(header)} cells, {', '.join(header)}",
                'put a cell that has a comma between quotes, as in "a cat, sitting"',
            )
        yield number, dict(zip(header, cells, strict=True))


def _rows(text: str, named: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of cells, each with the number of its first line; empty lines are none."""
    start = position = 0
    line, cells = 1, list[str]()
    while position < len(text) or cells:
        if (match := _CELL.match(text, position)) is None:
            number = line + line_of(text[start:position], position) - 1
            raise UserError(
                f"{named}, line {number}: a quote that is not closed, or stands inside a cell, "
                f"in {lines(text[position:])[0]!r}",
                'quotes around a whole cell, and doubled inside it: "a ""big"" cat"',
                "correct the line, or the one above it",
            )
        quoted, plain, end = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        position = match.end()
        if end == ",":
            continue
        if quoted is not None or cells != [""]:
            yield line, cells
        line += line_of(text[start:position], position) - 1
        start, cells = position, []
