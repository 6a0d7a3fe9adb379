"""What a run's records say, in sentences: the beginning of its page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from srbench.analysis.table import due
from srbench.analysis.values import Row, fixed
from srbench.errors import counted
from srbench.report import legend, printed
from srbench.report.figures import Method, methods
from srbench.store.records import CellRecord, Outcome, RunRecord

SIMILAR = {"psnr": (30.0, 25.0, 20.0), "ssim": (0.9, 0.8, 0.7)}  # lines the verdict may name, best first
POINTS = 0.3  # a stricter margin of a total, named with half the large–small gap
POOLED = (
    "No method is named as the fastest: the speedups rest on step times of several jobs. "
    "Run the same command with timing=exclusive to time all methods in one job."
)
FEW_PROMPTS = 8  # below it, intervals are wide and their cover rests on the t distribution alone


def verdicts(run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row]) -> list[str]:
    """What the records say, in plain sentences, the most needed first; nothing beyond them."""
    found = methods(run, cells, table)
    said = [_done(run, cells, found), *_kept(table), *_fastest(found)]
    said += [] if run.source == "imported" else _alone(found)  # whose videos may be of any models
    clusters = max((v.clusters for row in table for v in row.values), default=0)
    if 0 < clusters < FEW_PROMPTS:
        said.append(f"Only {counted(clusters, 'prompt')}: intervals are wide, and differences may be chance.")
    if run.timing == "shared" and any(c.step_seconds for c in cells):
        said.append("Latencies and speedups are estimates (est.): step times come from a shared run.")
    return said


def _done(run: RunRecord, cells: Sequence[CellRecord], found: Sequence[Method]) -> str:
    videos: dict[tuple[str, int, int], Outcome] = {}
    for cell in sorted(cells, key=lambda c: c.outcome == "done"):  # one that is done outdoes another try
        videos[cell.method_id, cell.prompt_index, cell.seed] = cell.outcome
    planned = max(len(found) * len(due(run, cells)), len(videos))
    outcomes = Counter(videos.values())
    outcomes["missing"] += planned - len(videos)
    rest = [f"{n:,} {outcome}" for outcome, n in outcomes.items() if outcome != "done" and n]
    return (
        f"{outcomes['done']:,} of {counted(planned, 'cell')} done"
        f"{': ' + ', '.join(rest) if rest else ''} "
        f"({counted(len(found), 'method')}, {legend.extent(run)})."
    )


def _kept(table: Sequence[Row]) -> list[str]:
    """Who keeps the large model's total: the interval's lower end above −half the large–small gap."""
    said = []
    columns = [v.column for v in table[0].values if v.column.key.endswith("/total_difference")]
    for column in columns:
        known = [(row, row[column.key]) for row in table if row[column.key].low is not None]
        gaps = [value for row, value in known if row.role == "small"]
        what = column.heading.removeprefix("Δ ").capitalize()
        if not gaps:
            continue
        if any(value.high is None or value.high >= 0 for value in gaps):
            said.append(
                f"{what}: large and small can't be told apart, so who keeps the large one's can't either."
            )
            continue
        margin = -max(value.value or 0.0 for value in gaps) / 2
        rivals = [(row, value) for row, value in known if row.role != "small"]
        kept = [row.label for row, value in rivals if value.low is not None and value.low > -margin]
        strict = [row.label for row, value in rivals if value.low is not None and value.low > -POINTS]
        said.append(
            f"{what} not worse than large's by {margin:.1f} points (half the large–small gap): "
            f"{'; '.join(kept) or 'none'}. By {POINTS:g} points: {'; '.join(strict) or 'none'}."
        )
    return said


def _fastest(found: Sequence[Method]) -> list[str]:
    """The fastest method above the highest line that one reaches, for the first metric with lines."""
    rivals = [m for m in found if m.role not in ("reference", "scale") and _number(m, "speedup") is not None]
    for column in (v.column for v in found[0].row.values):
        lines = SIMILAR.get(column.key.partition("/")[0], ())
        for line in lines:
            over = [m for m in rivals if (_number(m, column.key) or -math.inf) >= line]
            if any(m.row["speedup"].pooled for m in over):
                return [POOLED]
            if over:
                best = max(over, key=lambda m: _number(m, "speedup") or 0.0)
                at_least = f"{line:g} {column.unit}".rstrip()
                speedup, likeness = (_said(found, best, key) for key in ("speedup", column.key))
                return [
                    f"Fastest of the {counted(len(over), 'method')} with a mean {column.heading} of at "
                    f"least {at_least} to the reference: {best.row.label}, {speedup} at {likeness}. "
                    "That line is this page's, not a limit of what one sees."
                ]
        if lines and any(_number(m, column.key) is not None for m in rivals):
            return [
                f"No method with a speedup reaches a mean {column.heading} of {lines[-1]:g} "
                f"{column.unit}".rstrip()
                + " to the reference."
            ]
    return []


def _number(method: Method, key: str) -> float | None:
    return next((v.value for v in method.row.values if v.column.key == key), None)


def _is_pooled(method: Method) -> bool:
    return any(v.pooled for v in method.row.values if v.column.key == "speedup")


def _said(found: Sequence[Method], method: Method, key: str) -> str:
    """A method's number with as many digits as in the table, as in `1.19× (est.)`."""
    rows = [m.row for m in found]
    column = method.row[key].column
    number = fixed(method.row[key].value, printed.digits_of(rows, [row[key] for row in rows]))
    number = f"{number}{'' if column.unit == '×' else ' '}{column.unit}".strip()
    return f"{number} (est.)" if column.estimated else number


def _alone(found: Sequence[Method]) -> list[str]:
    """The two rivals that every method must beat, or that they are lacking."""
    said = []
    for who, words in (("small", "The small model alone"), ("fewer", "The large model with fewer steps")):
        for method in (m for m in found if m.role == who):
            columns = [v.column for v in method.row.values]
            keys = [] if _is_pooled(method) else ["speedup"]
            keys += [c.key for c in columns if c.kind in ("similarity", "total")]
            numbers = [
                f"{method.row[k].column.heading} {_said(found, method, k)}"
                for k in keys
                if _number(method, k)
            ]
            name = words if method.row.label == who else f"{words} ({method.row.label})"
            said.append(f"{name}: {', '.join(numbers) or 'no numbers'}.")
        if not any(m.role == who for m in found):
            said.append(f"{words} is not in this run, so what others gain over it can't be told.")
    return said
