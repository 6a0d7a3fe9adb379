"""Where the paper's printed numbers contradict each other: found by checks over them, not written down.

A printed number is an interval, half a unit of its last digit to either side; a table may drop
trailing zeros, so the digits are those of its unit in that table. Two numbers contradict each other
only where no numbers inside their intervals agree.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from srbench.analysis import totals
from srbench.analysis.values import fixed
from srbench.paper import published
from srbench.paper.published import Printed

Place = tuple[str, str, str, str]  # table, setting, method, column
Values = Mapping[Place, Printed]
Kind = Literal["disagrees", "noted", "agrees"]
Interval = tuple[float, float]
LEADERBOARD = "1"  # the table that quotes another source
DYNAMIC, DYNAMIC_WEIGHT = "dynamic_degree", 0.5  # VBench's weight of it; every other's is 1
WORDS: Mapping[Kind, str] = {
    "disagrees": "contradiction",
    "noted": "to know",
    "agrees": "agrees",
}


@dataclass(frozen=True)
class Finding:
    """What a check says.

    kind: `disagrees` where numbers can't all be right, `noted` where they can but a reader
    should know, `agrees` where the check ran and found nothing.  sentence: with the numbers,
    computed.  places: the cells that it rests on.
    """

    kind: Kind
    sentence: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Check:
    """name: for tables.  asks: what it looks for.  find: its findings in published values, any number."""

    name: str
    asks: str
    find: Callable[[Values], Iterable[Finding]]


def find(values: Values | None = None) -> list[tuple[Check, Finding]]:
    """Every check's findings, contradictions first, then what is worth knowing, then what agrees.

    values: published.by_place() where None.
    """
    known = published.by_place() if values is None else values
    found = [(check, finding) for check in CHECKS for finding in check.find(known)]
    return sorted(found, key=lambda pair: list(WORDS).index(pair[1].kind))


# How numbers and places are read


def interval(values: Values, place: Place) -> Interval:
    """The numbers that would print as this one: low and high, in its unit."""
    printed = values[place]
    same = (v.text for k, v in values.items() if k[0] == place[0] and v.unit == printed.unit)
    digits = max(len(text.partition(".")[2]) for text in same)
    half = 0.5 * 10.0**-digits
    return printed.value - half, printed.value + half


def _meet(a: Interval, b: Interval, slack: float = 1e-9) -> bool:
    return a[0] <= b[1] + slack and b[0] <= a[1] + slack


def _name(setting: str, method: str) -> str:
    return published.names().get((setting, method), method)


def _where(setting: str) -> str:
    return published.settings()[setting].name


def _sort_key(table: str) -> tuple[bool, str]:
    return not table.isdigit(), table


def _by(values: Values, key: Callable[[Printed], tuple[str, ...]]) -> dict[tuple[str, ...], list[Printed]]:
    groups: dict[tuple[str, ...], list[Printed]] = defaultdict(list)
    for value in sorted(values.values(), key=lambda v: _sort_key(v.table)):
        groups[key(value)].append(value)
    return groups


def _place(v: Printed) -> Place:
    return v.table, v.setting, v.method, v.column


def _anywhere(values: Values, setting: str, method: str, column: str, first: str = "") -> Place | None:
    """Where it is printed: in the table `first`, else in the first that has it."""
    tables = sorted({p[0] for p in values}, key=lambda t: (t != first, _sort_key(t)))
    places = ((table, setting, method, column) for table in tables)
    return next((p for p in places if p in values), None)


# The checks


def _same_in_all_tables(values: Values) -> Iterator[Finding]:
    """One number of one method, printed in two tables of this paper's own measurements."""
    own = {p: v for p, v in values.items() if p[0] != LEADERBOARD}
    groups = _by(own, lambda v: (v.setting, v.method, v.column))
    repeated = {key: vs for key, vs in groups.items() if len(vs) > 1}
    apart = [(a, b) for vs in repeated.values() for a, b in pairwise(vs) if a.value != b.value]
    for a, b in apart:
        others = [
            v
            for (t, s, m, c), v in own.items()
            if t == b.table and s == b.setting and c == b.column and m != b.method and v.value == a.value
        ]
        given = f", which gives {a.text} to {_name(a.setting, others[0].method)}" if others else ""
        yield Finding(
            "disagrees",
            f"{_where(a.setting)}, {_name(a.setting, a.method)}: {_column(a.column)} is {_said(a)} in "
            f"Table {a.table} and {_said(b)} in Table {b.table}{given}.",
            tuple(map(_place, (a, b, *others[:1]))),
        )
    equal = [vs for vs in repeated.values() if len({v.value for v in vs}) == 1]
    yield Finding(
        "agrees",
        f"{len(equal)} of {len(repeated)} numbers that stand in more than one table are the same in all.",
        tuple(_place(v) for vs in equal for v in vs),
    )


