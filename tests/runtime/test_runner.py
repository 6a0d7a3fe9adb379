"""What a runner does when something goes wrong; no model is loaded here."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from srbench.accelerators.pab import PAB
from srbench.accelerators.teacache import TeaCache
from srbench.config.experiment import check
from srbench.config.yaml_files import FOLDER
from srbench.errors import CannotWrite, UserError
from srbench.planning import plan
from srbench.runtime.runner import Damaged, Runner
from srbench.sampling.walk import Failure
from srbench.store.objects import VIDEO, Store, locked
from srbench.store.records import CellRecord, Score, cell_path, read_cell, scan, write_cell, write_json
from srbench.vbench.score import facts


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    experiment = check(
        {
            "name": "trial",
            "family": yaml.safe_load((FOLDER / "family" / "shapes.yaml").read_text("utf-8")),
            "suite": {"kind": "prompts", "prompts": ["a cat"]},
            "method": {"large": {"path": [{"model": "large"}]}},
            "metric": {"psnr": {"kind": "psnr"}},
            "engine": {"kind": "local"},
        }
    )
    return Runner(experiment, tmp_path / "run", Store(tmp_path / "store"), threads=1)


def failed(runner: Runner, error: Exception) -> Any:
    (unit,) = plan.units(runner.experiment)
    methods = runner.experiment.methods
    (cell,) = runner._fail(Failure(methods, error), methods, unit)
    return cell


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def finish(runner: Runner, **changes: Any) -> CellRecord:
    """The cell of the first method, done, with some bytes for its video."""
    (unit,), method = plan.units(runner.experiment), runner.experiment.methods[0]
    blank = runner._blank(method, unit)
    path = runner.store.put(blank.key, VIDEO, lambda p: p.write_bytes(b"a video") and None)
    done = {"outcome": "done", "video": path.stem, "video_bytes": path.stat().st_size}
    cell = blank.model_copy(update=done | changes)
    write_cell(runner.run, cell)
    return cell


def lacking(runner: Runner) -> Runner:
    """The same run on a machine that lacks a package for its method."""
    methods = tuple(dataclasses.replace(m, lacking="needs a package") for m in runner.experiment.methods)
    experiment = dataclasses.replace(runner.experiment, methods=methods, metrics=())
    return Runner(experiment, runner.run, runner.store, threads=1)


def test_a_machine_that_lacks_a_package_leaves_what_another_one_finished(runner: Runner) -> None:
    (unit,) = plan.units(runner.experiment)
    lacking(runner).unit(unit)
    (skipped,) = map(read_cell, (runner.run / "cells").iterdir())
    assert skipped.outcome == "skipped"
    done = finish(runner, step_seconds=(1.0,))
    lacking(runner).unit(unit)
    assert read_cell(cell_path(runner.run, done.id)).step_seconds == (1.0,)
    runner.store.get(done.key).unlink()  # its trace and scores stay true
    lacking(runner).unit(unit)
    assert read_cell(cell_path(runner.run, done.id)) == done


def test_a_score_that_vbench_writes_while_the_run_goes_on_stays(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unit,), cell = plan.units(runner.experiment), finish(runner)
    own = Score(metric=facts("temporal_flickering"), value=0.9, made={"torch": "2"})

    def score(cells: Any) -> Any:
        write_cell(runner.run, cell.model_copy(update={"scores": (own,)}))
        return cells

    monkeypatch.setattr(runner, "_score", score)
    runner.unit(unit)
    assert read_cell(cell_path(runner.run, cell.id)).scores == (own,)
    # and the same video, made again, has them still
    assert runner._keep(cell).scores == (own,)


def test_what_another_job_finished_does_not_fail_here(runner: Runner) -> None:
    cell = finish(runner)
    assert runner._keep(failed(runner, UserError("a", "b", "c"))) == cell
    runner.store.get(cell.key).unlink()
    assert runner._keep(failed(runner, UserError("a", "b", "c"))).outcome == "failed"


def test_another_runs_video_is_a_cell_of_this_runs_protocol(runner: Runner, tmp_path: Path) -> None:
    """The other run had another small model, which this video's key rightly knows nothing of."""
    cell = finish(runner)
    write_json(runner.store.known_path(cell.key), cell.model_copy(update={"protocol": "another"}))
    here = Runner(runner.experiment, tmp_path / "here", runner.store, threads=1)
    (unit,) = plan.units(here.experiment)
    adopted = here._existing(here.experiment.methods[0], unit)
    assert adopted is not None and adopted.protocol == here.protocol


