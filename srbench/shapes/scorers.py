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

VERSION = 2

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Scores = dict[str, float | None]

_PALETTE = np.array([*COLOURS.values(), *BACKGROUNDS.values()], dtype=np.float64)
_NAMES = [*COLOURS, *BACKGROUNDS]
_DIRECTION = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
# Of the things of ground truth: areas are 98 to 452 px, speeds 1.25 to 1.625 px a frame.
_SMALLEST_BLOB = 30
_MOST_BLOBS = 4
# Levels from the background; palette colours are at least 95 from any.
_FAINT = 25.0
_STEPS = FRAMES - 1
# Pixels this near a thing (px) are its edge, as the VAE draws it.
_MARGIN = 1.5
_LEAST_FRAMES = 5


@dataclass(frozen=True)
class Dimension:
    """What a reader must know of one dimension.

    defined: for every prompt, only where two things are asked for, or only where they shall move.
    weight: in its group's mean.
    """

    group: Literal["semantic", "quality"]
    description: str
    defined: Literal["always", "pair", "moving"] = "always"
    weight: float = 1.0

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
    "motion": Dimension("semantic", "things go in the direction asked for, or nothing moves"),
    "background": Dimension("semantic", "what lies outside the things is nearest to the colour asked for"),
    "flicker": Dimension("quality", "pixels outside the things stay as they were a frame before"),
    "subject_consistency": Dimension("quality", "things stay there, with one shape, colour and size"),
    "background_consistency": Dimension("quality", "outside the things is one even colour, and nothing else"),
    "motion_smoothness": Dimension("quality", "things keep their velocity; no smooth motion where none is"),
    "dynamic_degree": Dimension("quality", "things that shall move do, in whatever direction", "moving"),
    # three things in one; with the weight of one, a blurred video would beat an honest small model
    "fidelity": Dimension("quality", "things have clean edges, a pure colour and an ideal shape", weight=3.0),
}


@dataclass(frozen=True)
class Blob:
    """One connected patch of colour in one frame; lengths in pixels, colours in levels 0 to 255.

    colour: (3,), the median of its inside.  centre: (2,), x and y of its soft centroid.
    area: the sum of its soft coverage.  corners: (2,), how far it is a triangle and a square,
    see `_corners`.  overlap: soft IoU with the ideal shape of its kind, area and centroid.
    sharpness: the energy of its edges over that ideal shape's; about 1 for a clean edge, 0.2 after
    a blur of σ = 2.5 px, above 1 with noise.  impurity: mean distance of its inside from the
    nearest palette colour, in levels.
    """

    colour: Floats
    centre: Floats
    area: float
    corners: Floats
    overlap: float
    sharpness: float
    impurity: float


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
    quality, semantic: the weighted means of their dimensions.  total = (4 quality + semantic) / 5.
    """

    dimensions: Mapping[str, float]
    videos: Mapping[str, int]
    quality: float
    semantic: float
    total: float


def score(video: Video, scene: Scene) -> Scores:
    """Each dimension of one video: a number in [0, 1], or None where it isn't defined.

    video: uint8 (frames ≥ 5, 64, 64, 3), RGB.  The keys are those of DIMENSIONS, in order.
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
        g: float(
            np.average(
                [means[n] for n, d in DIMENSIONS.items() if d.group == g],
                weights=[d.weight for d in DIMENSIONS.values() if d.group == g],
            )
        )
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

    Raises UserError for anything but uint8 (frames ≥ 5, 64, 64, 3).
    """
    check(video, "the video")
    if video.shape[0] < _LEAST_FRAMES or video.shape[1:3] != (SIZE, SIZE):
        raise UserError(
            f"a video of shape {video.shape}",
            f"at least {_LEAST_FRAMES} frames of {SIZE}×{SIZE} pixels",
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
    Edges are measured with the nearest palette colour for m, as the inside of a blurred thing is
    itself paler.
    """
    window, near = _window(mask, others)
    pixels, inside = frame[window], mask[window]
    core = ndimage.binary_erosion(inside, iterations=2)
    core = core if core.any() else inside
    colour = np.median(pixels[core], axis=0).astype(np.float64)
    pure = _PALETTE[np.linalg.norm(_PALETTE[: len(COLOURS)] - colour, axis=1).argmin()]
    if min(np.linalg.norm(colour - ground), np.linalg.norm(pure - ground)) < _FAINT:
        return None
    a = np.clip(_along(pixels, ground, colour), 0.0, 1.0) * near
    # far from the centre a trace of ringing would weigh as much as a corner
    a[a < 0.06] = 0.0
    area = float(a.sum())
    y, x = (np.arange(s.start, s.stop) + 0.5 for s in window)
    centre = np.array([a.sum(0) @ x, a.sum(1) @ y]) / area
    corners = _corners(a, centre - (x[0] - 0.5, y[0] - 0.5)) / _CORNERS
    ideal = _ideal(_name(corners), centre - (x[0] - 0.5, y[0] - 0.5), area, len(x))
    return Blob(
        colour=colour,
        centre=centre,
        area=area,
        corners=corners,
        overlap=float(np.minimum(a, ideal).sum() / np.maximum(a, ideal).sum()),
        sharpness=_energy(_along(pixels, ground, pure), near) / max(_energy(ideal, near), 1.0),
        impurity=float(np.linalg.norm(pixels[core] - pure, axis=-1).mean()),
    )


