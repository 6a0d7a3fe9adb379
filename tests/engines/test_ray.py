"""Two real actors give the bytes of one process, also when one of them is killed at work."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from srbench.__main__ import RUN_KEYS
from srbench.config import yaml_files
from srbench.config.experiment import Experiment, check
from srbench.engines.ray import Ray, share
from srbench.errors import UserError
from srbench.planning import plan
from srbench.store.records import read_cell

ray = pytest.importorskip("ray")
SMALL = [
    *("family.steps=8", "family.device=cpu", "suite.prompts=3", "suite.seeds=1", "metric=[psnr]"),
    *("method=[large,small,fixed_step,srdiffusion]", "method.fixed_step.step=3"),
    "method.srdiffusion.delta=0.5",
]


def make(*overrides: str) -> Experiment:
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        plain = OmegaConf.to_container(hydra.compose("config", [*SMALL, *overrides]), resolve=True)
    return check({k: v for k, v in plain.items() if k not in RUN_KEYS})


def made(folder: Path, *overrides: str, watch: Any = lambda event: None) -> dict[tuple, tuple]:
    """A whole run in a folder: all of it that must not depend on where it ran."""
    experiment = make(*overrides)
    units = plan.units(experiment)
    experiment.engine.run(experiment, units, folder / "run", folder / "store", watch)
    cells = [read_cell(p) for p in (folder / "run" / "cells").glob("*.json")]
    assert {c.outcome for c in cells} == {"done"} and len(cells) == 12
    return {
        (c.method, c.prompt): (c.id, c.video, c.trace, [(s.metric.name, s.per_frame) for s in c.scores])
        for c in cells
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple, tuple]:
    return made(tmp_path_factory.mktemp("alone"))


def at_work() -> list[int]:
    """Processes below this one that are doing a task: Ray names them after it."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            titles[int(folder.name)] = (folder / "cmdline").read_bytes()
            status = (folder / "status").read_text()
        except OSError:
            continue  # it ended
        parents[int(folder.name)] = int(status.partition("PPid:")[2].split()[0])

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [p for p, title in titles.items() if title.startswith(b"ray::Worker.do") and ours(p)]


@pytest.mark.slow
def test_killing_a_worker_at_work_changes_nothing(alone: dict, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(event: Any) -> None:
        if not killed and (pids := at_work()):
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    assert made(tmp_path, "engine=ray", "engine.workers=2", watch=kill_one) == alone
    assert killed


@pytest.mark.slow
def test_each_model_on_a_worker_of_its_own_gives_the_same_bytes(alone: dict, tmp_path: Path) -> None:
    """Every state goes from one process to the other."""
    told: list[Any] = []
    bytes_ = made(tmp_path, "engine=ray", "engine.workers=2", "engine.placement=split", watch=told.append)
    assert bytes_ == alone
    assert sum(e.amount for e in told if e.kind == "unit") == 3
    # three trunks, three small ones from the start, and the branches of two switches
    assert sum(e.amount for e in told if e.kind == "step") >= 3 * (8 + 8 + 5)
    assert not ray.is_initialized(), "a Ray that was started here is ended here"


def test_a_cluster_that_does_not_answer_is_a_users_mistake(tmp_path: Path) -> None:
    experiment = make("engine=ray", "engine.address=127.0.0.1:1")
    with pytest.raises(UserError, match=r"engine\.address=127\.0\.0\.1:1"):
        experiment.engine.run(experiment, plan.units(experiment), tmp_path, tmp_path, print)


@pytest.mark.parametrize("error", [Exception("The current node timed out\nduring startup"), TimeoutError()])
def test_a_ray_that_does_not_start_is_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    starts: list[str] = []

    def slow(**given: Any) -> None:
        starts.append(given["address"])
        raise error

    monkeypatch.setattr(ray, "init", slow)
    experiment = make("engine=ray")
    with pytest.raises(UserError, match="Ray did not start") as refused:
        experiment.engine.run(experiment, plan.units(experiment), tmp_path, tmp_path, lambda event: None)
    assert "when the machine is less busy" in refused.value.do
    assert starts == ["local"] * 3


def test_a_ray_that_starts_at_the_second_try_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer than the 30 seconds that Ray gives its start."""
    starts: list[str] = []

    def slow_once(**given: Any) -> None:
        starts.append(given["address"])
        if len(starts) == 1:
            raise Exception("The current node timed out during startup")

    monkeypatch.setattr(ray, "init", slow_once)
    Ray()._start()
    assert starts == ["local"] * 2


def test_settings_that_cannot_work_are_told_before_anything_starts() -> None:
    (told,) = Ray(workers=1, placement="split").mistakes()
    assert "two or more" in told.expected
    assert Ray(workers=2, placement="split").mistakes() == []


def test_workers_are_as_many_as_there_is_room_for_unless_told() -> None:
    assert Ray()._count(16, 0) == 16 and Ray(threads=4)._count(16, 0) == 4
    assert Ray(threads=4)._count(16, 8) == 8 and Ray(workers=3)._count(16, 8) == 3
    with pytest.raises(UserError, match="as many cores for each worker"):
        Ray(threads=4)._count(2, 0)


@pytest.mark.parametrize(("gpus", "workers"), [(1, 2), (2, 3), (8, 8), (8, 12), (3, 7), (8, 5)])
def test_parts_of_gpus_fit(gpus: int, workers: int) -> None:
    """A worker's part lies on one GPU, as Ray packs them."""
    on_one = int(1 / share(gpus, workers) + 1e-9)
    assert on_one * gpus >= workers
    assert share(gpus, workers) == 1 or workers > gpus
