"""The tables as files: CSV, Parquet, Markdown and LaTeX.

CSV and Parquet are tidy, a line for each value with all that stands behind it, numbers with
all their digits. Parquet has the single videos' numbers too, and the run's provenance.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from srbench.report import legend
from srbench.report.table import Tables
from srbench.report.values import Column, Row, Value, decimals, shown
from srbench.store.objects import write_text
from srbench.store.records import CellRecord, RunRecord

CSV_FIELDS = (
    "method,method_id,label,role,column,unit,value,standard_error,low,high,best,n,clusters,protocol,"
    "outcome,reason,warnings"
).split(",")
TYPES = {"best": "bool_", "prompt_index": "int32", "n": "int32", "clusters": "int32", "seed": "int64"}
TYPES |= dict.fromkeys(("value", "standard_error", "low", "high"), "float64")
OF_RUN = ("experiment", "run", "family", "device", "timing", "commit", "started")
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
    *OF_RUN,
    *("dirty", "packages"),
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
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        for value in row.values:
            writer.writerow({k: _word(v) for k, v in _line(run, row, value).items()})
    return out.getvalue()


def _word(value: Any) -> str:
    """As CSV has it: all digits, `true` or `false`, empty for nothing."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


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
    (n = 1).  Words are dictionary-encoded, for most of them repeat.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = {name: getattr(pa, TYPES.get(name, "string"))() for name in PARQUET_FIELDS}
    lines = [*_method_lines(run, tables), *_video_lines(run, cells)]
    shared = {name: getattr(run, name) for name in OF_RUN} | {
        "dirty": None if run.dirty is None else _word(run.dirty),
        "packages": ", ".join(f"{name} {version}" for name, version in run.packages.items()),
    }
    arrays = []
    for name, kind in fields.items():
        values = [shared[name]] * len(lines) if name in shared else [line.get(name) for line in lines]
        array = pa.array(values, kind)
        arrays.append(array.dictionary_encode() if kind == pa.string() else array)
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.table(arrays, names=list(fields)), partial, compression="zstd")
    partial.replace(path)


def _method_lines(run: RunRecord, tables: Tables) -> Iterator[dict[str, Any]]:
    for table in (tables.main, tables.dimensions):
        for row in table:
            for value in row.values:
                yield {"level": "method", **_line(run, row, value)}


def _video_lines(run: RunRecord, cells: Iterable[CellRecord]) -> Iterator[dict[str, Any]]:
    for cell in cells:
        about = {
            **{name: getattr(cell, name) for name in ("method", "method_id", "label", "protocol", "prompt")},
            **{name: getattr(cell, name) for name in ("prompt_index", "seed", "video", "host", "finished")},
            "level": "video",
            "cell": cell.id,
            "role": "reference" if cell.is_reference else None,
            "clusters": 1,
            "best": False,
            "warnings": "; ".join(run.warnings),
        }
        yield from ({**about, **line} for line in _cell_lines(cell))


def _cell_lines(cell: CellRecord) -> Iterator[dict[str, Any]]:
    if cell.outcome != "done":
        yield {"column": "video", "n": 0, "outcome": cell.outcome, "reason": cell.reason}
        return
    for score in cell.scores:
        known = score.value is not None and math.isfinite(score.value)
        yield {
            "column": score.metric.name,
            "unit": score.metric.unit,
            "value": score.value if known else None,
            "n": int(known),
            "outcome": score.outcome,
            "reason": score.reason,
            "reference": score.reference,
        }
    for stage in cell.stages:
        yield {
            "column": f"seconds/{stage.name}",
            "unit": "s",
            "value": stage.seconds,
            "n": 1,
            "outcome": "done",
        }
    if cell.trace is not None and cell.trace.switches:
        yield {"column": "switch_step", "value": float(cell.trace.switches[0]), "n": 1, "outcome": "done"}


# For papers and pages


def _parts(table: Sequence[Row]) -> tuple[list[Column], list[list[str]], list[list[Value]]]:
    """Columns, and by column their values as text and themselves."""
    columns = list(zip(*(row.values for row in table), strict=True))
    texts = [[shown(v, decimals(column)) for v in column] for column in columns]
    return [c[0].column for c in columns], texts, [list(c) for c in columns]