def _window(mask: Masks, others: Masks) -> tuple[tuple[slice, slice], Masks]:
    """A square window around a patch, and which of its pixels are the patch's surroundings.

    The window holds any ideal shape of the patch's area and 3 px around it; surroundings are
    a disc, as a square window would lend noise its own corners, less what is near other patches.
    """
    rows, columns = np.nonzero(mask)
    # the tip of a triangle is the farthest point of the three shapes: 1.56 √(area / π)
    reach = 1.56 * math.sqrt(len(rows) / math.pi) + 3.0
    middle = np.array([rows.mean(), columns.mean()]) + 0.5
    n = min(SIZE, 2 * math.ceil(reach))
    y0, x0 = np.clip(np.rint(middle - n / 2), 0, SIZE - n).astype(int)
    window = (slice(int(y0), int(y0) + n), slice(int(x0), int(x0) + n))
    y, x = np.ogrid[window]
    disc = np.hypot(x + 0.5 - middle[1], y + 0.5 - middle[0]) <= reach
    if others[window].any():
        disc &= ~ndimage.binary_dilation(others[window], iterations=2)
    return window, disc | mask[window]


def _along(pixels: NDArray[np.float32], ground: NDArray[np.float32], colour: Floats) -> Floats:
    """Where pixels (…, 3) lie from the background (0) to a colour (1): (p − b)·(c − b) / |c − b|²."""
    to = colour - ground
    return (pixels - ground) @ to / (to @ to)


def _energy(coverage_map: Floats, where: Masks) -> float:
    """Σ |∇a|² where asked: falls with the width of edges, grows with noise."""
    down, right = np.gradient(coverage_map)
    return float(((down**2 + right**2) * where).sum())


def _corners(a: Floats, centroid: Floats) -> Floats:
    """Three- and fourfold corners of a coverage map (n, n): (2,), by harmonic moments.

    Σ a Im z³ / A^2.5 and −Σ a Re z⁴ / A³ with z = x + iy from the centroid and A = Σ a.  The first
    is nought for circles and squares, the second for circles and triangles.  Both are the same
    whatever the size, and, as z³ and z⁴ are harmonic, whatever the blur: a soft triangle stays one.
    """
    axis = np.arange(len(a)) + 0.5
    z = (axis - centroid[0])[None, :] + 1j * (axis - centroid[1])[:, None]
    cube = z * z * z
    area = a.sum()
    return np.array([(a * cube.imag).sum() / area**2.5, -(a * (cube * z).real).sum() / area**3])


def _name(corners: Floats) -> str:
    """The shape that corners tell of."""
    return max(SHAPES, key=lambda s: _likely_shape(corners, s))


