"""`python -m srbench +experiment=NAME …`: the door, and the only importer of Hydra."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
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

from srbench import configs, errors, ground, plan, price, report
from srbench.errors import UserError, did_you_mean
from srbench.experiment import KEYS, Experiment, check
from srbench.registry import identity
from srbench.store.objects import Store
from srbench.store.records import MethodRecord, RunRecord, read_run, read_run_record, write_json

RUN_KEYS = ("run", "results", "store", "dry_run")
PACKAGES = ("srbench", *ground.PACKAGES, "scikit-image")
_HERE = Path(__file__).parent


def compose(cfg: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as plain data.  Raises UserError where a value cannot be resolved."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        key = getattr(error, "full_key", None) or "the configuration"
        raise UserError(f"{key}: {first}", "a value", f"set {key}=… on the command line") from None
    _refuse_unused(OmegaConf.to_container(cfg, resolve=False))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _refuse_unused(unresolved: Any) -> None:
    """A method's parameter that nothing in the method mentions is a slip of the pen."""
    for name, method in (unresolved.get("method") or {}).items():
        if not isinstance(method, dict):
            continue
        parameters = [k for k in method if k not in ("label", "path", "steps", "noise", "role")]
        for key in parameters:
            if f".{key}}}" not in str(method):
                others = [k for k in method if k != key]
                raise UserError(
                    f"method.{name}.{key}", "a key that its path uses", did_you_mean(str(key), others)
                )


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


def record(experiment: Experiment, asked: list[str], run: Path, store: Path) -> RunRecord:
    """The run's record; methods, prompts and seeds of earlier jobs on it are kept."""
    reference = experiment.reference
    methods = {
        m.id: MethodRecord(
            name=m.name,
            label=m.label,
            id=m.id,
            is_reference=m.name == reference,
            path=identity(m.segments),
            steps=m.steps,
            role=m.role,
        )
        for m in experiment.methods
    }
    prompts, seeds = experiment.suite.list_prompts(), experiment.suite.list_seeds()
    if (run / "run.json").exists():
        earlier = read_run_record(run)
        kept = {m.id: m.model_copy(update={"is_reference": False}) for m in earlier.methods}
        methods = kept | methods
        prompts = tuple(dict.fromkeys([*earlier.prompts, *prompts]))
        seeds = tuple(dict.fromkeys([*earlier.seeds, *seeds]))
    sha, dirty = commit()
    return RunRecord(
        experiment=experiment.name,
        run=run.name,
        family=experiment.family.name,
        asked=asked,
        resolved=plan.settings(experiment),
        store=os.path.relpath(store, run),
        methods=tuple(methods.values()),
        prompts=prompts,
        seeds=seeds,
        protocol=plan.protocol(experiment),
        commit=sha,
        dirty=dirty,
        packages=ground.versions(PACKAGES),
        device=ground.described(experiment.family.device),
        threads=experiment.engine.threads,
        timing="shared",
        warnings=experiment.family.warnings(),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def progress(console: Console) -> Progress:
    """The bar: units done, time, and how many steps were computed."""
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
    here = ground.ground(experiment.engine.threads, experiment.family.device)
    todo = plan.unfinished(experiment, todo, run, Store(store), here)
    if not todo:
        console.print("every video and score was there already: nothing was computed")
        return _failed(experiment, run)
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
    return _failed(experiment, run)


def _failed(experiment: Experiment, run: Path) -> int:
    """How many cells of the methods asked for have failed, now or earlier."""
    asked = {m.id for m in experiment.methods}
    return sum(c.outcome == "failed" and c.method_id in asked for c in read_run(run)[1])


def show_plan(experiment: Experiment, run: Path, console: Console) -> None:
    """Print what would run."""
    table = Table(title=f"{experiment.name}: what would run", show_header=False, title_justify="left")
    for what, much in [*price.summary(experiment), ("folder", str(run))]:
        table.add_row(what, much)
    console.print(table)


def job(plain: Mapping[str, Any], asked: list[str]) -> int:
    """One job, from plain data to a table.  Returns the exit code."""
    console = Console()
    if not isinstance(plain["dry_run"], bool):
        raise UserError(f"dry_run = {plain['dry_run']!r}", "true or false", "write dry_run=true")
    experiment = check({k: v for k, v in plain.items() if k not in RUN_KEYS})
    errors.raise_all(plan.mistakes(experiment))
    run = plan.run_folder(experiment, Path(plain["results"]), plain["run"])
    if plain["dry_run"]:
        show_plan(experiment, run, console)
        return 0
    about = record(experiment, asked, run, Path(plain["store"]))
    write_json(run / "run.json", about)
    todo = plan.units(experiment, about.prompts)
    try:
        failed = execute(experiment, todo, run, Path(plain["store"]), console)
    except KeyboardInterrupt:
        kept = len(read_run(run)[1])
        console.print(f"interrupted; {kept} cells are kept in {run}. The same command goes on from there.")
        return errors.EXIT_INTERRUPTED
    _to_report.setdefault(run)
    return errors.EXIT_FAILED_CELLS if failed else 0


# -- Hydra's own refusals, told as ours

_VALUE_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--info", "-i")


def overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line's overrides, and the folders of `--config-dir`.

    >>> overrides(["-m", "+experiment=x", "--config-dir", "mine", "--config-dir=b", "a=1"])
    (['+experiment=x', 'a=1'], ['mine', 'b'])
    """
    found: list[str] = []
    folders: list[str] = []
    words = iter(arguments)
    for word in words:
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            found.append(word)
        elif name in _VALUE_OPTIONS:
            value = value if has_value else next(words, "")
            folders += [value] if name in ("--config-dir", "-cd") else []
    return found, folders


def first_of_sweep(override: str) -> str:
    """An override with the first of its values, where it sweeps over several."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        raise UserError(
            f"{override!r}", "key=value, brackets closed", "quote lists: 'method=[large,small]'"
        ) from None
    if not parsed.is_sweep_override():
        return override
    return f"{override.partition('=')[0]}={next(iter(parsed.sweep_string_iterator()))}"


