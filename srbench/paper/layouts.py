"""The paper's tables as people read them: terminal, Markdown, LaTeX, HTML, of one grid of texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Literal, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srbench.analysis.values import DASH, decimals, fixed, shown
from srbench.paper import published
from srbench.paper.matching import Beside, is_tiny
from srbench.paper.tables import NO_NUMBER, Block, Difference, Entry, PaperTable
from srbench.report import export, terminal
from srbench.report.printed import Footnotes

NOTHING = "the paper's numbers alone"
HEADINGS = {"vbench/total": "total", "vbench/quality": "quality", "vbench/semantic": "semantic"}
HEADINGS |= {"lpips": "LPIPS", "psnr": "PSNR", "ssim": "SSIM"}
QUOTED = "published: quoted as printed, without errors, and never ranked"
INTERVAL = "difference: measured minus published, with the measured number's own 95 % interval"
UNSTATED = "unstated in the paper, and what is taken here: "
UNSTATED_OF_ALL = "unstated in the paper for any table: "


Thing = TypeVar("Thing")
Part = Literal["published", "measured", "difference"]


@dataclass(frozen=True)
class Line:
    """A line of a grid, as text and footnotes by column.

    part: of which of a row's numbers.  kind: `part` in words, or whose the measured ones are.
    """

    label: str
    part: Part
    kind: str
    texts: tuple[str, ...]
    reasons: tuple[tuple[str, ...], ...]
    is_first: bool


@dataclass(frozen=True)
class Grid:
    """A block as text.

    title: its setting, and of what the measured lines are.  head: of the column of labels.
    headings: of the columns, with unit and direction.
    """

    title: str
    head: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def grid(table: PaperTable, block: Block, notes: Footnotes) -> Grid:
    """The block as the paper lays it out, each of its rows as two or three lines; reasons go to `notes`."""
    methods = [m.method for m in block.methods]
    if table.transposed:
        rows = [(_title(block, c), [(m, c) for m in methods]) for c in block.columns]
        headings = tuple(m.name for m in block.methods)
    else:
        rows = [(label(m.name, m.path), [(m.method, c) for c in block.columns]) for m in block.methods]
        headings = tuple(_title(block, c) for c in block.columns)
    digits = {c: _digits([block.entries[m, c] for m in methods]) for c in block.columns}
    lines: list[Line] = []
    for text, keys in rows:
        cells = [(block.entries[key], digits[key[1]]) for key in keys]
        for i, (part, show) in enumerate(_kinds(block)):
            made = [show(entry, n) for entry, n in cells]
            reasons = tuple(why for _, why in made)
            for why in reasons:
                notes.of(why)
            lines.append(
                Line("" if i else text, part, _whose(block, part), tuple(t for t, _ in made), reasons, i == 0)
            )
    return Grid(
        heading(block),
        "" if not table.transposed else "score",
        headings,
        tuple(lines),
        tuple(_notes(table, block)),
    )


def heading(block: Block) -> str:
    """As in `Wan 2.1 480p · measured: family shapes, suite shapes (not VBench)`."""
    found = _beside(block)
    if found is None:
        return f"{block.setting.name} · {NOTHING}"
    name = f"{found.record.family}{', random weights' if is_tiny(found.record) else ''}"
    suite = f", suite {found.suite} (not VBench)" if found.suite not in ("", "vbench") else ""
    return f"{block.setting.name} · measured: family {name}{suite}"


def _beside(block: Block) -> Beside | None:
    return next((e.beside for e in block.entries.values() if e.beside), None)


def label(name: str, path: str) -> str:
    """A method with the settings that a table of the paper prints.

    >>> label("PAB C3", "large+pab(8 100-970)")
    'PAB C3, 8 [100–970]'
    >>> label("SRDiffusion C2", "large until srdiffusion(0.01) > small")
    'SRDiffusion C2, δ=0.01'
    """
    parts = []
    for kind, inside in re.findall(r"(\w+)\(([^)]*)\)", path):
        if kind == "srdiffusion":
            parts.append(f"δ={inside}")
        elif kind == "pab":
            skip, _, between = inside.partition(" ")
            parts.append(f"{skip} [{between.replace('-', '–')}]")
        else:
            parts.append(inside)
    return ", ".join([name, *parts])


def _title(block: Block, column: str) -> str:
    quoted = next(e.quoted for (_, c), e in block.entries.items() if c == column and e.quoted)
    name = HEADINGS.get(column, column.partition("/")[2].replace("_", " ") or column)
    return f"{name} {'↑' if quoted.higher_is_better else '↓'} {quoted.unit}".strip()


def _digits(entries: Sequence[Entry]) -> int:
    """Digits of a column's measured numbers: no fewer than are published."""
    quoted = [len(e.quoted.text.partition(".")[2]) for e in entries if e.quoted]
    measured = [e.measured for e in entries if e.measured is not None]
    return max([*quoted, decimals(measured) if measured else 0])


