"""The timing pass: every method alone, in turn; what it leaves, and what the tables make of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from rich.console import Console

from srbench import __main__ as door
from srbench.analysis import reading, table
from srbench.engines import local
from srbench.planning import plan
from srbench.runtime.runner import Event, Runner
from srbench.runtime.timing import measure
from srbench.store.objects import Store
from srbench.store.records import TIMING, RunRecord, TimingPass, read_passes, read_run_record, write_json
from srbench.suites.prompts import Prompts
from tests.runtime.test_run import make


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("timing")
    experiment = make("method.fixed_step.step=4", methods="large,small,fixed_step,scale_batched")
    return Runner(experiment, folder / "run", Store(folder / "store"), threads=1)


def newest(runner: Runner) -> TimingPass | None:
    return next(iter(read_passes(runner.run, runner.protocol)), None)


def test_methods_are_walked_in_turn_and_written_round_by_round(runner: Runner) -> None:
    (unit,) = plan.units(runner.experiment)
    rounds_there: list[int] = []

    def watch(event: Event) -> None:
        assert event.kind == "walk"
        known = newest(runner)
        rounds_there.append(known.rounds if known else 0)

    measure(runner, unit, ["a red circle moving left on a black background"], rounds=2, watch=watch)
    names = [m.name for m in plan.timed_methods(runner.experiment)]
    assert "scale_batched" not in names and {"large", "small", "fixed_step"} <= set(names)
    found = newest(runner)
    assert found is not None and found.rounds == found.asked == 2 and not found.failed
    # the second round begins with the next method, so that none is always first
    assert [w.method for w in found.walks] == [*names, *names[1:], names[0]]
    assert rounds_there == [0] * len(names) + [1] * len(names)
    fixed = next(w for w in found.walks if w.method == "fixed_step")
    assert [s.model for s in fixed.trace.steps] == ["large"] * 4 + ["small"] * 6
    assert [s.name for s in fixed.stages] == ["encode", "denoise", "hand_over", "decode"]
    whole = next(s.seconds for s in fixed.stages if s.name == "denoise")
    assert whole >= sum(fixed.step_seconds) > 0
    assert fixed.video is None and not list((runner.store.root / "objects").rglob("*.webm"))


def test_a_method_that_fails_is_told_of_and_the_others_go_on(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = runner.alone

    def broken(method, unit):
        if method.name == "small":
            raise MemoryError("no room")
        return alone(method, unit)

    monkeypatch.setattr(runner, "alone", broken)
    (unit,) = plan.units(runner.experiment)
    events: list[Event] = []
    measure(runner, unit, [], rounds=2, watch=events.append)
    found = newest(runner)
    assert found is not None and found.failed == {"small": "MemoryError: no room"}
    assert sum(e.failed for e in events) == 1  # it is not tried again
    assert "small" not in {w.method for w in found.walks}


def test_nothing_is_loaded_while_a_clock_runs(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Runner(runner.experiment, runner.run, runner.store, threads=1)
    there: list[tuple[set[str], bool]] = []

    def alone(method, unit):
        there.append(({role for role, *_ in fresh.sampler._models}, "_loaded_vae" in vars(fresh.sampler)))
        return runner.alone(method, unit)

    monkeypatch.setattr(fresh, "alone", alone)
    (unit,) = plan.units(fresh.experiment)
    measure(fresh, unit, [], rounds=1, watch=lambda event: None)
    assert there[0] == ({"large", "small"}, True)


def test_what_the_sweep_held_on_a_gpu_is_given_back_before_the_pass(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass is another process: what this one has freed and kept, it could not have."""
    sweep: list[weakref.ref[Runner]] = []
    freed: list[bool] = []

    def make_runner(*args):
        made = Runner(*args[:2], Store(args[2]), args[3])
        sweep.append(weakref.ref(made))
        return made

    monkeypatch.setattr(local, "_make", make_runner)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(sweep[0]() is None))
    monkeypatch.setattr(local.Local, "_pool", lambda *_: contextlib.nullcontext(MagicMock()))
    experiment, store = make(methods="large,small"), tmp_path / "store"
    units = plan.units(experiment)
    experiment.engine.run(experiment, units, tmp_path, store, lambda event: None)
    experiment.engine.time(experiment, units[0], tmp_path, store, 1, lambda event: None)
    assert freed == [True]


def test_what_is_encoded_for_its_time_is_what_the_model_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.json").write_text(json.dumps({"a cat": "a grey cat that sleeps"}))
    suite = Prompts(prompts=("a cat",), extended=str(tmp_path / "long.json"))
    experiment, pool = replace(make(methods="large"), suite=suite), MagicMock()
    monkeypatch.setattr(local.Local, "_pool", lambda *_: contextlib.nullcontext(pool))
    (unit,) = plan.units(experiment)
    experiment.engine.time(experiment, unit, tmp_path, tmp_path, 1, lambda event: None)
    assert pool.submit.call_args.args[1:] == (unit, ["a grey cat that sleeps"], 1)