def _speedups(values: Values) -> Iterator[Finding]:
    """Every printed speedup beside the ratio of the printed latencies, as intervals."""
    fits: list[Place] = []
    seen = 0
    for place, speedup in values.items():
        own = (*place[:3], "latency")
        base = (
            _anywhere(values, place[1], speedup.baseline, "latency", place[0]) if speedup.baseline else None
        )
        if place[3] != "speedup" or own not in values or base is None:
            continue
        seen += 1
        (low, high), (base_low, base_high) = interval(values, own), interval(values, base)
        allowed = (base_low / high, base_high / low)
        if _meet(interval(values, place), allowed):
            fits += [place, own, base]
            continue
        top, bottom = values[base], values[own]
        yield Finding(
            "disagrees",
            f"Table {place[0]}, {_where(place[1])}, {_name(place[1], place[2])}: {top.text} s / "
            f"{bottom.text} s = {top.value / bottom.value:.2f}, printed {speedup.text}×. Both latencies "
            f"as rounded allow {allowed[0]:.3f} to {allowed[1]:.3f}, which never prints as that.",
            (place, own, base),
        )
    if seen:
        yield Finding(
            "agrees",
            f"{len(fits) // 3} of {seen} printed speedups are within what their rounded latencies allow.",
            tuple(dict.fromkeys(fits)),
        )


def _leaderboard(values: Values) -> Iterator[Finding]:
    """The leaderboard's scores beside the paper's own of the same two models."""
    for column, of_method in _leaderboard_pairs(values).items():
        apart = {
            m: pair
            for m, pair in of_method.items()
            if not _meet(interval(values, pair[0]), interval(values, pair[1]))
        }
        if not apart:
            continue
        told = [
            f"{_name(first[1], m)} {values[first].text} there and {values[own].text} in Table {own[0]}"
            for m, (first, own) in apart.items()
        ]
        gap = ""
        if {"large", "small"} <= set(of_method):
            there, here = (
                values[of_method["large"][i]].value - values[of_method["small"][i]].value for i in (0, 1)
            )
            gap = f"; large minus small is {fixed(there, 2)} points there and {fixed(here, 2)} here"
        yield Finding(
            "noted",
            f"Table {LEADERBOARD} quotes the leaderboard, {_column(column)}: {', '.join(told)}{gap}.",
            tuple(p for pair in of_method.values() for p in pair),
        )


def _leaderboard_pairs(values: Values) -> dict[str, dict[str, tuple[Place, Place]]]:
    """By column and method: the place in the leaderboard's table, and that in the paper's own."""
    pairs: dict[str, dict[str, tuple[Place, Place]]] = defaultdict(dict)
    rest = {p: v for p, v in values.items() if p[0] != LEADERBOARD}
    for place in values:
        own = _anywhere(rest, *place[1:]) if place[0] == LEADERBOARD else None
        if own is not None and place[3].startswith("vbench/"):
            pairs[place[3]][place[2]] = (place, own)
    return pairs


def _columns_with_dimensions(values: Values) -> Iterator[tuple[str, str, str]]:
    """(table, setting, method) with all 16 dimensions and the three scores made of them."""
    needed = {f"vbench/{d}" for names in totals.WHOLE["vbench"].values() for d in names}
    needed |= {f"vbench/{name}" for name in ("quality", "semantic", "total")}
    have: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table, setting, method, column in values:
        have[table, setting, method].add(column)
    return (key for key, columns in have.items() if needed <= columns)


def _recomputed(values: Values, key: tuple[str, str, str], dynamic: float = 1.0) -> dict[str, Interval]:
    """quality, semantic and total as intervals, from one column's dimensions.

    quality = (Σ of the seven, dynamic degree times `dynamic`) / 6.5      semantic = Σ of nine / 9
    total = (4 · quality + semantic) / 5
    """
    made: dict[str, Interval] = {}
    for group, names in totals.WHOLE["vbench"].items():
        factors = {n: dynamic if n == DYNAMIC else 1.0 for n in names}
        whole = sum(DYNAMIC_WEIGHT if n == DYNAMIC else 1.0 for n in names)
        ends = {n: interval(values, (*key, f"vbench/{n}")) for n in names}
        low, high = (sum(factors[n] * ends[n][i] for n in names) / whole for i in (0, 1))
        made[group] = (low, high)
    weights = totals.TOTAL_WEIGHTS
    low, high = (sum(w * made[g][i] for g, w in weights.items()) / sum(weights.values()) for i in (0, 1))
    return made | {"total": (low, high)}