def to_markdown(run: RunRecord, table: Sequence[Row]) -> str:
    """A GitHub table; the best is bold, scale rows are in italics, reasons are numbered below.

    Words of the records are escaped: none can break the table or begin a tag.
    """
    columns, texts, values = _parts(table)
    notes = _Numbered()
    head = ["method", *(_markdown(c.title) for c in columns)]
    lines = [_pipe(head), _pipe([":--", *("--:" for _ in columns)])]
    for i, row in enumerate(table):
        label = f"*{_markdown(row.label)}*" if row.is_scale else _markdown(row.label)
        cells = [_markdown_cell(texts[c][i], values[c][i], notes) for c in range(len(columns))]
        lines.append(_pipe([label, *cells]))
    above = [f"**{_markdown(w)}**\n" for w in legend.warnings(run)]
    below = [f"<sup>{n}</sup> {_markdown(text)}" for text, n in notes.numbers.items()]
    below += [_markdown(line) for line in legend.below(table, "bold")]
    return "\n".join([*above, *lines, "", *(f"- {line}" for line in below), ""])


class _Numbered:
    """Reasons in order of appearance; one reason has one number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, value: Value) -> str:
        return str(self.numbers.setdefault(value.footnote, len(self.numbers) + 1)) if value.footnote else ""


def _pipe(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#&~$!])", r"\\\1", " ".join(text.split()))


def _markdown_cell(text: str, value: Value, notes: _Numbered) -> str:
    number = f"**{_markdown(text)}**" if value.best else _markdown(text)
    mark = notes.of(value)
    return f"{number}<sup>{mark}</sup>" if mark else number


LAST_LETTER = "\u0180"  # Latin letters with accents end there, and with them what every font has
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
    "[": "{[}",
    "]": "{]}",
}


def latex(text: str) -> str:
    r"""Text that LaTeX prints as it stands; what its fonts lack and has no name is “?”.

    >>> latex("PAB 8 & 50 % of $x_1$")
    'PAB 8 \\& 50 \\% of \\$x\\_1\\$'
    """

    def known(c: str) -> str:
        return c if c.isprintable() and (c.isascii() or (c.isalpha() and c < LAST_LETTER)) else "?"

    return "".join(SPECIAL.get(c, known(c)) for c in " ".join(text.split()))


def to_latex(run: RunRecord, table: Sequence[Row]) -> str:
    r"""A `tabular` of booktabs in a `table*`, with notes; `\usepackage{booktabs}` is all it needs.

    `\input` it.  The best is bold, numbers are aligned right, scale rows stand below a rule.
    """
    columns, texts, values = _parts(table)
    notes = _Numbered()
    heads = [
        rf"\shortstack[r]{{{latex(c.heading)} {latex(c.arrow)}\\{latex(c.marked_unit)}}}" for c in columns
    ]
    lines = [_latex_row(["method", *heads]), r"\midrule"]
    for i, row in enumerate(table):
        if row.is_scale and not table[i - 1].is_scale:
            lines.append(r"\midrule")
        cells = [_latex_cell(texts[c][i], values[c][i], notes) for c in range(len(columns))]
        lines.append(_latex_row([latex(row.label), *cells]))
    said = [rf"\textsuperscript{{{n}}} {latex(text)}" for text, n in notes.numbers.items()]
    said += [latex(line) for line in legend.below(table, "bold")]
    warned = [rf"\textbf{{{latex(w)}}}\\" for w in legend.warnings(run)]
    return "\n".join(
        [
            "% needs booktabs; made by python -m srbench.report from stored records",
            r"\begin{table*}",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            *warned,
            rf"\begin{{tabular}}{{@{{}}l{'r' * len(columns)}@{{}}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{latex(legend.header(run, [])[0])}, protocol {latex(run.protocol[:12])}. "
            + ". ".join(said)
            + ".}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(text: str, value: Value, notes: _Numbered) -> str:
    number = rf"\textbf{{{latex(text)}}}" if value.best else latex(text)
    mark = notes.of(value)
    return rf"{number}\textsuperscript{{{mark}}}" if mark else number
