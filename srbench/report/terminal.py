"""The comparison table in a terminal: numbers whole at any sensible width, colour not needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srbench.report.table import DASH, Column, Row, Value, decimals, shown
from srbench.store.records import CellRecord, RunRecord

GAP = 2  # blanks between columns, one of them the box's own
LABEL = 16  # the method's label gets at least this much before the table is parted
EVALUATIONS = "evaluations_"
SUPERSCRIPT = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹·")


@dataclass(frozen=True)
class _Printed:
    """A column as text: its title, and for each row the number and its footnotes."""

    title: str
    group: str
    texts: tuple[str, ...]
    footnotes: tuple[tuple[str, ...], ...]


class _Footnotes:
    """Numbers for reasons, in order of appearance; the same reason has the same number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, reasons: Iterable[str]) -> str:
        """The raised numbers of these reasons, as in `¹·²`; empty for none."""
        found = [self.numbers.setdefault(r, len(self.numbers) + 1) for r in reasons]
        return ",".join(str(n) for n in found).translate(SUPERSCRIPT)


def show(run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row], console: Console) -> None:
    """Print header, table and notes; a table that is too wide is parted, never cut.

    table: rows(run, cells).  Quality comes before cost where it is parted.
    """
    notes = _Footnotes()
    printed = [_with_marks(column, notes) for column in _merge_evaluations(table)]
    labels = [row.label for row in table]
    _say(console, header(run, cells))
    for block in _blocks(printed, labels, console.width):
        console.print()
        console.print(_rich_table(block, labels, console.width), highlight=False)
    console.print()
    _say(console, _below(run, table, notes))


def header(run: RunRecord, cells: Sequence[CellRecord]) -> list[str]:
    """What was run, on what, from which commit; three lines."""
    commit = run.commit[:12] if run.commit else "unknown"
    dirty = {True: " (dirty)", False: "", None: " (unknown whether dirty)"}[run.dirty]
    prompts = len({c.prompt_index for c in cells})
    seeds = len({c.seed for c in cells})
    return [
        f"{run.experiment} · run {run.run} · family {run.family}",
        f"device {run.device} · commit {commit}{dirty} · protocol {run.protocol[:12]}",
        f"{prompts} prompt{'s' * (prompts != 1)} × {seeds} seed{'s' * (seeds != 1)}",
    ]


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(line), highlight=False)


def _below(run: RunRecord, table: Sequence[Row], notes: _Footnotes) -> list[str]:
    columns = [value.column for value in table[0].values]
    about = ["mean over prompts ± its standard error over prompts (seeds repeat inside a prompt)"]
    metrics = [c.note for c in columns if c.note and c.group == "quality"]
    about += ["; ".join(metrics)] if metrics else []
    about += [c.note for c in columns if c.note and c.group == "cost"]
    numbered = [f"{str(n).translate(SUPERSCRIPT)} {text}" for text, n in notes.numbers.items()]
    return [*numbered, *about, *(f"warning: {w}" for w in run.warnings)]


# Columns as text


def _merge_evaluations(table: Sequence[Row]) -> list[_Printed]:
    """All columns in order, the counts of evaluations as one, `evals L/S/reused`."""
    columns = list(zip(*(row.values for row in table), strict=True))
    counts = [c for c in columns if c[0].column.key.startswith(EVALUATIONS)]
    printed = []
    for column in columns:
        if column not in counts:
            printed.append(_printed(column[0].column, column))
        elif column is counts[0]:
            printed.append(_printed_counts(counts))
    return printed


def _printed(column: Column, values: Sequence[Value]) -> _Printed:
    digits = decimals(values)
    return _Printed(
        column.title,
        column.group,
        tuple(shown(v, digits) for v in values),
        tuple((v.footnote,) if v.footnote else () for v in values),
    )


def _printed_counts(counts: Sequence[Sequence[Value]]) -> _Printed:
    names = [c[0].column.key.removeprefix(EVALUATIONS) for c in counts]
    short = {"large": "L", "small": "S"}
    by_row = list(zip(*counts, strict=True))
    return _Printed(
        f"evals {'/'.join(short.get(n, n) for n in names)}",
        counts[0][0].column.group,
        tuple("/".join(_count(v) for v in values) for values in by_row),
        tuple(tuple(dict.fromkeys(v.footnote for v in vs if v.footnote)) for vs in by_row),
    )


def _count(value: Value) -> str:
    return DASH if value.value is None else f"{value.value:.1f}".removesuffix(".0")


def _with_marks(column: _Printed, notes: _Footnotes) -> _Printed:
    texts = [text + notes.mark(reasons) for text, reasons in zip(column.texts, column.footnotes, strict=True)]
    return _Printed(column.title, column.group, tuple(texts), column.footnotes)


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


def _rich_table(columns: Sequence[_Printed], labels: Sequence[str], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    label_width = max(1, _label_width(columns, labels, width))
    table.add_column(Text("method"), width=label_width, overflow="fold")
    for column in columns:
        title = Text(" ".join(_words(column.title)), justify="right")
        table.add_column(title, width=_width(column), justify="right", overflow="fold")
    for i, label in enumerate(labels):
        table.add_row(Text(label), *(Text(column.texts[i]) for column in columns))
    return table
