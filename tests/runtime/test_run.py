"""Whole runs of the embedded family at a few steps: what is computed, kept, and done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from srbench import video
from srbench.__main__ import RUN_KEYS, record
from srbench.analysis import reading
from srbench.config import fingerprint, yaml_files
from srbench.config.experiment import Experiment, check
from srbench.planning import plan
from srbench.report import legend
from srbench.runtime import runner
from srbench.runtime.runner import Event, Runner
from srbench.store.objects import Store
from srbench.store.records import CellRecord, Software, read_cell, read_run_record, write_json

SMALL_RUN = ["suite.prompts=1", "suite.seeds=1", "family.steps=10", "+experiment=shapes_delta_sweep"]


def make(*overrides: str, methods: str = "large,small,fixed_step") -> Experiment:
    """The demo's experiment, shrunk; three adaptive methods come with it."""
    words = [*SMALL_RUN, f"method=[{methods}]", "method.srd_002.delta=0.5"]
    # of 10 steps: the shipped 10 would never be left
    words += ["method.fixed_step.step=7"] if "fixed_step" in methods else []
    words += overrides
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        plain = OmegaConf.to_container(hydra.compose("config", words), resolve=True)
    return check({k: v for k, v in plain.items() if k not in RUN_KEYS})


def make_plain(*words: str) -> Experiment:
    """What a command without an experiment makes."""
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        plain = OmegaConf.to_container(hydra.compose("config", list(words)), resolve=True)
    return check({k: v for k, v in plain.items() if k not in RUN_KEYS})


class Lab:
    """A folder with a run and a store, and what the last run in it computed."""

    def __init__(self, folder: Path) -> None:
        self.run, self.store = folder / "run", Store(folder / "store")
        self.steps: list[str] = []

    def execute(self, experiment: Experiment) -> list[CellRecord]:
        runner = Runner(experiment, self.run, self.store, threads=1)
        self.steps = []
        step = runner.sampler.step

        def counted(denoiser, state, text):
            self.steps.append(denoiser.model)
            return step(denoiser, state, text)

        runner.sampler.step = counted
        units = plan.units(experiment)
        runner.encode([u.text for u in units])
        for unit in units:
            runner.unit(unit, lambda event: None)
        return self.cells()

    def cells(self) -> list[CellRecord]:
        cells = [read_cell(p) for p in (self.run / "cells").glob("*.json")]
        return sorted(cells, key=lambda c: c.method)

    def bytes(self) -> dict[str, tuple]:
        """All of a run that must not depend on how it went: videos, D, scores."""
        return {
            c.method: (c.video, c.trace, [(s.metric.name, s.per_frame) for s in c.scores])
            for c in self.cells()
        }


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_every_method_gets_a_video_and_its_scores(lab: Lab) -> None:
    cells = lab.execute(make())
    assert {c.method for c in cells} == {"large", "small", "fixed_step", "srd_002", "srd_01", "srd_03"}
    assert {c.outcome for c in cells} == {"done"}
    for cell in cells:
        pixels, fps = video.read(lab.store.get(cell.key))
        assert pixels.shape == (17, 64, 64, 3) and fps == 8
        names = [s.metric.name for s in cell.scores]
        assert names[:2] == ["psnr", "ssim/gauss11-valid"]
        # the first prompt has one thing: all dimensions but those of pairs
        assert sum(n.startswith("shapes/") for n in names) == 10
        assert len(cell.step_seconds) == len(cell.trace) == 10
    large = next(c for c in cells if c.is_reference)
    assert [s.value for s in large.scores[:2]] == [100.0, 1.0]
    links = sorted(p.name for p in (lab.run / "videos" / "p000-seed0").iterdir())
    assert links[0].startswith("fixed_step-") and len(links) == 6


def test_a_finished_run_computes_nothing_and_needs_no_model(lab: Lab) -> None:
    experiment = make()
    lab.execute(experiment)
    runner = Runner(experiment, lab.run, lab.store, threads=1)
    seen: list[Event] = []
    for unit in plan.units(experiment):
        runner.unit(unit, seen.append)
    assert [e.kind for e in seen] == ["unit"]
    assert "sampler" not in vars(runner)
    here = fingerprint.ground(1)
    assert plan.unfinished(experiment, plan.units(experiment), lab.run, lab.store, here) == []


