"""`srbench power RUN METHOD`: prompts × seeds that a difference takes, from an earlier run.

How much the paired difference of two methods varies between prompts, and inside a prompt
from seed to seed, is taken from the run's own records. More seeds shrink the second part
alone; that is why they can't stand in for prompts.
"""

from __future__ import annotations

import argparse
import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.special import gammaincinv

from srbench.analysis import bootstrap, paired, reading, statistics
from srbench.analysis.paired import Bench, Paired
from srbench.analysis.quantities import Contender, Quantity
from srbench.analysis.statistics import POWER
from srbench.analysis.values import DASH
from srbench.errors import EXIT_USER, Parser, UserError, except_hook, finish
from srbench.report.terminal import RULED

TOTAL = "total"
FEWEST = 4  # prompts; from fewer the spread between them is hardly known
MOST = 100_000  # prompts that are still looked at
PROMPTS, SEEDS = (8, 16, 32, 64, 128, 256, 944), (1, 2, 5)


@dataclass(frozen=True)
class Components:
    """Variances of a paired difference, in its unit squared.

    between: of prompts' true means.  within: of the videos of one prompt, from seed to seed.
    prompts, videos: that they are from.  cut: between came out below 0 and is set to 0.
    """

    between: float
    within: float
    prompts: int
    videos: int
    cut: bool = False

    def standard_error(self, prompts: int, seeds: int) -> float:
        """Of the mean difference over prompts × seeds: √((σ_b² + σ_w² / seeds) / prompts)."""
        return math.sqrt((self.between + self.within / seeds) / prompts)


def components(
    values: Sequence[float], clusters: Sequence[Hashable], strata: Sequence[Hashable] = ()
) -> Components:
    """Unweighted analysis of variance of prompts with seeds inside (Searle et al., Variance Components, 4.3).

        σ_w² = Σ_gs (x_gs − x̄_g)² / Σ_g (n_g − 1),   σ_b² = s²(x̄_g) − σ_w² · mean(1 / n_g)

    values, clusters, strata: (n,), of each video its number, prompt and the prompt's stratum;
    s² is taken inside strata, each weighing as its share of prompts, those of fewer than
    bootstrap.FEWEST prompts as one, as the bootstrap draws them.  Raises UserError for one
    seed, or fewer than FEWEST prompts.
    """
    inside: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        inside[cluster].append(value)
    if len(inside) < FEWEST:
        raise UserError(
            f"{len(inside)} prompt{'s' * (len(inside) != 1)} in common",
            f"{FEWEST} or more, for the spread between prompts",
            "take a run of more prompts: suite.prompts=12",
        )
    repeats = sum(len(v) - 1 for v in inside.values())
    if not repeats:
        raise UserError(
            "one seed of every prompt",
            "two or more, to tell prompts' spread from seeds'",
            "run the same command with suite.seeds=2",
        )
    means = {g: math.fsum(v) / len(v) for g, v in inside.items()}
    within = math.fsum((x - means[g]) ** 2 for g, v in inside.items() for x in v) / repeats
    of = dict(zip(clusters, strata or [""] * len(clusters), strict=True))
    spread = _spread(means, of)
    between = spread - within * math.fsum(1 / len(v) for v in inside.values()) / len(inside)
    return Components(max(0.0, between), within, len(inside), len(values), between < 0)


def _spread(means: dict[Hashable, float], of: dict[Hashable, Hashable]) -> float:
    """Variance of prompt means inside strata."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for cluster, mean in means.items():
        groups[of[cluster]].append(mean)
    large = [g for g in groups.values() if len(g) >= bootstrap.FEWEST]
    rest = [m for g in groups.values() if len(g) < bootstrap.FEWEST for m in g]
    whole = [*large, rest] if len(rest) > 1 else large if large else [rest]
    return sum(len(g) / len(means) * _variance(g) for g in whole)


def _variance(values: Sequence[float]) -> float:
    centre = math.fsum(values) / len(values)
    return math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)


def needed(found: Components, difference: float, seeds: int, wanted: float, fewest: int = 2) -> int | None:
    """The fewest prompts with which a true difference is found this often; None above MOST."""

    def enough(prompts: int) -> bool:
        return statistics.power(difference, found.standard_error(prompts, seeds), prompts) >= wanted

    low, high = fewest - 1, fewest
    while not enough(high):
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# What is printed


@dataclass(frozen=True)
class Question:
    """What is asked of a pair: true differences, the grid, how often they shall be found."""

    differences: tuple[float, ...]
    prompts: tuple[int, ...]
    seeds: tuple[int, ...]
    wanted: float


@dataclass(frozen=True, eq=False)
class Answer:
    """A pair's difference in the run, its variances, and in which unit."""

    title: str
    unit: str
    fewest: int
    found: Components
    difference: float

    def number(self, value: float) -> str:
        """Three significant digits with the unit."""
        return f"{value:.3g} {self.unit}".strip().replace("-", "−")


