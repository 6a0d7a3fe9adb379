"""What all figures share: the report's style, methods with their cells, files written whole.

PNG and PDF with vector text, one column (3.3 in) wide.  Meaning never hangs on colour alone:
every role has its own marker, every stage its own hatch, every curve its own dashes.
"""

from __future__ import annotations

import os
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.analysis.roles import Role
from srbench.analysis.values import Column, Row
from srbench.store.records import CellRecord, RunRecord

if TYPE_CHECKING:  # matplotlib takes most of a second to import, and the table alone needs none of it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH = 3.3  # inches, one column
LABEL = 40  # letters of a label in a figure
NO_SIMILARITY = "no metric in the records compares a video with the reference's"
CURVES = 6  # prompts, or methods, that one panel can show apart
ROLES: dict[Role, tuple[str, str, str]] = {  # marker, colour (Okabe and Ito's), words
    "reference": ("*", "#000000", "reference"),
    "small": ("s", "#D55E00", "small alone"),
    "fewer": ("D", "#E69F00", "fewer steps"),
    "adaptive": ("o", "#0072B2", "adaptive switch"),
    "fixed": ("^", "#009E73", "fixed switch"),
    "other": ("v", "#A05195", "other"),
    "scale": ("_", "#000000", "scale"),
}
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (2.5, 1)), (0, (8, 2, 1, 2, 1, 2)))
CURVE_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#A05195", "#8C6D00")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,  # text stays text
    "text.parse_math": False,  # a label may hold a dollar sign
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Figure:
    """What was drawn, or why it was not.

    name: its files are RUN/figures/<name>.png and .pdf.  caption: what is shown, over how
    many videos, and what is left out.  missing: the reason, empty where it was drawn.
    size: of the PNG in pixels, (0, 0) where it was not drawn.
    """

    name: str
    title: str
    caption: str
    missing: str = ""
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the table with the cells behind it and its role in the comparison."""

    row: Row
    path: Sequence[Mapping[str, Any]]
    cells: tuple[CellRecord, ...]

    @property
    def role(self) -> Role:
        return self.row.role

    @property
    def label(self) -> str:
        return short(self.row.label)

    @property
    def until(self) -> Mapping[str, Any]:
        """The first segment's switch rule as it was resolved."""
        return (self.path[0].get("until") if self.path else None) or {}


class LackError(Exception):
    """The figure lacks its data; the message says which."""


Drawn = tuple["Canvas", str]


def methods(run: RunRecord, cells: Iterable[CellRecord], table: Sequence[Row]) -> list[Method]:
    """The table's rows in their order, each with its done cells and its role."""
    done: dict[str, list[CellRecord]] = defaultdict(list)
    paths: dict[str, Sequence[Mapping[str, Any]]] = {m.id: m.path for m in run.methods}
    for cell in cells:
        paths.setdefault(cell.method_id, cell.path)
        if cell.outcome == "done":
            done[cell.method_id].append(cell)
    return [Method(row, paths.get(row.method_id, []), tuple(done[row.method_id])) for row in table]


def short(label: str, letters: int = LABEL) -> str:
    """A label cut to `letters`, on one line.

    >>> short("a" * 9, 5)
    'aaaa…'
    """
    text = " ".join(label.split())
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def wrapped(label: str, width: int) -> str:
    """A label on at most two lines."""
    return textwrap.fill(short(label, 2 * width - 4), width, max_lines=2, placeholder="…")


def make(folder: Path, name: str, title: str, plot: Callable[[], Drawn], warning: str) -> Figure:
    """Draw and write one figure with the warning above it, or say what it lacks.

    A file of an earlier report that can't be drawn now is removed.
    """
    files = [folder / f"{name}.{kind}" for kind in ("png", "pdf")]
    try:
        canvas, caption = plot()
    except LackError as lack:
        for file in files:
            file.unlink(missing_ok=True)
        return Figure(name, title, "", str(lack))
    if warning:  # a figure travels without its page
        text = textwrap.fill(short(f"Warning: {warning}", 130), 66)
        canvas.suptitle(text, fontsize=6, color="#A02000", fontweight="bold")
    for file in files:
        _save(canvas, file)
    width, height = canvas.get_size_inches() * STYLE["savefig.dpi"]
    return Figure(name, title, caption, size=(int(width), int(height)))


def _save(canvas: Canvas, file: Path) -> None:
    partial = file.with_name(f".{os.getpid()}-{file.name}")
    # No date and no version inside: the same records give the same bytes.
    nothing = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    canvas.savefig(partial, format=file.suffix[1:], metadata=nothing[file.suffix[1:]])
    os.replace(partial, file)


def blank(height: float, rows: int = 1) -> tuple[Canvas, list[Axes]]:
    """An empty figure, `height` inches tall, with panels one below the other on one x axis."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    axes = canvas.subplots(rows, 1, sharex=rows > 1, squeeze=False)
    return canvas, list(axes[:, 0])


def columns_of(table: Iterable[Row], kind: str) -> list[Column]:
    """The columns of a kind, in the table's order."""
    return list(dict.fromkeys(v.column for row in table for v in row.values if v.column.kind == kind))


def axis_label(column: Column) -> str:
    """As in `PSNR (dB) → better` or `speedup (× est.)`."""
    arrow = {None: "", True: ", higher is better", False: ", lower is better"}[column.higher_is_better]
    unit = f" ({column.marked_unit.strip()})" if column.marked_unit.strip() else ""
    return f"{column.heading}{unit}{arrow}"


def count(n: int, word: str) -> str:
    """As in `1 prompt` or `2 prompts`."""
    return f"{n} {word}{'s' * (n != 1)}"
