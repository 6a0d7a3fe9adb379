"""VBench's own environment: where it lies, how it is built, whether it is there.

Its package wants transformers 4.33 and numpy 1, which ours cannot be; so it is a virtual
environment in the user's cache, built by uv from `requirements.txt` beside this file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from srbench import errors
from srbench.errors import UserError
from srbench.suites import vbench as suite

PYTHON = "3.11"  # the highest for which all pinned packages have wheels
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WORKER = Path(__file__).with_name("worker.py")
PINS = {"vbench": "0.1.5", "torch": "2.5.1", "torchvision": "0.20.1"}
GIGABYTES, ROOM = 5.8, 12.0  # what it takes, and what is wanted free: uv's cache holds it once more
COST = (
    f"{GIGABYTES} GB on disk, about 3 GB to download (CUDA builds of torch), a minute where the "
    "network is fast; the networks' weights come apart: srbench vbench weights"
)
DETECTRON = (
    "git clone https://github.com/facebookresearch/detectron2 (Apache-2.0), then "
    "srbench vbench setup --detectron2 detectron2"
)
SETUP = "srbench vbench setup (or make vbench)"
VARIABLE = "SRBENCH_VBENCH_ENV"


def weights_home() -> Path:
    """Where the weights lie: VBENCH_CACHE_DIR, or VBench's own default in the user's cache."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench").expanduser()


def folder() -> Path:
    """The environment's own folder; SRBENCH_VBENCH_ENV names one made by other means."""
    return suite.environment()


def python() -> Path:
    """Its interpreter, which may not be there."""
    return folder() / "bin" / "python"


def info() -> Path | None:
    """VBench's own list of prompts in it; None without the environment."""
    return suite.official_info()


def lacking() -> str:
    """Why nothing can be scored here, with what mends it; empty if it can.  Starts no process."""
    problem = _lacking()
    return f"{problem}: {SETUP}; it takes {COST}" if problem else ""


def refuse_lacking() -> None:
    """Raises UserError where nothing can be scored here."""
    if problem := _lacking():
        raise UserError(problem, f"an environment that has VBench, {COST}", SETUP)


def _lacking() -> str:
    if not python().exists():
        return f"VBench's environment is not there ({folder()})"
    if info() is None:
        return f"VBench's environment has no vbench in it ({folder()})"
    return ""


def after(run: Path) -> str:
    """What is left to do for a run's VBench scores, as its plan tells it, and what is lacking for it."""
    told = f"scores after the videos: srbench vbench score {run}"
    return f"{told}; {problem}" if (problem := lacking()) else told


def setup(detectron2: Path | None = None) -> dict[str, str]:
    """Build the environment, say what was built, check it.  Returns check()'s versions.

    detectron2: the folder of its source, to be built into the environment; None leaves it as it is.

    Raises UserError where uv, room or the source is lacking, or where a package cannot be had.
    """
    if detectron2 is not None:
        _refuse_other_source(detectron2)
    uv = _uv()
    target = folder()
    there = next(p for p in (target.absolute(), *target.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < ROOM:
        raise UserError(
            f"{free:.1f} GB free for {target}",
            f"{ROOM:g} GB",
            f"free some, or set {VARIABLE} to another disk",
        )
    _say(f"VBench's environment goes to {target}: {COST}")
    packages = f"Python {PYTHON} and the packages of {REQUIREMENTS.name}"
    _run([*uv, "venv", "--quiet", "--allow-existing", "--python", PYTHON, str(target)], packages)
    install = [*uv, "pip", "install", "--python", str(python())]
    _run([*install, "--requirement", str(REQUIREMENTS)], packages)
    if detectron2 is not None:
        _say(f"detectron2 is built from {detectron2}: three to ten minutes on one core")
        # Hidden GPUs: what GRiT runs on one is torchvision's, and a CUDA toolkit that lies about is
        # seldom that of the environment's torch, which stops the build.
        how = {"FORCE_CUDA": "0", "CUDA_VISIBLE_DEVICES": "", "D2_VERSION_SUFFIX": _commit(detectron2)}
        build = ["--no-build-isolation", "--reinstall-package", "detectron2", str(detectron2.resolve())]
        _run([*install, *build], "detectron2's source and a C++ compiler", os.environ | how)
    return check()


def _say(text: str) -> None:
    print(errors.wrapped(text, sys.stdout), flush=True)


def _refuse_other_source(given: Path) -> None:
    if not all((given / name).is_file() for name in ("setup.py", "detectron2/__init__.py")):
        raise UserError(
            f"--detectron2 {given}", "a folder with detectron2's source (setup.py, detectron2/)", DETECTRON
        )


def _commit(source: Path) -> str:
    """What tells one of its sources from another, since all are version 0.6; empty outside git."""
    try:
        asked = ["git", "-C", str(source), "rev-parse", "--short=12", "HEAD"]
        done = subprocess.run(asked, capture_output=True, text=True)
    except OSError:
        return ""
    return f"+g{done.stdout.strip()}" if done.returncode == 0 else ""


def _uv() -> list[str]:
    found = shutil.which("uv")
    if found:
        return [found]
    try:
        subprocess.run([sys.executable, "-m", "uv", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            "no uv on this machine", "uv, which builds environments", "pip install uv, or make install"
        ) from None
    return [sys.executable, "-m", "uv"]


def _run(command: Sequence[str], wanted: str, variables: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"uv could not build the environment: {' '.join(said[-3:])}",
            wanted,
            f"run the same command again; {folder()} may be removed first",
        )


def check() -> dict[str, str]:
    """Versions and detectron2 as the environment itself tells them.

    Raises UserError where it is not there, does not start, or has other versions than pinned.
    """
    refuse_lacking()
    return _asked(
        ("--check",),
        f"{folder()} does not work",
        "an environment in which VBench can be imported",
        f"remove it and build it again: {SETUP}",
    )


def ground(device: str) -> dict[str, str]:
    """Software and device that scores made now would stand on, as the environment tells them.

    detectron2 among them, on which only those of weights.GRIT stand.  device: as torch names it.
    Raises UserError where it cannot say.
    """
    return _asked(
        ("--ground", device),
        f"device {device!r}",
        "a device of VBench's environment",
        f"--device cpu; or build the environment again: {SETUP}",
    )


def _asked(question: Sequence[str], got: str, expected: str, do: str) -> dict[str, str]:
    """What the environment's worker answers; raises UserError with its last words where it fails."""
    command = [str(python()), str(WORKER), *question]
    done = subprocess.run(command, capture_output=True, text=True, env=clean())
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(f"{got}: {said[-1] if said else f'exit {done.returncode}'}", expected, do)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def strange(found: dict[str, str]) -> list[str]:
    """What of an environment is not as pinned: allowed, for newer GPUs need newer torch, and told.

    >>> strange({"vbench": "0.1.5", "torch": "2.15.0+cu130", "torchvision": "0.20.1"})
    ['torch 2.15.0+cu130, pinned 2.5.1']
    """
    return [
        f"{name} {found.get(name, 'absent')}, pinned {pin}"
        for name, pin in PINS.items()
        if found.get(name, "").partition("+")[0] != pin
    ]


def clean(weights: Path | None = None) -> dict[str, str]:
    """The worker's environment variables: weights from one folder, no network for hubs, no ours."""
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    home = weights or weights_home()
    return own | {
        "VBENCH_CACHE_DIR": str(home),
        "TORCH_HOME": str(home / "torch"),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # from torch 2.6 on; the official wheel loads AMT's checkpoint as a whole
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
