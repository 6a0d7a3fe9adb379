"""Ground-truth videos of scenes: anti-aliased coloured shapes, exact by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.shapes.world import BACKGROUNDS, COLOURS, Scene

FRAMES, SIZE, FPS = 17, 64, 8
_DIRECTION = {
    "still": (0.0, 0.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}


@dataclass(frozen=True)
class Layout:
    """Where things are: all lengths in pixels.

    centres: (frames, things, 2) as x, y.  radii: (things,).
    """

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]


def layout(scene: Scene, seed: int) -> Layout:
    """Draw sizes, places and a speed that keep every thing in view in all frames."""
    rng = np.random.default_rng(seed)
    pair = len(scene.things) == 2
    radii = rng.uniform(7.0, 9.0, len(scene.things)) if pair else rng.uniform(8.0, 12.0, 1)
    direction = np.array(_DIRECTION[scene.motion])
    travel = direction * rng.uniform(20.0, 26.0)
    start = np.zeros((len(scene.things), 2))
    if pair:
        axis = 0 if scene.relation in ("left", "right") else 1
        # the first thing lies on the smaller side for "left" and "above"
        sign = -1.0 if scene.relation in ("left", "above") else 1.0
        gap = radii.sum() + rng.uniform(4.0, 8.0)
        start[0, axis] = sign * gap / 2
        start[1, axis] = -sign * gap / 2
        start[:, 1 - axis] = rng.uniform(-2.0, 2.0, 2)
    # a pair that moves along the line that joins it has less room
    room = SIZE - 2 * (radii.max() + 1) - np.ptp(start, axis=0)
    travel = np.clip(travel, -room, room)
    low = radii.max() + 1 - np.minimum(0, travel) - start.min(0)
    high = SIZE - radii.max() - 1 - np.maximum(0, travel) - start.max(0)
    offset = rng.uniform(low, np.maximum(low, high))
    times = np.linspace(0.0, 1.0, FRAMES)[:, None, None]
    return Layout(start + offset + times * travel, radii)


def _distance(shape: str, dx: NDArray, dy: NDArray, radius: float) -> NDArray:
    """Signed distance in pixels to the edge, negative inside; areas are similar."""
    if shape == "circle":
        return np.hypot(dx, dy) - radius
    if shape == "square":
        return np.maximum(abs(dx), abs(dy)) - 0.88 * radius
    # an equilateral triangle, its point up, its centroid slightly below the centre
    y = dy - 0.15 * radius
    return np.maximum(0.866 * abs(dx) - 0.5 * y, y) - 0.62 * radius


def coverage(shape: str, centre: NDArray, radius: float, size: int = SIZE) -> NDArray[np.float64]:
    """How much of each pixel the shape covers: (size, size) in [0, 1]."""
    axis = np.arange(size) + 0.5
    dx, dy = axis[None, :] - centre[0], axis[:, None] - centre[1]
    return np.clip(0.5 - _distance(shape, dx, dy, radius), 0.0, 1.0)


def render(scene: Scene, seed: int, *, size: int = SIZE) -> NDArray[np.uint8]:
    """The video of a scene: uint8 (17, size, size, 3), RGB; the same for one seed."""
    where, scale = layout(scene, seed), size / SIZE
    video = np.empty((FRAMES, size, size, 3))
    video[:] = BACKGROUNDS[scene.background]
    for frame in range(FRAMES):
        for i, thing in enumerate(scene.things):
            alpha = coverage(thing.shape, where.centres[frame, i] * scale, where.radii[i] * scale, size)[
                ..., None
            ]
            video[frame] = alpha * np.array(COLOURS[thing.colour]) + (1 - alpha) * video[frame]
    return np.rint(video).astype(np.uint8)
