"""`python -m srbench … dry_run=true`: what a user sees, and that nothing is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def hydras_own() -> dict[str, float]:
    """What Hydra leaves in a working folder unless it is told not to, with the time of change."""
    found = (REPOSITORY / name for name in ("outputs", "multirun", ".hydra", "__main__.log"))
    return {p.name: p.stat().st_mtime for p in found if p.exists()}


@pytest.fixture
def door(tmp_path: Path):
    """Run the command with stand-in weights (a dry run opens none) and an empty results folder."""
    weights, results = tmp_path / "weights", tmp_path / "results"
    for part in ("transformer", "transformer_2"):
        (weights / part).mkdir(parents=True)

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        before = hydras_own()
        sources = [f"family.{role}.source={weights}" for role in ("large", "small", "components")]
        done = subprocess.run(
            [sys.executable, "-m", "srbench", *overrides, "dry_run=true", f"results={results}", *sources],
            cwd=REPOSITORY,
            env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert not results.exists(), "a dry run or a refused one wrote something"
        assert hydras_own() == before, "folders or logs of Hydra's own"
        return done

    return run


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == "" and done.stderr.startswith("srbench: ")
    return done.stderr


def test_ray_as_it_ships_can_be_planned(door) -> None:
    """Its YAML names no number of workers."""
    done = door("engine=ray", "family.device=cpu", "suite.prompts=2", "suite.seeds=1")
    assert done.returncode == 0, done.stderr
    assert "core-hours" in done.stdout and "of 1 thread on" in done.stdout


def test_the_shipped_experiment_says_what_would_run(door) -> None:
    done = door("+experiment=shapes_delta_sweep")
    assert done.returncode == 0, done.stderr
    prompts, seeds, videos = map(int, re.search(r"(\d+) × (\d+) = (\d+) videos", done.stdout).groups())
    methods = int(re.search(r"methods +│ (\d+):", done.stdout)[1])
    cells = int(re.search(r"cells +│ (\d+)", done.stdout)[1])
    assert prompts * seeds == videos and methods * videos == cells > 100
    assert all(f"SRDiffusion δ={d}" in done.stdout for d in ("0.002", "0.01", "0.03"))


def test_an_unknown_experiment_is_told_with_the_nearest_name(door) -> None:
    assert "did you mean shapes_delta_sweep" in refused(door("+experiment=shapes_delta_swep"))


def test_an_unknown_method_is_told_with_the_nearest_name(door) -> None:
    told = refused(door("method=[large,srdifusion]"))
    assert "'srdifusion'" in told and "did you mean srdiffusion" in told


def test_an_unknown_key_is_told_with_the_nearest_name(door) -> None:
    told = refused(door("method.srdiffusion.dleta=0.1"))
    assert "method.srdiffusion.dleta" in told and "did you mean delta?" in told


def test_two_values_without_meaning_are_told_together(door) -> None:
    """δ = −1, and a word for a number: one run, both mistakes, each with its place."""
    told = refused(door("method.srdiffusion.delta=-1", "engine.threads=many"))
    assert "2 mistakes" in told
    assert "method.srdiffusion.delta = -1; expected greater than 0" in told
    assert "engine.threads = 'many'; expected a valid integer" in told


def test_a_value_that_has_to_be_given_is_asked_for(door) -> None:
    told = refused(door("suite=prompts"))
    assert "suite.prompts" in told and "set suite.prompts=" in told


def test_a_new_key_at_the_top_is_refused(door) -> None:
    assert "experimnt" in refused(door("+experimnt=shapes_delta_sweep"))


def test_a_parameter_that_nothing_uses_is_refused(door) -> None:
    assert "dleta" in refused(door("+method.srdiffusion.dleta=0.1"))


@pytest.mark.parametrize("width", ["60", "200"])
def test_commands_of_a_plan_can_be_copied(tmp_path: Path, width: str) -> None:
    """Each whole, on a line of its own, however narrow the terminal is; with what it brings and its size."""
    words = ["family=wan21_480p", "suite=prompts", "suite.prompts=[a cat]", "method=[large,small]"]
    done = subprocess.run(
        [sys.executable, "-m", "srbench", *words, "dry_run=true", f"results={tmp_path / 'results'}"],
        cwd=REPOSITORY,
        env=os.environ | {"COLUMNS": width, "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    table, _, below = done.stdout.partition("└")
    assert "hf download" not in table and "see below" in " ".join(table.split())
    commands = [line.strip() for line in below.splitlines() if line.strip().startswith("hf download")]
    assert len(commands) == 3
    revision = "38ec498cb3208fb688890f8cc7e94ede2cbd7f68"
    large = f"hf download Wan-AI/Wan2.1-T2V-14B-Diffusers --revision {revision} --include 'transformer/*'"
    assert commands[0] == large
    assert "57.2 GB" in below and "or set family.large.source to a folder" in below
