"""Lean records say what whole ones say, but for D where nobody looks at it."""

from __future__ import annotations

import dataclasses

from srbench.report import reading, table
from srbench.store.records import read_run


def with_change(cell):
    steps = tuple(
        dataclasses.replace(s, change={"model_output": 0.5 / (s.index + cell.seed + 1)} if s.index else None)
        for s in cell.trace.steps
    )
    return cell.model_copy(update={"trace": dataclasses.replace(cell.trace, steps=steps)})


def test_same_numbers_and_order(make, run_folder):
    folder = run_folder(make.run(), [with_change(c) for c in make.cells()])
    (run, lean), (_, whole) = reading.read(folder), read_run(folder)
    assert [c.id for c in lean] == [c.id for c in whole]
    assert table.rows(run, lean) == table.rows(run, whole)


def test_a_record_still_being_written_is_none_yet(make, run_folder):
    folder = run_folder(make.run(), make.cells())
    (folder / "cells" / ".0123456789abcdef.json").write_text('{"versi')
    assert len(reading.read(folder)[1]) == len(make.cells())


def test_only_the_reference_keeps_its_change(make, run_folder):
    folder = run_folder(make.run(), [with_change(c) for c in make.cells()])
    _, cells = reading.read(folder)
    for cell in cells:
        assert any(s.change for s in cell.trace.steps) == cell.is_reference


def test_equal_traces_are_one_object(make, run_folder):
    folder = run_folder(make.run(), [with_change(c) for c in make.cells()])
    _, cells = reading.read(folder)
    small = {id(c.trace) for c in cells if c.method == "small"}
    switched = {c.trace.switches for c in cells if c.method == "srd_0.01"}
    assert len(small) == 1
    assert len({id(c.trace) for c in cells if c.method == "srd_0.01"}) == len(switched)
