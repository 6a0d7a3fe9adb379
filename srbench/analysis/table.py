"""The comparison table as values; terminal, page, CSV, Markdown and LaTeX are made from these rows.

A row is a method (one path, however many names it has), a column a quantity. A value
knows its error, how many videos and prompts stand behind it, its protocol, and, where
something is missing, the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from srbench.analysis import quantities, roles, statistics, totals
from srbench.analysis.quantities import Contender, Gap, Key, Measured, Quantity, numbers
from srbench.analysis.statistics import Estimate
from srbench.analysis.values import FEWEST_TO_RANK, Column, Row, Value, best_of, decimals, of_estimate, shown
from srbench.errors import UserError
from srbench.store.records import CellRecord, MethodRecord, MetricFacts, Outcome, RunRecord

__all__ = ["Column", "Row", "Run", "Tables", "Value", "decimals", "dimension_rows", "make", "rows", "shown"]
WORST_FIRST: tuple[Outcome, ...] = ("failed", "missing", "skipped", "done")
WORDS = {"failed": "failed: ", "missing": "lack it: ", "skipped": "skipped: ", "done": ""}


@dataclass(frozen=True, eq=False)
class Basis:
    """What the tables were made from, video by video, for whoever compares methods otherwise.

    methods: in the rows' order, scale rows too.  keys: all videos there should be.
    quantities: of similarity and cost.  dimensions: of the suites, in the methods' order.
    """

    methods: list[Contender]
    keys: list[Key]
    quantities: list[Quantity]
    dimensions: list[totals.Dimension]


@dataclass(frozen=True)
class Tables:
    """The table, and the one of a suite's single dimensions (no columns where there are none)."""

    main: list[Row]
    dimensions: list[Row]
    basis: Basis | None = None


Run = tuple[RunRecord, list[CellRecord], Tables]  # all that a report over several runs needs of one


def make(run: RunRecord, cells: Sequence[CellRecord]) -> Tables:
    """One row for each method: reference, small, fewer steps, then by family, δ and k; scale rows last.

    Methods with one path (one method_id) are one row.  Columns: quality, semantic, total,
    similarity, cost.  Means are over prompts, see report.statistics, totals as
    report.totals says; a cell that lacks a number is left out of the mean and told of in
    the value's reason and outcome.

    Raises UserError where there are no cells, two references, or where one column would
    hold numbers of different protocols or of differently defined metrics.
    """
    if not cells:
        raise UserError(f"run {run.run}: no cells", "at least one recorded cell", "run the experiment first")
    keys, methods = due(run, cells), contenders(run, cells)
    rivals = [c for m in methods if m.role != "scale" for c in m.cells.values()]

    def protocol(column: Column, measured: Sequence[Measured]) -> list[str]:
        return _protocols(run, column, methods, measured)

    def column(quantity: Quantity, measured: Sequence[Measured], varied: Sequence[Measured]) -> list[Value]:
        return _column(quantity, methods, measured, varied, protocol(quantity.column, measured))

    scores = quantities.Scores(cells)
    found = quantities.dimensions(scores)
    dimensions = [_dimension(facts, q, methods, keys) for facts, q in found]
    summed = [d for d in dimensions if totals.has_totals(run, totals.suite(d.facts))]
    of_suite = totals.columns(methods, summed, protocol, gaps)
    plain = [*quantities.similarity(scores), *quantities.cost(run, rivals)]
    looked: dict[object, tuple[list[Measured], list[Measured]]] = {}
    for q in plain:  # latency and speedup look at the same
        if (q.measure, q.varied, q.word) not in looked:
            looked[q.measure, q.varied, q.word] = _looked_at(q, methods, keys)
    main = [column(q, *looked[q.measure, q.varied, q.word]) for q in plain]
    of_dimensions = [column(q, d.measured, d.measured) for (_, q), d in zip(found, dimensions, strict=True)]
    single = [row for row in _rows(methods, of_dimensions) if not row.is_scale]
    basis = Basis(methods, keys, plain, dimensions)
    return Tables(_rows(methods, [*of_suite, *main]), single, basis)


def rows(run: RunRecord, cells: Sequence[CellRecord]) -> list[Row]:
    """The rows of the table itself; see make()."""
    return make(run, cells).main


