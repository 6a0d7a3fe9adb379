"""What stands above and below every table: warnings, what the headings mean, why something is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from srbench.analysis.values import FEWEST_TO_RANK, Row, Value
from srbench.config.custom_weights import OwnWeights
from srbench.config.experiment import Sampling
from srbench.store.records import CellRecord, RunRecord
from srbench.suites.base import Seeding

EVALUATIONS = "evaluations_"
BEST = (
    "the best of its column, and those next to it that can't be told from it (95 % interval of the paired "
    "difference), down to the first that can; the reference and scale rows take no part"
)
SCALE_ROWS = "last, and apart: scale rows, no rivals; they show what a similarity means"


def warnings(run: RunRecord) -> list[str]:
    """The run's own, as they stand above every table."""
    return [f"Warning: {text}" for text in run.warnings]


def header(run: RunRecord, cells: Sequence[CellRecord]) -> list[str]:
    """What was run, on what, from which commits, in three lines; then what methods have of their own."""
    return [
        f"{run.experiment} · run {run.run} · family {run.family}",
        " · ".join(made_on(run, cells)),
        extent(run, cells),
        *own(run),
    ]


def extent(run: RunRecord, cells: Iterable[CellRecord] | None = None) -> str:
    """How many prompts and seeds there should be, or there are in the cells; as in `12 prompts × 2 seeds`."""
    there = None if cells is None else {(c.prompt_index, c.seed) for c in cells}
    prompts = len(run.prompts) if there is None else len({p for p, _ in there})
    seeds = len(run.seeds) if there is None else len({s for _, s in there})
    videos = run.videos if there is None else there
    whole = f"{prompts:,} prompt{'s' * (prompts != 1)}"
    if run.videos and len(videos) != prompts * seeds:
        return f"{whole} with different seeds, {len(videos):,} videos a method"
    return f"{whole} × {seeds:,} seed{'s' * (seeds != 1)}{seeding(run)}"


def made_on(run: RunRecord, cells: Iterable[CellRecord]) -> list[str]:
    """Return the device, the commits and the protocol."""
    return [f"device {run.device}", commits(run, cells), f"protocol {run.protocol[:12]}"]


Code = tuple[str | None, bool | None]  # a commit, and whether it was dirty


def code_of(run: RunRecord, cells: Iterable[CellRecord]) -> Counter[Code]:
    """Count the videos that each state of srbench's code made.

    The code of commands that made no video has the count 0.  A cell from before its software was
    kept counts for the run's first command.
    """
    first, *later = [(job.commit, job.dirty) for job in run.jobs]
    done = (c.made for c in cells if c.outcome == "done")
    found: Counter[Code] = Counter((m.commit, m.dirty) if m else first for m in done)
    for code in (first, *later):
        found.setdefault(code, 0)
    return found


def code_name(code: Code, digits: int = 40) -> str:
    """Return the code's name, as in `0123456789ab (dirty)`."""
    commit, dirty = code
    return f"{commit[:digits]}{' (dirty)' if dirty else ''}" if commit else "unknown"


def code_names(run: RunRecord, cells: Iterable[CellRecord]) -> str:
    """Return all of the code's names, each in full."""
    return ", ".join(map(code_name, code_of(run, cells)))


def commits(run: RunRecord, cells: Iterable[CellRecord]) -> str:
    """Return the commits behind a report.

    As in `commit 0123456789ab (dirty)` or `commits 0123456789ab: 4 videos, ba9876543210: 2 videos`.
    """
    found = code_of(run, cells)
    if len(found) == 1:
        return f"commit {code_name(next(iter(found)), 12)}"
    counted = [f"{code_name(code, 12)}: {n} video{'s' * (n != 1)}" for code, n in found.items()]
    return f"commits {', '.join(counted)}"


def versions(run: RunRecord, cells: Iterable[CellRecord]) -> dict[str, str]:
    """Return every package with all its versions among a run's commands and cells.

    As in `{"torch": "2.9.0", "numpy": "2.3.1 and 2.4.0"}`.
    """
    found: dict[str, dict[str, None]] = {}
    of_cells = {id(c.made): c.made for c in cells if c.made}.values()
    for software in (*run.jobs, *of_cells):
        for name, version in software.packages.items():
            found.setdefault(name, {})[version] = None
    return {name: " and ".join(several) for name, several in found.items()}


