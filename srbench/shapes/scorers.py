"""Analytic scorers of the shapes suite: what a video shows of its caption, from pixels alone.

No learned model looks at a video here.  `observe` finds the background and the coloured
things in every frame and fits ideal shapes to them; each dimension is then one short pure
function of what was seen, from 0 (absent, broken) to 1 (as a ground-truth render).
`tests/shapes` calibrates them on renders, on renders through the family's VAE, on captions
wrong in one attribute and on videos broken in one way.

Most dimensions end in a ramp from "bad" to "good", in pixels or colour levels.  "Good" is
beyond what the VAE alone costs, so a perfect denoiser can reach 1; "bad" is what a person
would call wrong.

Semantic dimensions ask only about the one thing they name: a red circle where a red square
was asked for costs `object_class` and nothing else.  A thing that isn't there at all has no
shape, colour or place, so it costs those too.  Quality dimensions never ask for a particular
shape, colour or direction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from srbench.errors import UserError
from srbench.shapes.render import FRAMES, SIZE, coverage
from srbench.shapes.world import BACKGROUNDS, COLOURS, SHAPES, Scene, parse
from srbench.video import Video, check

VERSION = 1
import os

SHARP = float(os.environ.get("SHARP", "3"))

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Scores = dict[str, float | None]

_PALETTE = np.array([*COLOURS.values(), *BACKGROUNDS.values()], dtype=np.float64)
_NAMES = [*COLOURS, *BACKGROUNDS]
_AXIS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
# Of the things of ground truth: areas are 98 to 452 px, speeds 1.25 to 1.625 px a frame.
_SMALLEST_BLOB = 30
_MOST_BLOBS = 4
_STEPS = FRAMES - 1
# Pixels this near a thing are its edge, or the VAE's ringing around it.
_MARGIN = 2.5


@dataclass(frozen=True)
class Dimension:
    """What a reader must know of one dimension.

    defined: for every prompt, only where two things are asked for, or only where they shall move.
    """

    group: Literal["semantic", "quality"]
    description: str
    defined: Literal["always", "pair", "moving"] = "always"

    def applies(self, scene: Scene) -> bool:
        """Whether a video of this scene has a score on this dimension."""
        if self.defined == "pair":
            return len(scene.things) == 2
        return self.defined == "always" or scene.motion != "still"


DIMENSIONS: Mapping[str, Dimension] = {
    "object_class": Dimension("semantic", "every shape asked for is there, whatever its colour"),
    "multiple_objects": Dimension("semantic", "two separate things are there, whatever they are", "pair"),
    "colour": Dimension("semantic", "every thing is nearest to the colour asked for"),
    "spatial_relationship": Dimension(
        "semantic", "the first thing lies where it should of the second", "pair"
    ),
    "motion": Dimension("semantic", "every step goes in the direction asked for, or nothing moves"),
    "background": Dimension("semantic", "what lies outside the things is nearest to the colour asked for"),
    "flicker": Dimension("quality", "pixels outside the things stay as they were a frame before"),
    "subject_consistency": Dimension("quality", "things stay there, with one shape, colour and size"),
    "background_consistency": Dimension("quality", "outside the things is one even colour, and nothing else"),
    "motion_smoothness": Dimension("quality", "things keep their velocity; no smooth motion where none is"),
    "dynamic_degree": Dimension("quality", "things that shall move do, in whatever direction", "moving"),
    "fidelity": Dimension("quality", "things have clean edges, a pure colour and an ideal shape"),
}


@dataclass(frozen=True)
class Blob:
    """One connected patch of colour in one frame; lengths in pixels, colours in levels 0 to 255.

    colour: (3,), the median of its inside.  centre: (2,), x and y of its soft centroid.
    area: the sum of its soft coverage.  overlaps: (3,), the soft IoU with the ideal circle,
    square and triangle of its area and centroid.  softness: Σ a(1 − a) of its coverage a over
    that of the best ideal shape; 1 for an anti-aliased edge, 8 after a blur of σ = 2.5 px.
    """

    colour: Floats
    centre: Floats
    area: float
    overlaps: Floats
    softness: float

    @property
    def shape(self) -> str:
        """The ideal shape that overlaps most."""
        return SHAPES[int(self.overlaps.argmax())]


Track = tuple[Blob | None, ...]


@dataclass(frozen=True)
class Seen:
    """What was found in a video: all that the dimensions look at.

    video: float32 (T, H, W, 3), levels.  tracks: for each thing asked for, its blob in every
    frame or None.  outside: (T, H, W), true where no thing asked for is near.
    """

    video: NDArray[np.float32]
    scene: Scene
    tracks: tuple[Track, ...]
    outside: Masks


@dataclass(frozen=True)
class Totals:
    """A suite's scores, all in [0, 1].

    dimensions: each one's mean over the videos that have it.  videos: how many those are.
    quality, semantic: the plain means of their dimensions.  total = (4 quality + semantic) / 5.
    """

    dimensions: Mapping[str, float]
    videos: Mapping[str, int]
    quality: float
    semantic: float
    total: float


def score(video: Video, scene: Scene) -> Scores:
    """Each dimension of one video: a number in [0, 1], or None where it isn't defined.

    video: uint8 (frames ≥ 3, 64, 64, 3), RGB.  The keys are those of DIMENSIONS, in order.
    Raises UserError for any other array.
    """
    seen = observe(video, scene)
    return {
        name: float(np.clip(_MEASURES[name](seen), 0.0, 1.0)) if facts.applies(scene) else None
        for name, facts in DIMENSIONS.items()
    }


def score_many(videos: Sequence[Video], captions: Sequence[str]) -> list[Scores]:
    """`score` of each video against its caption.

    Raises UserError where the numbers of both differ or a caption isn't of the shapes world.
    """
    if len(videos) != len(captions):
        raise UserError(
            f"{len(videos)} videos and {len(captions)} captions",
            "one caption for each video",
            "pass them in the same order; repeat a caption for each of its seeds",
        )
    wanted = []
    for caption in captions:
        try:
            wanted.append(parse(caption))
        except ValueError as error:
            raise UserError(
                str(error),
                "captions like 'a red circle moving left on a black background'",
                "score videos of other text with other metrics",
            ) from None
    return [score(v, s) for v, s in zip(videos, wanted, strict=True)]


def aggregate(scores: Sequence[Mapping[str, float | None]]) -> Totals:
    """Means over videos for each dimension, then over dimensions: total = (4 quality + semantic) / 5.

    A None is left out of its dimension's mean.  Nothing else may be missing: raises UserError
    for other keys than DIMENSIONS', for a NaN or a value outside [0, 1], and where a dimension
    has no video at all, since a mean over fewer dimensions isn't comparable.
    """
    for i, one in enumerate(scores):
        if set(one) != set(DIMENSIONS):
            raise UserError(
                f"video {i} with dimensions {sorted(one)}",
                f"exactly {sorted(DIMENSIONS)}",
                "pass what `score` returned",
            )
        for name, value in one.items():
            if value is not None and not 0.0 <= value <= 1.0:
                raise UserError(
                    f"{name} = {value} of video {i}", "a number in [0, 1], or None", "score that video again"
                )
    values = {name: [v for one in scores if (v := one[name]) is not None] for name in DIMENSIONS}
    if empty := [name for name, v in values.items() if not v]:
        raise UserError(
            f"no video with a score for {', '.join(empty)}",
            "at least one for each dimension, or the total means something else",
            "use prompts with one and with two things, some of them moving",
        )
    means = {name: float(np.mean(v)) for name, v in values.items()}
    groups = {
        g: float(np.mean([means[n] for n, d in DIMENSIONS.items() if d.group == g]))
        for g in ("quality", "semantic")
    }
    return Totals(
        dimensions=means,
        videos={name: len(v) for name, v in values.items()},
        quality=groups["quality"],
        semantic=groups["semantic"],
        total=(4.0 * groups["quality"] + groups["semantic"]) / 5.0,
    )


# --- Looking ------------------------------------------------------------------------------------


def observe(video: Video, scene: Scene) -> Seen:
    """Find the things a scene asks for in every frame of a video.

    Raises UserError for anything but uint8 (frames ≥ 3, 64, 64, 3).
    """
    check(video, "the video")
    if video.shape[0] < 3 or video.shape[1:3] != (SIZE, SIZE):
        raise UserError(
            f"a video of shape {video.shape}",
            f"at least 3 frames of {SIZE}×{SIZE} pixels",
            "score videos of the shapes family, at its own size",
        )
    levels = video.astype(np.float32)
    ground = border_colour(levels)
    labels = segment(levels, ground)
    last: list[Blob | None] = [None] * len(scene.things)
    frames = []
    for t in range(len(levels)):
        last = _assign(scene, _blobs(levels[t], labels[t], ground[t]), last)
        frames.append(last)
    tracks = tuple(zip(*frames, strict=True))
    return Seen(levels, scene, tracks, _outside(tracks, levels.shape[:3]))


def border_colour(video: NDArray[np.float32]) -> NDArray[np.float32]:
    """The background of each frame: (T, 3), the median of each channel over the outer 2 px."""
    inner = np.zeros(video.shape[1:3], dtype=bool)
    inner[2:-2, 2:-2] = True
    return np.median(video[:, ~inner], axis=1).astype(np.float32)


def segment(video: NDArray[np.float32], ground: NDArray[np.float32]) -> NDArray[np.int8]:
    """Label each pixel: 0 background, else 1 + the index of the palette colour it leans to.

    Between the background b and a thing's colour c, an edge pixel is p = b + a (c − b).  So a
    pixel belongs to the c whose segment from b is nearest, and is part of a thing if a ≥ 0.4.
    Other colours than the palette's get the label of their hue: a thing of the wrong colour is
    still a thing.  Returns int8 (T, H, W).
    """
    shift = (video - ground[:, None, None]).reshape(len(video), -1, 3)
    to = (_PALETTE[: len(COLOURS)].astype(np.float32) - ground[:, None]).transpose(0, 2, 1)  # (T, 3, C)
    # a thing colour that is the background's own has no segment: its pixels get label 0
    length = np.maximum((to**2).sum(1, keepdims=True), 1.0)
    along = shift @ to
    a = np.clip(along / length, 0.0, 1.0)
    # |p − b − a(c − b)|², less |p − b|², which is the same for all c
    residual = a * (a * length - 2.0 * along)
    nearest = residual.argmin(-1)
    part = np.take_along_axis(a, nearest[..., None], -1)[..., 0] >= 0.4
    return np.where(part, nearest + 1, 0).astype(np.int8).reshape(video.shape[:3])


def _blobs(frame: NDArray[np.float32], labels: NDArray[np.int8], ground: NDArray[np.float32]) -> list[Blob]:
    """The largest patches of one frame, largest first."""
    found: list[tuple[int, Masks]] = []
    for label in np.flatnonzero(np.bincount(labels.ravel()) >= _SMALLEST_BLOB):
        if label == 0:
            continue
        parts, _ = ndimage.label(labels == label)
        sizes = np.bincount(parts.ravel())
        found += [(int(sizes[i]), parts == i) for i in range(1, len(sizes)) if sizes[i] >= _SMALLEST_BLOB]
    found.sort(key=lambda pair: -pair[0])
    kept = [mask for _, mask in found[:_MOST_BLOBS]]
    blobs = (_blob(frame, mask, (labels > 0) & ~mask, ground) for mask in kept)
    return [b for b in blobs if b is not None]


def _blob(frame: NDArray[np.float32], mask: Masks, others: Masks, ground: NDArray[np.float32]) -> Blob | None:
    """Measure one patch; None if its colour is the background's.

    With the median colour m of its inside, coverage is a = (p − b)·(m − b) / |m − b|², in [0, 1].
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1 = max(rows[0] - 4, 0), min(rows[-1] + 5, SIZE)
    x0, x1 = max(columns[0] - 4, 0), min(columns[-1] + 5, SIZE)
    window = np.s_[y0:y1, x0:x1]
    core = ndimage.binary_erosion(mask[window], iterations=2)
    colour = np.median(frame[window][core if core.any() else mask[window]], axis=0).astype(np.float64)
    to = colour - ground
    if (to @ to) < 20.0**2:
        return None
    a = np.clip((frame[window] - ground) @ to / (to @ to), 0.0, 1.0)
    a[others[window]] = 0.0
    area = float(a.sum())
    x, y = np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5
    centre = np.array([a.sum(0) @ x, a.sum(1) @ y]) / area
    ideals = [_ideal(s, centre, area)[window] for s in SHAPES]
    hard = np.clip(0.5 + SHARP * (a - 0.5), 0.0, 1.0)
    harea = float(hard.sum())
    hcentre = np.array([hard.sum(0) @ x, hard.sum(1) @ y]) / harea
    ideals = [_ideal(s, hcentre, harea)[window] for s in SHAPES]
    overlaps = np.array([np.minimum(hard, i).sum() / np.maximum(hard, i).sum() for i in ideals])
    best = ideals[int(overlaps.argmax())]
    edge = float((best * (1.0 - best)).sum())
    return Blob(colour, centre, area, overlaps, float((a * (1.0 - a)).sum()) / max(edge, 1.0))