def test_an_adopted_videos_times_stay_those_of_the_job_that_took_them(runner: Runner, tmp_path: Path) -> None:
    cell = finish(runner, step_seconds=(1.0,))
    write_json(runner.store.known_path(cell.key), cell.model_copy(update={"computes": {}}))
    here = Runner(runner.experiment, tmp_path / "here", runner.store, threads=1)
    assert here.job != runner.job == cell.job
    (unit,), method = plan.units(here.experiment), here.experiment.methods[0]
    adopted = here._existing(method, unit)
    assert adopted is not None and (adopted.job, adopted.step_seconds) == (runner.job, (1.0,))
    # what a method's steps compute is no measurement: it is of this version
    assert adopted.computes == method.computes


def test_a_denoiser_that_reuses_nothing_computes_what_the_model_alone_does(runner: Runner) -> None:
    large = runner.experiment.methods[0].segments[0].denoiser
    for changes in (
        {"accelerators": (TeaCache(threshold=0.1),)},
        {"accelerators": (PAB(),), "guidance_scale": 3.0},
        {"negative_prompt": "blurry"},
    ):
        assert dataclasses.replace(large, **changes).in_full == large
    # another arithmetic is another computation, and so may be an accelerator that does not say otherwise
    assert dataclasses.replace(large, dtype="bfloat16").in_full != large
    own = dataclasses.replace(large, accelerators=(Unknown(),))
    assert own.in_full == own


@dataclasses.dataclass(frozen=True)
class Unknown:
    """An accelerator as a user may write it."""

    kind: str = "unknown"


def test_a_failed_cell_names_the_file_with_its_whole_traceback(runner: Runner) -> None:
    cell = failed(runner, raised(RuntimeError("CUDA out of memory\nwith many details")))
    assert cell.outcome == "failed" and cell.reason.startswith(
        "RuntimeError: CUDA out of memory (traceback in "
    )
    (file,) = (runner.run / "failures").iterdir()
    assert f"failures/{file.name}" in cell.reason
    told = file.read_text("utf-8")
    assert "with many details" in told and "test_runner.py" in told


def test_a_users_mistake_needs_no_traceback(runner: Runner) -> None:
    assert (
        failed(runner, UserError("it reused nothing", "reuse", "raise it")).reason
        == "it reused nothing; raise it"
    )
    assert not (runner.run / "failures").exists()


def test_a_video_found_damaged_while_scoring_is_made_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, (unit,) = [], plan.units(runner.experiment)
    cell = failed(runner, UserError("a", "b", "c"))
    monkeypatch.setattr(runner, "_compute", lambda *_: computed.append(1) or [cell])

    def score(cells: Any) -> Any:
        if len(computed) < 2:
            raise Damaged("the video of large is damaged")
        return cells

    monkeypatch.setattr(runner, "_score", score)
    runner.unit(unit)
    assert len(computed) == 2 and list(scan(runner.run)) == [cell.id]
    monkeypatch.setattr(runner, "_score", lambda cells: (_ for _ in ()).throw(Damaged("the video of large")))
    with pytest.raises(UserError, match="check the disk"):
        runner.unit(unit)


def test_a_video_of_other_bytes_than_the_record_s_is_no_video_of_it(runner: Runner) -> None:
    """Its scores are of the bytes that it names."""
    (unit,), (method,) = plan.units(runner.experiment), runner.experiment.methods
    path = runner.store.put(runner.keys.video(method, unit), VIDEO, lambda p: p.write_text("bytes"))
    cell = runner._blank(method, unit).model_copy(update={"outcome": "done", "video": path.stem})
    write_cell(runner.run, cell)
    assert runner._existing(method, unit) is not None
    write_cell(runner.run, cell.model_copy(update={"video": "0" * 64}))
    assert runner._existing(method, unit) is None
    with pytest.raises(Damaged):
        next(runner._chunks(cell.model_copy(update={"video": "0" * 64})))


def test_a_full_disk_ends_the_run_instead_of_failing_its_cells(runner: Runner, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise CannotWrite("no space left", "room", "free some")

    monkeypatch.setattr(runner, "_arrive", full)
    (unit,) = plan.units(runner.experiment)
    end: Any = type("End", (), {"methods": runner.experiment.methods})()
    with pytest.raises(CannotWrite):
        runner._arrive_or_fail(end, runner.experiment.methods, unit)


def test_a_family_whose_texts_cannot_be_encoded_is_a_users_mistake(runner: Runner) -> None:
    class Sampler:
        def encode(self, texts: Any) -> Any:
            raise OSError("example/none is not a local folder and no model of the hub")

    runner.__dict__["sampler"] = Sampler()
    with pytest.raises(UserError, match="no model of the hub"):
        runner.encode(["a cat"])


def test_two_writers_of_one_file_lose_nothing(tmp_path: Path) -> None:
    """Read, change and write back, many times over, as two jobs do with one run.json."""
    file = tmp_path / "numbers"
    file.write_text("")

    def add(who: str) -> None:
        for i in range(50):
            with locked(tmp_path):
                file.write_text(f"{file.read_text()}{who}{i} ")

    both = [threading.Thread(target=add, args=(who,)) for who in "ab"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(set(file.read_text().split())) == 100
