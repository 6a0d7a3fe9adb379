"""The comparison table in a terminal: numbers whole at any sensible width, colour not needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srbench.report import legend
from srbench.report.legend import EVALUATIONS, counts_heading
from srbench.report.values import DASH, Column, Row, Value, decimals, shown
from srbench.store.records import CellRecord, RunRecord

GAP = 2  # blanks between columns, one of them the box's own
LABEL = 16  # the method's label gets at least this much before the table is parted
BEST = "*"
SUPERSCRIPT = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹·")


@dataclass(frozen=True)
class _Printed:
    """A column as text: its title, and for each row the number and its footnotes."""

    keys: tuple[str, ...]
    title: str
    group: str
    texts: tuple[str, ...]
    footnotes: tuple[tuple[str, ...], ...]


class _Footnotes:
    """Numbers for reasons, in order of appearance; the same reason has the same number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def lines(self) -> list[str]:
        """`¹ the reason`, in order."""
        return [f"{str(n).translate(SUPERSCRIPT)} {text}" for text, n in self.numbers.items()]

    def mark(self, reasons: Iterable[str]) -> str:
        """The raised numbers of these reasons, as in `¹·²`; empty for none."""
        found = [self.numbers.setdefault(r, len(self.numbers) + 1) for r in reasons]
        return ",".join(str(n) for n in found).translate(SUPERSCRIPT)


def show(run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row], console: Console) -> None:
    """Print header, table and notes; a table that is too wide is parted, never cut.

    table: report.table.rows(run, cells).  Quality comes before cost where it is parted.  A
    column without any number is told of below instead; of the differences from the reference
    the total's alone is here, for the others are in every other format.
    """
    notes = _Footnotes()
    printed, empty = _columns(table)
    marked = [_with_marks(column, notes) for column in printed]
    labels = [row.label for row in table]
    rule_after = sum(not row.is_scale for row in table) - 1
    _say(console, [*legend.warnings(run), *legend.header(run, cells)])
    for block in _blocks(marked, labels, console.width):
        console.print()
        console.print(_rich_table(block, labels, console.width, rule_after), highlight=False)
    console.print()
    kept = {key for column in printed for key in column.keys}
    _say(console, [*notes.lines(), *empty, *legend.below(_narrowed(table, kept), BEST, short_counts=True)])


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(line), highlight=False)


# Columns as text


def _columns(table: Sequence[Row]) -> tuple[list[_Printed], list[str]]:
    """The columns that have a number, the counts of evaluations as one; and why others have none."""
    columns = list(zip(*(row.values for row in table), strict=True))
    counts = [c for c in columns if c[0].column.key.startswith(EVALUATIONS)]
    printed, empty = [], []
    for column in columns:
        head = column[0].column
        if head.kind == "difference" and not head.key.endswith("total_difference"):
            continue
        if column in counts:
            printed += [_printed_counts(counts)] if column is counts[0] else []
        elif head.kind == "cost" and all(v.value is None for v in column) and head.key == "peak_memory":
            reason = next((v.reason for v in column if v.footnote), "")
            empty.append(f"no column {head.heading}: {reason}")
        else:
            printed.append(_printed(head, column))
    return printed, empty


def _narrowed(table: Sequence[Row], keys: set[str]) -> list[Row]:
    """The rows with only those columns."""
    return [replace(row, values=tuple(v for v in row.values if v.column.key in keys)) for row in table]


def _printed(column: Column, values: Sequence[Value]) -> _Printed:
    digits = decimals(values)
    marked = any(v.best for v in values)
    return _Printed(
        (column.key,),
        column.title,
        column.group,
        # the mark's place is kept, so that numbers stand under each other
        tuple(shown(v, digits) + (BEST if v.best else " " * marked) for v in values),
        tuple((v.footnote,) if v.footnote else () for v in values),
    )


def _printed_counts(counts: Sequence[Sequence[Value]]) -> _Printed:
    keys = tuple(c[0].column.key for c in counts)
    by_row = list(zip(*counts, strict=True))
    return _Printed(
        keys,
        counts_heading(k.removeprefix(EVALUATIONS) for k in keys),
        counts[0][0].column.group,
        tuple(next((v.word for v in vs if v.word), "/".join(map(_count, vs))) for vs in by_row),
        tuple(tuple(dict.fromkeys(v.footnote for v in vs if v.footnote)) for vs in by_row),
    )


def _count(value: Value) -> str:
    return DASH if value.value is None else f"{value.value:.1f}".removesuffix(".0")


def _with_marks(column: _Printed, notes: _Footnotes) -> _Printed:
    texts = [text + notes.mark(reasons) for text, reasons in zip(column.texts, column.footnotes, strict=True)]
    return replace(column, texts=tuple(texts))


# Layout


def _width(column: _Printed) -> int:
    """Numbers are never broken; a title may be, between words."""
    return max(cell_len(part) for part in (*column.texts, *_words(column.title)))


def _words(title: str) -> list[str]:
    return title.replace("/", "/ ").replace("_", "_ ").split() if len(title) > 20 else title.split()


def _fits(columns: Sequence[_Printed], labels: Sequence[str], width: int) -> bool:
    return _label_width(columns, labels, width) >= min(LABEL, max(map(cell_len, labels)))


def _label_width(columns: Sequence[_Printed], labels: Sequence[str], width: int) -> int:
    left = width - sum(_width(c) + GAP for c in columns)
    return min(left, max(6, *map(cell_len, labels)))


def _blocks(columns: Sequence[_Printed], labels: Sequence[str], width: int) -> list[list[_Printed]]:
    """All columns in one table if they fit, else quality and cost apart, each as needed."""
    if _fits(columns, labels, width):
        return [list(columns)]
    blocks: list[list[_Printed]] = []
    for column in columns:
        last = blocks[-1] if blocks else []
        if last and last[0].group == column.group and _fits([*last, column], labels, width):
            last.append(column)
        else:
            blocks.append([column])
    return blocks


def _rich_table(columns: Sequence[_Printed], labels: Sequence[str], width: int, rule_after: int) -> Table:
    """A table with a rule below row `rule_after`, unless that is the last."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    label_width = max(1, _label_width(columns, labels, width))
    table.add_column(Text("method"), width=label_width, overflow="fold")
    for column in columns:
        title = Text(" ".join(_words(column.title)), justify="right")
        table.add_column(title, width=_width(column), justify="right", overflow="fold")
    for i, label in enumerate(labels):
        texts = (Text(column.texts[i]) for column in columns)
        table.add_row(Text(label), *texts, end_section=i == rule_after < len(labels) - 1)
    return table