def _ideal(shape: str, centroid: Floats, area: float, grow: float = 0.0) -> Floats:
    """Coverage (H, W) of the ideal shape of this area (px²) and centroid, `grow` px wider all round.

    Areas of `render.coverage` for radius r: circle πr², square (1.76 r)², triangle
    3√3 (0.62 r)², whose centroid lies 0.15 r below its centre.
    """
    unit = {"circle": math.pi, "square": 1.76**2, "triangle": 3.0 * math.sqrt(3.0) * 0.62**2}[shape]
    inner = {"circle": 1.0, "square": 0.88, "triangle": 0.62}[shape]
    radius = math.sqrt(area / unit)
    wide = radius + grow / inner
    drop = 0.15 * wide if shape == "triangle" else 0.0
    return coverage(shape, centroid - np.array([0.0, drop]), wide)


def _assign(scene: Scene, blobs: list[Blob], last: Sequence[Blob | None]) -> list[Blob | None]:
    """Which blob is which thing of the scene: the assignment of highest total likeness."""
    slots: list[Blob | None] = [*blobs, *[None] * len(scene.things)]
    likeness = [[_likeness(scene, i, b, last[i]) for b in slots] for i in range(len(scene.things))]
    ways = itertools.permutations(range(len(slots)), len(scene.things))
    best = max(ways, key=lambda way: sum(likeness[i][j] for i, j in enumerate(way)))
    return [slots[j] for j in best]


