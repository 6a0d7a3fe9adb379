"""Folders as VBench reads them: official names, nothing else, every byte and the true fps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from srbench import video
from srbench.errors import UserError
from srbench.vbench import staging
from srbench.vbench.staging import Staged


def staged(prompt: str, index: int, file: Path = Path("x.mp4")) -> Staged:
    return Staged(f"{prompt}-{index}", prompt, index, file, 3)


@pytest.fixture
def master(tmp_path: Path) -> Path:
    path = tmp_path / "master.webm"
    pixels = np.random.default_rng(1).integers(0, 256, (5, 34, 62, 3), np.uint8)
    video.write_lossless(path, pixels, 16)
    return path


def test_a_lossless_mp4_has_every_byte_and_the_true_fps(master: Path, tmp_path: Path) -> None:
    file, told = staging.readable(master, tmp_path / "kept", "rgb")
    assert file.suffix == ".mp4" and "lossless" in told
    (pixels, fps), (original, _) = video.read(file), video.read(master)
    assert np.array_equal(pixels, original) and fps == Fraction(16)


def test_the_lossy_one_says_so_and_needs_even_sides(master: Path, tmp_path: Path) -> None:
    file, told = staging.readable(master, tmp_path / "kept", "yuv420p")
    assert "lossy" in told and video.look(file).pixels == "yuv420p"
    odd = tmp_path / "odd.webm"
    video.write_lossless(odd, np.zeros((2, 33, 62, 3), np.uint8), 8)
    with pytest.raises(UserError, match="62×33"):
        staging.encode(odd, tmp_path / "odd.mp4", "yuv420p")


def test_an_imported_mp4_is_taken_as_it_is(master: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.mp4"
    staging.encode(master, theirs, "yuv420p")
    file, told = staging.readable(theirs, tmp_path / "kept", "rgb")
    assert file == theirs and told == "as imported, h264 yuv420p"
    assert not (tmp_path / "kept").exists()


def test_a_folder_is_new_holds_links_alone_and_is_gone_afterwards(master: Path, tmp_path: Path) -> None:
    links = {"a dog-0.mp4": staged("a dog", 0, master)}
    with staging.folder(tmp_path / "w", links) as first, staging.folder(tmp_path / "w", links) as second:
        assert first != second
        (link,) = first.iterdir()
        assert link.name == "a dog-0.mp4" and link.resolve() == master
    assert not first.exists() and master.exists()


def test_names_that_a_disk_may_take_for_one_are_in_two_folders() -> None:
    composed, decomposed = "a fa\u00e7ade", "a fac\u0327ade"
    videos = [staged(p, 0) for p in ("a fantasy", "A fantasy", composed, decomposed, "a dog")]
    first, second = staging.named(videos, standard=True)
    assert list(first) == ["a fantasy-0.mp4", f"{composed}-0.mp4", "a dog-0.mp4"]
    assert list(second) == ["A fantasy-0.mp4", f"{decomposed}-0.mp4"]


def test_two_videos_of_one_prompt_and_index_are_refused() -> None:
    with pytest.raises(UserError, match="two videos"):
        staging.named([staged("a dog", 0), staged("a dog", 0)], standard=True)


@pytest.mark.parametrize("prompt", ["a/b", "x" * 250, "é" * 125])
def test_a_prompt_that_cannot_be_a_file_name_is_never_cut(prompt: str) -> None:
    with pytest.raises(UserError, match="as a file's name"):
        staging.name_of(prompt, 0)
    (numbered,) = staging.named([staged(prompt, 0)], standard=False)
    assert list(numbered) == ["video00000.mp4"]


def test_vbenchs_longest_prompt_of_210_bytes_fits() -> None:
    assert staging.name_of("x" * 210, 4) == "x" * 210 + "-4.mp4"


def test_a_seed_is_named_by_its_place_and_a_sixth_is_refused() -> None:
    assert staging.index_of(100003, (100002, 100003)) == 1
    with pytest.raises(UserError, match="sixth"):
        staging.index_of(0, range(6))


def test_long_videos_are_told_of() -> None:
    assert "not VBench-Long" in staging.duration_note(81, 16)
    assert staging.duration_note(49, 16) == "videos of 3.06 s in VBench"
