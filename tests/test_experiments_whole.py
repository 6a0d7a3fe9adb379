"""Every experiment runs whole, from its command to its report: on the twins, or the embedded family.

What a twin's numbers are worth (nothing) is said wherever one of them is shown.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import hydra
import pytest
from rich.console import Console

from srbench.__main__ import compose, job
from srbench.cli import reports
from srbench.config import yaml_files
from srbench.families._settings import TWIN_NOTE
from srbench.report import drawing
from srbench.store.records import read_run
from srbench.suites.vbench import DIMENSIONS, INFO

pytestmark = pytest.mark.slow
NAMES = yaml_files.names("experiment")
EMBEDDED = [n for n in NAMES if n.startswith("shapes") or n == "compare"]
# VBench's own list is not ours to copy; one prompt of each kind that names of files find hard.
PROMPTS = ["a person is riding a bike", 'a sign that says "50 % off/today", 熊']


def words(name: str, folder: Path) -> list[str]:
    """What shrinks an experiment, all its methods and steps left in."""
    here = [f"results={folder}", f"store={folder / 'store'}", "suite.seeds=1", "run=whole"]
    if name in EMBEDDED:
        return [*here, "suite.prompts=1"]
    here.append("family.scale=tiny")
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        suite = hydra.compose("config", [f"+experiment={name}"]).suite
    if suite.kind != "vbench":
        return [*here, "suite.prompts=['a lighthouse in a storm']"]
    listed = [{"prompt_en": p, "dimension": [DIMENSIONS[i]]} for i, p in enumerate(PROMPTS)]
    (folder / INFO).write_text(json.dumps(listed), "utf-8")
    return [*here, f"suite.info={folder / INFO}", "suite.subset=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: experiments of one family share the trunk in their store, as they would."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands above each figure that is drawn."""
    drawn: list[str] = []
    save = drawing._save

    def watched(canvas: Any, file: Path) -> None:
        drawn.append(" ".join(canvas.get_suptitle().split()))
        save(canvas, file)

    monkeypatch.setattr(drawing, "_save", watched)
    return drawn


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_whole(
    name: str, folder: Path, titles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"+experiment={name}", *words(name, folder)]
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        plain = compose(hydra.compose("config", asked))
    code = job(plain, asked)
    about, cells = read_run(run := folder / name / "whole")
    assert code == 0, {c.label: c.reason for c in cells if c.outcome == "failed"}
    assert {c.method for c in cells} == {m.name for m in about.methods} == set(plain["method"])
    assert len(cells) == len(about.methods) * len(about.prompts)
    for cell in cells:
        assert cell.outcome == "done" or (cell.outcome == "skipped" and "srbench[sage]" in cell.reason)
    capsys.readouterr()
    reports.make(run, Console(width=120))
    said = capsys.readouterr().out
    assert (run / "report.html").exists()
    if name in EMBEDDED:
        assert "random weights" not in said
        return
    assert about.warnings == (TWIN_NOTE,)
    _says_that_it_is_plumbing(run, said, titles)


def _says_that_it_is_plumbing(run: Path, said: str, titles: list[str]) -> None:
    """Above everything that shows a number."""
    assert " ".join(said.split()).startswith(f"Warning: {TWIN_NOTE}")
    for name, table in (("report.html", "<table"), ("table.md", "| method"), ("table.tex", "{tabular")):
        text = re.sub(r"\s+", " ", (run / name).read_text("utf-8"))
        assert text.index(TWIN_NOTE) < text.index(table), name
    assert "random weights" in (run / "paper" / "index.html").read_text("utf-8")
    assert {line["warnings"] for line in lines(run / "table.csv")} == {TWIN_NOTE}
    assert titles and all("random weights" in t for t in titles)
    _is_held_against_nothing(run / "paper")


def _is_held_against_nothing(paper: Path) -> None:
    """No difference from a published value, and no verdict on a claim."""
    for file in paper.glob("table*.csv"):
        for line in lines(file):
            assert line["difference"] == line["difference_low"] == line["difference_high"] == ""
            if line["measured"] and line["published"]:
                assert "random weights" in line["difference_reason"] or not line["baseline"], line
    measured = [line for line in lines(paper / "claims.csv") if line["level"] == "measured"]
    assert measured and {line["verdict"] for line in measured} == {"cannot be told"}
    assert not any(line["estimate"] for line in measured)


def lines(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))
