"""Tables from stored records alone: no model, no GPU, nothing of a run but its folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from srbench.report import export, figures, page, reading, table, terminal


def make(run: Path, console: Console) -> None:
    """Print the table; write it and all else that a person sees of a run into RUN.

    table.csv, .parquet, .md, .tex, dimensions.* where a suite has dimensions, figures/, and
    report.html with report/, whose path is printed last.

    Raises UserError where `run` is not a run's folder, has no cells, or would put
    numbers of two protocols into one column.
    """
    record, cells = reading.read(run)
    tables = table.make(record, cells)
    terminal.show(record, cells, tables.main, console)
    export.write(run, record, cells, tables)
    drawn = figures.draw(run / "figures", record, cells, tables.main)
    report = page.write(run, record, cells, tables, drawn)
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