def test_one_more_metric_computes_no_step(lab: Lab) -> None:
    lab.execute(make("metric=[psnr]"))
    cells = lab.execute(make("metric=[psnr,shapes]"))
    assert lab.steps == []
    assert all(len(c.scores) == 11 for c in cells)


def test_another_seed_is_the_same_video_as_that_seed_s_own(lab: Lab) -> None:
    cells = lab.execute(make("suite.seeds=2", "metric=[psnr]", methods="large,another_seed"))
    by_name = {(c.method, c.seed): c for c in cells}
    for seed in (0, 1):
        other = by_name["another_seed", seed]
        assert other.video == by_name["large", 1 - seed].video
        assert 5 < other.scores[0].value < 60  # similar as two seeds are, not equal
    # the large model walked twice, and twice again only for nobody
    assert lab.steps.count("large") == 20


def test_one_more_delta_or_fixed_step_does_no_large_step(lab: Lab) -> None:
    lab.execute(make("keep=all"))
    before = lab.bytes()
    cells = lab.execute(make("keep=all", "method.srd_01.delta=0.9", "method.fixed_step.step=4"))
    assert "large" not in lab.steps and "small" in lab.steps
    assert len(cells) > len(before)
    alone = Lab(lab.run.parent / "alone")
    wanted = alone.execute(make("keep=none", "method.srd_01.delta=0.9", "method.fixed_step.step=4"))
    got = {c.id: (c.video, c.trace) for c in cells}
    assert all(got[c.id] == (c.video, c.trace) for c in wanted)


def test_only_forks_kept_means_the_nearest_one_is_taken(lab: Lab) -> None:
    lab.execute(make("keep=forks", "method.fixed_step.step=4", methods="large,fixed_step"))
    lab.execute(make("keep=forks", "method.fixed_step.step=9", methods="large,fixed_step"))
    assert lab.steps.count("large") < 9
    video = next(c.video for c in lab.cells() if c.path[0]["until"].get("step") == 9)
    alone = Lab(lab.run.parent / "alone")
    alone.execute(make("keep=none", "method.fixed_step.step=9", methods="large,fixed_step"))
    assert video == next(c.video for c in alone.cells() if c.method == "fixed_step")


def test_a_damaged_video_is_set_aside_and_made_again(lab: Lab) -> None:
    lab.execute(make())
    before = lab.bytes()
    path = lab.store.get(next(c.key for c in lab.cells() if c.method == "small"))
    path.chmod(0o644)
    flipped = bytearray(path.read_bytes())
    flipped[100] ^= 1
    path.write_bytes(flipped)
    (damage,) = Store(lab.store.root).verify()
    assert damage.name == path.name and (lab.store.root / "damaged" / path.name).exists()
    lab.execute(make())
    assert lab.bytes() == before and "large" not in lab.steps


def test_a_method_that_fails_is_a_word_and_a_sentence_and_the_rest_goes_on(lab: Lab) -> None:
    idle = "method.teacache.threshold=0.0001"
    experiment = make("family.steps=24", idle, methods="large,teacache")
    failed = [c for c in lab.execute(experiment) if c.outcome == "failed"]
    assert [c.method for c in failed] == ["teacache"]
    assert "reused nothing in 24 steps" in failed[0].reason
    lab.execute(experiment)
    assert lab.steps == [], "a failed cell is not tried again unless asked to"
    lab.execute(make("family.steps=24", idle, "retry_failed=true", methods="large,teacache"))
    assert lab.steps.count("large") == 24


