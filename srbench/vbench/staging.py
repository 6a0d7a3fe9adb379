"""Videos laid out as VBench reads them: a fresh folder of links that holds nothing else.

VBench looks for `{prompt}-{i}.mp4`, i = 0 to 4, by the original prompt also where the model was
given an extended one, takes the ending of whichever file it meets first for that of all, and
drops silently what it does not find.  decord, with which it reads, cannot read our lossless
VP9 masters, so those are encoded once more.
"""

from __future__ import annotations

import contextlib
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av

from srbench import video
from srbench.errors import UserError
from srbench.store.objects import write_atomic

Encoding = Literal["rgb", "yuv420p"]
ENDING = ".mp4"
MOST_VIDEOS = 5  # a prompt; VBench looks for -0 to -4
LONGEST_NAME = 255  # bytes, of a file's name on common disks
# What stands beside a score.  H.264 in RGB at qp 0 gives decord and OpenCV every byte back.
TOLD: Mapping[str, str] = {
    "rgb": "H.264 RGB qp 0, lossless (mp4)",
    "yuv420p": "H.264 yuv420p crf 18, lossy (mp4)",
}
_CODEC = {"rgb": ("libx264rgb", "rgb24", {"qp": "0"}), "yuv420p": ("libx264", "yuv420p", {"crf": "18"})}
READABLE = ("h264",)  # of imported videos: staged as they are
LONG = 5.0  # seconds; from here on VBench's FAQ sends videos to VBench-Long


@dataclass(frozen=True)
class Staged:
    """One video as it is to be scored.

    prompt: the original one.  index: the i of its file's name, 0 to 4.  file: what the link
    points to.  frames: how many it has, ≥ 1.
    """

    cell: str
    prompt: str
    index: int
    file: Path
    frames: int


def name_of(prompt: str, index: int) -> str:
    """The official file name.  Raises UserError where no file can be named so.

    >>> name_of("a person is running", 3)
    'a person is running-3.mp4'
    """
    name = f"{prompt}-{index}{ENDING}"
    if "/" in name or "\\0" in name or len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"{prompt!r} as a file's name",
            f"no slash, and at most {LONGEST_NAME - len(ENDING) - 2} bytes",
            "VBench's own prompts all fit; others are scored under numbered names",
        )
    return name


def numbered(place: int) -> str:
    """A name for prompts that are not VBench's, which are told to it in a list.

    >>> numbered(7)
    'video00007.mp4'
    """
    return f"video{place:05}{ENDING}"


def folded(name: str) -> str:
    """What a disk that does not tell case or Unicode forms apart makes of a name."""
    return unicodedata.normalize("NFC", name).casefold()


def named(videos: Sequence[Staged], standard: bool) -> list[dict[str, Staged]]:
    """Videos by file name, in as few folders as no two names of one fall together.

    standard: by the official rule, else numbered.  Two of VBench's prompts are equal up to
    case, so on some disks one would overwrite the other: they go into separate folders, on
    every disk, so that what is scored does not depend on it.

    Raises UserError for two videos of one prompt and index.
    """
    folders: list[dict[str, Staged]] = []
    taken: list[set[str]] = []
    names: set[str] = set()
    for place, one in enumerate(videos):
        name = name_of(one.prompt, one.index) if standard else numbered(place)
        if name in names:
            raise UserError(f"two videos named {name}", "one of each prompt and seed", "score one run")
        names.add(name)
        i = next((i for i, own in enumerate(taken) if folded(name) not in own), len(taken))
        if i == len(taken):
            folders.append({})
            taken.append(set())
        folders[i][name] = one
        taken[i].add(folded(name))
    return folders


@contextlib.contextmanager
def folder(where: Path, links: Mapping[str, Staged]) -> Iterator[Path]:
    """While inside, a new folder below `where` with one link for each video and nothing else."""
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="videos-", dir=where) as made:
        path = Path(made)
        for name, one in links.items():
            (path / name).symlink_to(one.file.resolve())
        yield path


def index_of(seed: int, seeds: Sequence[int]) -> int:
    """A seed's place among the run's, which names its file.  Raises UserError beyond VBench's five."""
    refuse_more(seeds, MOST_VIDEOS)
    return list(seeds).index(seed)


def refuse_more(seeds: Sequence[int], most: int) -> None:
    """Raises UserError for more videos a prompt than VBench looks at."""
    if len(seeds) > most:
        word = {MOST_VIDEOS: "sixth"}.get(most, f"{most + 1}th")
        raise UserError(
            f"{len(seeds)} seeds",
            f"at most {most}: VBench does not look at a {word} video of a prompt",
            f"run with suite.seeds={most}, or fewer",
        )


def encode(master: Path, target: Path, encoding: Encoding) -> None:
    """Write a master again as an mp4 with its true frames a second, whole or not at all.

    One thread, so the same master gives the same bytes.  Raises UserError for a video that
    cannot be read, and for an odd width or height with `yuv420p`, which halves both.
    """
    about = video.header(master)
    if encoding == "yuv420p" and (about.width % 2 or about.height % 2):
        raise UserError(
            f"{about.width}×{about.height} pixels", "an even width and height", "stage with --encoding rgb"
        )

    def write(path: Path) -> None:
        codec, pixels, options = _CODEC[encoding]
        with av.open(str(path), "w", format="mp4") as container:
            stream: Any = container.add_stream(
                codec, rate=about.fps, options={"preset": "veryfast"} | options
            )
            stream.width, stream.height, stream.pix_fmt = about.width, about.height, pixels
            stream.codec_context.thread_count = 1
            for chunk in video.chunks(master, 8):
                for frame in chunk:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())

    write_atomic(target, write)


def readable(
    master: Path, kept: Path, encoding: Encoding, header: Callable[[Path], video.Header] = video.header
) -> tuple[Path, str]:
    """A file that VBench can read, and how it came to be, as told beside the score.

    An imported H.264 mp4 is taken as it is; anything else is encoded into `kept`, once.
    """
    about = header(master)
    if about.codec in READABLE:
        return master, f"as imported, {about.codec} {about.pixels}"
    target = kept / f"{master.resolve().stem}-{encoding}{ENDING}"
    if not target.exists():
        encode(master, target, encoding)
    return target, TOLD[encoding]


def duration(family: Any) -> dict[str, str]:
    """Short or long VBench, as told beside a score; empty where a run does not tell frames and fps.

    family: as the run resolved it.
    """
    frames, fps = (family.get(k) if isinstance(family, dict) else None for k in ("frames", "fps"))
    if not isinstance(frames, int | float) or not isinstance(fps, int | float):
        return {}
    return {"duration": duration_note(int(frames), float(fps))}


def duration_note(frames: int, fps: float) -> str:
    """Which VBench this is, by the videos' length in seconds.

    >>> duration_note(81, 16)
    'videos of 5.06 s in VBench, not VBench-Long, to which its FAQ sends 5 s and more; papers do the same'
    """
    seconds = frames / fps
    if seconds < LONG:
        return f"videos of {seconds:.2f} s in VBench"
    return (
        f"videos of {seconds:.2f} s in VBench, not VBench-Long, to which its FAQ sends {LONG:g} s and more; "
        "papers do the same"
    )
