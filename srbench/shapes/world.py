"""The words of the shapes world: scenes, their captions, and how captions split.

A scene is what a caption says; where exactly the objects stand and how fast they
move is left to the renderer's seed.  Every combination of attributes belongs to
exactly one split, and the two ways of saying one relation ("a to the left of b",
"b to the right of a") are the same combination.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "tune", "test"]

SHAPES = ("circle", "square", "triangle")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 70),
    "blue": (50, 90, 230),
    "yellow": (245, 215, 50),
    "purple": (160, 60, 190),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 16),
    "gray": (128, 128, 132),
    "white": (244, 244, 240),
}
MOTIONS = ("still", "left", "right", "up", "down")
RELATIONS = ("left", "right", "above", "below")
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_RELATION_WORDS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}


@dataclass(frozen=True, order=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a caption says.

    `relation` places the first thing relative to the second and is None for a
    single thing.  All things of a scene share one motion, so the relation holds
    in every frame.
    """

    things: tuple[Thing, ...]
    motion: str
    background: str
    relation: str | None = None

    def __post_init__(self) -> None:
        if len(self.things) not in (1, 2) or (len(self.things) == 2) != bool(self.relation):
            raise ValueError("a scene is one thing, or two things and a relation")
        if len({t.colour for t in self.things}) != len(self.things):
            raise ValueError("two things of a scene must differ in colour")
        if self.motion not in MOTIONS or self.background not in BACKGROUNDS:
            raise ValueError(f"no motion {self.motion!r} or no background {self.background!r} in this world")

    @property
    def caption(self) -> str:
        """The sentence a model is given.

        >>> Scene((Thing("red", "circle"),), "left", "black").caption
        'a red circle moving left on a black background'
        """
        if self.relation is None:
            subject = str(self.things[0])
        else:
            subject = f"{self.things[0]} {_RELATION_WORDS[self.relation]} {self.things[1]}"
        both = "" if self.relation is None else "both "
        action = "standing still" if self.motion == "still" else f"moving {self.motion}"
        return f"{subject} {both}{action} on a {self.background} background"

    @property
    def canonical(self) -> Scene:
        """The same scene said the one way that names a left or upper thing first."""
        if self.relation in (None, "left", "above"):
            return self
        return Scene(self.things[::-1], self.motion, self.background, INVERSE[str(self.relation)])

    @property
    def split(self) -> Split:
        """Train (80 %), tune (10 %) or test (10 %), by a hash of the combination."""
        digest = hashlib.sha256(self.canonical.caption.encode()).digest()
        bucket = int.from_bytes(digest[:4], "big") % 10
        return "test" if bucket == 0 else "tune" if bucket == 1 else "train"


def scenes(count: Literal[1, 2], split: Split | None = None) -> list[Scene]:
    """All scenes with one or two things, in a fixed order.

    >>> len(scenes(1)), len(scenes(2))
    (225, 10800)
    """
    things = [Thing(c, s) for c, s in itertools.product(COLOURS, SHAPES)]
    everything: list[Scene] = []
    for motion, background in itertools.product(MOTIONS, BACKGROUNDS):
        if count == 1:
            everything += [Scene((t,), motion, background) for t in things]
        else:
            everything += [
                Scene((a, b), motion, background, relation)
                for a, b in itertools.permutations(things, 2)
                if a.colour != b.colour
                for relation in RELATIONS
            ]
    return [s for s in everything if split is None or s.split == split]


def parse(caption: str) -> Scene:
    """The scene of a caption; the inverse of `Scene.caption`.

    Raises ValueError where the caption is not a sentence of this world.

    >>> parse("a red circle moving left on a black background").motion
    'left'
    """
    words = caption.lower().split()
    things = tuple(Thing(a, b) for a, b in itertools.pairwise(words) if a in COLOURS and b in SHAPES)
    between = words[3 : words.index(things[1].colour)] if len(things) == 2 else []
    relation = next((r for r in RELATIONS if r in between), None)
    verb = next((i for i, w in enumerate(words) if w in ("moving", "standing")), 0)
    try:
        scene = Scene(things, words[verb + 1], words[-2], relation)
    except (ValueError, IndexError):
        scene = None
    if scene is None or scene.caption != " ".join(words):
        raise ValueError(f"not a sentence of the shapes world: {caption!r}")
    return scene


def unknown_words(text: str) -> list[str]:
    """The words of a text that no caption of this world has, in their order.

    >>> unknown_words("A red cat on a black piano")
    ['cat', 'piano']
    """
    said = {*SHAPES, *COLOURS, *BACKGROUNDS, *MOTIONS, *"a on background both moving standing".split()}
    said |= {word for relation in _RELATION_WORDS.values() for word in relation.split()}
    return list(dict.fromkeys(w for w in re.findall(r"\w+", text.lower()) if w not in said))


def warning(texts: Sequence[str]) -> str:
    """What to know of videos of texts that are no captions of this world; empty where all are captions."""
    strange = [t for t in texts if not _is_caption(t)]
    if not strange:
        return ""
    words = list(dict.fromkeys(w for t in strange for w in unknown_words(t)))
    named = ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")
    return (
        f"{len(strange)} of {len(texts)} prompts are no captions of the shapes world, "
        + (f"whose model does not know the words {named}" if words else f"such as {strange[0]!r}")
        + ": their videos do not show what they describe"
    )


def _is_caption(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