def dimension_rows(run: RunRecord, cells: Sequence[CellRecord]) -> list[Row]:
    """The rows with a suite's single dimensions; see make()."""
    return make(run, cells).dimensions


def _dimension(
    facts: MetricFacts, quantity: Quantity, methods: Sequence[Contender], keys: Sequence[Key]
) -> totals.Dimension:
    measured = tuple(quantity.of(m, keys) for m in methods)
    counts = tuple(quantity.counts(m, own) for m, own in zip(methods, measured, strict=True))
    counts = counts if quantity.count else ()
    return totals.Dimension(facts, measured, counts)


def _looked_at(
    quantity: Quantity, methods: Sequence[Contender], keys: Sequence[Key]
) -> tuple[list[Measured], list[Measured]]:
    """Of each method what was measured, and what errors are taken from; most often one and the same."""
    measured = [quantity.of(m, keys) for m in methods]
    return measured, [quantity.varied_of(m, keys) for m in methods] if quantity.varied else measured


def _rows(methods: Sequence[Contender], columns: Sequence[Sequence[Value]]) -> list[Row]:
    return [
        Row(m.method, m.method_id, m.label, m.role, tuple(c[i] for c in columns))
        for i, m in enumerate(methods)
    ]


# Rows: which methods, in which order


def due(run: RunRecord, cells: Sequence[CellRecord]) -> list[Key]:
    """The prompts and seeds that every method should have a video of, in order."""
    planned = run.videos or [(i, seed) for i in range(len(run.prompts)) for seed in run.seeds]
    return sorted({*planned, *((c.prompt_index, c.seed) for c in cells)})


def contenders(run: RunRecord, cells: Sequence[CellRecord]) -> list[Contender]:
    """Every method that a job of this run asked for, with its cells; one without cells too.

    In the rows' order.  Raises UserError where there are two references.
    """
    grouped: dict[str, list[CellRecord]] = {}
    for cell in cells:
        grouped.setdefault(cell.method_id, []).append(cell)
    asked = {m.id: m for m in run.methods}
    family = run.resolved.get("family")
    about = family if isinstance(family, Mapping) else {}
    methods = [_method(i, grouped.get(i, []), asked.get(i), about) for i in dict.fromkeys([*asked, *grouped])]
    if sum(m.is_reference for _, m in methods) > 1:
        raise UserError(
            f"references: {', '.join(m.method for _, m in methods if m.is_reference)}",
            "one reference in a run",
            "report the runs apart",
        )
    return [method for _, method in sorted(methods, key=lambda pair: pair[0])]


def _method(
    method_id: str, cells: Sequence[CellRecord], asked: MethodRecord | None, family: Mapping[str, Any]
) -> tuple[tuple[object, ...], Contender]:
    """The method and its place in the order of rows."""
    chosen: dict[Key, CellRecord] = {}
    for cell in cells:  # two names of one path have the same cells twice
        key = (cell.prompt_index, cell.seed)
        if key not in chosen or (chosen[key].outcome != "done" and cell.outcome == "done"):
            chosen[key] = cell
    path = asked.path if asked else cells[0].path
    steps = asked.steps if asked else None
    is_reference = any(c.is_reference for c in cells) or bool(asked and asked.is_reference)
    scale, own = bool(asked and asked.role == "scale"), bool(asked and asked.sampler)
    role = roles.role(is_reference, path, steps, scale=scale, own_sampler=own, family=family)
    labels = dict.fromkeys(c.label for c in cells) or ([asked.label] if asked else [])
    label = " = ".join(labels)
    name = cells[0].method if cells else asked.name if asked else ""
    # those without a path, the imported, stay as they were given
    return roles.order(role, path, steps, label if path else ""), Contender(
        name, method_id, label, role, chosen
    )


# Values: one quantity of all methods


def _column(
    quantity: Quantity,
    methods: Sequence[Contender],
    measured: Sequence[Measured],
    varied: Sequence[Measured],
    protocols: Sequence[str],
) -> list[Value]:
    both = list(zip(measured, varied, strict=True))
    reference = next((own for m, own in zip(methods, both, strict=True) if m.is_reference), None)
    values = [
        _value(quantity, method, own, reference, protocol)
        for method, own, protocol in zip(methods, both, protocols, strict=True)
    ]
    return _mark_best(quantity, methods, both, values, reference)


