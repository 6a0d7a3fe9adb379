"""`srbench new method NAME`: what it writes already runs, on any family, beside rivals."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from srbench.__main__ import RUN_KEYS, settle
from srbench.cli import check as rules
from srbench.cli import new
from srbench.config import overrides, registry, yaml_files
from srbench.config.experiment import Experiment, check
from srbench.errors import UserError
from srbench.planning import plan
from srbench.runtime.runner import Runner
from srbench.store.objects import Store
from srbench.store.records import read_cell

# the comparison at a few steps of one video
SMALL = [
    *("family.steps=8", "suite.prompts=1", "suite.seeds=1", "metric=[psnr]", "method.srdiffusion.delta=0.5"),
    *("method.steps_10.steps=3", "method.steps_25.steps=4", "method.steps_40.steps=5"),
    *("method.tea_05=null", "method.tea_15.threshold=0.2", "method.tea_25.threshold=0.3"),
]
COMPARE = ["+experiment=compare", "method=[srdiffusion,teacache,mine]"]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(registry, "_sources", {})
    return new.method("mine", tmp_path)


def compared(pair: list[Path], *overrides: str) -> Experiment:
    """The comparison with the new pair, as the command composes it."""
    search = f"hydra.searchpath=[file://{pair[1].parents[1]}]"
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        composed = hydra.compose("config", [search, *COMPARE, f"plugins=[{pair[0]}]", *overrides])
    plain = OmegaConf.to_container(composed, resolve=True)
    return check({k: v for k, v in plain.items() if k not in RUN_KEYS})


def test_it_stands_beside_the_reference_and_seven_rivals_whatever_is_asked_for(pair: list[Path]) -> None:
    for method in ("method=[mine]", COMPARE[1]):
        names = {m.name for m in compared(pair, method).methods}
        rivals = {"small", "steps_10", "steps_25", "steps_40", "tea_05", "tea_15", "tea_25"}
        assert {"mine", "large"} | rivals <= names


@pytest.mark.parametrize("family", ["shapes", "wan21_480p", "wan21_720p", "cogvideox"])
def test_it_is_a_method_of_every_family(pair: list[Path], family: str) -> None:
    made = compared(pair, f"family={family}", "metric=[psnr,ssim]", "suite=prompts", "suite.prompts=[a cat]")
    (segment,) = made.method("mine").segments
    assert segment.denoiser.accelerators[0].every == 2
    assert made.method("mine").label == "mine 2"


def test_it_runs_as_it_was_written_and_its_settings_do_something(pair: list[Path], tmp_path: Path) -> None:
    experiment = compared(pair, *SMALL, "method.mine.every=3")
    runner = Runner(experiment, tmp_path / "run", Store(tmp_path / "store"), threads=1)
    (unit,) = plan.units(experiment)
    runner.encode([unit.prompt])
    runner.unit(unit)
    cells = {c.method: c for c in map(read_cell, (tmp_path / "run" / "cells").glob("*.json"))}
    assert set(cells) == {m.name for m in experiment.methods}
    assert {c.outcome for c in cells.values()} == {"done"}
    reused = [s.calls_reused for s in cells["mine"].trace.steps]
    # two steps, then one of three: 2 calls each, for the prompt and the negative prompt
    assert reused == [0, 0, 2, 2, 0, 2, 2, 0]
    assert cells["mine"].video not in {c.video for n, c in cells.items() if n != "mine"}


def test_it_keeps_every_rule(pair: list[Path]) -> None:
    told: list[str] = []
    registry.load([pair[0]])
    subject = rules.Subject("accelerators", {"kind": "mine"}, rules.Lab("shapes", 6))
    assert rules.conform(subject, told.append) == 0, "\n".join(told)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["wan21_480p", "cogvideox"])
def test_it_keeps_every_rule_on_the_others_twins(pair: list[Path], family: str) -> None:
    told: list[str] = []
    registry.load([pair[0]])
    subject = rules.Subject("accelerators", {"kind": "mine"}, rules.Lab(family, 6, scale="tiny"))
    assert rules.conform(subject, told.append) == 0, "\n".join(told)


@pytest.mark.slow
def test_the_command_that_it_prints_makes_the_table_with_two_workers(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "srbench.cli.new", "method", "mine", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (command,) = (line for line in told.splitlines() if "+experiment=compare" in line)
    words = [
        *shlex.split(command, comments=True)[3:],
        *SMALL,
        "suite.seeds=2",
        "engine.workers=2",
        f"results={tmp_path / 'results'}",
    ]
    done = subprocess.run([sys.executable, "-m", "srbench", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mine 2 " in done.stdout and "large in 3 steps" in done.stdout and "TeaCache" in done.stdout
    again = subprocess.run([sys.executable, "-m", "srbench", *words], capture_output=True, text=True)
    assert "nothing was computed" in again.stdout
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "# edited\n")
    edited = subprocess.run([sys.executable, "-m", "srbench", *words], capture_output=True, text=True)
    assert "16 steps computed" in edited.stdout, "its own 8 steps for each seed, and no other"


REFUSED = [
    *("my-method", "2fast", "Mine", "größe", "_", "", "../mine", "a" * 300),
    *("class", "none", "true", "false", "null", "yes", "nan", "inf"),
    *("pab", "large", "random", "numpy", "yaml", "srbench", "test"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_cannot_be_a_plug_ins_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose another"):
        new.method(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_written_over(pair: list[Path], tmp_path: Path) -> None:
    pair[0].write_text("mine alone")
    with pytest.raises(UserError, match="exists"):
        new.method("mine", tmp_path)
    assert pair[0].read_text() == "mine alone"


def test_a_dangling_link_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(UserError, match="exists"):
        new.method("mine", tmp_path)
    assert os.listdir(tmp_path) == ["mine.py"]


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a folder to write to"):
        new.method("mine", tmp_path / "file")


def test_names_that_only_look_taken_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the working folder hides nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    code, _ = new.method("mine", tmp_path)
    compile(code.read_text(), str(code), "exec")


def test_overrides_may_follow_an_option(tmp_path: Path) -> None:
    """Hydra's parser alone would refuse them, and the printed command ends with --config-dir."""
    words = ["+experiment=compare", "--config-dir", str(tmp_path), "engine.workers=2", "-m"]
    ordered = ["+experiment=compare", "engine.workers=2", "--config-dir", str(tmp_path), "-m"]
    assert overrides.checked(words, settle) == ordered


def test_the_pages_own_yaml_is_enough_for_a_row(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "experiments" / "your_method.md").read_text("utf-8")
    file = tmp_path / "my_conf" / "method" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    search = f"hydra.searchpath=[file://{tmp_path / 'my_conf'}]"
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        plain = OmegaConf.to_container(hydra.compose("config", [search, *COMPARE]), resolve=True)
    made = check({k: v for k, v in plain.items() if k not in RUN_KEYS})
    assert [s.denoiser.name for s in made.method("mine").segments] == ["large", "small+teacache"]
    assert "'method=[srdiffusion,teacache,mine]' --config-dir my_conf" in page
