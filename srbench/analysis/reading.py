"""A run's records, as lean as the report needs them: VBench's 75,520 cells must fit into memory.

What makes a cell large is its trace, some 50 steps with the change D of four signals, and its
scores frame by frame. Traces that differ in D alone are made one object, and read once: D is
cut out of a record's text before it is parsed. It is kept where a figure draws it: in the
reference's; in others' nobody looks at it, so that whether it can be read is not asked
either. Frames and step times are arrays, not tuples. Of a large run a second process parses
most records' text; what comes of it is checked and put together here.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
from array import array
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from pydantic_core import from_json

from srbench.analysis import aside
from srbench.store.records import (
    CellRecord,
    MetricFacts,
    RunRecord,
    Software,
    parted,
    read_cell,
    read_run_record,
)
from srbench.trace import Trace


def read(run: Path) -> tuple[RunRecord, list[CellRecord]]:
    """As store.records.read_run, cells by prompt, seed and method, but for D.

    Every step's `change` is None, except in the reference's traces; `per_frame` and
    `step_seconds` are arrays of the same numbers, where all are numbers; labels are the run's
    newest of the method.  Raises UserError
    as read_run does.
    """
    record, lean = read_run_record(run), Lean()
    files = _files(run / "cells")
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    collecting = gc.isenabled()
    gc.disable()  # records have no cycles, and looking for some takes a third of the time
    try:
        parts = aside.mapped(Parser, chunks, aside.is_worthwhile(len(files)))
        cells = [lean(path, parsed) for i, own in parts for path, parsed in zip(chunks[i], own, strict=True)]
        cells.sort(key=lambda c: (c.prompt_index, c.seed, c.method))
    finally:
        if collecting:
            gc.enable()
    return record, _labelled(record, cells)


def _labelled(record: RunRecord, cells: Sequence[CellRecord]) -> list[CellRecord]:
    """The cells with the labels that the run's record has for their methods, the newest.

    A label is no part of a method's content: who changes it has the same videos under another name.
    """
    newest = {(m.id, m.name): m.label for m in record.methods}

    def labelled(cell: CellRecord) -> CellRecord:
        label = newest.get((cell.method_id, cell.method), cell.label)
        return cell if cell.label == label else cell.model_copy(update={"label": label})

    return [labelled(cell) for cell in cells]


def _files(folder: Path) -> list[str]:
    """The paths of the records, in their names' order."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.name.endswith(".json") and not e.name.startswith("."))


# A record has no raw line end or bare quotation mark in a string, so this is D's own first line.
_CHANGE, _NONE = b'"change": {', b'"change": null'
_TRACE = TypeAdapter(Trace)
_SECONDS = TypeAdapter(tuple[float | None, ...])
_FRAMES = TypeAdapter(tuple[float, ...])
_REPEATED = "family method label method_id prompt text protocol host source video".split()
CHUNK = 50  # records that a process takes at a time


class Parsed(NamedTuple):
    """A record's text, parsed but for its trace, and not checked.

    plain: the rest, without what follows.  seconds: of steps; frames: of each score.  key: of
    the trace's text without D, empty where there is none.  trace: that text, the reference's
    with D; empty where the process that parsed it gave one of that key before.
    """

    plain: dict[str, Any]
    seconds: Any
    frames: list[Any]
    key: bytes
    trace: bytes


class Parser:
    """Parses the text of records; one for each process, since it gives each trace's text once."""

    def __init__(self) -> None:
        self._given: set[bytes] = set()
        self._made: list[Any] = []
        self._facts: dict[str, Any] = {}

    def __call__(self, paths: Sequence[str]) -> list[Parsed | None]:
        """Of these files; None of one that is unusual or broken, which whoever asked reads itself."""
        return [self._one(path) for path in paths]

    def _one(self, path: str) -> Parsed | None:
        try:
            with open(path, "rb", buffering=0) as file:
                trace, rest = parted(file.read())
            plain = from_json(rest)
            trace = trace or _text(plain.get("trace"))
            scores, seconds = plain.get("scores", []), plain.pop("step_seconds", ())
            frames = [score.pop("per_frame", None) for score in scores]
            for score in scores:  # equal facts as one object, which travels once
                known = self._facts.setdefault(score["metric"]["name"], score["metric"])
                if known == score["metric"]:
                    score["metric"] = known
            if (made := plain.get("made")) is not None:
                plain["made"] = next((known for known in self._made if known == made), made)
                if plain["made"] is made:
                    self._made.append(made)
            numbers = [_numbers(values, _FRAMES) if values else None for values in frames]
            own = Parsed(plain, _numbers(seconds, _SECONDS), numbers, b"", trace)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return own if plain.get("is_reference") or not trace else self._once(own)

    def _once(self, own: Parsed) -> Parsed:
        """With D cut out of the trace, and no trace at all where one of that key was given."""
        bare = _without_change(own.trace)
        key = blake2b(bare, digest_size=16).digest()
        given = key in self._given
        self._given.add(key)
        return own._replace(key=key, trace=b"" if given else bare)


