"""Tables from stored records alone: no model, no GPU, nothing of a run but its folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from srbench.report import figures, page, table, terminal
from srbench.store.records import read_run


def make(run: Path, console: Console) -> None:
    """Write RUN/table.csv, figures/ and report.html with report/; print the table and the page's path.

    Raises UserError where `run` is not a run's folder, has no cells, or would put
    numbers of two protocols into one column.
    """
    record, cells = read_run(run)
    rows = table.rows(record, cells)
    table.to_csv(rows, run / "table.csv")
    terminal.show(record, cells, rows, console)
    drawn = figures.draw(run / "figures", record, cells, rows)
    report = page.write(run, record, cells, rows, drawn)
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