def _protocols(
    run: RunRecord, column: Column, methods: Sequence[Contender], measured: Sequence[Measured]
) -> list[str]:
    """Each method's protocol: one for all that compete; a scale row, which doesn't, has its own."""
    found: dict[str, list[str]] = {}
    own: list[str | None] = []
    for method, numbers_of in zip(methods, measured, strict=True):
        protocols = _protocols_of(method, numbers_of)
        own.append(", ".join(protocols) or None)
        for protocol in protocols if method.role != "scale" else ():
            found.setdefault(protocol, []).append(method.method)
    if len(found) > 1:
        listed = "; ".join(f"{p[:12]} ({', '.join(names)})" for p, names in found.items())
        raise UserError(
            f"column {column.key}: {len(found)} protocols, {listed}",
            "one protocol for all numbers of a column",
            "report them as separate runs, or run all cells again under one protocol",
        )
    shared = next(iter(found), run.protocol)
    return [p if p is not None and m.role == "scale" else shared for m, p in zip(methods, own, strict=True)]


def _protocols_of(method: Contender, measured: Measured) -> list[str]:
    """Of the cells that have a number; most often it is one for all, and none need be looked at."""
    if len(method.protocols) == 1 and any(not isinstance(v, Gap) for v in measured.values()):
        return list(method.protocols)
    return list(dict.fromkeys(method.cells[k].protocol for k in numbers(measured)))


def _value(
    quantity: Quantity,
    method: Contender,
    own: Both,
    reference: Both | None,
    protocol: str,
) -> Value:
    column, word = quantity.column, quantity.word_of(method)
    if word:
        return Value(column, None, None, 0, 0, protocol, "done", word[1], word[0])
    outcome, told = gaps(own[0])
    estimate, more = _estimate(quantity, method, own, reference)
    if estimate.mean is None and estimate.reason not in ("", statistics.NO_VALUE):
        more = "; ".join(part for part in (more, estimate.reason) if part)
    outcome = "missing" if more and outcome == "done" else outcome
    reason = "; ".join(part for part in (told, more) if part)
    value = of_estimate(column, estimate, protocol, outcome, reason, quantity.summary == "ratio")
    return replace(value, pooled=value.value is not None and quantity.pooled(method))


Both = tuple[Measured, Measured]  # what a quantity measured, and what its errors are taken from


def _estimate(
    quantity: Quantity, method: Contender, own: Both, reference: Both | None
) -> tuple[Estimate, str]:
    """The number, and what the reference lacks for it."""
    if quantity.summary == "ratio":
        if reference is None:
            return Estimate(None, None, 0, 0), "no reference in this run"
        lacking = len(numbers(own[0]).keys() - numbers(reference[0]).keys())
        told = f"{lacking} of {len(own[0])} lack the reference's latency" if lacking else ""
        return _speedup(reference, own), told
    estimate = _mean(quantity, method, own[0])
    if own[1] is own[0]:
        return estimate, ""
    return estimate.with_error_of(_mean(quantity, method, own[1]), _why_no_error(own)), ""


def _why_no_error(*of: Both) -> str:
    """The first reason for which nothing is known of how a number varies."""
    unknown = (v for own in of for v in own[1].values() if isinstance(v, Gap))
    return next((gap.reason for gap in unknown), "")


def _mean(quantity: Quantity, method: Contender, own: Measured) -> Estimate:
    found = numbers(own)
    values, prompts = list(found.values()), [k[0] for k in found]
    if quantity.summary == "most":
        return Estimate(max(values, default=None), None, len(values), len(set(prompts)))
    if quantity.summary == "videos":
        return statistics.mean_of_videos(values, prompts, list(quantity.counts(method, own).values()))
    return statistics.clustered_mean(values, prompts)


def speedup(quantity: Quantity, reference: Contender, method: Contender, keys: Sequence[Key]) -> Estimate:
    """How many times as fast a method is as another, over the videos that both have.

    The ratio of mean latencies; its error is over prompts, each with its own videos' step times.
    """
    of_both = [(quantity.of(m, keys), quantity.varied_of(m, keys)) for m in (reference, method)]
    return _speedup(*of_both)