@pytest.mark.parametrize(("failed", "again"), [({}, False), ({"small": "OSError: gone"}, True)])
def test_a_pass_in_which_a_method_failed_is_made_again(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: dict[str, str], again: bool
) -> None:
    """Also where it had been timed in an earlier round."""
    (unit,) = plan.units(runner.experiment)
    ground = door.fingerprint.ground(runner.experiment.engine.threads, runner.experiment.family.device)
    place = door.Place(tmp_path, runner.store, ground)
    protocol = plan.protocol(runner.experiment, ground)
    found = newest(runner)
    assert found is not None
    by_method = {w.method_id: w for w in found.walks}
    walks = tuple(
        by_method.get(m.id) or found.walks[0].model_copy(update={"method_id": m.id})
        for m in plan.timed_methods(runner.experiment)
    )
    about = {"failed": failed, "protocol": protocol, "walks": walks}
    write_json(tmp_path / TIMING / "a.json", found.model_copy(update=about))
    asked: list[int] = []
    monkeypatch.setattr(local.Local, "time", lambda *args: asked.append(args[5]))
    door.time_alone(runner.experiment, unit, 1, place, Console(quiet=True))
    assert asked == ([1] if again else [])


def test_a_command_times_once_and_its_tables_are_no_estimates(tmp_path: Path) -> None:
    words = [
        "method=[large,small,fixed_step]",
        "method.fixed_step.step=3",
        "suite.prompts=1",
        "suite.seeds=1",
    ]
    words += ["family.steps=6", "metric=[]", "run=x", "timing=exclusive", "timing_rounds=1"]

    def door(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "srbench", *words, *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    planned = door("dry_run=true")
    assert "3 methods alone, once each" in " ".join(planned.stdout.replace("│", " ").split())
    first = door()
    assert first.returncode == 0, first.stderr
    assert "est." not in first.stdout and "each method alone, 1 round" in " ".join(first.stdout.split())
    run = tmp_path / "results" / "run" / "x"
    assert len(list((run / TIMING).iterdir())) == 1
    again = door()
    assert "timed alone already" in again.stdout and len(list((run / TIMING).iterdir())) == 1
    record, cells = reading.read(run)
    assert record.timing == "exclusive" and record.alone is not None
    # a slower machine at the time of the sweep changes nothing that the table says
    slower = [c.model_copy(update={"step_seconds": tuple(99.0 for _ in c.step_seconds)}) for c in cells]
    speedups = [
        [v.value for row in table.make(record, own).main for v in row.values if v.column.key == "speedup"]
        for own in (cells, slower)
    ]
    assert speedups[0] == speedups[1] and speedups[0][0] == pytest.approx(1.0)


@pytest.mark.parametrize("crowd", ["shard=1/2", "engine=ray"])
def test_what_would_not_be_alone_is_refused(tmp_path: Path, crowd: str) -> None:
    command = [sys.executable, "-m", "srbench", "timing=exclusive", crowd, "dry_run=true"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"timing=exclusive with {crowd}" in done.stderr


def test_the_newest_pass_of_the_protocol_counts_and_is_no_part_of_the_record(runner: Runner) -> None:
    passes = sorted((runner.run / TIMING).glob("*.json"))
    last = newest(runner)
    assert last is not None and json.loads(passes[-1].read_text())["began"] == last.began
    assert not read_passes(runner.run, "another protocol")
    plain = dict(experiment="e", run="r", family="shapes", asked=[], resolved={}, store="s", methods=())
    plain |= dict(prompts=(), seeds=(), protocol=runner.protocol, commit=None, dirty=None, packages={})
    record = RunRecord(**plain, device="d", threads=1, started="")
    (runner.run / "run.json").write_text(record.model_dump_json())
    read = read_run_record(runner.run)
    assert read.timing == "exclusive" and read.alone == last
    # one in which all methods failed has no times to give
    write_json(runner.run / TIMING / "99991231T000000-0000.json", last.model_copy(update={"walks": ()}))
    assert read_run_record(runner.run) == read
    assert not {"alone", "passes"} & {*json.loads(read.model_dump_json())}
    empty = runner.run.parent / "none timed"
    write_json(empty / "run.json", record)
    write_json(empty / TIMING / "99991231T000000-0000.json", last.model_copy(update={"walks": ()}))
    assert (read_run_record(empty).timing, read_run_record(empty).alone) == ("shared", None)


def test_scale_rows_alone_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make(methods="large,scale_batched")
    scale = tuple(replace(m, role="scale") for m in experiment.methods)
    experiment = replace(experiment, methods=scale)
    monkeypatch.setattr(local.Local, "time", lambda *_: pytest.fail("nothing is to be timed"))
    place = door.Place(tmp_path, Store(tmp_path / "store"), {})
    assert door.time_alone(experiment, plan.units(experiment)[0], 1, place, Console(quiet=True)) == 0