def _ideal(shape: str, centroid: Floats, area: float, size: int = SIZE, grow: float = 0.0) -> Floats:
    """Coverage (size, size) of the ideal shape of this area (px²) and centroid, `grow` px wider all round.

    Areas of `render.coverage` for radius r: circle πr², square (1.76 r)², triangle
    3√3 (0.62 r)², whose centroid lies 0.15 r below its centre.
    """
    unit = {"circle": math.pi, "square": 1.76**2, "triangle": 3.0 * math.sqrt(3.0) * 0.62**2}[shape]
    inner = {"circle": 1.0, "square": 0.88, "triangle": 0.62}[shape]
    radius = math.sqrt(area / unit) + grow / inner
    drop = 0.15 * radius if shape == "triangle" else 0.0
    return coverage(shape, centroid - np.array([0.0, drop]), radius, size)


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
        + 0.6 * _likely_shape(blob.corners, thing.shape)
        + 0.2 * stays
        + 0.1 * _solid(blob)
        + 0.01
    )


def _outside(tracks: tuple[Track, ...], shape: tuple[int, ...]) -> Masks:
    """True where no thing asked for is near: (T, H, W)."""
    outside = np.ones(shape, dtype=bool)
    for track in tracks:
        if not any(track):
            continue
        name = _name(_mean_corners(track))
        for t, blob in enumerate(track):
            if blob is not None:
                outside[t] &= _ideal(name, blob.centre, blob.area, grow=_MARGIN) == 0.0
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
    colours too: full marks to 0.3, so a colour may be washed out a little, none from 0.5.  Nor has
    one 120 levels off, as cyan is of blue, though no name of the palette is nearer.
    """
    distance = np.linalg.norm(_PALETTE - colour, axis=1)
    d = float(distance[_NAMES.index(name)])
    rest = float(np.delete(distance, _NAMES.index(name)).min())
    return min(ramp(d / (d + rest), 0.5, 0.3), ramp(d, 120.0, 70.0))


def _likely_shape(corners: Floats, shape: str) -> float:
    """1 if corners are clearly those of `shape`, 0 if clearly not.

    Ideal corners are (0, 0), (0, 1) and (1, 0).  The limits lie low because the VAE rounds corners.
    Chosen on 240 clips of the tune split after the VAE: 98 % of its circles have threefold corners
    up to 0.11 and fourfold ones up to 0.21, of its squares fourfold ones from 0.19, of its triangles
    threefold ones from 0.22.  So circles and small squares on gray meet: it costs 2 % of scenes
    their `object_class`, whatever the limits.  A bar or a diamond has fourfold corners below 0 and
    is none of the three.
    """
    round_three = ramp(abs(float(corners[0])), 0.21, 0.15)
    if shape == "triangle":
        return 1.0 - round_three
    four = float(corners[1])
    return round_three * (ramp(four, 0.20, 0.27) if shape == "square" else ramp(abs(four), 0.27, 0.20))


def _solid(blob: Blob) -> float:
    """1 for one compact patch of a thing's size; less for specks and for smears without a shape."""
    return ramp(blob.area, 30.0, 80.0) * ramp(blob.overlap, 0.35, 0.55)


def _there(track: Track) -> list[Blob]:
    """A thing's blobs in the frames that have it."""
    return [b for b in track if b is not None]


def _mean_corners(track: Track) -> Floats:
    """Mean of a thing's corners over the frames it's in: the VAE's ringing differs per frame."""
    return np.mean([b.corners for b in _there(track)], axis=0)


def _over_frames(track: Track, judge: Callable[[Blob], float]) -> float:
    """Mean over all frames; nought for those the thing isn't in."""
    return sum(judge(b) for b in _there(track)) / len(track)


def _places(track: Track) -> Floats:
    """Centres, (T, 2) in pixels; NaN where the thing isn't there."""
    return np.array([b.centre if b is not None else (np.nan, np.nan) for b in track])


def _speed(track: Track) -> float:
    """|least-squares slope of the centre| in px a frame; 0 if the thing is in fewer than 3 frames."""
    places = _places(track)
    t = np.flatnonzero(~np.isnan(places[:, 0]))
    if len(t) < 3:
        return 0.0
    centred = t - t.mean()
    return float(np.hypot(*(centred @ places[t] / (centred @ centred))))


