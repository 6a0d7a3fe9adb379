"""What methods have of the same videos, found by the names that a person types.

For commands that ask about one column: `power` and `compare`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from srbench.analysis import quantities, table, totals
from srbench.analysis.quantities import Contender, Key, Quantity, numbers
from srbench.analysis.totals import GROUPS, PERCENT, TOTAL_WEIGHTS
from srbench.errors import UserError, did_you_mean
from srbench.store.records import CellRecord, MetricFacts, RunRecord


@dataclass(frozen=True, eq=False)
class Bench:
    """A run's methods, in the rows' order, and what can be measured of them.

    keys: the videos that each should have.  quantities: by their column's key.  dimensions:
    a suite's, in the tables' order, which are among the quantities too.
    facts: of every metric, by name.
    """

    run: RunRecord
    methods: tuple[Contender, ...]
    keys: tuple[Key, ...]
    quantities: Mapping[str, Quantity]
    dimensions: tuple[tuple[MetricFacts, Quantity], ...]
    facts: Mapping[str, MetricFacts]

    @property
    def cells(self) -> list[CellRecord]:
        """The records of all methods."""
        return [c for m in self.methods for c in m.cells.values()]

    @property
    def totals(self) -> dict[str, tuple[tuple[MetricFacts, Quantity], ...]]:
        """By the total's key, as `shapes/total`, the dimensions that it is made of."""
        found: dict[str, tuple[tuple[MetricFacts, Quantity], ...]] = {}
        for suite in dict.fromkeys(totals.suite(f) for f, _ in self.dimensions):
            if not totals.has_totals(self.run, suite):
                continue
            own = tuple((f, q) for f, q in self.dimensions if totals.suite(f) == suite)
            groups = {g: tuple((f, q) for f, q in own if f.group == g) for g in GROUPS}
            found |= {f"{suite}/{g}": members for g, members in groups.items() if members}
            if all(groups.values()):
                found[f"{suite}/total"] = own
        return found

    @property
    def columns(self) -> list[str]:
        """Every column's key, totals first."""
        return [*self.totals, *self.quantities]


def bench(run: RunRecord, cells: Sequence[CellRecord]) -> Bench:
    """Of a run's records.  Raises UserError where there are none, or as report.table.make does."""
    if not cells:
        raise UserError(f"run {run.run}: no cells", "at least one recorded cell", "run the experiment first")
    methods = table.contenders(run, cells)
    rivals = [c for m in methods if m.role != "scale" for c in m.cells.values()]
    scores = quantities.Scores(cells)
    dimensions = quantities.dimensions(scores)
    every = [*quantities.similarity(scores), *(q for _, q in dimensions), *quantities.cost(run, rivals)]
    by_key = {q.column.key: q for q in every}
    return Bench(run, tuple(methods), tuple(table.due(run, cells)), by_key, tuple(dimensions), scores.facts)


# By name


def find_column(asked: str, known: Iterable[str]) -> str:
    """The key of a column: whole, or the part of it before or after a slash, as `ssim` or `total`.

    Raises UserError where there is none, or several.

    >>> find_column("total", ["shapes/quality", "shapes/total", "ssim/gauss11-valid"])
    'shapes/total'
    """
    keys = list(dict.fromkeys(known))
    if asked in keys:
        return asked
    found = [k for k in keys if asked in (k.partition("/")[0], k.rpartition("/")[2])]
    after = [k for k in found if k.rpartition("/")[2] == asked]
    chosen = found if len(found) == 1 else after if len(after) == 1 else []
    if not chosen:
        parts = Counter(p for k in keys for p in {k.partition("/")[0], k.rpartition("/")[2]})
        short = {part for part, count in parts.items() if count == 1} | {*keys}
        do = f"one of {', '.join(found)}" if found else did_you_mean(asked, short)
        raise UserError(f"column {asked!r}", "the name of one column of the run", do)
    return chosen[0]


def find_method(asked: str, methods: Sequence[Contender]) -> Contender:
    """A method by its name, its label or its id.

    Raises UserError where there is none, or where several have that name: then by label.
    """
    for names in (_labels, _names, _ids):
        found = [m for m in methods if asked in names(m)]
        if len(found) == 1:
            return found[0]
        if found:
            labels = "; ".join(m.label for m in found)
            raise UserError(f"method {asked!r}, which {len(found)} have", "one method", f"a label: {labels}")
    known = {name for m in methods for name in (*_labels(m), *_names(m))}
    raise UserError(f"method {asked!r}", "a method of the run, or its label", did_you_mean(asked, known))


def _labels(method: Contender) -> set[str]:
    return {method.label, *method.label.split(" = ")}


def _names(method: Contender) -> set[str]:
    return {method.method}


def _ids(method: Contender) -> set[str]:
    return {method.method_id}


# Differences


