"""The tables as files: CSV, Parquet, Markdown and LaTeX.

CSV and Parquet are tidy, a line for each value with all that stands behind it, numbers with
all their digits. Parquet has the single videos' numbers too, and the run's provenance.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.analysis.table import Tables
from srbench.analysis.values import Row, Value
from srbench.report import legend, printed
from srbench.report.printed import Footnotes, Printed
from srbench.store.objects import write_text
from srbench.store.records import CellRecord, RunRecord, Score

if TYPE_CHECKING:
    import pandas as pd

CSV_FIELDS = (
    "method,method_id,label,role,column,unit,value,standard_error,low,high,best,n,clusters,protocol,"
    "outcome,reason,warnings"
).split(",")
WORDS = "string"
TYPES = {
    "best": "boolean",
    "dirty": "boolean",
    **dict.fromkeys(("prompt_index", "n", "clusters"), "Int32"),
    **dict.fromkeys(("value", "standard_error", "low", "high"), "Float64"),
}
CHUNK = 2_000  # cells whose lines are written to Parquet at a time
OF_RUN = ("experiment", "run", "family", "device", "timing", "started")
PARQUET_FIELDS = [
    *(
        "level",
        *CSV_FIELDS,
        "prompt_index",
        "prompt",
        "seed",
        "cell",
        "video",
        "reference",
        "host",
        "finished",
    ),
    *("experiment", "run", "family", "device", "timing", "commit", "started", "dirty", "packages"),
]


def write(folder: Path, run: RunRecord, cells: Sequence[CellRecord], tables: Tables) -> None:
    """Write table.csv, .md, .tex and .parquet into `folder`, and dimensions.* where there are any.

    A table of dimensions that an earlier report left and these records don't have is removed.
    """
    for name, table in (("table", tables.main), ("dimensions", tables.dimensions)):
        made = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
        for suffix, text in made.items():
            path = folder / f"{name}.{suffix}"
            if table[0].values:
                write_text(path, text(run, table), mode=0o644)
            else:
                path.unlink(missing_ok=True)
    to_parquet(folder / "table.parquet", run, cells, tables)


# Tidy


def to_csv(run: RunRecord, table: Iterable[Row]) -> str:
    """One line per (row, column), UTF-8; a field is empty where there is nothing."""
    import pandas as pd

    lines = [_line(run, row, value) for row in table for value in row.values]
    frame = pd.DataFrame(lines, columns=CSV_FIELDS)
    frame = frame.astype({name: TYPES.get(name, WORDS) for name in CSV_FIELDS})
    frame["best"] = frame["best"].map({True: "true", False: "false"})
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _line(run: RunRecord, row: Row, value: Value) -> dict[str, Any]:
    return {
        "method": row.method,
        "method_id": row.method_id,
        "label": row.label,
        "role": row.role,
        "column": value.column.key,
        "unit": value.column.marked_unit,
        "value": value.value,
        "standard_error": value.standard_error,
        "low": value.low,
        "high": value.high,
        "best": value.best,
        "n": value.n,
        "clusters": value.clusters,
        "protocol": value.protocol,
        "outcome": value.outcome,
        "reason": "; ".join(part for part in (value.reason, value.no_error) if part),
        "warnings": "; ".join(run.warnings),
    }


def to_parquet(path: Path, run: RunRecord, cells: Sequence[CellRecord], tables: Tables) -> None:
    """One tidy file with every value, its provenance and its protocol, PARQUET_FIELDS.

    level: `method` for the tables' values, `video` for a cell's scores and what it took
    (n = 1).  An empty word is null.  commit, dirty and packages are those of the video's own
    software; of a method, those of all its run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = TYPES | {"seed": _seed_type(cells)}
    parts = chain([_methods(run, cells, tables)], (_videos(run, own, types) for own in _chunks(cells)))
    partial, file = path.with_name(f".{path.name}.partial"), None
    with open(partial, "wb") as target:  # Arrow opens no path that is not UTF-8
        try:
            for frame in parts:
                table = pa.Table.from_pandas(_typed(run, frame, types), preserve_index=False)
                table = table.replace_schema_metadata(None)
                file = file or pq.ParquetWriter(target, table.schema, compression="zstd")
                file.write_table(table)
        finally:
            if file is not None:
                file.close()
    partial.replace(path)


