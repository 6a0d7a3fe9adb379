"""What a table is made of: columns, values that know what stands behind them, rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from statistics import median_low
from typing import Literal

from srbench.analysis.roles import Role
from srbench.analysis.statistics import Estimate
from srbench.store.records import Outcome

DASH = "–"
FEWEST_TO_RANK = 4  # prompts; with fewer the best is not marked
Kind = Literal["total", "difference", "similarity", "dimension", "cost"]


@dataclass(frozen=True)
class Column:
    """A quantity: key (stable, for CSV), heading and unit (for readers).

    higher_is_better: None where neither direction is better.  estimated: the number is a
    sum of a shared run's step times, marked "est.".  kind: what the quantity tells of a
    method.  decimals: the fewest digits after the point.  note: what the heading means,
    as it belongs below the table.  own_notes: what concerns one method alone, as (method_id,
    sentence).  bounds: the lowest and the highest value that there can be; None where there is no end.
    """

    key: str
    heading: str
    unit: str = ""
    higher_is_better: bool | None = None
    estimated: bool = False
    kind: Kind = "similarity"
    decimals: int = 2
    note: str = ""
    own_notes: tuple[tuple[str, str], ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)

    @property
    def whole_note(self) -> str:
        """The note with that of every method, as it belongs below the table."""
        return ", ".join(dict.fromkeys([*filter(None, [self.note]), *(said for _, said in self.own_notes)]))

    def own_note(self, method_id: str) -> str:
        """The note with what concerns this method, and no other."""
        own = [said for whose, said in self.own_notes if whose == method_id]
        return ", ".join(dict.fromkeys([*filter(None, [self.note]), *own]))

    @property
    def group(self) -> Literal["quality", "cost"]:
        """Tables that are too wide are parted between the two."""
        return "cost" if self.kind == "cost" else "quality"

    @property
    def arrow(self) -> str:
        """Which way is better, or empty."""
        return {None: "", True: "↑", False: "↓"}[self.higher_is_better]

    @property
    def title(self) -> str:
        """As in `PSNR ↑ dB` or `latency ↓ s est.`"""
        return " ".join(part for part in (self.heading, self.arrow, self.marked_unit) if part)

    @property
    def marked_unit(self) -> str:
        """The unit, with the mark of an estimate: the mark must go wherever a number goes."""
        return " ".join(part for part in (self.unit, "est." if self.estimated else "") if part)


@dataclass(frozen=True)
class Value:
    """One number of the table, or why there is none.

    value, standard_error: in the column's unit; None is shown as "–" or not at all.  low,
    high: its 95 % interval over prompts (statistics.reach), for totals by the error of the
    cluster bootstrap, for a speedup of its logarithm; never past the column's bounds.  n,
    clusters: videos and prompts behind it.  outcome: `done` only where no video is
    lacking, so a filter on it leaves whole values.  reason: a footnote's text.  word:
    shown in place of a number where none applies ("reference"); its reason needs no
    footnote.  no_error: why there is no standard error, told once below the table.
    best: the best method's, or one that the data can't tell from it.  pooled: it rests on the times of
    several jobs, so that no headline names it.
    """

    column: Column
    value: float | None
    standard_error: float | None
    n: int
    clusters: int
    protocol: str
    outcome: Outcome = "done"
    reason: str = ""
    word: str = ""
    low: float | None = None
    high: float | None = None
    no_error: str = ""
    best: bool = False
    pooled: bool = False

    def __post_init__(self) -> None:
        """Keep the interval inside the column's bounds: what cannot be is in no interval."""
        if self.value is None:
            return
        lowest, highest = self.column.bounds
        if self.low is not None and lowest is not None:
            object.__setattr__(self, "low", max(self.low, min(lowest, self.value)))
        if self.high is not None and highest is not None:
            object.__setattr__(self, "high", min(self.high, max(highest, self.value)))

    @property
    def footnote(self) -> str:
        return "" if self.word else self.reason


