"""Every experiment plans without GPU, hub or VBench's list, and has its page."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest

from srbench.__main__ import compose, settle
from srbench.config import yaml_files
from srbench.config.experiment import Experiment
from srbench.config.registry import identity
from srbench.paper import published, tables
from srbench.planning import cost, plan
from srbench.store.objects import Store

PAGES = Path(__file__).parents[1] / "experiments"
NAMES = yaml_files.names("experiment")
PAPERS = [n for n in NAMES if not n.startswith("shapes") and n != "compare"]
GROUND = {"torch": "2.9", "device": "CPU", "threads": "1"}


def asked(name: str, *words: str) -> dict[str, Any]:
    """An experiment as the command composes it."""
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        return compose(hydra.compose("config", [f"+experiment={name}", *words]))


@functools.cache
def experiment(name: str) -> Experiment:
    return settle(asked(name, "dry_run=true"))


def priced(made: Experiment, nowhere: Path) -> dict[str, str]:
    """The plan of a run of which nothing is there yet, wherever it is asked."""
    done = plan.Progress({u: {} for u in plan.units(made)}, {u: set() for u in plan.units(made)}, (), 0)
    store = Store(nowhere / "store")
    return dict(cost.price(made, done, plan.Keys(made, GROUND), store, nowhere, "a CPU").lines)


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights on this machine, and what it may have of VBench is not looked at."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)


@pytest.mark.parametrize("name", NAMES)
def test_it_plans_here(name: str, tmp_path: Path) -> None:
    made = experiment(name)
    assert made.name == name
    told = priced(made, tmp_path)
    videos = len(made.suite.list_prompts()) * len(made.suite.list_seeds())
    assert told["cells"] == f"{videos * len(made.methods):,}"
    assert not told["time"].startswith("unknown")
    if name in PAPERS:
        assert "A800" in told["time"] and "core" not in told["time"]
        assert "GPU-hours" in told and "core-hours" not in told


@pytest.mark.parametrize("name", PAPERS)
def test_its_page_says_what_the_plan_says(name: str, tmp_path: Path) -> None:
    """On a machine that lacks no attention backend."""
    page = (PAGES / f"{name}.md").read_text("utf-8")
    assert f"\npython -m srbench +experiment={name}\n" in page
    made = experiment(name)
    able = replace(made, methods=tuple(replace(m, lacking="") for m in made.methods))
    told = priced(able, tmp_path)
    words = " ".join(page.split())
    assert f"{told['cells']} cells" in words
    hours, _, alone = told["GPU-hours"].partition("; ")
    assert hours in words
    assert f"{alone} GPU-hours" in words


@pytest.mark.parametrize("block", [b for t in tables.make([]) for b in t.blocks], ids=lambda b: b.table)
def test_a_tables_experiment_has_every_method_of_the_paper(block: tables.Block) -> None:
    made = experiment(tables.experiment(block.table, block.setting.setting))
    assert made.family.name == block.setting.setting
    have = {
        (published.signature(identity(m.segments)), m.steps or made.family.steps)
        for m in made.methods
        if m.role == "method"
    }
    assert {(m.path, m.steps) for m in block.methods} <= have


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("table")])
def test_a_tables_experiment_plans_on_the_embedded_family(name: str) -> None:
    """With the paper's methods, path for path, so that its table can be filled here."""
    words = ("family=shapes", "suite=shapes", "suite.prompts=8", "suite.seeds=1", "dry_run=true")
    made, papers = settle(asked(name, *words)), experiment(name)
    paths = [[published.signature(identity(m.segments)) for m in e.methods] for e in (made, papers)]
    assert (made.family.name, made.family.steps) == ("shapes", papers.family.steps)
    assert paths[0] == paths[1] and not any(m.lacking for m in made.methods)


def test_every_experiment_is_in_the_list_and_every_page_is_an_experiment() -> None:
    listed = re.findall(r"^\| \[?`(\w+)`", (PAGES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == NAMES
    assert sorted(p.stem for p in PAGES.glob("*.md")) == sorted(
        [*PAPERS, *"README extended_prompts gpu latency metrics ray slurm vbench your_method".split()]
    )


def test_compare_times_every_method_alone_and_others_do_only_where_asked() -> None:
    """Rows of earlier runs stand beside new ones there: their step times are of other jobs."""
    assert asked("compare")["timing"] == "exclusive"
    assert asked("compare", "timing=shared")["timing"] == "shared"
    assert asked("shapes_delta_sweep")["timing"] == "shared"
