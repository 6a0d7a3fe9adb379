"""`python -m srbench +experiment=NAME …`: the door, and the only importer of Hydra."""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from srbench import configs, errors, plan, report
from srbench.errors import UserError
from srbench.experiment import KEYS, Experiment, check
from srbench.registry import identity
from srbench.store.records import MethodRecord, RunRecord, read_run, read_run_record, write_json

PACKAGES = ("srbench", "torch", "diffusers", "transformers", "numpy", "scikit-image", "av")
_HERE = Path(__file__).parent


def compose(cfg: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as plain data.  Raises UserError where a value cannot be resolved."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        key = getattr(error, "full_key", None) or "the configuration"
        raise UserError(f"{key}: {first}", "a value", f"set {key}=… on the command line") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def commit() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether it has uncommitted changes; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=_HERE, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def record(experiment: Experiment, asked: list[str], run: Path) -> RunRecord:
    """The run's record; methods, prompts and seeds of earlier jobs on it are kept."""
    methods = {
        m.id: MethodRecord(
            name=m.name,
            label=m.label,
            id=m.id,
            is_reference=m.name == experiment.reference,
            path=identity(m.segments),
            steps=m.steps,
        )
        for m in experiment.methods
    }
    prompts, seeds = experiment.suite.list_prompts(), experiment.suite.list_seeds()
    if (run / "run.json").exists():
        earlier = read_run_record(run)
        methods = {m.id: m for m in earlier.methods} | methods
        prompts = tuple(dict.fromkeys([*earlier.prompts, *prompts]))
        seeds = tuple(dict.fromkeys([*earlier.seeds, *seeds]))
    sha, dirty = commit()
    return RunRecord(
        experiment=experiment.name,
        run=run.name,
        family=experiment.family.name,
        asked=asked,
        resolved=plan.settings(experiment),
        methods=tuple(methods.values()),
        prompts=prompts,
        seeds=seeds,
        protocol=plan.protocol(experiment),
        commit=sha,
        dirty=dirty,
        packages={p: _version(p) for p in PACKAGES},
        device=_device(),
        threads=experiment.engine.threads,
        timing="shared",
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores, {platform.machine()}"


def progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def execute(
    experiment: Experiment, todo: Sequence[plan.Unit], run: Path, store: Path, console: Console
) -> int:
    """Run what is missing, with a bar.  Returns how many cells failed."""
    steps = failed = 0
    with progress(console) as bar:
        task = bar.add_task(f"{len(experiment.methods)} methods", total=len(todo), note="")

        def watch(event: Any) -> None:
            nonlocal steps, failed
            failed += event.failed
            steps += event.kind == "step"
            note = f"{steps} steps computed" + (f", {failed} cells failed" if failed else "")
            bar.update(task, advance=int(event.kind == "unit"), note=note)

        experiment.engine.run(experiment, todo, run, store, watch)
    if steps == 0:
        console.print("every cell was in the store already: nothing was computed")
    return failed


def show_plan(experiment: Experiment, run: Path, console: Console) -> None:
    table = Table(title=f"{experiment.name}: what would run", show_header=False, title_justify="left")
    for what, much in [*plan.summary(experiment), ("folder", str(run))]:
        table.add_row(what, much)
    console.print(table)


def job(plain: Mapping[str, Any], asked: list[str]) -> int:
    """One job, from plain data to a table.  Returns the exit code."""
    console = Console()
    experiment = check({k: v for k, v in plain.items() if k in KEYS})
    errors.raise_all(experiment.family.mistakes())
    run = plan.run_folder(experiment, Path(plain["results"]), plain["run"])
    if plain["dry_run"]:
        show_plan(experiment, run, console)
        return 0
    about = record(experiment, asked, run)
    write_json(run / "run.json", about)
    todo = plan.units(experiment, about.prompts)
    try:
        failed = execute(experiment, todo, run, Path(plain["store"]), console)
    except KeyboardInterrupt:
        kept = len(read_run(run)[1])
        console.print(f"interrupted; {kept} cells are kept in {run}. The same command goes on from there.")
        return errors.EXIT_INTERRUPTED
    report.make(run, console)
    return errors.EXIT_FAILED_CELLS if failed else 0


_codes: list[int] = []


@hydra.main(version_base=None, config_path=str(configs.FOLDER), config_name="config")
def _hydra(cfg: DictConfig) -> None:
    logging.getLogger("srbench").setLevel(logging.INFO)
    asked = list(HydraConfig.get().overrides.task)
    try:
        _codes.append(job(compose(cfg), asked))
    except UserError as error:  # Hydra would print its own account of it
        print(f"srbench: {error}", file=sys.stderr)
        _codes.append(errors.EXIT_USER)


def main() -> None:
    sys.excepthook = errors.except_hook
    _hydra()
    sys.exit(max(_codes, default=0))


if __name__ == "__main__":
    main()
