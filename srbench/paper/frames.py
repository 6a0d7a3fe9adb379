"""Frames of a run's videos, side by side: methods one below the other, time from left to right.

Which prompts are shown is drawn by a stated seed, from those that have every method's video; no
hand has picked them.
"""

from __future__ import annotations

import math
import random
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srbench import video
from srbench.errors import UserError
from srbench.report.drawing import WIDTH, LackError, Method, count
from srbench.store.objects import VIDEO, Store
from srbench.store.records import CellRecord, RunRecord, linked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SAMPLE_SEED = 0
PROMPTS = 2  # shown of a run
THUMBNAIL = 208  # pixels, at most about this wide: a frame is drawn half an inch to an inch wide
LARGE = 2e7  # pixels of a video; one takes seconds to read, so fewer are read
LABELS = 0.66  # inches for the names of the methods
NAME, MOST_LINES = 13, 3  # letters in a line of a name; lines of a prompt
LINE = 0.083  # inches of a line above a sheet
WARNING = 0.24  # inches above all
GAP = 2  # pixels between frames

Key = tuple[int, int]  # (prompt_index, seed)
Narrow = Callable[[Sequence[str]], Sequence[str]]  # of prompts


@dataclass(frozen=True, eq=False)
class Frames:
    """Some frames of a video.  pictures: (frames, height, width, 3).  times: of each, as `1.0 s`."""

    pictures: video.Video
    times: list[str]


@dataclass(eq=False)
class Videos:
    """The videos of one run, and the frames that were read of them.

    run: its record.  folder: the run's own, in which videos/ lies; None where only its records
    are at hand.
    """

    run: RunRecord
    folder: Path | None
    _read: dict[tuple[Path, int], Frames] = field(default_factory=dict)

    def path(self, cell: CellRecord) -> Path | None:
        """A cell's file as it was recorded, if it is here."""
        if self.folder is None or cell.outcome != "done":
            return None
        tries = [linked(self.folder, cell)]
        if cell.video:
            tries.append(Store(self.folder / self.run.store).object_path(f"{cell.video}{VIDEO}"))
        return next((p for p in tries if p.is_file() and _length_fits(p, cell)), None)

    def frames(self, cell: CellRecord, many: int) -> Frames:
        """`many` frames from first to last in equal steps, made small.

        Raises LackError where the file is not here or cannot be read.
        """
        path = self.path(cell)
        if path is None:
            raise LackError(f"the video of {cell.method} for prompt {cell.prompt_index} is not here")
        if (path, many) not in self._read:
            try:
                self._read[path, many] = _sampled(path, many)
            except UserError as error:
                raise LackError(f"a video cannot be read: {error.got}") from None
        return self._read[path, many]

    def why_none(self) -> str:
        """Why no video is here."""
        if self.folder is None:
            return "only records were given, not the run's folder with its videos"
        return f"no videos of the run {self.run.run} lie beside its records"


def _length_fits(path: Path, cell: CellRecord) -> bool:
    return cell.video_bytes is None or path.stat().st_size == cell.video_bytes


def _sampled(path: Path, many: int) -> Frames:
    fps = video.header(path).fps
    found = [smaller(frame[0]) for frame in video.chunks(path, 1)]
    wanted = np.linspace(0, len(found) - 1, many).round().astype(int)
    return Frames(np.stack([found[i] for i in wanted]), [f"{i / float(fps):.1f} s" for i in wanted])