def _miss(values: Values, place: Place, made: Interval) -> float:
    return abs((made[0] + made[1]) / 2 - values[place].value)


def _means(values: Values) -> Iterator[Finding]:
    """Each column's quality, semantic and total recomputed from its 16 dimensions."""
    keys = list(_columns_with_dimensions(values))
    misses, sound = [0.0], 0
    for key in keys:
        bad = []
        for score, made in _recomputed(values, key).items():
            place = (*key, f"vbench/{score}")
            if _meet(interval(values, place), made):
                misses.append(_miss(values, place, made))
            else:
                middle = (made[0] + made[1]) / 2
                bad.append(f"{score} is printed {values[place].text}, its dimensions give {middle:.2f}")
        sound += not bad
        if bad:
            what = f"Table {key[0]}, {_where(key[1])}, {_name(key[1], key[2])}"
            yield Finding("disagrees", f"{what}: {'; '.join(bad)}.", _of_column(values, key))
    if keys:
        yield Finding(
            "agrees",
            f"{sound} of {len(keys)} columns with all 16 dimensions: quality, semantic and total recompute "
            f"from them (4 : 1) to within {max(misses):.3f} points, no more than rounding.",
            tuple(p for key in keys for p in _of_column(values, key)),
        )


def _of_column(values: Values, key: tuple[str, str, str]) -> tuple[Place, ...]:
    return tuple(p for p in values if p[:3] == key and p[3].startswith("vbench/"))


def _dynamic_degree(values: Values) -> Iterator[Finding]:
    """Is the dynamic degree printed as it is, or times its weight?"""
    keys = list(_columns_with_dimensions(values))
    worst = {}
    for dynamic in (1.0, DYNAMIC_WEIGHT):  # the printed number times this is what enters the sum
        misses = [
            _miss(values, (*key, "vbench/quality"), _recomputed(values, key, dynamic)["quality"])
            for key in keys
        ]
        worst[dynamic] = max(misses, default=0.0)
    if not keys or worst[1.0] * 10 > worst[DYNAMIC_WEIGHT]:
        return  # neither reading is plainly the right one, or it is not weighted
    first = (*keys[0], f"vbench/{DYNAMIC}")
    value = values[first]
    yield Finding(
        "noted",
        f"The dynamic degree is printed times its weight of {DYNAMIC_WEIGHT:g}: so read, the quality "
        f"scores of {len(keys)} columns recompute to within {worst[1.0]:.3f} points; as a plain percentage "
        f"they miss by up to {worst[DYNAMIC_WEIGHT]:.2f}. {_name(first[1], first[2])}'s {value.text} is a "
        f"dynamic degree of {value.value / DYNAMIC_WEIGHT:.0f} %.",
        tuple((*key, f"vbench/{name}") for key in keys for name in (DYNAMIC, "quality")),
    )


def _below_small(values: Values) -> Iterator[Finding]:
    """Methods with a lower total than the small model alone, which is faster."""
    found: dict[str, dict[str, tuple[Place, Place]]] = defaultdict(dict)
    for place, speed in values.items():
        table, setting, method, column = place
        if column != "speedup" or not speed.baseline or method == "small":
            continue
        total, small = (table, setting, method, "vbench/total"), (table, setting, "small", "vbench/total")
        fast = _small_speedup(values, setting)
        if total in values and small in values and fast is not None:
            if values[total].value < values[small].value and speed.value < fast:
                found[setting].setdefault(method, (total, place))
    order = list(published.names())
    for setting, unordered in found.items():
        methods = dict(sorted(unordered.items(), key=lambda item: order.index((setting, item[0]))))
        alone = _anywhere(values, setting, "small", "vbench/total", next(iter(methods.values()))[0][0])
        fast = _small_speedup(values, setting)
        if alone is None or fast is None:
            continue
        listed = "; ".join(
            f"{_name(setting, m)} ({values[total].text} at {values[speed].text}×)"
            for m, (total, speed) in methods.items()
        )
        latencies = [_anywhere(values, setting, m, "latency") for m in ("large", "small")]
        yield Finding(
            "noted",
            f"{_where(setting)}, below the small model's total of {values[alone].text}, which runs at "
            f"{fast:.2f}×: {listed}.",
            (alone, *(p for pair in methods.values() for p in pair), *(p for p in latencies if p)),
        )


