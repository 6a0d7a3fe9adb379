"""Two runs of the same methods: what changed between them, and what that did to the numbers.

Every method's videos in B against its own in A, paired by prompt and seed, prompts as
clusters. With --margin it is a gate for continuous integration: exit 1 where a number got
worse by more than was allowed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srbench.analysis import paired, reading, statistics, table, totals
from srbench.analysis.paired import Bench, find_column, find_method
from srbench.analysis.quantities import GIVEN_ONCE, Contender, Gap, Key, Measured, Quantity, numbers
from srbench.analysis.values import DASH, Column, fixed
from srbench.errors import EXIT_FAILED_CELLS, EXIT_USER, Parser, UserError, except_hook, finish
from srbench.report import legend
from srbench.report.changes import Change, changes
from srbench.report.terminal import RULED
from srbench.store.records import CellRecord, RunRecord

Verdict = Literal["", "holds", "not shown", "worse", "cannot be told"]
FAILS: tuple[Verdict, ...] = ("worse", "cannot be told")
TIMES = ("latency", "speedup")  # of one device and software, or of no meaning side by side
MARK = "‡"
SAME_TIMES = (
    "no interval: by each prompt's own step times the difference is the same for all prompts, as where both "
    "runs took the same videos from one store, so nothing tells how it varies"
)
MOST_SHOWN = 24  # changed fields in the text; CSV's and JSON's readers get all


# Which methods and videos are compared


@dataclass(frozen=True, eq=False)
class Match:
    """Two runs on common numbers of prompts, and what of them has a partner.

    alone: sentences on the methods, prompts and seeds, and metrics that one of them alone has.
    """

    a: Bench
    b: Bench
    pairs: tuple[tuple[Contender, Contender], ...]
    alone: tuple[str, ...]


def match(a: tuple[RunRecord, list[CellRecord]], b: tuple[RunRecord, list[CellRecord]]) -> Match:
    """Methods by their path, else by a label or name that is one's own; videos by prompt and seed.

    Raises UserError where the runs share no method or no video.
    """
    place = {p: i for i, p in enumerate(dict.fromkeys([*_prompts(*a).values(), *_prompts(*b).values()]))}
    benches = [_placed(*run, place) for run in (a, b)]
    keys = tuple(k for k in benches[0].keys if k in set(benches[1].keys))
    pairs = _pairs(benches[0].methods, benches[1].methods)
    if not keys or not pairs:
        raise UserError(
            f"{a[0].run} and {b[0].run}: no {'method' if keys else 'prompt and seed'} in common",
            "two runs of the same methods, prompts and seeds, or some of them",
            "compare runs of one experiment",
        )
    alone = []
    for i, (name, of) in enumerate(zip("AB", benches, strict=True)):
        lonely = [m.label for m in of.methods if m not in [p[i] for p in pairs]]
        alone += [f"only in {name}: {'; '.join(lonely)}"] if lonely else []
        extra = len(of.keys) - len(keys)
        alone += [f"only in {name}: {extra} of its {len(of.keys)} prompts × seeds"] if extra else []
        alone += _scored_alone(name, of, benches[1 - i])
    one, other = (replace(of, keys=keys) for of in benches)
    return Match(one, other, tuple(pairs), tuple(alone))


def _scored_alone(name: str, of: Bench, other: Bench) -> list[str]:
    """As in `B also scored lpips/alex-spatial, shapes (12 dimensions)`; empty where nothing is to be told."""
    extra = [f for f in of.facts.values() if f.name not in other.facts]
    if not extra:
        return []
    said = [f.name for f in extra if f.group == "similarity"]
    suites = Counter(f.name.partition("/")[0] for f in extra if f.group != "similarity")
    said += [f"{suite} ({n} dimension{'s' * (n != 1)})" for suite, n in suites.items()]
    shared = suites.keys() & {f.name.partition("/")[0] for f, _ in other.dimensions}
    about = "; totals here are over the dimensions that both have" if shared else ""
    return [f"{name} also scored {', '.join(said)}{about}"]


def _prompts(run: RunRecord, cells: Iterable[CellRecord]) -> dict[int, str]:
    return dict(enumerate(run.prompts)) | {c.prompt_index: c.prompt for c in cells}


def _placed(run: RunRecord, cells: Sequence[CellRecord], place: Mapping[str, int]) -> Bench:
    """The run with its prompts numbered as `place` says."""
    numbered = {i: place[p] for i, p in _prompts(run, cells).items()}
    keys = tuple((numbered[i], seed) for i, seed in table.due(run, cells))
    if any(i != n for i, n in numbered.items()):
        cells = [c.model_copy(update={"prompt_index": numbered[c.prompt_index]}) for c in cells]
    return replace(paired.bench(run, cells), keys=keys)


def _pairs(a: Sequence[Contender], b: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    """In B's order."""
    found: dict[int, Contender] = {}
    for name in ("method_id", "label", "method"):
        left_a = [m for m in a if m not in found.values()]
        left_b = [m for m in b if id(m) not in found]
        for other in left_b:
            same = [m for m in left_a if getattr(m, name) == getattr(other, name)]
            rivals = [m for m in left_b if getattr(m, name) == getattr(other, name)]
            if len(same) == len(rivals) == 1:
                found[id(other)] = same[0]
    return [(found[id(m)], m) for m in b if id(m) in found]


