"""Tables from stored records alone: no model, no GPU, nothing of a run but its folder."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from srbench.report import export, figures, page, paper, reading, table, terminal


def make(run: Path, console: Console) -> None:
    """Print the table; write it and all else that a person sees of a run into RUN.

    As make_all() of one run.
    """
    make_all([run], console)


def make_all(
    folders: Sequence[Path], console: Console, into: Path | None = None, show_paper: bool = False
) -> None:
    """Print each run's table and write its report; write the paper's tables with all runs' numbers.

    Into each RUN: table.csv, .parquet, .md, .tex, dimensions.* where a suite has dimensions,
    figures/, and report.html with report/.  Into `into`, or the first RUN's paper/: the paper's
    tables, published beside measured.  show_paper: print those too.

    Raises UserError where a folder is not a run's, has no cells, or would put numbers of two
    protocols into one column.
    """
    gc.freeze()  # what was imported stays, and so do records: looking for garbage among them takes seconds
    runs: list[table.Run] = []
    for folder in folders:
        record, cells = reading.read(folder)
        gc.freeze()
        runs.append((record, cells, table.make(record, cells)))
    made = paper.write(into or folders[0] / "paper", runs)
    for folder, (record, cells, tables) in zip(folders, runs, strict=True):
        terminal.show(record, cells, tables.main, console)
        with page.shards(folder, record, cells, tables):
            export.write(folder, record, cells, tables)
            drawn = figures.draw(folder / "figures", record, cells, tables.main)
            report = page.write(folder, record, cells, tables, drawn, made)
        _say(console, f"report: {report}")
    if show_paper:
        paper.show(made, console)
    _say(console, paper.pointer(made))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
