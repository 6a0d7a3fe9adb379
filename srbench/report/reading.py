"""A run's records, as lean as the report needs them: VBench's 75,520 cells must fit into memory.

What makes a cell large is its trace, some 50 steps with the change D of four signals, and its
scores frame by frame. Traces that differ in D alone are made one object, and read once: D is
cut out of a record's text before it is parsed. It is kept where a figure draws it: in the
reference's; in others' nobody looks at it, so that whether it can be read is not asked
either. Frames and step times are arrays, not tuples.
"""

from __future__ import annotations

import gc
import json
import os
from array import array
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from srbench.store.records import (
    CellRecord,
    MetricFacts,
    RunRecord,
    read_cell,
    read_run_record,
)
from srbench.trace import Trace


def read(run: Path) -> tuple[RunRecord, list[CellRecord]]:
    """As store.records.read_run, cells by prompt, seed and method, but for D.

    Every step's `change` is None, except in the reference's traces; `per_frame` and
    `step_seconds` are arrays of the same numbers, where all are numbers.  Raises UserError
    as read_run does.
    """
    record, lean = read_run_record(run), Lean()
    collecting = gc.isenabled()
    gc.disable()  # records have no cycles, and looking for some takes a third of the time
    try:
        cells = [lean(path) for path in _files(run / "cells")]
        cells.sort(key=lambda c: (c.prompt_index, c.seed, c.method))
    finally:
        if collecting:
            gc.enable()
    return record, cells


def _files(folder: Path) -> list[str]:
    """The paths of the records, in their names' order."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.name.endswith(".json") and not e.name.startswith("."))


# A record is written with one blank of indent a level, and no string in it has a raw line end or
# a bare quotation mark: so these are the trace's own first and last line, and D's own first.
_BEGIN, _END, _NEXT = b'\n "trace": {', b"\n }", b'\n "step_seconds"'
_CHANGE, _NONE = b'"change": {', b'"change": null'
_TRACE = TypeAdapter(Trace)
_SECONDS = TypeAdapter(tuple[float | None, ...])
_FRAMES = TypeAdapter(tuple[float, ...])
_REPEATED = "family method label method_id prompt text protocol host source video".split()


class Lean:
    """Reads cells, and makes equal parts of them one object; one for each run."""

    def __init__(self) -> None:
        self._traces: dict[bytes, Trace] = {}
        self._facts: dict[str, tuple[dict[str, Any], MetricFacts]] = {}
        self._paths: dict[str, list[dict[str, Any]]] = {}
        self._words: dict[str, str] = {}

    def __call__(self, path: str) -> CellRecord:
        """One cell's record.  Raises UserError where it cannot be read."""
        try:
            with open(path, "rb", buffering=0) as file:
                trace, rest = _parted(file.read())
            return self._cell(from_json(rest), trace)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return read_cell(Path(path))  # which says what is wrong with it, or reads what is merely unusual

    def _cell(self, plain: dict[str, Any], trace: bytes) -> CellRecord:
        """The record, checked as it always is but for what is put in afterwards, checked by itself."""
        scores, seconds = plain.get("scores", []), plain.get("step_seconds", ())
        frames = [score.pop("per_frame", None) for score in scores]
        for score in scores:
            score["metric"] = self._metric(score["metric"])
        trace = trace or _text(plain.get("trace"))
        known = self._paths.get(plain["method_id"])
        later: dict[str, Any] = {"step_seconds": (), "trace": None}
        later |= {"path": []} if plain["path"] == known else {}
        cell = CellRecord.model_validate(plain | later)
        # Nobody else has seen these objects yet: what follows makes them, and changes none.
        own = cell.__dict__
        own["path"] = known if "path" in later else self._paths.setdefault(cell.method_id, cell.path)
        own["step_seconds"] = _numbers(seconds, _SECONDS)
        own["trace"] = self._trace(trace, cell.is_reference) if trace else None
        for name in _REPEATED:
            if word := own[name]:
                own[name] = self._words.setdefault(word, word)
        for score, values in zip(cell.scores, frames, strict=True):
            if values:
                score.__dict__["per_frame"] = _numbers(values, _FRAMES)
        return cell

    def _metric(self, plain: dict[str, Any]) -> MetricFacts:
        known = self._facts.get(plain["name"])
        if known is None or known[0] != plain:
            self._facts[plain["name"]] = known = plain, MetricFacts.model_validate(plain)
        return known[1]

    def _trace(self, text: bytes, is_reference: bool) -> Trace:
        if is_reference:
            return _TRACE.validate_json(text)
        bare = _without_change(text)
        key = blake2b(bare, digest_size=16).digest()
        if key not in self._traces:
            steps = _TRACE.validate_json(bare).steps
            self._traces[key] = Trace(tuple(replace(step, change=None) for step in steps))
        return self._traces[key]


def _parted(text: bytes) -> tuple[bytes, bytes]:
    """The trace's text, empty where there is none, and the record's without it."""
    begin = text.find(_BEGIN)
    if begin < 0:
        return b"", text
    first = begin + len(_BEGIN)
    end = text.find(_NEXT, first) - len(_END) - 1
    if text[end : end + len(_END) + 1] != _END + b",":
        end = text.find(_END, first)
    last = end + len(_END)
    return text[first - 1 : last], b"".join((text[:begin], b'\n "trace": null', text[last:]))


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