def seeding(run: RunRecord) -> str:
    """How the suite seeds the noise; empty where by the seed's number alone."""
    suite = run.resolved.get("suite")
    asked = suite.get("seeding") if isinstance(suite, Mapping) else None
    how = Seeding(**asked) if isinstance(asked, Mapping) else Seeding()
    return "" if how.is_plain else f", noise seeds {how.said} (i: prompt, j: seed)"


def own(run: RunRecord) -> list[str]:
    """What methods have in the place of their family's: whose weights, which sampler; a line for each.

    >>> weights = {"source": "a/b", "revision": "0123456789" * 4}
    >>> segment = {"denoiser": {"model": "large", "weights": weights}}
    >>> _own([segment], {"solver": "euler", "timesteps": [1000, 500]})
    ['large: a/b at 0123456', 'sampler: euler at timesteps 1000, 500']
    """
    said = [(m.label, _own(m.path, m.sampler)) for m in run.methods]
    return [f"{label} – {'; '.join(parts)}" for label, parts in said if parts]


def _own(path: Sequence[Mapping[str, Any]], sampler: Mapping[str, Any] | None) -> list[str]:
    denoisers = [segment.get("denoiser") or {} for segment in path]
    parts = [f"{d.get('model')}: {OwnWeights(**d['weights']).said}" for d in denoisers if d.get("weights")]
    return [*dict.fromkeys(parts), *([f"sampler: {Sampling(**sampler).said}"] if sampler else [])]


def below(table: Sequence[Row], mark: str = "*", short_counts: bool = False) -> list[str]:
    """How to read the table: means and errors, the mark of the best, and every heading.

    mark: what shows the best.  short_counts: evaluations stand in one column.
    """
    values = [v for row in table for v in row.values]
    says = _errors(values)
    if any(v.best for v in values):
        says.append(f"{mark}: {BEST}")
    elif max((v.clusters for v in values), default=0) < FEWEST_TO_RANK:
        says.append(f"the best is not marked: fewer than {FEWEST_TO_RANK} prompts tell hardly any two apart")
    says += [SCALE_ROWS] if any(row.is_scale for row in table) else []
    return [*says, *headings(table, short_counts)]


def _errors(values: Sequence[Value]) -> list[str]:
    why = [reason for reason in dict.fromkeys(v.no_error for v in values) if reason]
    if not any(v.standard_error is not None for v in values):
        return ["mean over seeds", *(f"no ±: {reason}" for reason in why)]
    says = ["mean over prompts ± its standard error over prompts (seeds repeat inside a prompt)"]
    if any(v.column.kind == "total" and v.standard_error is not None for v in values):
        says.append("quality, semantic and total: ± and intervals by cluster bootstrap over prompts")
    return [*says, *(f"no ± somewhere: {reason}" for reason in why)]


def headings(table: Sequence[Row], short_counts: bool = False) -> list[str]:
    """What the columns' headings mean."""
    columns = [v.column for v in table[0].values]
    of = {
        kind: list(dict.fromkeys(c.whole_note for c in columns if c.kind == kind and c.whole_note))
        for kind in ("total", "difference", "similarity", "dimension")
    }
    joined = ["; ".join(notes) for notes in (of["similarity"], of["dimension"]) if notes]
    cost = [c for c in columns if c.kind == "cost"]
    counts = [c for c in cost if c.key.startswith(EVALUATIONS)]
    says = [*of["total"], *of["difference"], *joined]
    for column in cost:
        if column in counts and short_counts:
            says += [counts_note([c.key.removeprefix(EVALUATIONS) for c in counts])] * (column is counts[0])
        elif column.whole_note:
            says.append(column.whole_note)
    return says


def counts_heading(names: Iterable[str]) -> str:
    """As in `evals L/S/reused`."""
    return f"evals {'/'.join({'large': 'L', 'small': 'S'}.get(n, n) for n in names)}"


def counts_note(names: Sequence[str]) -> str:
    """What the one column with all counts means."""
    models = [f"the {n} model" for n in names if n != "reused"]
    words = ", by ".join(models)
    return (
        f"{counts_heading(names)}: model evaluations a video, computed by {words}, and taken from an "
        "accelerator's cache (a guided step is two)"
    )