KILLED = """
import os, runpy, signal
from srbench.runtime.runner import Runner

keep = Runner._keep

def kept(runner, cell):
    keep(runner, cell)
    os.kill(os.getpid(), signal.SIGKILL)

Runner._keep = kept
runpy.run_module("srbench", run_name="__main__", alter_sys=True)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """It is killed by itself, right after the first record, so that no clock matters."""

    def start(results: str, *program: str) -> int:
        command = [sys.executable, *program, *SMALL_RUN, "method=[large,small]", "run=r"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, f"results={tmp_path / results}"], env=environment, capture_output=True
        )
        return done.returncode

    assert start("whole", "-m", "srbench") == 0
    assert start("cut", "-c", KILLED) == -signal.SIGKILL
    assert len(list((tmp_path / "cut/shapes_delta_sweep/r/cells").glob("[!.]*.json"))) == 1
    assert start("cut", "-m", "srbench") == 0
    whole, cut = (Lab(tmp_path / n) for n in ("whole", "cut"))
    for lab in (whole, cut):
        lab.run = next((lab.run.parent / "shapes_delta_sweep").iterdir())
    assert whole.bytes() == cut.bytes()
    assert len(whole.cells()) == 5


def test_another_run_takes_videos_with_their_times_from_the_store(lab: Lab) -> None:
    before = {c.id: c for c in lab.execute(make())}
    lab.run = lab.run.parent / "other"
    again = lab.execute(make("method.large.label=big"))
    assert lab.steps == []
    assert {c.id for c in again} == set(before)
    for cell in again:
        assert cell.step_seconds == before[cell.id].step_seconds
        assert None not in cell.step_seconds
    assert next(c for c in again if c.method == "large").label == "big"


def test_a_method_that_needs_a_missing_package_is_skipped_with_the_way_to_get_it(lab: Lab) -> None:
    made = make("metric=[psnr]", "method.fixed_step.step=4", methods="large,fixed_step,srdiffusion_sage")
    skipped = made.method("srdiffusion_sage")
    if not skipped.lacking:
        pytest.skip("sageattention is installed here")
    cells = {c.method: c for c in lab.execute(made)}
    assert cells["fixed_step"].outcome == "done"
    assert cells["srdiffusion_sage"].outcome == "skipped"
    assert "install 'srbench[sage]'" in cells["srdiffusion_sage"].reason
    here = fingerprint.ground(1)
    assert plan.unfinished(made, plan.units(made), lab.run, lab.store, here) == []


def test_the_model_is_given_the_extended_text_and_the_cell_keeps_the_prompt(lab: Lab, tmp_path: Path) -> None:
    """So the video has the bits of a run whose prompt that text is."""
    short, long = "a red circle", "a red circle moving left on a black background"
    file = tmp_path / "extended.json"
    file.write_text(json.dumps({short: long}))

    def run(*suite: str) -> CellRecord:
        made = make_plain("suite=prompts", *suite, "method=[large]", "metric=[]", "family.steps=4")
        lab.execute(made)
        return lab.cells()[0]

    extended = run(f"suite.prompts=['{short}']", f"suite.extended={file}")
    assert (extended.prompt, extended.text, extended.outcome) == (short, long, "done")
    assert lab.steps == ["large"] * 4
    lab.run = tmp_path / "other"
    plain = run(f"suite.prompts=['{long}']")
    assert lab.steps == []  # the store had it
    assert (plain.prompt, plain.text, plain.video) == (long, None, extended.video)


def test_a_record_keeps_what_made_each_part_when_another_version_of_srbench_resumes(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commit A makes a video of large; commit B adds small, and a report names both."""

    def job(commit: str, methods: str) -> None:
        software = Software(commit=commit, dirty=commit == "b" * 40, packages={"torch": f"2.9.{commit[0]}"})
        for module in (fingerprint, runner):
            monkeypatch.setattr(module, "software", lambda further=(): software, raising=False)
        experiment = make(methods=methods)
        write_json(
            lab.run / "run.json",
            record(experiment, [methods], lab.run, lab.store.root, fingerprint.ground(1)),
        )
        lab.execute(experiment)

    lab.run.mkdir(parents=True)
    job("a" * 40, "large")
    first = read_run_record(lab.run)
    job("b" * 40, "large,small")
    made = {c.method: c.made and (c.made.commit, c.made.dirty) for c in lab.cells()}
    assert made["large"] == ("a" * 40, False) and made["small"] == ("b" * 40, True)

    both = read_run_record(lab.run)
    assert (both.started, both.commit, both.asked) == (first.started, "a" * 40, ["large"])
    assert [(j.commit, j.asked) for j in both.jobs] == [
        ("a" * 40, ["large"]),
        ("b" * 40, ["large,small"]),
    ]
    run, cells = reading.read(lab.run)
    assert legend.header(run, cells)[1].split(" · ")[1] == (
        f"commits {'a' * 12}: 4 videos, {'b' * 12} (dirty): 1 video"
    )
    assert legend.versions(run, cells) == {"torch": "2.9.a and 2.9.b"}