@dataclass(frozen=True, eq=False)
class Paired:
    """The difference a − b of one column over the videos that both have a number of.

    difference: in the column's unit.  values: of each video, (n,), what it adds: their mean over
    prompt means is the difference, their spread over prompts its error.  For plain means that is
    a's number minus b's; for what is a ratio or a total, its linear part (the delta method).
    clusters, strata: each video's prompt, and the prompts that are alike in what they are
    measured for; (n,).
    """

    difference: float
    values: tuple[float, ...]
    clusters: tuple[int, ...]
    strata: tuple[Hashable, ...]


def paired(of: Bench, a: Contender, b: Contender, column: str) -> Paired:
    """Of a column other than a maximum, as peak memory is.  Raises UserError where nothing is shared."""
    parts = _parts(of, column)
    known = [tuple(numbers(q.of(m, of.keys)) for m in (a, b)) for _, q, _ in parts]
    varied = [tuple(numbers(q.varied_of(m, of.keys)) for m in (a, b)) for _, q, _ in parts]
    shared = [[k for k in x if k in y] for x, y in known]
    if not all(shared):
        lacking = ", ".join(q.column.key for (_, q, _), keys in zip(parts, shared, strict=True) if not keys)
        raise UserError(
            f"{lacking} of {a.label} and {b.label}: no video has it of both",
            "two methods that are measured on the same videos",
            "name another --against or --column, or score the run first",
        )
    if not all(
        k in spread for pair, keys in zip(varied, shared, strict=True) for spread in pair for k in keys
    ):
        raise UserError(
            f"{column} of {a.label} and {b.label}: {quantities.GIVEN_ONCE.reason}",
            "a number for each video",
            "give each video's own latency, or name another --column",
        )
    whole = sorted({k for keys in shared for k in keys})
    difference, values = 0.0, dict.fromkeys(whole, 0.0)
    for (weight, quantity, scale), pair, its, keys in zip(parts, known, varied, shared, strict=True):
        for sign, method, own, spread in ((1, a, pair[0], its[0]), (-1, b, pair[1], its[1])):
            mean, _ = _linear(quantity, method, {k: own[k] for k in keys}, whole, of)
            _, part = _linear(quantity, method, {k: spread[k] for k in keys}, whole, of, is_varied=True)
            difference += sign * weight * (mean - scale[0]) / (scale[1] - scale[0])
            for key, value in part.items():
                values[key] += sign * weight * value / (scale[1] - scale[0])
    kinds: dict[int, set[int]] = {}
    for i, keys in enumerate(shared):
        for key in keys:
            kinds.setdefault(key[0], set()).add(i)
    return Paired(
        difference,
        tuple(difference + values[k] for k in whole),
        tuple(k[0] for k in whole),
        tuple(tuple(sorted(kinds[k[0]])) for k in whole),
    )


Part = tuple[float, Quantity, tuple[float, float]]  # weight, what, the scale that becomes 0 to 1


def _parts(of: Bench, column: str) -> list[Part]:
    """What a column is the weighted sum of."""
    if column not in of.totals:
        return [(1.0, of.quantities[column], (0.0, 1.0))]
    members = of.totals[column]
    whole = {g: math.fsum(f.weight for f, _ in members if f.group == g) for g in GROUPS}
    groups = {g: TOTAL_WEIGHTS[g] for g, weight in whole.items() if weight}
    share = {g: weight / sum(groups.values()) for g, weight in groups.items()}
    return [(PERCENT * share[f.group] * f.weight / whole[f.group], q, f.scale) for f, q in members]


def _linear(
    quantity: Quantity,
    method: Contender,
    own: Mapping[Key, float],
    whole: Sequence[Key],
    of: Bench,
    is_varied: bool = False,
) -> tuple[float, dict[Key, float]]:
    """A method's mean, and each video's linear part of it, which has the mean 0 over `whole`.

    is_varied: `own` is what errors are taken from, as Quantity.varied has it.
    """
    seeds = Counter(k[0] for k in whole)
    if quantity.summary == "videos":
        return _ratio(own, quantity.counts(method, own), whole, seeds)
    if quantity.summary == "ratio":
        reference = next(m for m in of.methods if m.is_reference)
        base = numbers((quantity.varied_of if is_varied else quantity.of)(reference, of.keys))
        both = [k for k in own if k in base]
        return _ratio(
            {k: base[k] / own[k] for k in both}, {k: own[k] / seeds[k[0]] for k in both}, whole, seeds
        )
    prompts = Counter(k[0] for k in own)
    mean = math.fsum(v / prompts[k[0]] for k, v in own.items()) / len(prompts)
    return mean, {k: v - mean for k, v in own.items()}


def _ratio(
    values: Mapping[Key, float], counts: Mapping[Key, float], whole: Sequence[Key], seeds: Mapping[int, int]
) -> tuple[float, dict[Key, float]]:
    """M = Σ c·x / Σ c, and each video's S_g · G · c·(x − M) / Σ c, whose mean over prompt means is 0."""
    below = math.fsum(counts.values())
    if not below:
        raise UserError("no video counts", "a column that some video counts in", "name another --column")
    mean = math.fsum(counts[k] * v for k, v in values.items()) / below
    prompts = len({k[0] for k in whole})
    return mean, {k: seeds[k[0]] * prompts * counts[k] * (v - mean) / below for k, v in values.items()}