def answer(of: Bench, method: Contender, against: Contender, column: str) -> Answer:
    """Of one pair and column.  Raises UserError where the run can't say."""
    if column == "peak_memory":
        raise UserError("column peak_memory", "a mean over videos, not a maximum", "name another --column")
    quantity = of.quantities.get(column)
    for one in (method, against):
        if not _has(one, quantity):
            told = quantity.word_of(one) if quantity else None
            others = [m.label for m in of.methods if m not in (method, one) and _has(m, quantity)]
            raise UserError(
                f"{column} of {one.label}: {told[1] if told else 'a scale row has none'}",
                "two methods that have numbers of that column",
                f"--against {shlex.quote(others[0])}"
                if others and one is against
                else "name another method, or --column",
            )
    own: Paired = paired.paired(of, method, against, column)
    is_total = column in of.totals
    unit = "points" if is_total else quantity.column.marked_unit if quantity else ""
    heading = column if quantity is None else quantity.column.heading
    return Answer(
        f"{heading}: {method.label} − {against.label}",
        unit,
        bootstrap.FEWEST if is_total else 2,
        components(own.values, own.clusters, own.strata),
        own.difference,
    )


def _has(method: Contender, quantity: Quantity | None) -> bool:
    """Whether a method has numbers of a column; of a total where there is no quantity."""
    return method.role != "scale" if quantity is None else not quantity.word_of(method)


def show(told: Answer, asked: Question, console: Console) -> None:
    """The variances, then a grid for what can be detected and one for each difference."""
    found, number = told.found, told.number
    low, high = _reach(found.prompts)
    lines = [
        told.title,
        f"in the run: {number(told.difference)} over {found.prompts} prompts and {found.videos} videos; "
        f"standard deviation between prompts {number(math.sqrt(found.between))}, from seed to seed "
        f"{number(math.sqrt(found.within))}",
        f"known from {found.prompts} prompts, the true spread may be {low:.2f} to {high:.2f} times that "
        "(95 %, if normal), and every difference below with it",
    ]
    if found.cut:
        lines.append("the spread between prompts can't be told from that of seeds, and counts as 0")
    _say(console, lines)
    _grid(
        console,
        f"smallest true difference found {asked.wanted:.0%} of the time{_of(told.unit)}",
        asked,
        lambda p, s: _detectable(told, p, s, asked.wanted),
    )
    for difference in asked.differences:
        _grid(
            console,
            f"how often a true difference of {number(difference)} is found",
            asked,
            partial(_found, told, difference),
        )
        prompts = [(needed(found, difference, s, asked.wanted, told.fewest), s) for s in asked.seeds]
        listed = ", ".join(f"{_prompts(p)} × {s} seed{'s' * (s != 1)}" for p, s in prompts)
        _say(console, [f"{number(difference)} takes {listed}, to be found {asked.wanted:.0%} of the time"])
    console.print()


def _of(unit: str) -> str:
    return f", {unit}" if unit else ""


def _prompts(count: int | None) -> str:
    return f"over {MOST:,} prompts" if count is None else f"{count:,} prompts"


def _detectable(told: Answer, prompts: int, seeds: int, wanted: float) -> str:
    if prompts < told.fewest:
        return DASH
    return f"{statistics.detectable(told.found.standard_error(prompts, seeds), prompts, wanted):.3g}"


