"""The paper again, with these runs' numbers beside the published ones: everything below PAPER/.

Its parts know nothing of each other; this module alone knows all of them, and `paper_page` lays
them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from srbench.report.figures import Figure
from srbench.report.table import Run


@dataclass(frozen=True)
class Paper:
    """What was written into `folder`, and its page.

    figures: drawn into folder / "figures", as report.figures.Figure.
    """

    folder: Path
    page: Path
    figures: Sequence[Figure] = ()


def write(folder: Path, runs: Sequence[Run]) -> Paper:
    """Tables, contradictions, claims and figures of the paper as files in `folder`, and its page."""
    folder.mkdir(parents=True, exist_ok=True)
    return Paper(folder, folder / "index.html")


def show(paper: Paper, console: Console) -> None:
    """Print the paper's tables and what is said of them."""


def pointer(paper: Paper) -> str:
    """One line for a terminal: where it all lies."""
    return f"paper: {paper.page}"
