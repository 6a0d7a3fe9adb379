"""Tables from stored records alone: no model, no GPU, nothing of a run but its folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from srbench.report import table, terminal
from srbench.store.records import read_run


def make(run: Path, console: Console) -> None:
    """Write RUN/table.csv, print the table and the folder.

    Raises UserError where `run` is not a run's folder, has no cells, or would put
    numbers of two protocols into one column.
    """
    record, cells = read_run(run)
    rows = table.rows(record, cells)
    table.to_csv(rows, run / "table.csv")
    terminal.show(record, cells, rows, console)
    console.print(f"report: {run}", markup=False, highlight=False, soft_wrap=True)
