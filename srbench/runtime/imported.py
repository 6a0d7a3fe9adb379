"""What imported videos are once decoded: which can be scored, and whose format differs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from srbench import video
from srbench.errors import UserError, UserErrorList, as_text

K = TypeVar("K", bound=Hashable)
EACH = 100  # videos between two lines of progress


@dataclass(frozen=True)
class Looked(Mapping[K, video.Look]):
    """A folder's videos that can be scored, by their key; `broken` has the reasons of the others."""

    name: str
    found: Mapping[K, video.Look]
    broken: Mapping[K, str]

    def __getitem__(self, key: K) -> video.Look:
        return self.found[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def look_at(name: str, videos: Mapping[K, Path]) -> Looked[K]:
    """Decode every video of a folder once; one that cannot be read stops no other."""
    found: dict[K, video.Look] = {}
    broken: dict[K, str] = {}
    for i, (key, path) in enumerate(videos.items(), 1):
        try:
            found[key] = video.look(path)
        except UserError as error:
            broken[key] = error.got.removeprefix(f"{path}: ").removeprefix(f"{path}, ")
        if i % EACH == 0:
            print(f"checked {i} of {len(videos)} videos of {name}", file=sys.stderr)
    return Looked(name, found, broken)


def common(
    reference: Looked[K], methods: Sequence[Looked[K]], paths: Mapping[str, Mapping[K, Path]]
) -> video.Look:
    """What all videos that can be scored have in common, as the first of the reference has it.

    paths: of the videos, by the folder's name and their key.  Raises UserError with the whole
    list where size, frame count or frame rate differ, or where no reference can be read.
    """
    if not reference:
        raise UserErrorList(
            f"no video of {reference.name} can be read",
            listed([reference], paths),
            "at least one reference that FFmpeg can decode",
            "check how these files were written",
        )
    first = next(iter(reference.values()))
    wrong = [
        f"{reference.name}/{as_text(paths[reference.name][key].name)}: {difference}, as the first of them"
        for key, own in reference.items()
        if (difference := differs(own, first))
    ]
    wrong += [
        f"{method.name}/{as_text(paths[method.name][key].name)}: {difference}"
        for method in methods
        for key, own in method.items()
        if (difference := differs(own, reference.get(key, first)))
    ]
    if wrong:
        raise UserErrorList(
            f"{len(wrong)} video{'s' * (len(wrong) > 1)} that differ{'s' * (len(wrong) == 1)}",
            wrong,
            "the same size, frames and fps throughout; nothing is cut, resized or resampled",
            "score those that fit together, or write them alike",
        )
    return first


def differs(own: video.Look, other: video.Look) -> str:
    """As in `80 frames, expected 81 frames`; empty if they fit."""
    facts = [
        (f"{own.width}×{own.height}", f"{other.width}×{other.height}"),
        (f"{own.frames} frames", f"{other.frames} frames"),
        (f"{float(own.fps):g} fps", f"{float(other.fps):g} fps"),
    ]
    return "; ".join(f"{a}, expected {b}" for a, b in facts if a != b)


def formats(method: Looked[K], reference: Looked[K]) -> Iterator[str]:
    """A sentence for each two formats of a pair that are converted to RGB differently."""
    pairs = Counter(
        (own.encoding, other.encoding)
        for key, own in method.items()
        if (other := reference.get(key)) is not None and own.reading != other.reading
    )
    for (one, another), count in pairs.items():
        yield (
            f"{method.name}: the format of {count} of {len(method)} videos ({one}) is not that of their "
            f"references ({another}). A part of the measured difference comes from the format"
        )


def listed(looked: Iterable[Looked[K]], paths: Mapping[str, Mapping[K, Path]]) -> list[str]:
    """All videos that cannot be read, one a line with the reason."""
    return [
        f"{one.name}/{as_text(paths[one.name][key].name)}: {reason}"
        for one in looked
        for key, reason in one.broken.items()
    ]
