"""Make example_run.tar.xz again, with the shapes model that srbench ships: `make example-run`.

The records of a small run without its videos, which the notebooks read.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SETTINGS = ["suite.prompts=8", "suite.seeds=1", "name=example", "run=example", "results=results", "store=store"]
METHODS = ["large", "small", "fewer_steps", "fixed_step", "srdiffusion"]
COMMANDS = (
    [f"method=[{','.join(METHODS)}]", "method.fixed_step.step=6,10,14,20,30,40"],
    ["method=[large,srdiffusion]", "method.srdiffusion.delta=0.002,0.005,0.03"],
)
KEPT = ("run.json", "texts.json", "cells")


def main() -> None:
    """Run the commands in a new folder, and pack what they recorded."""
    with tempfile.TemporaryDirectory() as folder:
        for own in COMMANDS:
            subprocess.run([sys.executable, "-m", "srbench", "-m", *own, *SETTINGS], cwd=folder, check=True)
        run = Path(folder, "results", "example", "example")
        with tarfile.open(HERE / "example_run.tar.xz", "w:xz") as packed:
            for name in KEPT:
                packed.add(run / name, f"example/{name}", filter=_anonymous)


def _anonymous(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file of nobody in particular."""
    file.uid = file.gid = 0
    file.uname = file.gname = ""
    return file


if __name__ == "__main__":
    main()