def _found(told: Answer, difference: float, prompts: int, seeds: int) -> str:
    if prompts < told.fewest:
        return DASH
    power = statistics.power(difference, told.found.standard_error(prompts, seeds), prompts)
    return f"{power:.2f}" if power < 0.995 else ">0.99"


def _reach(prompts: int) -> tuple[float, float]:
    """How far a standard deviation of G normal values may be off: √((G − 1) / χ²), 95 %."""
    half = (prompts - 1) / 2
    low, high = (math.sqrt(half / float(gammaincinv(half, level))) for level in (0.975, 0.025))
    return low, high


def _grid(console: Console, title: str, asked: Question, cell: Callable[[int, int], str]) -> None:
    table = Table(box=RULED, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(Text("prompts"), justify="right")
    for seeds in asked.seeds:
        table.add_column(Text(f"{seeds} seed{'s' * (seeds != 1)}"), justify="right")
    for prompts in asked.prompts:
        table.add_row(f"{prompts:,}", *(cell(prompts, seeds) for seeds in asked.seeds))
    console.print()
    _say(console, [title])
    console.print(table, highlight=False)


def _say(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(Text(line), highlight=False)


# The command


def _parser() -> argparse.ArgumentParser:
    made = Parser(prog="srbench power", description=__doc__)
    made.add_argument("run", type=Path, help="an earlier run's folder, two seeds or more")
    made.add_argument("method", nargs="+", help="name or label")
    made.add_argument("--against", help="the other method of the pair (default: the run's reference)")
    made.add_argument(
        "--column",
        default=TOTAL,
        help="psnr, ssim, lpips, a suite's dimension, quality, semantic, total, …",
    )
    made.add_argument("--difference", nargs="+", type=_above_zero, default=[], help="true ones, in its unit")
    made.add_argument("--prompts", nargs="+", type=_from_two, default=PROMPTS, help="rows of the grid")
    made.add_argument("--seeds", nargs="+", type=_from_one, default=SEEDS, help="columns of the grid")
    made.add_argument("--power", type=_share, default=POWER, help=f"how often it shall be found ({POWER})")
    return made


def _above_zero(text: str) -> float:
    value = abs(_number(text))
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is no number other than 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _from_two(text: str) -> int:
    return _whole(text, 2)


def _from_one(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {MOST:,}")
    return int(text)


def _share(text: str) -> float:
    value = _number(text)
    if not 0.05 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0.05, which chance alone gives, and below 1")
    return value


def power(args: argparse.Namespace, console: Console) -> None:
    """Print the answer for each method.  Raises UserError where there is none."""
    of = paired.bench(*reading.read(args.run))
    if args.column == TOTAL and not of.totals:
        raise UserError(
            "a run without a total",
            "scores that one is made of, as metric shapes has them and VBench; or another column",
            f"name one, as --column {next(iter(of.columns), 'psnr')} (known: {', '.join(of.columns)})",
        )
    column = paired.find_column(args.column, of.columns)
    methods = [paired.find_method(name, of.methods) for name in args.method]
    against = _against(of, args.against)
    asked = Question(tuple(args.difference), tuple(args.prompts), tuple(args.seeds), args.power)
    answers = [answer(of, m, against, column) for m in methods]
    for told in answers:
        show(told, asked, console)
    notes = [
        "two-sided 5 % t test on prompt means, of pairs of the same prompt and seed (noncentral t); the "
        "report's intervals find a little less: at 8 prompts by up to 0.08, at 24 by 0.03, at 60 by 0.01"
    ]
    if column in of.totals:
        notes.append(f"{DASH}: {bootstrap.TOO_FEW}; totals by their linear part, as the bootstrap's error")
    _say(console, notes)


def _against(of: Bench, asked: str | None) -> Contender:
    if asked is not None:
        return paired.find_method(asked, of.methods)
    reference = next((m for m in of.methods if m.is_reference), None)
    if reference is None:
        raise UserError("a run without reference", "another method to compare with", "name it: --against")
    return reference


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after a mistake a user can mend, told in three lines on stderr."""
    args = _parser().parse_args(arguments)
    try:
        power(args, Console())
    except UserError as error:
        except_hook(type(error), error, error.__traceback__)
        return EXIT_USER
    return 0


if __name__ == "__main__":
    finish(main, "nothing is lost")
