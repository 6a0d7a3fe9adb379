"""The comparison table in a terminal: numbers whole at any sensible width, colour not needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srbench.analysis.values import Row
from srbench.report import legend, printed
from srbench.report.printed import Footnotes, Printed
from srbench.store.records import CellRecord, RunRecord

GAP = 2  # blanks between columns, one of them the box's own
METHOD = "method"  # the labels' heading
LABEL = 16  # the method's label gets at least this much before the table is parted
BEST = "*"
RULED = box.Box(
    "    \n    \n ── \n    \n ── \n    \n    \n    \n"
)  # lines below the head and between sections
SUPERSCRIPT = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹·")


def show(
    run: RunRecord,
    cells: Sequence[CellRecord],
    table: Sequence[Row],
    console: Console,
    dimensions: Sequence[Row] = (),
) -> None:
    """Print header, table and notes; a table that is too wide is parted, never cut.

    table: report.table.rows(run, cells).  dimensions: report.table.dimension_rows(run, cells), of which
    those have a table of their own here that no total sums up.  Quality comes before cost where it
    is parted.  Of the differences from the reference the total's alone is here; all other formats have all.
    """
    narrow, empty = printed.without_empty(printed.short(table))
    single = printed.without_totals(narrow, dimensions)
    notes = Footnotes()
    _say(console, [*legend.warnings(run), *legend.header(run, cells)])
    for part in (narrow, single):
        _print(part, notes, console)
    console.print()
    reasons = [f"{_raised([n])} {text}" for text, n in notes.numbers.items()]
    of_single = legend.headings(single) if single else []
    _say(console, [*reasons, *legend.below(narrow, BEST, short_counts=True), *of_single, *empty])


def _print(table: Sequence[Row], notes: Footnotes, console: Console) -> None:
    """A table in as many blocks as its width needs; nothing where it has no rows."""
    columns = printed.columns(table) if table else []
    texts = {column.keys: _texts(column, notes) for column in columns}
    labels = [row.label for row in table]
    rule_after = sum(not row.is_scale for row in table) - 1
    for block in _blocks(columns, texts, labels, console.width) if columns else []:
        console.print()
        console.print(_rich_table(block, texts, labels, console.width, rule_after), highlight=False)


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(line), highlight=False)


def _raised(numbers: Iterable[int]) -> str:
    """As in `¹·²`; empty for none."""
    return ",".join(map(str, numbers)).translate(SUPERSCRIPT)


# Layout

_Texts = dict[tuple[str, ...], list[str]]


def _texts(column: Printed, notes: Footnotes) -> list[str]:
    """Each row's number with its marks; the best mark's place is kept, so that digits stand in line."""
    marked = any(column.best)
    rows = zip(column.texts, column.best, column.footnotes, strict=True)
    return [
        f"{text}{(BEST if best else ' ') if marked else ''}{_raised(notes.of(reasons))}"
        for text, best, reasons in rows
    ]


def _width(column: Printed, texts: _Texts) -> int:
    """Numbers are never broken; a title may be, between words."""
    return max(cell_len(part) for part in (*texts[column.keys], *_words(column.title)))


def _words(title: str) -> list[str]:
    return title.replace("/", "/ ").replace("_", "_ ").split() if len(title) > 20 else title.split()


def _label_width(columns: Sequence[Printed], texts: _Texts, labels: Sequence[str], width: int) -> int:
    left = width - sum(_width(c, texts) + GAP for c in columns)
    return min(left, max(map(cell_len, [METHOD, *labels])))


def _fits(columns: Sequence[Printed], texts: _Texts, labels: Sequence[str], width: int) -> bool:
    whole = max(map(cell_len, [METHOD, *labels]))
    return _label_width(columns, texts, labels, width) >= min(LABEL, whole)


def _blocks(
    columns: Sequence[Printed], texts: _Texts, labels: Sequence[str], width: int
) -> list[list[Printed]]:
    """All columns in one table if they fit, else quality and cost apart, each as needed."""
    if _fits(columns, texts, labels, width):
        return [list(columns)]
    blocks: list[list[Printed]] = []
    for column in columns:
        last = blocks[-1] if blocks else []
        if last and last[0].group == column.group and _fits([*last, column], texts, labels, width):
            last.append(column)
        else:
            blocks.append([column])
    return blocks


def _rich_table(
    columns: Sequence[Printed], texts: _Texts, labels: Sequence[str], width: int, rule_after: int
) -> Table:
    """A table with a rule below row `rule_after`, unless that is the last."""
    table = Table(box=RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    label_width = max(1, _label_width(columns, texts, labels, width))
    table.add_column(Text(METHOD), width=label_width, overflow="fold")
    for column in columns:
        title = Text(" ".join(_words(column.title)), justify="right")
        table.add_column(title, width=_width(column, texts), justify="right", overflow="fold")
    for i, label in enumerate(labels):
        numbers = (Text(texts[column.keys][i]) for column in columns)
        table.add_row(Text(label), *numbers, end_section=i == rule_after < len(labels) - 1)
    return table
