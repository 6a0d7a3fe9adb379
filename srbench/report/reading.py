"""A run's records, as lean as the report needs them: VBench's 75,520 cells must fit into memory.

What makes a cell large is its trace, some 50 steps with the change D of four signals. Traces
that differ in D alone are made one object, and D is kept where a figure draws it: in the
reference's.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

from srbench.store.records import CellRecord, RunRecord, cell_files, read_cell, read_run_record
from srbench.trace import Step, Trace


def read(run: Path) -> tuple[RunRecord, list[CellRecord]]:
    """As store.records.read_run, cells by prompt, seed and method, but for D.

    Every step's `change` is None, except in the reference's traces.  Raises UserError as
    read_run does.
    """
    record, lean = read_run_record(run), Lean()
    collecting = gc.isenabled()
    gc.disable()  # records have no cycles, and looking for some takes a third of the time
    try:
        cells = [lean(read_cell(path)) for path in cell_files(run)]
    finally:
        if collecting:
            gc.enable()
    return record, sorted(cells, key=lambda c: (c.prompt_index, c.seed, c.method))


class Lean:
    """Makes equal parts of cells one object; one for each run."""

    def __init__(self) -> None:
        self._steps: dict[Step, Step] = {}
        self._traces: dict[tuple[int, ...], Trace] = {}

    def __call__(self, cell: CellRecord) -> CellRecord:
        """The cell with a shared trace without D; the reference's stays as it is."""
        if cell.trace is None or cell.is_reference:
            return cell
        return cell.model_copy(update={"trace": self._shared(cell.trace)})

    def _shared(self, trace: Trace) -> Trace:
        bare = (replace(step, change=None) for step in trace.steps)
        steps = tuple(self._steps.setdefault(step, step) for step in bare)
        return self._traces.setdefault(tuple(map(id, steps)), Trace(steps))