def _speedup(reference: Both, own: Both) -> Estimate:
    estimates = []
    for base, mine in zip(map(numbers, reference), map(numbers, own), strict=True):
        both = [k for k in mine if k in base]
        of = [base[k] for k in both], [mine[k] for k in both]
        estimates.append(statistics.ratio_of_means(*of, [k[0] for k in both]))
    return estimates[0].with_error_of(estimates[1], _why_no_error(reference, own))


def _mark_best(
    quantity: Quantity,
    methods: Sequence[Contender],
    measured: Sequence[Both],
    values: Sequence[Value],
    reference: Both | None,
) -> list[Value]:
    """Mark the best and those after it that a paired interval can't tell from it (values.best_of).

    The reference and scale rows are apart.

    Nothing is marked of a quantity whose errors leave out what tells methods apart (`is_ranked`), nor
    where a rival's number rests on times of several jobs (`Value.pooled`), nor
    with fewer than FEWEST_TO_RANK prompts: next to nothing could be told from the best, and all
    would be.  Where rivals lack videos the best is so over those that all have, since hard ones that
    failed would make a mean better.
    """
    higher = quantity.column.higher_is_better
    rivals = [
        i
        for i, (m, v) in enumerate(zip(methods, values, strict=True))
        if m.role not in ("reference", "scale") and v.value is not None and v.clusters >= FEWEST_TO_RANK
    ]
    is_ranked = quantity.is_ranked and not any(values[i].pooled for i in rivals)
    if higher is None or not rivals or not is_ranked:
        return list(values)
    means = _over_common(quantity, methods, measured, rivals, reference)
    merits = {i: values[i].value if means is None else means[i] for i in rivals}
    known = {i: merit for i, merit in merits.items() if merit is not None}
    if len(known) < len(rivals):
        return list(values)
    best = (max if higher else min)(rivals, key=known.__getitem__)
    of_best = numbers(measured[best][1])
    alike = {i for i in rivals if i == best or not _apart(numbers(measured[i][1]), of_best)}
    marked = best_of(known, alike, higher)
    return [replace(v, best=i in marked) for i, v in enumerate(values)]


def _over_common(
    quantity: Quantity,
    methods: Sequence[Contender],
    measured: Sequence[Both],
    rivals: Sequence[int],
    reference: Both | None,
) -> dict[int, float | None] | None:
    """The rivals' numbers over the videos that all of them have.

    None where that is all that each has; numbers are None where it is of too few prompts.
    """
    first, *others = (numbers(measured[i][0]) for i in rivals)
    if all(first.keys() == own.keys() for own in others):
        return None
    keys = [k for k in first if all(k in own for own in others)]
    if len({k[0] for k in keys}) < FEWEST_TO_RANK:
        return dict.fromkeys(rivals)
    parts = {i: {k: measured[i][0][k] for k in keys} for i in rivals}
    return {i: _estimate(quantity, methods[i], (p, p), reference)[0].mean for i, p in parts.items()}


def _apart(of_a: Mapping[Key, float], of_b: Mapping[Key, float]) -> bool:
    """Does the 95 % interval of the paired difference leave 0 out?  No where there is none."""
    both = [k for k in of_a if k in of_b]
    found = statistics.paired_difference(
        [of_a[k] for k in both], [of_b[k] for k in both], [k[0] for k in both]
    )
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def gaps(own: Mapping[Key, float | Gap]) -> tuple[Outcome, str]:
    """The worst outcome, and a sentence with how many of each and the first reason."""
    found: dict[Outcome, list[str]] = {}
    for gap in own.values():
        if isinstance(gap, Gap):
            found.setdefault(gap.outcome, []).append(gap.reason)
    parts = []
    for outcome in (o for o in WORST_FIRST if o in found):
        reasons = found[outcome]
        parts.append(f"{len(reasons)} of {len(own)} videos {WORDS[outcome]}{_first_sentence(reasons[0])}")
    return next((o for o in WORST_FIRST if o in found), "done"), "; ".join(parts)


def _first_sentence(text: str) -> str:
    return text.strip().split("\n")[0].partition(". ")[0].rstrip(".")