def _seed_type(cells: Iterable[CellRecord]) -> str:
    """The type that holds every seed: words where one is of more than 64 bits."""
    seeds = {c.seed for c in cells} or {0}
    low, high = min(seeds), max(seeds)
    if -(2**63) <= low and high < 2**63:
        return "Int64"
    return "UInt64" if low >= 0 and high < 2**64 else WORDS


def _typed(run: RunRecord, frame: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """PARQUET_FIELDS with what all lines of a run share; every part of a file has the same types."""
    import pandas as pd

    shared = {name: getattr(run, name) for name in OF_RUN}
    shared["warnings"] = "; ".join(run.warnings)
    whole = frame.assign(**shared).reindex(columns=PARQUET_FIELDS)
    whole = whole.astype({name: types.get(name, WORDS) for name in PARQUET_FIELDS})
    words = [name for name in PARQUET_FIELDS if types.get(name, WORDS) == WORDS]
    whole[words] = whole[words].mask(whole[words] == "", pd.NA)
    return whole


def _chunks(cells: Sequence[CellRecord]) -> Iterator[Sequence[CellRecord]]:
    return (cells[i : i + CHUNK] for i in range(0, len(cells), CHUNK))


def _methods(run: RunRecord, cells: Sequence[CellRecord], tables: Tables) -> pd.DataFrame:
    import pandas as pd

    lines = [
        _line(run, row, value)
        for table in (tables.main, tables.dimensions)
        for row in table
        for value in row.values
    ]
    code = legend.code_of(run, cells)
    dirty = {is_dirty for _, is_dirty in code}
    return pd.DataFrame(lines, columns=CSV_FIELDS).assign(
        level="method",
        commit=", ".join(dict.fromkeys(commit or "unknown" for commit, _ in code)),
        dirty=None if dirty == {None} else True in dirty,
        packages=_packages(legend.versions(run, cells)),
    )


def _videos(run: RunRecord, cells: Sequence[CellRecord], types: Mapping[str, str]) -> pd.DataFrame:
    """What every cell says of itself on each of its lines."""
    import pandas as pd

    found = [list(_cell_lines(cell)) for cell in cells]
    made = [cell.made or run.jobs[0] for cell in cells]
    words: dict[int, str] = {}
    of_cell: dict[str, Any] = {name: [getattr(c, name) for c in cells] for name in _OF_CELL if name != "seed"}
    of_cell["seed"] = pd.Series([_seed(c, types) for c in cells], dtype=types["seed"])
    of_cell["cell"] = [c.id for c in cells]
    of_cell["role"] = ["reference" if c.is_reference else "" for c in cells]
    of_cell["commit"], of_cell["dirty"] = [m.commit for m in made], [m.dirty for m in made]
    of_cell["packages"] = [words.setdefault(id(m.packages), _packages(m.packages)) for m in made]
    each = pd.DataFrame(of_cell)
    lines = pd.DataFrame(list(chain.from_iterable(found)), columns=_OF_LINE)
    repeated = each.loc[each.index.repeat(list(map(len, found)))].reset_index(drop=True)
    return pd.concat([repeated, lines], axis=1).assign(level="video", clusters=1, best=False)


def _seed(cell: CellRecord, types: Mapping[str, str]) -> int | str:
    return str(cell.seed) if types["seed"] == WORDS else cell.seed


def _packages(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


_OF_CELL = (
    *("method", "method_id", "label", "protocol", "prompt"),
    *("prompt_index", "seed", "video", "host", "finished"),
)
_OF_LINE = ["column", "unit", "value", "n", "outcome", "reason", "reference"]
_Line = tuple[str, str, float | None, int, str, str, str | None]


def _cell_lines(cell: CellRecord) -> Iterator[_Line]:
    if cell.outcome != "done":
        yield "video", "", None, 0, cell.outcome, cell.reason, None
        return
    for score in cell.scores:
        known = score.value is not None and math.isfinite(score.value)
        metric, value = score.metric, score.value if known else None
        yield metric.name, metric.unit, value, int(known), score.outcome, score.reason, score.reference
        if metric.unit == "dB" and score.at_bound:
            yield from _capped_lines(score)
    for stage in cell.stages:
        yield f"seconds/{stage.name}", "s", stage.seconds, 1, "done", "", None
    if cell.trace is not None and (switches := cell.trace.switches):
        yield "switch_step", "", float(switches[0]), 1, "done", "", None


def _capped_lines(score: Score) -> Iterator[_Line]:
    """PSNR's frames at its cap, and the mean without them."""
    name, reference = score.metric.name, score.reference
    yield f"{name}/frames_at_cap", "", float(score.at_bound), 1, "done", "", reference
    if score.value_below_bound is not None:
        unit, value = score.metric.unit, score.value_below_bound
        yield f"{name}/without_capped", unit, value, 1, "done", "", reference


# For papers and pages


def to_markdown(run: RunRecord, table: Sequence[Row]) -> str:
    """A GitHub table; the best is bold, scale rows are in italics, reasons are numbered below.

    Words of the records are escaped: none can break the table or begin a tag.
    """
    narrow, empty = printed.without_empty(table)
    columns, notes = printed.columns(narrow), Footnotes()
    lines = [
        pipe(["method", *(markdown(c.title) for c in columns)]),
        pipe([":--", *("--:" for _ in columns)]),
    ]
    for i, row in enumerate(narrow):
        label = f"*{markdown(row.label)}*" if row.is_scale else markdown(row.label)
        lines.append(pipe([label, *(_markdown_cell(c, i, notes) for c in columns)]))
    above = [f"**{markdown(w)}**\n" for w in legend.warnings(run)]
    below = [f"<sup>{n}</sup> {markdown(text)}" for text, n in notes.numbers.items()]
    below += [
        markdown(line)
        for line in (*legend.own(run), *legend.below(narrow, "bold", short_counts=True), *empty)
    ]
    return "\n".join([*above, *lines, "", *(f"- {line}" for line in below), ""])


def pipe(cells: Iterable[str]) -> str:
    """A line of a GitHub table."""
    return f"| {' | '.join(cells)} |"


def markdown(text: str) -> str:
    """Text that Markdown prints as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>|#&~$!])", r"\\\1", " ".join(text.split()))


def _markdown_cell(column: Printed, row: int, notes: Footnotes) -> str:
    text = markdown(column.texts[row])
    mark = ",".join(map(str, notes.of(column.footnotes[row])))
    return (f"**{text}**" if column.best[row] else text) + (f"<sup>{mark}</sup>" if mark else "")


MADE_BY = "% needs booktabs; made by srbench report from stored records"
SMALL, SCRIPT = 100, 130  # letters that a line of two columns of a paper holds in these sizes
SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "δ": r"$\delta$",
    "Δ": r"$\Delta$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": r"$-$",
    "·": r"$\cdot$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "[": "{[}",
    "]": "{]}",
    "²": "$^2$",
    "³": "$^3$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "ß": r"\ss{}",
    "\N{BULLET}": r"$\bullet$",
}
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon "
    "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
SPECIAL |= {
    c: rf"$\{name}$" for c, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _GREEK.split(), strict=True)
}
_SIGNS = {"≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx", "√": "surd", "∞": "infty", "→": "rightarrow"}
_SIGNS |= {
    "←": "leftarrow",
    "÷": "div",
    "∈": "in",
    "≪": "ll",
    "≫": "gg",
    "∼": "sim",
    "∝": "propto",
    "ϵ": "epsilon",
}
SPECIAL |= {c: rf"$\{name}$" for c, name in _SIGNS.items()}
# grave, acute, circumflex, tilde, macron, breve, dot, diaeresis, ring, double acute, caron, cedilla
_ACCENTS = frozenset(
    map(chr, (0x300, 0x301, 0x302, 0x303, 0x304, 0x306, 0x307, 0x308, 0x30A, 0x30B, 0x30C, 0x327))
)


def latex(text: str) -> str:
    r"""Text that LaTeX prints as it stands.

    Letters that only xelatex and lualatex know are kept, see `letters_note`; what cannot be printed
    is written as its number.

    >>> latex("PAB 8 & 50 % of $x_1$, σ ≤ 1")
    'PAB 8 \\& 50 \\% of \\$x\\_1\\$, $\\sigma$ $\\leq$ 1'
    """
    whole = " ".join(unicodedata.normalize("NFC", text).split())
    visible = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in whole)
    return "".join(SPECIAL.get(c, c) for c in visible)


def letters_note(tex: str) -> list[str]:
    """A comment with the letters that pdflatex does not know, or nothing."""
    found = sorted({c for c in tex if not c.isascii() and not _is_plain(c)})
    if not found:
        return []
    return [f"% needs xelatex or lualatex, and a font that has these letters: {' '.join(found)}"]


def _is_plain(letter: str) -> bool:
    """Whether every LaTeX prints it: a Latin letter with the usual accents."""
    if letter in "æøåœłıÆØÅŒŁ":
        return True
    parts = unicodedata.normalize("NFD", letter)
    return parts[0].isascii() and parts[0].isalpha() and set(parts[1:]) <= _ACCENTS


def row_labels(table: Sequence[Row]) -> list[str]:
    """Each row's label, with the method's name and id where two rows would print the same."""

    def told_apart(names: list[str], more: list[str]) -> list[str]:
        printed = [latex(n) for n in names]
        return [
            f"{n} ({m})" if printed.count(p) > 1 else n for n, m, p in zip(names, more, printed, strict=True)
        ]

    by_name = told_apart([row.label for row in table], [row.method for row in table])
    return told_apart(by_name, [row.method_id for row in table])


def to_latex(run: RunRecord, table: Sequence[Row]) -> str:
    r"""A `table*` of booktabs, notes in its caption; `\usepackage{booktabs}` is all it needs.

    `\input` it.  The best is bold, numbers are aligned right, scale rows stand below a rule.
    What is too wide for a page is parted: quality above, cost below; of the differences from
    the reference the total's alone is there, as in a terminal.
    """
    narrow, empty = printed.without_empty(printed.short(table))
    columns, notes = printed.columns(narrow), Footnotes()
    blocks, size = _blocks(columns, max(len(row.label) for row in narrow))
    tabulars = [_latex_tabular(narrow, block, notes) for block in blocks]
    said = [rf"\textsuperscript{{{n}}} {latex(text)}" for text, n in notes.numbers.items()]
    said += [
        latex(line) for line in (*legend.own(run), *legend.below(narrow, "bold", short_counts=True), *empty)
    ]
    title = f"{run.experiment}, run {run.run}, family {run.family}, protocol {run.protocol[:12]}"
    tex = "\n".join(
        [
            r"\begin{table*}",
            rf"\centering{size}\setlength{{\tabcolsep}}{{4pt}}",
            *(rf"\textbf{{{latex(w)}}}\\[2pt]" for w in legend.warnings(run)),
            "\\\\[6pt]\n".join(tabulars),
            rf"\caption{{{latex(title)}. {'. '.join(_sentence(line) for line in said)}.}}",
            r"\end{table*}",
            "",
        ]
    )
    return "\n".join([MADE_BY, *letters_note(tex), tex])


def _blocks(columns: Sequence[Printed], label: int) -> tuple[list[list[Printed]], str]:
    r"""Columns that fit beside labels of so many letters, and their size: all, else by group, smaller."""

    def letters(block: Sequence[Printed]) -> int:
        return label + sum(2 + max(map(len, (*c.texts, c.heading))) for c in block)

    if letters(columns) <= SMALL:
        return [list(columns)], r"\small"
    blocks: list[list[Printed]] = []
    for column in columns:
        last = blocks[-1] if blocks else []
        if last and last[0].group == column.group and letters([*last, column]) <= SCRIPT:
            last.append(column)
        else:
            blocks.append([column])
    return blocks, r"\scriptsize"


def _latex_tabular(table: Sequence[Row], columns: Sequence[Printed], notes: Footnotes) -> str:
    lines = [latex_row(["method", *map(_latex_head, columns)]), r"\midrule"]
    for i, (row, label) in enumerate(zip(table, row_labels(table), strict=True)):
        lines += [r"\midrule"] if row.is_scale and i and not table[i - 1].is_scale else []
        lines.append(latex_row([latex(label), *(_latex_cell(c, i, notes) for c in columns)]))
    begin = rf"\begin{{tabular}}{{@{{}}l{'r' * len(columns)}@{{}}}}"
    return "\n".join([begin, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def latex_row(cells: Iterable[str]) -> str:
    """A line of a tabular."""
    return " & ".join(cells) + r" \\"


def _latex_head(column: Printed) -> str:
    head = f"{latex(column.heading)} {latex(column.arrow)}".strip()
    return rf"\shortstack[r]{{{head}\\{latex(column.unit)}}}" if column.unit else head


def _latex_cell(column: Printed, row: int, notes: Footnotes) -> str:
    text = latex(column.texts[row])
    mark = ",".join(map(str, notes.of(column.footnotes[row])))
    return (rf"\textbf{{{text}}}" if column.best[row] else text) + (
        rf"\textsuperscript{{{mark}}}" if mark else ""
    )