def smaller(frame: video.Video) -> video.Video:
    """A frame no wider than about THUMBNAIL, by means over squares of pixels; uint8 (h, w, 3)."""
    by = max(1, frame.shape[1] // THUMBNAIL)
    if by == 1:
        return frame
    height, width = (n // by for n in frame.shape[:2])
    squares = frame[: height * by, : width * by].reshape(height, by, width, by, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


# Which prompts


def prompts_shown(run: RunRecord) -> int:
    """PROMPTS, or one where reading videos takes long."""
    family: Mapping[str, object] = run.resolved.get("family") or {}
    sizes = [family.get(k) for k in ("frames", "height", "width")]
    pixels = math.prod(float(s) for s in sizes if isinstance(s, (int, float)))
    return PROMPTS if pixels <= LARGE else 1


def sample(
    videos: Videos,
    methods: Sequence[Method],
    among: Narrow | None = None,
) -> tuple[list[Key], int]:
    """Prompts and seeds drawn at random from those with every method's video, and from how many.

    among: narrows the prompts, as to the longest.  A prompt's first seed that has all videos is
    taken.  Raises LackError where no prompt has all.
    """
    have: dict[Key, set[str]] = defaultdict(set)
    prompts: dict[int, str] = {}
    for method in methods:
        for cell in method.cells:
            prompts[cell.prompt_index] = cell.prompt
            have[cell.prompt_index, cell.seed].add(method.row.method_id)
    full = sorted(key for key, ids in have.items() if len(ids) == len(methods))
    narrowed = set(among(list(prompts.values())) if among else prompts.values())
    first: dict[int, Key] = {}
    for key in (k for k in full if prompts[k[0]] in narrowed):
        first.setdefault(key[0], key)
    order = sorted(first)
    random.Random(SAMPLE_SEED).shuffle(order)
    cells = {(m.row.method_id, c.prompt_index, c.seed): c for m in methods for c in m.cells}

    def is_whole(key: Key) -> bool:
        return all(videos.path(cells[m.row.method_id, *key]) is not None for m in methods)

    whole = (first[i] for i in order if is_whole(first[i]))
    found = [key for key, _ in zip(whole, range(prompts_shown(videos.run)), strict=False)]
    if not found:
        raise LackError(videos.why_none() if first else "no prompt has a video of every method")
    return found, len(first)


def longest(prompts: Sequence[str]) -> Sequence[str]:
    """The longer half, at least two."""
    return sorted(prompts, key=len, reverse=True)[: max(2, (len(prompts) + 1) // 2)]


def drawn_from(keys: Sequence[Key], total: int, narrowed: str = "") -> str:
    """Where the shown prompts come from, for a caption."""
    which = ", ".join(f"prompt {p}, seed {s}" for p, s in keys)
    return (
        f"{count(len(keys), 'prompt')} ({which}) drawn at random (by seed {SAMPLE_SEED}) from the "
        f"{total}{narrowed} that have the video of every method shown; none was picked by hand."
    )


# Sheets


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of frames: `tiles[row]` is (columns, height, width, 3), or the reason why there are none."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    tiles: Sequence[video.Video | str]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return next(t.shape[1:3] for t in self.tiles if not isinstance(t, str))

    @property
    def tallness(self) -> float:
        """Height of all rows over the width of all columns, gaps included."""
        (height, width), rows, columns = self.shape, len(self.tiles), len(self.columns)
        return (rows * (height + GAP) - GAP) / (columns * (width + GAP) - GAP)


def draw_sheet(axes: Axes, sheet: Sheet, with_rows: bool = True, letters: int = 44) -> None:
    """A sheet as one picture, its rows' names at the side, its title above in lines of `letters`."""
    (height, width), columns = sheet.shape, len(sheet.columns)
    picture = np.full(
        (len(sheet.tiles) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8
    )
    for r, tiles in enumerate(sheet.tiles):
        top = r * (height + GAP)
        if isinstance(tiles, str):
            middle = (picture.shape[1] / 2, top + height / 2)
            text = textwrap.fill(tiles, max(letters - 10, 12), max_lines=3, placeholder="…")
            axes.annotate(text, middle, ha="center", va="center", fontsize=5, color="0.3")
            continue
        for c, frame in enumerate(tiles):
            left = c * (width + GAP)
            picture[top : top + height, left : left + width] = frame
    axes.imshow(picture, interpolation="nearest" if width < 100 else None)
    places = np.arange(len(sheet.tiles)) * (height + GAP) + height / 2
    names = [_name(r) for r in sheet.rows]
    axes.set_yticks(places, names if with_rows else [""] * len(names), fontsize=5.5, linespacing=0.95)
    across = np.arange(columns) * (width + GAP) + width / 2
    axes.set_xticks(across, sheet.columns, fontsize=5.5)
    axes.tick_params(length=0, pad=2)
    axes.tick_params(axis="x", top=False, labeltop=False, labelbottom=True, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("\n".join(_title(sheet, letters)), fontsize=5.5, loc="left", pad=2, linespacing=0.95)


def _title(sheet: Sheet, letters: int) -> list[str]:
    """Its lines; a prompt may be an essay."""
    return textwrap.wrap(sheet.title, letters, max_lines=MOST_LINES, placeholder="…”")


def _name(text: str) -> str:
    """A row's name; a line break in it stays."""
    lines = [textwrap.fill(line, NAME, max_lines=4, placeholder="…") for line in text.splitlines()]
    return "\n".join(lines)


def middle(videos: Videos, methods: Sequence[Method], key: Key, names: Sequence[str]) -> Sheet:
    """The middle frame of each method's video of one prompt, in a row."""
    cells = [next(c for c in m.cells if (c.prompt_index, c.seed) == key) for m in methods]
    found = [videos.frames(cell, 3).pictures[1] for cell in cells]
    return Sheet(f"“{cells[0].prompt}”", [""], names, [np.stack(found)])


def sheet(videos: Videos, rows: Sequence[tuple[str, Method | str]], key: Key, many: int) -> Sheet:
    """Frames of each row's video of one prompt; a row without a method has the reason in its place."""
    tiles: list[video.Video | str] = []
    columns, prompt = [""] * many, ""
    for _, method in rows:
        if isinstance(method, str):
            tiles.append(method)
            continue
        cell = next(c for c in method.cells if (c.prompt_index, c.seed) == key)
        found = videos.frames(cell, many)
        columns, prompt = found.times, cell.prompt
        tiles.append(found.pictures)
    return Sheet(f"“{prompt}”", [name for name, _ in rows], columns, tiles)


def grid(sheets: Sequence[Sheet], heading: str, warned: bool) -> Canvas:
    """Sheets in one figure: narrow frames side by side, wide ones below each other."""
    from matplotlib.figure import Figure as Canvas

    height, width = sheets[0].shape
    across = len(sheets) if width < 1.4 * height else 1
    lines = [sheets[i : i + across] for i in range(0, len(sheets), across)]
    gap, below, head = 0.06, 0.13, 0.14 + (WARNING if warned else 0.0)
    wide = (WIDTH - LABELS - gap * across) / across
    letters = int(wide * 24)
    tall = [wide * max(s.tallness for s in line) for line in lines]
    titles = [LINE * max(len(_title(s, letters)) for s in line) + 0.04 for line in lines]
    whole = head + sum(tall) + sum(titles) + below * len(lines)
    canvas = Canvas(figsize=(WIDTH, whole))
    canvas.text(0.01, 1 - (head - 0.02) / whole, heading, fontsize=7, va="bottom")
    top = whole - head
    for line, height_of, title in zip(lines, tall, titles, strict=True):
        top -= title + height_of
        for c, sheet in enumerate(line):
            own = sheet.tallness * wide
            place = (LABELS + c * (wide + gap), top + height_of - own, wide, own)
            axes = canvas.add_axes((place[0] / WIDTH, place[1] / whole, place[2] / WIDTH, place[3] / whole))
            draw_sheet(axes, sheet, with_rows=c == 0, letters=letters)
        top -= below
    return canvas