@dataclass(frozen=True)
class Row:
    """A method's values, in the columns' order, which is the same in all rows."""

    method: str
    method_id: str
    label: str
    role: Role
    values: tuple[Value, ...]

    @property
    def is_reference(self) -> bool:
        return self.role == "reference"

    @property
    def is_scale(self) -> bool:
        """No rival: it shows what a similarity means, below a rule."""
        return self.role == "scale"

    def __getitem__(self, key: str) -> Value:
        """The value of the column `key`; KeyError where there is no such column."""
        for value in self.values:
            if value.column.key == key:
                return value
        raise KeyError(key)


def of_estimate(
    column: Column,
    estimate: Estimate,
    protocol: str,
    outcome: Outcome = "done",
    reason: str = "",
    is_ratio: bool = False,
) -> Value:
    """A value with the 95 % interval of its estimate, or of its logarithm if that is a ratio's."""
    low, high = (estimate.log_interval if is_ratio else estimate.interval()) or (None, None)
    return Value(
        column,
        estimate.mean,
        estimate.standard_error,
        estimate.n,
        estimate.clusters,
        protocol,
        outcome,
        reason,
        low=low,
        high=high,
        no_error=estimate.reason if estimate.mean is not None else "",
    )


def best_of(merits: Mapping[int, float], alike: Collection[int], higher_is_better: bool) -> set[int]:
    """Which methods are marked as best: in order of merit, all down to the first that isn't `alike`.

    merits: each rival's number.  alike: the best, and all that an interval can't tell from it. One of
    them that is worse than a method which can be told from the best is only measured worse, so it
    has no mark: nobody marked is worse than anybody who is not.

    >>> best_of({0: 0.1534, 1: 0.0047, 2: 0.0475}, alike={0, 1}, higher_is_better=False)
    {1}
    """
    ordered = sorted(merits, key=lambda i: (-merits[i] if higher_is_better else merits[i], i not in alike))
    return set(takewhile(alike.__contains__, ordered))


def decimals(values: Iterable[Value]) -> int:
    """Digits after the point for one column, from the column's own number up to 5.

    As many as it takes for two significant digits of the smallest number and one of the
    middle error; a smaller one is shown as below the last digit, see shown().
    """
    column = list(values)
    # A difference may be near 0 by luck, which says nothing of how well it is known.
    numbers = [abs(v.value) for v in column if v.value and v.column.kind != "difference"]
    errors = [v.standard_error for v in column if v.standard_error and _is_spread(v)]
    digits = column[0].column.decimals if column else 0
    needed = [1 - math.floor(math.log10(min(numbers)))] if numbers else []
    needed += [-math.floor(math.log10(median_low(errors)))] if errors else []
    return max(digits, min(5, max(needed, default=0)))


def shown(value: Value, digits: int) -> str:
    """As in `24.31 ±0.42`, `24.31`, `−0.8 [−1.5, −0.1]`, `reference` or `–`."""
    if value.word:
        return value.word
    if value.value is None:
        return DASH
    number = fixed(value.value, digits)
    if value.column.kind == "difference":
        known = value.low is not None and value.high is not None
        return f"{number} [{fixed(value.low, digits)}, {fixed(value.high, digits)}]" if known else number
    return number if value.standard_error is None else f"{number} ±{_error(value, digits)}"


def _error(value: Value, digits: int) -> str:
    """An error above 0 never prints as 0, also where the digits are other rows'."""
    error = value.standard_error or 0.0
    text = f"{error:.{digits}f}"
    return f"<{10.0**-digits:.{digits}f}" if _is_spread(value) and not float(text) else text


def _is_spread(value: Value) -> bool:
    """Below 1e-9 of its number an error is rounding of the sums, not spread."""
    return bool(value.standard_error) and (value.standard_error or 0.0) > 1e-9 * abs(value.value or 1)


def fixed(number: float | None, digits: int) -> str:
    """With a minus sign that is as wide as a digit, and no minus zero.

    >>> fixed(-1.25, 1), fixed(-0.01, 1), fixed(None, 1)
    ('−1.2', '0.0', '–')
    """
    if number is None:
        return DASH
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text.replace("-", "−")