def _likeness(scene: Scene, i: int, blob: Blob | None, last: Blob | None) -> float:
    """How well a blob would do as the scene's i-th thing.

    Colour counts more than shape, so things that swapped their colours are told by colour in
    every frame; place decides only where both say nothing.
    """
    if blob is None:
        return 0.0
    thing = scene.things[i]
    stays = 0.0 if last is None else math.exp(-float(np.hypot(*(blob.centre - last.centre))) / 8.0)
    return (
        _likely_colour(blob.colour, thing.colour)
        + 0.6 * _likely_shape(blob, thing.shape)
        + 0.2 * stays
        + 0.1 * _solid(blob)
        + 0.01
    )


def _outside(tracks: tuple[Track, ...], shape: tuple[int, ...]) -> Masks:
    """True where no thing asked for is within 3 px: (T, H, W)."""
    outside = np.ones(shape, dtype=bool)
    for track in tracks:
        for t, blob in enumerate(track):
            if blob is not None:
                outside[t] &= _ideal(blob.shape, blob.centre, blob.area, grow=_MARGIN) == 0.0
    return outside


# --- Judging ------------------------------------------------------------------------------------


def ramp(x: float, bad: float, good: float) -> float:
    """0 at `bad` and beyond, 1 at `good` and beyond, linear between; `bad` may be the larger.

    >>> ramp(3.0, 4.0, 2.0), ramp(9.0, 4.0, 2.0), ramp(-1.0, 4.0, 2.0)
    (0.5, 0.0, 1.0)
    """
    return min(1.0, max(0.0, (x - bad) / (good - bad)))


def _likely_colour(colour: Floats, name: str) -> float:
    """1 if a colour is clearly the palette's `name`, 0 if it's as near to another of the palette.

    From d / (d + d'), d being the distance to `name` and d' to the nearest other, background
    colours too: full marks to 0.3, so a colour may be washed out a little, none from 0.5.
    """
    distance = np.linalg.norm(_PALETTE - colour, axis=1)
    d = float(distance[_NAMES.index(name)])
    rest = float(np.delete(distance, _NAMES.index(name)).min())
    return ramp(d / (d + rest), 0.5, 0.3)


def _likely_shape(blob: Blob, shape: str) -> float:
    """1 if the ideal `shape` overlaps clearly more than the other two, 0 if one of them does as well."""
    k = SHAPES.index(shape)
    margin = float(blob.overlaps[k] - np.delete(blob.overlaps, k).max())
    return ramp(margin, 0.0, 0.04) * _solid(blob)


def _solid(blob: Blob) -> float:
    """1 for one compact patch of a thing's size; less for specks and for smears without a shape."""
    return ramp(blob.area, 30.0, 80.0) * ramp(float(blob.overlaps.max()), 0.5, 0.75)