def _object_class(seen: Seen) -> float:
    """The worst thing's likeness to its shape, judged once from all frames, × how far it's there."""
    return min(
        _likely_shape(_mean_corners(track), thing.shape) * _over_frames(track, _solid) if any(track) else 0.0
        for thing, track in zip(seen.scene.things, seen.tracks, strict=True)
    )


def _multiple_objects(seen: Seen) -> float:
    """How far the lesser of the two things is there, mean over frames."""
    return min(_over_frames(track, _solid) for track in seen.tracks)


def _colour(seen: Seen) -> float:
    """The worst thing's likeness to its colour, mean over frames."""
    return min(
        sum(_likely_colour(b.colour, thing.colour) for b in _there(track)) / len(track)
        for thing, track in zip(seen.scene.things, seen.tracks, strict=True)
    )


def _spatial_relationship(seen: Seen) -> float:
    """How far the things are apart the way asked for, more than sideways: 1 from 8 px, mean over frames.

    Where a thing is missing, 0.
    """
    relation = str(seen.scene.relation)
    axis = 0 if relation in ("left", "right") else 1
    sign = -1.0 if relation in ("left", "above") else 1.0
    apart = _places(seen.tracks[0]) - _places(seen.tracks[1])
    lead = sign * apart[:, axis] - np.abs(apart[:, 1 - axis])
    return float(np.mean([ramp(x, 0.0, 8.0) for x in np.nan_to_num(lead, nan=-1.0)]))


def _motion(seen: Seen) -> float:
    """Mean over the things that are there of how they go the way asked for.

    Moving: Σ d·e / Σ (|d| + 0.1 px) over the steps d, e being the direction; a shuffled video's
    steps cancel, a frozen one's are nought.  Still: the farthest a centre gets from its median.
    """
    scores = [
        _stillness(track) if seen.scene.motion == "still" else _heading(track, _DIRECTION[seen.scene.motion])
        for track in seen.tracks
        if any(track)
    ]
    return float(np.mean(scores)) if scores else 0.0


def _heading(track: Track, direction: tuple[float, float]) -> float:
    """How much of the way goes there: 1 from 0.7 of it, 0 up to 0.3 or with under 3 steps."""
    steps = np.diff(_places(track), axis=0)
    steps = steps[~np.isnan(steps[:, 0])]
    if len(steps) < 3:
        return 0.0
    way = float((np.linalg.norm(steps, axis=1) + 0.1).sum())
    return ramp(float(steps.sum(0) @ np.array(direction)) / way, 0.3, 0.7)


def _stillness(track: Track) -> float:
    """1 if no centre is over 1.5 px from the median of all, 0 from 4 px."""
    places = np.array([b.centre for b in _there(track)])
    farthest = np.linalg.norm(places - np.median(places, axis=0), axis=1).max()
    return ramp(float(farthest), 4.0, 1.5)


def _background(seen: Seen) -> float:
    """The share of pixels outside the things that are nearest to the background asked for."""
    pixels = seen.video[seen.outside]
    if len(pixels) == 0:
        return 0.0
    palette = _PALETTE.astype(np.float32)
    # |p − q|² less |p|², which is the same for all q
    nearest = ((palette**2).sum(1) - 2.0 * (pixels @ palette.T)).argmin(1)
    return ramp(float(np.mean(nearest == _NAMES.index(seen.scene.background))), 0.5, 0.98)


def _flicker(seen: Seen) -> float:
    """RMS change, in levels, of pixels outside the things in two frames: 0 from 12, mean over steps.

    RMS, as a patch that blinks should count although most pixels rest.
    """
    both = seen.outside[1:] & seen.outside[:-1]
    change = np.square(np.diff(seen.video, axis=0)).mean(-1)
    steps = [math.sqrt(c[w].mean()) if w.any() else math.inf for c, w in zip(change, both, strict=True)]
    return float(np.mean([ramp(x, 12.0, 2.0) for x in steps]))


def _subject_consistency(seen: Seen) -> float:
    """Mean over things: the share of frames it's in × evenness of size, colour and shape over them."""
    return float(np.mean([_over_frames(t, _solid) * _evenness(t) if any(t) else 0.0 for t in seen.tracks]))


