"""Columns as people read them: numbers as text, counts of evaluations as one, empty columns told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from srbench.analysis.values import DASH, Column, Row, Value, decimals, shown
from srbench.report.legend import EVALUATIONS, counts_heading


@dataclass(frozen=True)
class Printed:
    """A column as text: its heading, and for each row the number, its footnotes, whether it is best.

    keys: of the columns that it shows.
    """

    keys: tuple[str, ...]
    heading: str
    arrow: str
    unit: str
    group: Literal["quality", "cost"]
    texts: tuple[str, ...]
    footnotes: tuple[tuple[str, ...], ...]
    best: tuple[bool, ...]

    @property
    def title(self) -> str:
        """As in `PSNR ↑ dB`."""
        return " ".join(part for part in (self.heading, self.arrow, self.unit) if part)


class Footnotes:
    """Numbers for reasons, in order of appearance; the same reason has the same number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, reasons: Sequence[str]) -> list[int]:
        """The numbers of these reasons."""
        return [self.numbers.setdefault(reason, len(self.numbers) + 1) for reason in reasons]


def narrowed(table: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """The rows with only those columns."""
    return [replace(row, values=tuple(v for v in row.values if v.column.key in keys)) for row in table]


def short(table: Sequence[Row]) -> list[Row]:
    """The rows with the total's difference from the reference alone, for where width is dear."""
    columns = [v.column for v in table[0].values]
    kept = [c.key for c in columns if c.kind != "difference" or c.key.endswith("total_difference")]
    return narrowed(table, kept)


def without_empty(table: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows without costs and totals that no method has, and one line, if any, that says why.

    As a CPU's peak memory, or the total of a suite of which a few dimensions are scored.  A metric
    that is missing everywhere keeps its column: it was asked for.
    """
    empty = {
        column[0].column: next((v.reason for v in column if v.footnote), "")
        for column in zip(*(row.values for row in table), strict=True)
        if column[0].column.kind in ("cost", "total", "difference") and all(v.value is None for v in column)
    }
    kept = [v.column.key for v in table[0].values if v.column not in empty]
    by_reason: dict[str, list[str]] = {}
    keys = {column.key for column in empty}
    for column, reason in empty.items():
        if reason and column.key.removesuffix("_difference") not in keys - {column.key}:
            by_reason.setdefault(reason, []).append(column.heading)
    told = "; ".join(f"{', '.join(headings)} ({reason})" for reason, headings in by_reason.items())
    return narrowed(table, kept), [f"no column for: {told}"] if told else []


def without_totals(table: Sequence[Row], dimensions: Sequence[Row]) -> list[Row]:
    """The rows of the single dimensions, with those alone of suites that have no total in the table.

    As of the scorers of VBench on other prompts.  dimensions: report.table.dimension_rows; empty
    where there are none.
    """
    summed = {v.column.key.partition("/")[0] for v in table[0].values if v.column.kind == "total"}
    keys = [v.column.key for row in dimensions[:1] for v in row.values]
    own = [k for k in keys if k.partition("/")[0] not in summed]
    return narrowed(dimensions, own) if own else []


def columns(table: Sequence[Row]) -> list[Printed]:
    """All columns in order; the counts of evaluations as one, `evals L/S/reused`."""
    by_column = list(zip(*(row.values for row in table), strict=True))
    counts = [c for c in by_column if c[0].column.key.startswith(EVALUATIONS)]
    made = []
    for values in by_column:
        if values not in counts:
            made.append(_one(values[0].column, values, digits_of(table, values)))
        elif values is counts[0]:
            made.append(_counts(counts))
    return made


def digits_of(table: Sequence[Row], column: Sequence[Value]) -> int:
    """Digits after the point that the rows which compete need; scale rows take theirs."""
    own = [v for row, v in zip(table, column, strict=True) if not row.is_scale]
    return decimals(own or column)


def _one(column: Column, values: Sequence[Value], digits: int) -> Printed:
    return Printed(
        (column.key,),
        column.heading,
        column.arrow,
        column.marked_unit,
        column.group,
        tuple(shown(v, digits) for v in values),
        tuple((v.footnote,) if v.footnote else () for v in values),
        tuple(v.best for v in values),
    )


def _counts(counts: Sequence[Sequence[Value]]) -> Printed:
    keys = tuple(c[0].column.key for c in counts)
    by_row = list(zip(*counts, strict=True))
    return Printed(
        keys,
        counts_heading(k.removeprefix(EVALUATIONS) for k in keys),
        "",
        "",
        counts[0][0].column.group,
        tuple(next((v.word for v in vs if v.word), "/".join(map(_count, vs))) for vs in by_row),
        tuple(tuple(dict.fromkeys(v.footnote for v in vs if v.footnote)) for vs in by_row),
        tuple(False for _ in by_row),
    )


def _count(value: Value) -> str:
    return DASH if value.value is None else f"{value.value:.1f}".removesuffix(".0")