# Differences


@dataclass(frozen=True)
class Row:
    """One method's column in both runs, over the videos that both have.

    a, b: means.  difference: b − a with its 95 % interval [low, high], None with the reason
    where there is none.  n, clusters: videos and prompts behind it.  lacking: videos that
    one of the runs should have had and has no number of.  across: of two protocols.
    margin: how much worse is allowed, None where nobody said.
    """

    method: str
    label: str
    column: str
    heading: str
    unit: str
    higher_is_better: bool | None
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    reason: str = ""
    lacking: int = 0
    across: bool = False
    margin: float | None = None
    verdict: Verdict = ""

    @property
    def worsening(self) -> tuple[float, float] | None:
        """By how much B is worse, and by how much it may be; None where neither can be told."""
        if self.difference is None or self.higher_is_better is None:
            return None
        if self.higher_is_better:
            return -self.difference, -self.difference if self.low is None else -self.low
        return self.difference, self.difference if self.high is None else self.high


def rows(found: Match, chosen: Sequence[str], across: Mapping[str, bool]) -> list[Row]:
    """Of every pair of methods, the columns that apply to both.

    chosen: columns' keys.  across: those whose numbers are of two protocols.
    """
    made = []
    for a, b in found.pairs:
        of_totals = _totals(found, a, b, chosen)
        for key in chosen:
            row = of_totals.get(key) or _row(found, a, b, key)
            if row is not None:
                made.append(replace(row, across=across.get(key, False)))
    return made


def _row(found: Match, a: Contender, b: Contender, key: str) -> Row | None:
    """Of a quantity; None where it doesn't apply to one of the two."""
    sides = [of.quantities.get(key) for of in (found.a, found.b)]
    if None in sides or any(q.word_of(m) for q, m in zip(sides, (a, b), strict=True) if q):
        return None
    of_a, of_b = (q for q in sides if q)
    measured = (of_a.of(a, found.a.keys), of_b.of(b, found.b.keys))
    known = [numbers(m) for m in measured]
    both = [k for k in known[0] if k in known[1]]
    lacking, reason = _lacking(measured)
    row = Row(
        **_about(b, of_b.column), a=None, b=None, difference=None, low=None, high=None, n=len(both),
        clusters=len({k[0] for k in both}), reason=reason, lacking=lacking,
    )  # fmt: skip
    if not any(known):
        return None  # neither has any, as a CPU has no peak memory
    if not both:
        return replace(row, reason=reason or "no video has a number in both")
    varied = (of_a.varied_of(a, found.a.keys), of_b.varied_of(b, found.b.keys))
    known_of, varied_of = (
        _sides(found, (a, b), (of_a, of_b), m, both, is_varied=m is varied) for m in (measured, varied)
    )
    return _filled(row, of_b, known_of, varied_of, both)


def _about(method: Contender, column: Column) -> dict[str, Any]:
    return {
        "method": method.method,
        "label": method.label,
        "column": column.key,
        "heading": column.heading,
        "unit": column.marked_unit,
        "higher_is_better": column.higher_is_better,
    }