def refuse(arguments: Sequence[str]) -> None:
    """Raise UserError for what Hydra would refuse: unknown groups, names and keys, bad syntax."""
    asked, folders = overrides(arguments)
    search = [f"hydra.searchpath=[{','.join('file://' + str(Path(f).resolve()) for f in folders)}]"]
    done: list[str] = search if folders else []
    firsts = [first_of_sweep(o) for o in asked]
    with hydra.initialize_config_dir(str(configs.FOLDER), version_base=None):
        try:
            hydra.compose("config", [*done, *firsts])
        except MissingConfigException as error:
            group, _, name = (error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
            choices = did_you_mean(name, error.options or configs.names(group))
            raise UserError(f"{group} {name!r}", f"a file conf/{group}/NAME.yaml", choices) from None
        except HydraException as error:
            _refuse_key(firsts, done, error)


def _refuse_key(asked: Sequence[str], kept: list[str], error: HydraException) -> None:
    """Find the override that does not fit, and the keys that it could have meant."""
    for override in sorted(asked, key=lambda o: not o.startswith("+")):
        try:
            hydra.compose("config", [*kept, override])
            kept.append(override)
        except HydraException as own:
            key = override.partition("=")[0].lstrip("+~")
            parent, _, last = key.partition("@")[0].rpartition(".")
            node = OmegaConf.select(hydra.compose("config", kept), parent) if parent else None
            known = list(node) if isinstance(node, DictConfig) else [*KEYS, *RUN_KEYS, "experiment"]
            said = str(own).splitlines()[0]
            raise UserError(
                f"{override} ({said})",
                f"a key of {parent or 'the configuration'}",
                did_you_mean(last, map(str, known)),
            ) from None
    raise UserError(str(error).splitlines()[0], "a configuration that composes", "see conf/config.yaml")


# What the jobs of one command left: their exit codes, and the runs to report once at the end.
_codes: list[int] = []
_to_report: dict[Path, None] = {}


@hydra.main(version_base=None, config_path=str(configs.FOLDER), config_name="config")
def _hydra(cfg: DictConfig) -> None:
    asked = list(HydraConfig.get().overrides.task)
    try:
        _codes.append(job(compose(cfg), asked))
    except UserError as error:  # Hydra would print its own account of it
        print(f"srbench: {error}", file=sys.stderr)
        _codes.append(errors.EXIT_USER)


def main() -> None:
    """The command: one job, or with -m one for every combination."""
    sys.excepthook = errors.except_hook
    try:
        refuse(sys.argv[1:])
    except UserError as error:
        print(f"srbench: {error}", file=sys.stderr)
        sys.exit(errors.EXIT_USER)
    _hydra()
    for run in _to_report:
        report.make(run, Console())
    sys.exit(max(_codes, default=0))


if __name__ == "__main__":
    main()