Shown = tuple[str, tuple[str, ...]]


def _whose(block: Block, part: Part) -> str:
    """`measured` of the paper's own models; else the name of the family whose numbers stand there."""
    found = _beside(block)
    return part if part != "measured" or found is None else found.whose


def _kinds(block: Block) -> list[tuple[Part, Callable[[Entry, int], Shown]]]:
    kinds: list[tuple[Part, Callable[[Entry, int], Shown]]] = [("published", _published)]
    kinds += [("measured", _measured)] if block.has_measured else []
    kinds += [("difference", _difference)] if block.has_difference else []
    return kinds


def _published(entry: Entry, digits: int) -> Shown:
    return entry.quoted.text if entry.quoted else DASH, ()


def _measured(entry: Entry, digits: int) -> Shown:
    why = (entry.measured_reason,) if entry.measured_reason else ()
    if entry.measured is None:
        return DASH, why
    text = shown(entry.measured, digits)
    return f"{text} est." if entry.measured.column.estimated and text != DASH else text, why


def _difference(entry: Entry, digits: int) -> Shown:
    if entry.difference is None:
        told = entry.apart and entry.apart != NO_NUMBER
        return DASH, (entry.apart,) if told else ()
    return difference(entry.difference, digits), ()


def difference(of: Difference, digits: int) -> str:
    """As in `+0.4 [−0.2, 1.0]`, or without an interval where there is none."""
    text = fixed(of.value, digits)
    text = text if text.startswith("−") or not of.value else f"+{text}"
    if of.low is None or of.high is None:
        return text
    return f"{text} [{fixed(of.low, digits)}, {fixed(of.high, digits)}]"


def _notes(table: PaperTable, block: Block) -> Iterable[str]:
    if table.transposed:
        of = (f"{m.name} {m.settings}" for m in block.methods if m.settings)
        yield f"configurations: {'; '.join(of)}"
    yield from block.notes
    lacking = dict.fromkeys(e.measured.no_error for e in block.entries.values() if e.measured)
    yield from (f"no ± somewhere: {reason}" for reason in lacking if reason)
    yield UNSTATED + "; ".join(block.unstated)


def common_notes(table: PaperTable) -> list[str]:
    """What holds for all lines of a table."""
    blocks = table.blocks
    unstated = "; ".join(what for what, _ in published.unstated("all"))
    return [QUOTED, *[INTERVAL] * any(b.has_difference for b in blocks), UNSTATED_OF_ALL + unstated]


def title(table: PaperTable) -> str:
    """As in `Table 2: …`."""
    return f"Table {table.number}: {table.title}"


# Terminal


def show(table: PaperTable, console: Console) -> None:
    """Print a table with its notes; what is too wide is parted, never cut."""
    notes = Footnotes()
    grids = [grid(table, block, notes) for block in table.blocks]
    _say(console, ["", title(table)])
    for made in grids:
        _say(console, ["", made.title])
        for columns in _parts(made, notes, console.width):
            console.print(_rich(made, columns, notes), highlight=False)
        _say(console, made.notes)
    _say(console, [*(f"{_raised([n])} {text}" for text, n in notes.numbers.items()), *common_notes(table)])


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(line), highlight=False)


def _raised(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)).translate(terminal.SUPERSCRIPT)


def _marked(line: Line, column: int, notes: Footnotes) -> str:
    return line.texts[column] + _raised(notes.of(line.reasons[column]))


def _width(made: Grid, column: int, notes: Footnotes) -> int:
    words = made.headings[column].split()
    return max(cell_len(t) for t in (*words, *(_marked(line, column, notes) for line in made.lines)))


def _labels(made: Grid) -> int:
    return max(cell_len(text) for text in (made.head, *(line.label for line in made.lines)))


def _parts(made: Grid, notes: Footnotes, width: int) -> list[list[int]]:
    """Columns that fit beside the labels, in as many parts as it takes."""
    left = width - _labels(made) - max(len(line.kind) for line in made.lines) - 2 * terminal.GAP
    return packed(range(len(made.headings)), lambda c: _width(made, c, notes) + terminal.GAP, left)


