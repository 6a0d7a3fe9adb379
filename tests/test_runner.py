"""What a runner does when something goes wrong; no model is loaded here."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from srbench import plan
from srbench.configs import FOLDER
from srbench.errors import CannotWrite, UserError
from srbench.experiment import check
from srbench.runner import Damaged, Runner
from srbench.sampling.walk import Failure
from srbench.store.objects import VIDEO, Store, locked
from srbench.store.records import scan, write_cell


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