def _lacking(measured: Sequence[Measured]) -> tuple[int, str]:
    """How many videos one of the runs lacks a number of that it should have, and the first reasons."""
    gone = [{k for k, v in m.items() if isinstance(v, Gap) and v.outcome != "done"} for m in measured]
    told = [f"{name}: {table.gaps(m)[1]}" for name, m, g in zip("AB", measured, gone, strict=True) if g]
    return len(gone[0] | gone[1]), "; ".join(told)


Side = tuple[list[float], list[float]]  # numerators and denominators, of each video that both runs have


def _sides(
    found: Match,
    methods: tuple[Contender, Contender],
    asked: tuple[Quantity, Quantity],
    measured: tuple[Measured, Measured],
    both: Sequence[Key],
    is_varied: bool,
) -> tuple[Side, Side]:
    """What the mean of each run is the ratio of; is_varied: as errors are taken from it."""
    made = []
    for of, method, quantity, own in zip((found.a, found.b), methods, asked, measured, strict=True):
        known = numbers(own)
        if quantity.summary == "ratio":
            reference = next((m for m in of.methods if m.is_reference), None)
            of_reference = quantity.varied_of if is_varied else quantity.of
            base = numbers(of_reference(reference, of.keys)) if reference else {}
            made.append(([base.get(k, math.nan) for k in both], [known.get(k, math.nan) for k in both]))
        elif quantity.summary == "videos":
            counts = list(quantity.counts(method, {k: own[k] for k in both}).values())
            made.append(([known[k] * c for k, c in zip(both, counts, strict=True)], counts))
        else:
            made.append(([known.get(k, math.nan) for k in both], [1.0] * len(both)))
    return made[0], made[1]


def _filled(
    row: Row, quantity: Quantity, sides: tuple[Side, Side], varied: tuple[Side, Side], both: Sequence[Key]
) -> Row:
    """The row with its numbers, the interval's width taken from `varied`."""
    (n_a, _), (n_b, _) = sides
    if quantity.summary == "most":
        return replace(row, a=max(n_a), b=max(n_b), difference=max(n_b) - max(n_a))
    if not all(map(math.isfinite, (*n_a, *n_b))):
        return replace(row, reason="the reference lacks some of the latencies")
    prompts = [k[0] for k in both]
    if not all(math.isfinite(x) for side in varied for own in side for x in own):
        a, b = (statistics.ratio_of_means(*side, prompts).mean for side in sides)
        reason = "; ".join(r for r in (row.reason, GIVEN_ONCE.reason) if r)
        return replace(row, a=a, b=b, difference=None if a is None or b is None else b - a, reason=reason)
    if quantity.summary == "videos":  # sums, not means, over a prompt's videos: each video weighs the same
        sides, varied = _by_prompt(sides, prompts), _by_prompt(varied, prompts)
        prompts = list(dict.fromkeys(prompts))
    a, b = (statistics.ratio_of_means(*side, prompts).mean for side in sides)
    told = statistics.difference_of_ratios(varied[1], varied[0], prompts)
    reason = "; ".join(r for r in (row.reason, told.estimate.reason) if r)
    row = replace(row, a=a, b=b, reason=reason)
    if a is None or b is None or told.estimate.mean is None:
        return row
    difference = b - a
    if told.low is None or told.high is None:
        return replace(row, difference=difference)
    if quantity.varied and difference and told.high - told.low <= 1e-9 * abs(difference):
        return replace(row, difference=difference, reason="; ".join(r for r in (reason, SAME_TIMES) if r))
    low, high = (difference + end - told.estimate.mean for end in (told.low, told.high))
    return replace(row, difference=difference, low=low, high=high)


def _by_prompt(sides: tuple[Side, Side], prompts: Sequence[int]) -> tuple[Side, Side]:
    (n_a, d_a), (n_b, d_b) = (tuple(list(_summed(v, prompts).values()) for v in side) for side in sides)
    return (n_a, d_a), (n_b, d_b)