class Lean:
    """Makes cells, and equal parts of them one object; one for each run."""

    def __init__(self) -> None:
        self._traces: dict[bytes, Trace] = {}
        self._facts: dict[str, tuple[dict[str, Any], MetricFacts]] = {}
        self._made: list[Software] = []
        self._paths: dict[str, list[dict[str, Any]]] = {}
        self._words: dict[str, str] = {}

    def __call__(self, path: str, parsed: Parsed | None) -> CellRecord:
        """One cell's record.  Raises UserError where it cannot be read."""
        if parsed is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                return self._cell(parsed)
        return read_cell(Path(path))  # which says what is wrong with it, or reads what is merely unusual

    def _cell(self, parsed: Parsed) -> CellRecord:
        """The record, checked as it always is but for what is put in afterwards, checked by itself."""
        plain = parsed.plain
        for score in plain.get("scores", []):
            score["metric"] = self._metric(score["metric"])
        plain["made"] = self._software(plain.get("made"))
        known = self._paths.get(plain["method_id"])
        later: dict[str, Any] = {"step_seconds": (), "trace": None}
        later |= {"path": []} if plain["path"] == known else {}
        cell = CellRecord.model_validate(plain | later)
        # Nobody else has seen these objects yet: what follows makes them, and changes none.
        own = cell.__dict__
        own["path"] = known if "path" in later else self._paths.setdefault(cell.method_id, cell.path)
        own["step_seconds"] = parsed.seconds
        own["trace"] = self._trace(parsed) if parsed.key or parsed.trace else None
        for name in _REPEATED:
            if word := own[name]:
                own[name] = self._words.setdefault(word, word)
        for score, values in zip(cell.scores, parsed.frames, strict=True):
            if values is not None:
                score.__dict__["per_frame"] = values
        return cell

    def _metric(self, plain: dict[str, Any]) -> MetricFacts:
        known = self._facts.get(plain["name"])
        if known is None or (known[0] is not plain and known[0] != plain):
            self._facts[plain["name"]] = known = plain, MetricFacts.model_validate(plain)
        return known[1]

    def _software(self, plain: Any) -> Software | None:
        """The software as one object for all cells that it made; a run knows few."""
        if plain is None:
            return None
        own = Software.model_validate(plain)
        known = next((s for s in self._made if s == own), None)
        if known is None:
            self._made.append(own)
        return known or own

    def _trace(self, parsed: Parsed) -> Trace:
        if not parsed.key:
            return _TRACE.validate_json(parsed.trace)
        if parsed.key not in self._traces:
            steps = _TRACE.validate_json(parsed.trace).steps
            self._traces[parsed.key] = Trace(tuple(replace(step, change=None) for step in steps))
        return self._traces[parsed.key]


def _text(trace: Any) -> bytes:
    """Of a trace that was written in another way than ours."""
    return b"" if trace is None else json.dumps(trace).encode()


def _without_change(text: bytes) -> bytes:
    """A trace's text with null for every D."""
    first, *rest = text.split(_CHANGE)
    return _NONE.join([first, *(part[part.index(b"}") + 1 :] for part in rest)])


def _numbers(values: Sequence[Any], otherwise: TypeAdapter[Any]) -> Any:
    """An array of doubles; of anything else (None, "NaN") what records make of it."""
    try:
        return array("d", values)
    except TypeError:
        return otherwise.validate_python(values)
