"""Lean records say what whole ones say, but for D where nobody looks at it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from srbench.analysis import aside, reading, table
from srbench.errors import UserError
from srbench.store.records import read_run
from srbench.trace import Trace


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


@pytest.mark.skipif(not aside.is_worthwhile(10**9), reason="needs Linux and two cores")
def test_two_processes_read_what_one_does(make, run_folder, monkeypatch):
    folder = run_folder(make.run(), [with_change(c) for c in make.cells(prompts=8)])
    monkeypatch.setattr(reading, "CHUNK", 2)
    alone = reading.read(folder)[1]
    monkeypatch.setattr(aside, "MANY", 1)
    both = reading.read(folder)[1]
    assert [with_tuples(c) for c in both] == [with_tuples(c) for c in alone]
    assert len({id(c.trace) for c in both if c.method == "small"}) == 1
    path = folder / "cells" / "005.json"
    path.write_text(path.read_text().replace('"seed"', '"sead"', 1))
    with pytest.raises(UserError, match=r"005\.json"):
        reading.read(folder)


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


def with_tuples(cell):
    """Arrays are for reading alone: records are written from tuples."""
    scores = tuple(s.model_copy(update={"per_frame": tuple(s.per_frame)}) for s in cell.scores)
    return cell.model_copy(update={"scores": scores, "step_seconds": tuple(cell.step_seconds)})


def test_everything_but_change_is_what_a_whole_reading_has(make, run_folder):
    cells = [with_change(c) for c in make.cells()]
    hostile = 'she says "change": {"x0": 1}, and\n "trace": {'
    cells[4] = cells[4].model_copy(
        update={
            "prompt": hostile,
            "scores": (
                cells[4].scores[0].model_copy(update={"per_frame": (1.0, 0.25)}),
                cells[4].scores[1].model_copy(update={"per_frame": (float("nan"), float("inf"))}),
            ),
            "step_seconds": (None, *cells[4].step_seconds[1:]),
        }
    )
    cells.append(make.cell("failed", 0, 0, outcome="failed", reason="broke", trace=None, step_seconds=()))
    folder = run_folder(make.run(), cells)
    (_, lean), (_, whole) = reading.read(folder), read_run(folder)
    for own, other in zip(lean, whole, strict=True):
        plain, expected = with_tuples(own).model_dump_json(), other.model_dump_json()
        if other.trace is not None and not other.is_reference:
            bare = [dataclasses.replace(s, change=None) for s in other.trace.steps]
            expected = other.model_copy(update={"trace": Trace(tuple(bare))}).model_dump_json()
        assert json.loads(plain) == json.loads(expected)


@pytest.mark.parametrize("indent", [None, 2])
def test_records_written_in_another_way_are_read_as_well(make, run_folder, indent):
    folder = run_folder(make.run(), [with_change(c) for c in make.cells()])
    before = reading.read(folder)[1]
    for path in (folder / "cells").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))
    assert table.rows(make.run(), reading.read(folder)[1]) == table.rows(make.run(), before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"seed"', '"sead"', 1),
        lambda text: text.replace('"timestep": 1000.0', '"timestep": "soon"', 1),
        lambda text: text.replace('"value": 24.0', '"value": "much"', 1),
        lambda text: text.replace('"outcome": "done"', '"outcome": "perhaps"', 1),
        lambda text: text.replace('"version": 1', '"version": 2', 1),
    ],
)
def test_a_damaged_record_is_told_never_believed(make, run_folder, damage):
    folder = run_folder(make.run(), [with_change(c) for c in make.cells()])
    path = folder / "cells" / "002.json"  # of SRDiffusion, which reads its trace once
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(UserError, match=r"002\.json"):
        reading.read(folder)


def test_a_half_written_record_beside_the_others_is_none(make, run_folder):
    folder = run_folder(make.run(), make.cells())
    (folder / "cells" / ".0123456789abcdef.json").write_text('{"version"')
    assert len(reading.read(folder)[1]) == len(make.cells())


def test_a_method_has_its_newest_label_on_every_video(make, run_folder):
    """Its name for readers was given later: no content of it, so the earlier videos stay the method's."""
    cells = [
        c.model_copy(update={"label": "distilled, FILL-IN"}) if c.method == "small" and c.seed == 0 else c
        for c in make.cells()
    ]
    run = make.run(methods=make.named("large", "small", "srd_0.01", small="distilled, LightX2V"))
    record, read = reading.read(run_folder(run, cells))
    assert {c.label for c in read if c.method == "small"} == {"distilled, LightX2V"}
    assert [r.label for r in table.rows(record, read)] == ["large", "distilled, LightX2V", "srd_0.01"]


def test_two_names_of_one_path_keep_both(make, run_folder):
    cells = make.cells()
    cells += [c.model_copy(update={"method": "twin", "label": "twin"}) for c in cells if c.method == "small"]
    record, read = reading.read(run_folder(make.run(), cells))
    assert [r.label for r in table.rows(record, read)][1] == "small = twin"