def _summed(values: Sequence[float], prompts: Sequence[int]) -> dict[int, float]:
    sums: dict[int, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        sums.setdefault(prompt, []).append(value)
    return {prompt: math.fsum(vs) for prompt, vs in sums.items()}


def _totals(found: Match, a: Contender, b: Contender, chosen: Sequence[str]) -> dict[str, Row]:
    """Quality, semantic and total by the report's cluster bootstrap, the same draws for both runs."""
    asked = [k for k in chosen if k in found.a.totals and k in found.b.totals]
    if not asked or "scale" in (a.role, b.role):
        return {}
    other = {f.name: q for f, q in found.b.dimensions}
    shared = [
        (f, (q.of(a, found.a.keys), other[f.name].of(b, found.b.keys)), (q, other[f.name]))
        for f, q in found.a.dimensions
        if f.name in other
    ]
    made: list[totals.Dimension] = []
    lacking: dict[str, tuple[int, str]] = {}
    for facts, (x, y), (of_x, of_y) in shared:
        known = numbers(y)
        both = [k for k in numbers(x) if k in known]
        counts = [q.counts(m, {k: own[k] for k in both}) for q, m, own in ((of_x, a, x), (of_y, b, y))]
        made.append(
            totals.Dimension(facts, ({k: x[k] for k in both}, {k: y[k] for k in both}), tuple(counts))
        )
        lacking[facts.name] = _lacking((x, y))
    columns = totals.columns(
        (replace(a, role="reference"), replace(b, role="other")), made, lambda column, m: ["", ""], table.gaps
    )
    by_key = {values[0].column.key: values for values in columns}
    rows = {}
    for key in asked:
        if key not in by_key:
            continue
        (of_a, of_b), delta = by_key[key], by_key[f"{key}_difference"][1]
        own = [lacking[f.name] for f, _ in found.a.totals[key] if f.name in lacking]
        reasons = [max(own)[1]] if own and max(own)[0] else []  # of the dimension that lacks most
        reasons += [r for r in (of_a.reason, of_b.reason, delta.no_error) if r]
        rows[key] = Row(
            **_about(b, of_b.column), a=of_a.value, b=of_b.value, difference=delta.value, low=delta.low,
            high=delta.high, n=of_b.n, clusters=of_b.clusters, reason="; ".join(dict.fromkeys(reasons)),
            lacking=max((n for n, _ in own), default=0),
        )  # fmt: skip
    return rows


# The gate


def judged(found: Sequence[Row], margins: Mapping[str, float]) -> list[Row]:
    """The rows with margins and verdicts; rows of other columns stay as they are.

    worse: B is worse by more than the margin.  holds: even the worse end of the interval is
    within it.  not shown: in between.  cannot be told: no difference.
    """
    return [
        replace(r, margin=margins.get(r.column), verdict=_verdict(r, margins.get(r.column))) for r in found
    ]


def _verdict(row: Row, margin: float | None) -> Verdict:
    if margin is None:
        return ""
    worse = row.worsening
    if worse is None or (row.low is None and row.reason):
        return "cannot be told" if worse is None or worse[0] <= margin else "worse"
    return "worse" if worse[0] > margin else "holds" if worse[1] <= margin else "not shown"


def margins(asked: Sequence[str], known: Mapping[str, bool | None]) -> dict[str, float]:
    """`psnr=0.5` as {column: 0.5}.  known: columns and whether more is better.

    Raises UserError for anything else, an unknown column, or one in which neither way is worse.
    """
    found = {}
    for text in asked:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (0 <= value < math.inf):
            raise UserError(
                f"--margin {text}", "COLUMN=NUMBER, the number 0 or more", "as in --margin psnr=0.5"
            )
        key = find_column(name, known)
        if known[key] is None:
            raise UserError(
                f"--margin {text}", "a column in which more or less is worse", "name another column"
            )
        found[key] = value
    return found


# What is printed


def as_text(found: Match, changed: Sequence[Change], told: Sequence[Row], notes: Sequence[str]) -> list[Any]:
    """Lines and a table, in the order in which they are read."""
    lines: list[Any] = [f"A {_title(found.a)}", f"B {_title(found.b)}", ""]
    lines += [_change(c) for c in changed[:MOST_SHOWN]] or ["no field of the records differs"]
    lines += [f"… and {len(changed) - MOST_SHOWN} more"] if len(changed) > MOST_SHOWN else []
    lines += [
        *found.alone,
        f"compared on {len(found.a.keys)} prompts × seeds that both have",
        "",
    ]
    return [*lines, _table(told), "", *notes]


def _title(of: Bench) -> str:
    run, commits = of.run, legend.commits(of.run, of.cells)
    return f"{run.experiment} · run {run.run} · {commits} · protocol {run.protocol[:12]} · {run.device}"


def _plain_title(of: Bench) -> dict[str, str]:
    commit = legend.code_names(of.run, of.cells)
    return {"run": of.run.run, "protocol": of.run.protocol, "commit": commit}


def _change(change: Change) -> str:
    kind = {"protocol": "protocol", "time": "times", "other": "also"}[change.kind]
    a, b = (DASH if v is None else v if len(v) <= 60 else f"{v[:59]}…" for v in (change.a, change.b))
    return f"{kind}: {change.field}: {a} → {b}"


def _table(told: Sequence[Row]) -> Table:
    made = Table(box=RULED, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    made.add_column(Text("method, column"), overflow="fold")
    for title in ("A", "B", "B − A [95 %]"):
        made.add_column(Text(title), justify="right", no_wrap=True)
    judged_at_all = any(r.verdict for r in told)
    if judged_at_all:
        made.add_column(Text("margin"), justify="right", no_wrap=True)
        made.add_column(Text("verdict"), overflow="fold")
    before = ""
    for row in told:
        if row.label != before:
            made.add_row(Text(row.label))
        cells = [f"  {_heading(row)}", *_numbers(row)]
        cells += [f"{row.margin:g}" if row.margin is not None else "", row.verdict] if judged_at_all else []
        made.add_row(*map(Text, cells))
        before = row.label
    return made


def _heading(row: Row) -> str:
    arrow = {None: "", True: "↑", False: "↓"}[row.higher_is_better]
    marks = MARK * row.across + "†" * bool(row.lacking)
    return " ".join(part for part in (row.heading, arrow, row.unit) if part) + marks


def _numbers(row: Row) -> tuple[str, str, str]:
    ends = [v for v in (row.low, row.high) if v is not None]
    width = (row.high or 0.0) - (row.low or 0.0) if ends else abs(row.difference or 0.0)
    # four digits of a number that is exactly known, two of what isn't
    size, kept = (abs(row.b or 1.0), 3) if width == 0 else (width / 2, 1)
    digits = max(0, min(6, kept - math.floor(math.log10(size))))
    a, b, apart = (fixed(v, digits) for v in (row.a, row.b, row.difference))
    if not row.difference and not width and row.difference is not None:
        return a, b, "equal"
    return a, b, f"{apart} [{fixed(row.low, digits)}, {fixed(row.high, digits)}]" if ends else apart


def as_csv(told: Sequence[Row]) -> str:
    """A line a row, numbers with all their digits, empty for nothing."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    for row in told:
        writer.writerow({k: str(v).lower() if isinstance(v, bool) else v for k, v in asdict(row).items()})
    return out.getvalue()


def as_json(
    found: Match, changed: Sequence[Change], told: Sequence[Row], notes: Sequence[str], passed: bool | None
) -> str:
    """Everything, one object; `passed` is null where no margin was stated."""
    whole = {
        "a": _plain_title(found.a),
        "b": _plain_title(found.b),
        "passed": passed,
        "changes": [asdict(c) for c in changed],
        "alone": list(found.alone),
        "rows": [asdict(r) for r in told],
        "notes": [note for note in notes if note],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)


# The command


def _parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="srbench compare",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "a", metavar="RUN_A", type=Path, help="the baseline, a folder results/<experiment>/<run>"
    )
    made.add_argument("b", metavar="RUN_B", type=Path, help="the candidate, which may have become worse")
    made.add_argument(
        "--method",
        nargs="+",
        help="compare these alone, by name or label in B (else all that both runs have)",
    )
    made.add_argument(
        "--column", nargs="+",
        help="these columns, as psnr, total, latency; a suite's dimensions and counts of evaluations too "
        "(else those with a margin; without margins totals, similarity and cost)",
    )  # fmt: skip
    made.add_argument(
        "--margin", action="append", default=[], metavar="COLUMN=NUMBER",
        help="how much worse B may be, 0 or more, in the column's unit (totals: points); may be repeated",
    )  # fmt: skip
    made.add_argument(
        "--strict", action="store_true",
        help="with --margin: also fail where the 95 %% interval reaches past it, or videos lack the number",
    )  # fmt: skip
    made.add_argument(
        "--across", action="store_true",
        help="compare although protocols or devices differ; every row concerned is marked",
    )  # fmt: skip
    made.add_argument("--format", choices=["text", "csv", "json"], default="text")
    return made


EPILOG = """\
a margin's verdicts, for every method that has the column:
  holds           B is no worse than the margin, its whole 95 % interval with it
  not shown       B's mean is no worse than the margin, but the interval reaches past it (fails with --strict)
  worse           B's mean is worse by more than the margin (fails)
  cannot be told  there is no difference, as where no video has the number in both (fails)
exit code: 0 within the margins, or none were stated; 1 past a margin, or B lacks a method of A;
  2 a mistake in the command, or two runs that cannot be compared (told on stderr in three lines)
example:
  srbench compare results/nightly/monday results/nightly/tuesday --margin psnr=0.5 --margin total=1
"""


def compare(args: argparse.Namespace, console: Console) -> int:
    """Print the comparison; 1 past a margin, else 0.  Raises UserError where there is none."""
    found = match(*(reading.read(run) for run in (args.a, args.b)))
    changed = changes(found.a, found.b, found.pairs)
    known = _columns(found)
    allowed = margins(args.margin, known)
    chosen = [find_column(name, known) for name in args.column or ()]
    chosen += [key for key in allowed if key not in chosen]
    chosen = chosen or _usual(known, found)
    _refuse(changed, chosen, allowed, args.across)
    if args.method:
        methods = [find_method(name, found.b.methods) for name in args.method]
        found = replace(found, pairs=tuple(p for p in found.pairs if p[1] in methods))
        _refuse_alone(methods, found)
    told = judged(rows(found, chosen, _across(changed, chosen)), allowed)
    gone = _gone(found, args.method) if allowed else []
    empty = [f"{key}: no video has a number of it" for key in allowed if key not in {r.column for r in told}]
    failed = [*gone, *empty, *_failed(told, args.strict)]
    notes = [*_notes(told, changed, allowed), "", *_outcome(allowed, told, failed)]
    passed = not failed if allowed else None
    if args.format == "csv":
        print(as_csv(told), end="")
    elif args.format == "json":
        print(as_json(found, changed, told, notes, passed))
    else:
        for line in as_text(found, changed, told, notes):
            console.print(Text(line) if isinstance(line, str) else line, highlight=False)
    return EXIT_FAILED_CELLS if failed else 0


def _columns(found: Match) -> dict[str, bool | None]:
    """Those that both runs have, and whether more is better."""
    known: dict[str, bool | None] = {k: True for k in found.a.totals if k in found.b.totals}
    return known | {
        k: q.column.higher_is_better for k, q in found.a.quantities.items() if k in found.b.quantities
    }


def _usual(known: Iterable[str], found: Match) -> list[str]:
    """Totals, similarity and cost; neither single dimensions nor counts of what was computed."""
    single = {f.name for f, _ in found.a.dimensions}
    return [k for k in known if k not in single and not k.startswith(("evaluations_", "modules_"))]


def _refuse(
    changed: Sequence[Change], chosen: Sequence[str], allowed: Mapping[str, float], across: bool
) -> None:
    """Raises UserError where numbers would stand side by side that can't, unless told to."""
    if across:
        return
    of_protocol = [c for c in changed if c.kind == "protocol"]
    if of_protocol:
        raise UserError(
            f"two protocols: {'; '.join(_change(c).partition(': ')[2] for c in of_protocol[:6])}",
            "two runs under one protocol",
            "run again under one of them, or say --across, which marks every row",
        )
    times = [k for k in allowed if k in TIMES]
    if times and any(c.kind == "time" for c in changed):
        listed = "; ".join(_change(c).partition(": ")[2] for c in changed if c.kind == "time")
        raise UserError(
            f"--margin {times[0]} between {listed}",
            "times of one device, software and way of timing",
            "time both on one machine, or say --across",
        )


def _refuse_alone(methods: Sequence[Contender], found: Match) -> None:
    lonely = [m.label for m in methods if m not in [p[1] for p in found.pairs]]
    if lonely:
        raise UserError(f"--method {lonely[0]}", "a method that both runs have", "leave it out")


def _across(changed: Sequence[Change], chosen: Sequence[str]) -> dict[str, bool]:
    """Which columns' numbers are of two protocols; times also where device or timing differ.

    A metric's own definition concerns its column alone, and its suite's totals.
    """
    of_protocol = [c.field for c in changed if c.kind == "protocol"]
    protocol = any(not field.startswith("metric.") for field in of_protocol)
    names = [field.removeprefix("metric.") for field in of_protocol if field.startswith("metric.")]
    times = any(c.kind == "time" for c in changed)

    def concerned(key: str) -> bool:
        suite, _, name = key.partition("/")
        is_total = name in (*totals.GROUPS, "total")
        return any(n.startswith(f"{suite}/" if is_total else f"{key}.") for n in names)

    return {k: protocol or concerned(k) or (times and k in TIMES) for k in chosen}


def _gone(found: Match, asked: Sequence[str] | None) -> list[str]:
    """Rivals of A that B lacks: a gate must not open because a number went away."""
    if asked:
        return []
    kept = [p[0] for p in found.pairs]
    return [f"{m.label}: not in B" for m in found.a.methods if m not in kept and m.role != "scale"]


def _failed(told: Sequence[Row], strict: bool) -> list[str]:
    fails = (*FAILS, "not shown") if strict else FAILS
    return [
        f"{r.label}, {r.heading}: {_how(r) if r.verdict in fails else f'{r.lacking} videos lack it'}"
        for r in told
        if r.margin is not None and (r.verdict in fails or (strict and r.lacking))
    ]


def _how(row: Row) -> str:
    """As in `worse: −0.55 [−0.58, −0.52] dB, 0.5 allowed`."""
    if row.difference is None:
        return f"{row.verdict}: {row.reason}" if row.reason else row.verdict
    return f"{row.verdict}: {f'{_numbers(row)[2]} {row.unit}'.strip()}, {row.margin:g} allowed"


def _notes(told: Sequence[Row], changed: Sequence[Change], allowed: Mapping[str, float]) -> list[str]:
    notes = [
        "B − A over the same prompts and seeds; 95 % intervals with prompts as clusters, by cluster "
        "bootstrap for quality, semantic and total; each by itself, not adjusted for their number"
    ]
    marked = [r for r in told if r.across]
    if marked:
        which = "protocols" if any(c.kind == "protocol" for c in changed) else "devices, or ways of timing"
        notes.append(f"{MARK} across two {which}: what changed may be that, and no method")
    if any(r.column in TIMES for r in told):
        notes.append(
            "latency and speedup can be compared on one device and software alone; their interval is over "
            "prompts, of a shared run each with the median step times of its own videos: how the machine's "
            "speed changed within such a run is in it, how it differed between the two runs is not"
        )
    concerned: dict[str, list[Row]] = {}
    for row in (r for r in told if r.reason):
        concerned.setdefault(row.reason, []).append(row)
    return notes + [_reason(reason, of) for reason, of in concerned.items()]


def _reason(reason: str, of: Sequence[Row]) -> str:
    """As in `† PSNR, SSIM of small: B: 2 of 24 missing: …`."""
    headings, labels = (dict.fromkeys(getattr(r, name) for r in of) for name in ("heading", "label"))
    return f"{'† ' * any(r.lacking for r in of)}{', '.join(headings)} of {'; '.join(labels)}: {reason}"


def _outcome(allowed: Mapping[str, float], told: Sequence[Row], failed: Sequence[str]) -> list[str]:
    if not allowed:
        return []
    listed = ", ".join(f"{k} {v:g}" for k, v in allowed.items())
    count = sum(r.margin is not None for r in told)
    shown = sum(r.verdict == "holds" for r in told)
    if failed:
        worse = any(r.verdict == "worse" for r in told)
        what = "past the margins" if worse else "though no number is past the margins"
        return [f"FAILED, {what} ({listed}):", *(f"  {line}" for line in failed)]
    return [f"PASSED, within the margins ({listed}): {count} rows, {shown} with their whole interval"]


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 past a margin; 2 after a mistake a user can mend, told in three lines on stderr."""
    args = _parser().parse_args(arguments)
    try:
        return compare(args, Console())
    except UserError as error:
        except_hook(type(error), error, error.__traceback__)
        return EXIT_USER


if __name__ == "__main__":
    finish(main, "nothing is lost")