def _small_speedup(values: Values, setting: str) -> float | None:
    large, small = (_anywhere(values, setting, m, "latency") for m in ("large", "small"))
    return values[large].value / values[small].value if large and small else None


def _fixed_at_equal_cost(values: Values) -> Iterator[Finding]:
    """After how many steps the adaptive method's latency says it switches, beside the fixed step.

    latency = S + k/n · (L − S), with the large and the small model's latencies L and S of n steps;
    what a hand-over costs is left out.
    """
    for table, setting, adaptive, fixed_switch in _adaptive_beside_fixed(values):
        places = [_anywhere(values, setting, m, "latency", table) for m in (adaptive, "large", "small")]
        known = tuple(p for p in places if p is not None)
        if len(known) < 3:
            continue
        steps = published.settings()[setting].steps
        step = _fixed_steps(setting)[fixed_switch]
        own, large, small = (interval(values, p) for p in known)
        middle = _switch(steps, *(values[p].value for p in known))
        low, high = _switch(steps, own[0], large[1], small[1]), _switch(steps, own[1], large[0], small[0])
        if low <= step <= high:
            holds = "which costs the same as far as their rounding tells"
        else:
            holds = f"which costs {'less' if step < low else 'more'}, a hand-over's cost aside"
        silent = (table, setting, fixed_switch, "latency") not in values
        yield Finding(
            "noted",
            f"{_where(setting)}: {_name(setting, adaptive)} ({values[known[0]].text} s) implies a mean "
            f"switch after {middle:.1f} of {steps} steps ({low:.2f} to {high:.2f} as latencies are rounded); "
            f"Table {table} holds it against a fixed switch at {step}, {holds}"
            f"{', and prints no latency of it' if silent else ''}.",
            known,
        )


def _switch(steps: int, own: float, large: float, small: float) -> float:
    return steps * (own - small) / (large - small)


def _fixed_steps(setting: str) -> dict[str, int]:
    """The paper's fixed switches: method → step."""
    return {
        m.method: int(found[1])
        for m in published.methods()
        if m.setting == setting and (found := re.search(r"fixed_step\((\d+)\)", m.path))
    }


def _adaptive_beside_fixed(values: Values) -> Iterator[tuple[str, str, str, str]]:
    """(table, setting, adaptive method, fixed method) for every table with both."""
    adaptive = {(m.setting, m.method) for m in published.methods() if "srdiffusion(" in m.path}
    for table, setting in dict.fromkeys(p[:2] for p in values):
        methods = list(dict.fromkeys(p[2] for p in values if p[:2] == (table, setting)))
        for switch in (m for m in methods if m in _fixed_steps(setting)):
            yield from ((table, setting, m, switch) for m in methods if (setting, m) in adaptive)


def _column(column: str) -> str:
    return column.removeprefix("vbench/").replace("_", " ")


def _said(value: Printed) -> str:
    return f"{value.text}{'' if value.unit == '×' else ' '}{value.unit}".strip()


CHECKS = (
    Check("repeated numbers", "the same number of the same method in two tables", _same_in_all_tables),
    Check("speedups", "printed speedups against ratios of printed latencies", _speedups),
    Check("means of dimensions", "scores against the dimensions that they are made of", _means),
    Check("equal cost", "adaptive and fixed switch of a table against their latencies", _fixed_at_equal_cost),
    Check("below the small model", "methods slower and worse than the small model alone", _below_small),
    Check("leaderboard", "quoted scores against the paper's own", _leaderboard),
    Check("dynamic degree", "whether it is printed times its weight", _dynamic_degree),
)


# As text


def shown(place: Place) -> str:
    """A place for readers, as in `Table 2, Wan 2.1 480p, PAB C3, speedup`."""
    table, setting, method, column = place
    name = f"Table {table}" if table.isdigit() else table.capitalize()
    return f"{name}, {_where(setting)}, {_name(setting, method)}, {_column(column)}"


def to_csv(found: Sequence[tuple[Check, Finding]]) -> str:
    """A line for each cell that a finding rests on: check, kind, sentence, place, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow("finding check kind sentence table setting method column value".split())
    values = published.by_place()
    for i, (check, finding) in enumerate(found, 1):
        for place in finding.places:
            text = values[place].text if place in values else ""
            writer.writerow([i, check.name, WORDS[finding.kind], finding.sentence, *place, text])
    return out.getvalue()


def lines(found: Sequence[tuple[Check, Finding]]) -> list[str]:
    """A line for each finding, as in `contradiction: …`."""
    return [f"{WORDS[finding.kind]}: {finding.sentence}" for _, finding in found]
