"""Tables from stored records alone: no model, no GPU, nothing of a run but its folder."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from srbench.analysis import reading, table
from srbench.paper import pages
from srbench.report import export, figures, page, terminal
from srbench.store.objects import locked
from srbench.store.records import read_run_record


def make(run: Path, console: Console) -> None:
    """Write all that a person sees of a run into RUN, then print its table.

    As make_all() of one run.
    """
    make_all([run], console)


def make_all(
    folders: Sequence[Path], console: Console, into: Path | None = None, show_paper: bool = False
) -> None:
    """Write each run's report and print its table; write the paper's tables with all runs' numbers.

    Into each RUN: table.csv, .parquet, .md, .tex, dimensions.* where a suite has dimensions,
    figures/, and report.html with report/.  Into `into`, or the first RUN's paper/: the paper's
    tables, published beside measured.  show_paper: print those too, and draw the paper's
    figures, which are also drawn for several runs.

    Of reports that begin at the same time the others wait for the first, then read the records
    themselves.  Raises UserError where a folder is not a run's, has no cells, or would put
    numbers of two protocols into one column.
    """
    with _alone(folders, into):
        _make_all(folders, console, into, show_paper)


@contextlib.contextmanager
def _alone(folders: Sequence[Path], into: Path | None) -> Iterator[None]:
    """While inside, no other process writes these reports: jobs of an array may all end at once.

    The lock is not the run's own, which jobs that are still at work take and give back.
    """
    for folder in folders:
        read_run_record(folder)  # raises, before a lock would make a folder where there is no run
    places = {(folder / "report").resolve() for folder in folders} | ({into.resolve()} if into else set())
    with contextlib.ExitStack() as locks:
        for place in sorted(places):  # in one order, so that no two wait for each other
            locks.enter_context(locked(place))
        yield


def _make_all(folders: Sequence[Path], console: Console, into: Path | None, show_paper: bool) -> None:
    gc.freeze()  # what was imported stays, and so do records: looking for garbage among them takes seconds
    runs: list[table.Run] = []
    for folder in folders:
        record, cells = reading.read(folder)
        gc.freeze()
        runs.append((record, cells, table.make(record, cells)))
    whole = show_paper or into is not None or len(folders) > 1
    made = pages.write(into or folders[0] / "paper", runs, folders, with_figures=whole)
    reports = []
    for folder, (record, cells, tables) in zip(folders, runs, strict=True):
        with page.shards(folder, record, cells, tables):
            export.write(folder, record, cells, tables)
            drawn = figures.draw(folder / "figures", record, cells, tables.main)
            reports.append(page.write(folder, record, cells, tables, drawn, made))
    for report, (record, cells, tables) in zip(reports, runs, strict=True):  # all files are there by now
        terminal.show(record, cells, tables.main, console, tables.dimensions)
        _say(console, f"report: {report}")
    if show_paper:
        pages.show(made, console)
    _say(console, pages.pointer(made))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
