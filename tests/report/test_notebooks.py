"""Every notebook runs from top to bottom; those that read do so on the committed run, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from srbench.analysis import delta
from srbench.config import yaml_files
from srbench.config.registry import build
from srbench.store.records import read_run

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
READING = [n for n in NOTEBOOKS if n.stem != "your_method"]
BEFORE = "import sys\nsys.modules.update(dict.fromkeys(['torch', 'diffusers', 'hydra']))\n"


def code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


@pytest.mark.parametrize("notebook", READING, ids=lambda p: p.stem)
def test_runs_top_to_bottom(notebook):
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + code(notebook)],
        cwd=FOLDER,
        env={
            "MPLBACKEND": "agg",
            "PYTHONPATH": str(FOLDER.parent),
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
def test_from_nothing_to_a_row_of_one_s_own():
    small = (
        "family.steps=8 suite.prompts=1 suite.seeds=1 metric=[psnr] method.srdiffusion.delta=0.5"
        " method.steps_10.steps=3 method.steps_25.steps=4 method.steps_40.steps=5"
        " method.tea_05=null method.tea_15=null method.tea_25.threshold=0.3"
    )
    done = subprocess.run(
        [sys.executable, "-c", code(FOLDER / "your_method.ipynb")],
        cwd=FOLDER,
        env=os.environ
        | {"PYTHONPATH": str(FOLDER.parent), "SRBENCH_NOTEBOOK": small, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "every rule is kept" in done.stdout
    table = done.stdout.partition("+experiment")[2]
    assert all(f"\n{label} " in table for label in ("mine 2", "small", "large in 3 steps", "TeaCache 0.3"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_short_and_has_no_outputs(notebook):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert len(cells) <= 20
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)


def test_the_run_is_small():
    assert (FOLDER / "example_run.tar.xz").stat().st_size <= 300_000


def test_the_run_is_of_the_model_that_is_shipped():
    """Where this fails, the shapes model was trained again: `make example-run`."""
    with tarfile.open(FOLDER / "example_run.tar.xz") as packed:
        plain = json.load(packed.extractfile("example/run.json"))
    family = build("families", yaml_files.read("family", "shapes"), "family")
    assert plain["weights"] == family.weights_identity()


@pytest.mark.parametrize("fixed", ["fixed_step", "none"])
def test_delta_is_chosen_between_the_runs_switches_only(fixed, tmp_path):
    """Also of the committed run with fewer of them."""
    with tarfile.open(FOLDER / "example_run.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    run, cells = read_run(tmp_path / "example")
    rows = {"reference", "small", fixed}
    kept = [c for c in cells if c.is_reference or c.method in rows or c.path[0]["until"].get("delta") == 0.01]
    found = delta.replayed(run, kept, (0.0001, 0.01))
    assert found.reasons[0] and np.isnan(found.speedup[0])
    assert not found.reasons[1] and found.computed[1] == 1.0
