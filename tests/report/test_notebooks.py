"""Every notebook runs from top to bottom, on the committed run, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BEFORE = "import sys\nsys.modules.update(dict.fromkeys(['torch', 'diffusers', 'hydra']))\n"


def code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
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


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_short_and_has_no_outputs(notebook):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert len(cells) <= 20
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)


def test_the_run_is_small():
    assert (FOLDER / "example_run.tar.xz").stat().st_size <= 300_000