def _evenness(track: Track) -> float:
    """Spread of a thing over frames: σ/μ of its area, RMS levels from its median colour, σ of its corners."""
    blobs = _there(track)
    areas = np.array([b.area for b in blobs])
    colours = np.array([b.colour for b in blobs])
    drift = np.linalg.norm(colours - np.median(colours, axis=0), axis=1)
    spread = np.std([b.corners for b in blobs], axis=0).max()
    return (
        ramp(float(areas.std() / areas.mean()), 0.3, 0.08)
        * ramp(float(np.sqrt(np.mean(drift**2))), 40.0, 14.0)
        * ramp(float(spread), 0.35, 0.15)
    )


def _background_consistency(seen: Seen) -> float:
    """How little there is outside the things but the video's own background colour.

    That colour is the median over all frames; a pixel 42 levels off counts whole, one 12 off not
    at all, and 80 px of them, less than the smallest thing's area, leave nothing.  Mean over frames.
    """
    colour = np.median(border_colour(seen.video), axis=0)
    off = np.linalg.norm(seen.video - colour, axis=-1)
    stray = (np.clip((off - 12.0) / 30.0, 0.0, 1.0) * seen.outside).sum((1, 2))
    return float(np.mean([ramp(x, 80.0, 6.0) for x in stray]))


def _motion_smoothness(seen: Seen) -> float:
    """Mean over things: RMS change of velocity (px a frame²), 0 from 4.

    A video that shall move and stands still isn't smooth: × how far it moves at all.
    """
    scores = []
    for track in seen.tracks:
        bend = np.diff(_places(track), n=2, axis=0)
        bend = bend[~np.isnan(bend[:, 0])]
        moves = 1.0 if seen.scene.motion == "still" else ramp(_speed(track) * _STEPS, 2.0, 6.0)
        scores.append(moves * ramp(_rms(bend), 4.0, 1.2) if len(bend) else 0.0)
    return float(np.mean(scores))


def _rms(vectors: Floats) -> float:
    """Root mean square length of (n, 2) vectors."""
    return math.sqrt(float((vectors**2).sum(-1).mean()))


def _dynamic_degree(seen: Seen) -> float:
    """Mean over things: net way in 17 frames at its speed, full marks from 16 px (asked are 20 to 26)."""
    return float(np.mean([ramp(_speed(track) * _STEPS, 2.0, 16.0) for track in seen.tracks]))


def _fidelity(seen: Seen) -> float:
    """Mean over things and frames: edges × pure colour × overlap with an ideal shape."""
    return float(np.mean([_over_frames(track, _likeness_to_render) for track in seen.tracks]))


def _likeness_to_render(blob: Blob) -> float:
    """Of one blob; its limits lie between what the VAE does to things and a blur of σ = 2.5 px.

    Energy of edges is 0.34 to 0.84 of an ideal's after the VAE, 0.14 to 0.24 after the blur, and
    above 1.4 where noise is.
    """
    edges = ramp(blob.sharpness, 0.23, 0.34) * ramp(blob.sharpness, 1.9, 1.4)
    return edges * ramp(blob.impurity, 45.0, 18.0) * ramp(blob.overlap, 0.45, 0.6)


_MEASURES: Mapping[str, Callable[[Seen], float]] = {
    "object_class": _object_class,
    "multiple_objects": _multiple_objects,
    "colour": _colour,
    "spatial_relationship": _spatial_relationship,
    "motion": _motion,
    "background": _background,
    "flicker": _flicker,
    "subject_consistency": _subject_consistency,
    "background_consistency": _background_consistency,
    "motion_smoothness": _motion_smoothness,
    "dynamic_degree": _dynamic_degree,
    "fidelity": _fidelity,
}

# What `_corners` gives for an ideal triangle and an ideal square.
_CORNERS = np.array(
    [
        _corners(_ideal(s, np.full(2, SIZE / 2), 200.0), np.full(2, SIZE / 2))[i]
        for i, s in ((0, "triangle"), (1, "square"))
    ]
)