def packed(things: Iterable[Thing], size: Callable[[Thing], int], room: int) -> list[list[Thing]]:
    """Things in order, in as few groups as hold them; one that is larger than the room stands alone.

    >>> packed([2, 3, 4], lambda n: n, 5)
    [[2, 3], [4]]
    """
    groups: list[list[Thing]] = []
    left = 0
    for thing in things:
        own = size(thing)
        if not groups or own > left:
            groups.append([])
            left = room
        groups[-1].append(thing)
        left -= own
    return groups


def _rich(made: Grid, columns: Sequence[int], notes: Footnotes) -> Table:
    table = Table(box=terminal.RULED, padding=(0, terminal.GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(Text(made.head), overflow="fold")
    table.add_column("", no_wrap=True)
    for column in columns:
        head = Text(made.headings[column], justify="right")
        table.add_column(head, width=_width(made, column, notes), justify="right", overflow="fold")
    for line in made.lines:
        texts = (Text(_marked(line, c, notes)) for c in columns)
        table.add_row(Text(line.label), Text(line.kind), *texts)
    return table


# Markdown


def to_markdown(table: PaperTable) -> str:
    """A GitHub table for each block, reasons numbered below; words of records are escaped."""
    notes = Footnotes()
    said = [f"## {export.markdown(title(table))}", ""]
    for block in table.blocks:
        made = grid(table, block, notes)
        said += [f"### {export.markdown(made.title)}", ""]
        said += [export.pipe([made.head, "", *map(export.markdown, made.headings)])]
        said += [export.pipe([":--", ":--", *("--:" for _ in made.headings)])]
        for line in made.lines:
            cells = [_markdown_cell(line, c, notes) for c in range(len(made.headings))]
            said.append(export.pipe([export.markdown(line.label), export.markdown(line.kind), *cells]))
        said += ["", *(f"- {export.markdown(note)}" for note in made.notes), ""]
    said += [f"- <sup>{n}</sup> {export.markdown(text)}" for text, n in notes.numbers.items()]
    return "\n".join([*said, *(f"- {export.markdown(note)}" for note in common_notes(table)), ""])


def _markdown_cell(line: Line, column: int, notes: Footnotes) -> str:
    mark = ",".join(map(str, notes.of(line.reasons[column])))
    return export.markdown(line.texts[column]) + (f"<sup>{mark}</sup>" if mark else "")


# LaTeX

LETTERS = 120  # of a line in \scriptsize over two columns
HEAD = 5  # lines that a tabular's own head takes
LINES = 48  # of a page in \scriptsize, with room for a caption


def to_latex(table: PaperTable) -> str:
    """Floats `table*`, booktabs is all they need; what is too wide or too long for one is parted."""
    notes = Footnotes()
    grids = [grid(table, block, notes) for block in table.blocks]
    parts = [(part, columns) for made in grids for columns in _latex_parts(made) for part in _short(made)]
    said: list[str] = []
    floats = _pages(parts)
    for i, page in enumerate(floats):
        tabulars = "\\\\[6pt]\n".join(_latex_tabular(made, columns, notes) for made, columns in page)
        of = f", part {i + 1} of {len(floats)}" if len(floats) > 1 else ""
        said += [r"\begin{table*}", r"\centering\scriptsize\setlength{\tabcolsep}{4pt}", tabulars]
        said += [rf"\caption{{{_caption(table, grids, notes, of, whole=i == len(floats) - 1)}}}"]
        said += [r"\end{table*}"]
    tex = "\n".join([*said, ""])
    return "\n".join([export.MADE_BY, *export.letters_note(tex), tex])


def _caption(table: PaperTable, grids: Sequence[Grid], notes: Footnotes, of: str, whole: bool) -> str:
    """The last part's has all notes."""
    said = [export.latex(f"After {title(table)}{of}")]
    if whole:
        said += [rf"\textsuperscript{{{n}}} {export.latex(text)}" for text, n in notes.numbers.items()] + [
            export.latex(f"{g.title}: {note}") for g in grids for note in g.notes
        ]
        said += [export.latex(note) for note in common_notes(table)]
    return rf"{said[0]}. {{\scriptsize {'. '.join([*said[1:], ''])}}}"


def _latex_parts(made: Grid) -> list[list[int]]:
    room = LETTERS - _labels(made) - 12
    parts: list[list[int]] = []
    left = 0
    for column in range(len(made.headings)):
        own = 2 + max(
            len(t) for t in (*made.headings[column].split(), *(x.texts[column] for x in made.lines))
        )
        if not parts or own > left:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= own
    return parts


def _short(made: Grid) -> list[Grid]:
    """The grid in parts of whole rows, each short enough for a page."""
    starts = [i for i, line in enumerate(made.lines) if line.is_first]
    a_row = len({line.part for line in made.lines})
    step = max(1, (LINES - HEAD) // a_row)
    edges = [*starts[::step], len(made.lines)]
    return [replace(made, lines=made.lines[a:b]) for a, b in pairwise(edges)]


def _pages(parts: Sequence[tuple[Grid, list[int]]]) -> list[list[tuple[Grid, list[int]]]]:
    """Parts that stand in one float: as many as a page holds."""
    return packed(parts, lambda part: len(part[0].lines) + HEAD, LINES)


def _latex_tabular(made: Grid, columns: Sequence[int], notes: Footnotes) -> str:
    heads = [_latex_head(made.headings[c]) for c in columns]
    lines = [export.latex_row([export.latex(made.head), "", *heads]), r"\midrule"]
    for i, line in enumerate(made.lines):
        lines += [r"\addlinespace[1.5pt]"] if line.is_first and i else []
        cells = [_latex_cell(line, c, notes) for c in columns]
        lines.append(export.latex_row([export.latex(line.label), export.latex(line.kind), *cells]))
    wide = rf"\multicolumn{{{len(columns) + 2}}}{{@{{}}l@{{}}}}{{{export.latex(made.title)}}} \\"
    begin = rf"\begin{{tabular}}{{@{{}}ll{'r' * len(columns)}@{{}}}}"
    return "\n".join([begin, r"\toprule", wide, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"])


def _latex_head(text: str) -> str:
    words = text.split()
    if len(words) == 1:
        return export.latex(text)
    stacked = r"\\".join(map(export.latex, words))
    return rf"\shortstack[r]{{{stacked}}}"


def _latex_cell(line: Line, column: int, notes: Footnotes) -> str:
    mark = ",".join(map(str, notes.of(line.reasons[column])))
    return export.latex(line.texts[column]) + (rf"\textsuperscript{{{mark}}}" if mark else "")


# HTML


def to_html(table: PaperTable) -> str:
    """A section with a table for each block; every word is escaped."""
    notes = Footnotes()
    blocks = "\n".join(_html_block(grid(table, block, notes), notes) for block in table.blocks)
    below = [f"<sup>{n}</sup> {escape(text)}" for text, n in notes.numbers.items()]
    below += [escape(note) for note in common_notes(table)]
    items = "\n".join(f"<li>{line}</li>" for line in below)
    return (
        f'<section id="table-{table.number}">\n<h2>{escape(title(table))}</h2>\n{blocks}\n'
        f'<ul class="notes">\n{items}\n</ul>\n{_files(table)}\n</section>'
    )


def _files(table: PaperTable) -> str:
    links: Mapping[str, str] = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
    listed = ", ".join(f'<a href="table{table.number}.{end}">{name}</a>' for end, name in links.items())
    return f'<p class="hint files">The same as files: {listed}.</p>'


def _html_block(made: Grid, notes: Footnotes) -> str:
    heads = "".join(f'<th scope="col">{escape(h)}</th>' for h in made.headings)
    span = len({line.part for line in made.lines})
    rows = []
    for line in made.lines:
        first = f'<th scope="rowgroup" rowspan="{span}">{escape(line.label)}</th>' if line.is_first else ""
        cells = "".join(_html_cell(line, c, notes) for c in range(len(made.headings)))
        rows.append(f'<tr class="{line.part}">{first}<th scope="row">{escape(line.kind)}</th>{cells}</tr>')
    below = "\n".join(f"<li>{escape(note)}</li>" for note in made.notes)
    return (
        f'<h3>{escape(made.title)}</h3>\n<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(made.title)}">\n<table class="paper">\n<thead><tr><th scope="col">'
        f'{escape(made.head)}</th><th scope="col"></th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + f'\n</tbody>\n</table>\n</div>\n<ul class="notes">\n{below}\n</ul>'
    )


def _html_cell(line: Line, column: int, notes: Footnotes) -> str:
    mark = ",".join(map(str, notes.of(line.reasons[column])))
    raised = f"<sup>{mark}</sup>" if mark else ""
    return f"<td>{escape(line.texts[column])}{raised}</td>"
