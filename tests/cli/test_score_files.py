"""Imported videos of every kind: broken ones fail alone, names and seeds are kept, formats compared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from srbench import decoding
from srbench.cli import score
from srbench.cli.score import Key, key_of
from srbench.errors import UserError, as_text
from srbench.metrics.psnr import PSNR
from srbench.store.records import CellRecord, RunRecord, link_name, read_run

LARGEST = 2**64 - 1


def mp4(path: Path, level: int = 100, format: str = "yuv420p", fps: int = 8, **tags: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.kron(np.random.default_rng(level).integers(0, 255, (3, 4, 6, 3)), np.ones((1, 8, 8, 1)))
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, format
        if "matrix" in tags:
            stream.codec_context.colorspace = tags["matrix"]
        for one in pixels.astype(np.uint8):
            frame = av.VideoFrame.from_ndarray(one, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=format, dst_colorspace=tags.get("matrix"))))
        container.mux(stream.encode())
    return path


def command(folder: Path, *more: str) -> int:
    given = [str(folder / "mine"), "--reference", str(folder / "original")]
    return score.main([*given, "--results", str(folder / "results"), "--metric", "psnr", *more])


def recorded(folder: Path) -> tuple[RunRecord, dict[str, CellRecord], Path]:
    """The run, the cells of `mine` by their prompt, and the run's folder."""
    (run,) = (folder / "results" / "imported").iterdir()
    record, cells = read_run(run)
    return record, {c.prompt: c for c in cells if not c.is_reference}, run


def pairs(folder: Path, *names: str) -> None:
    for name in names:
        mp4(folder / "original" / f"{name}.mp4", 1)
        mp4(folder / "mine" / f"{name}.mp4", 2)


# Broken videos


def test_broken_videos_are_listed_together_and_the_others_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [f"broken {i}" for i in range(8)]
    pairs(tmp_path, "a dog", "a cat", *broken, "a folder")
    for name in broken:
        (tmp_path / "mine" / f"{name}.mp4").write_text("no video")
    (tmp_path / "mine" / "a folder.mp4").unlink()
    (tmp_path / "mine" / "a folder.mp4").mkdir()
    assert command(tmp_path) == 1
    shown = capsys.readouterr()
    assert "9 of the videos cannot be read" in shown.err
    assert all(f"mine/{name}.mp4: Invalid data" in shown.err for name in broken)
    assert "mine/a folder.mp4: a folder" in shown.err
    _, cells, _ = recorded(tmp_path)
    assert {p for p, c in cells.items() if c.outcome == "failed"} == {*broken, "a folder"}
    assert cells["broken 3"].reason.startswith("Invalid data")
    assert all(cells[p].scores[0].outcome == "done" for p in ("a dog", "a cat"))
    for name in (*broken, "a folder"):  # once they are whole, the same command scores them
        file = tmp_path / "mine" / f"{name}.mp4"
        file.rmdir() if file.is_dir() else file.unlink()
        mp4(file, 2)
    assert command(tmp_path) == 0
    assert {c.outcome for c in recorded(tmp_path)[1].values()} == {"done"}


def test_damaged_frames_fail_the_video_by_their_numbers(tmp_path: Path) -> None:
    pairs(tmp_path, "a dog", "a cat")
    file = tmp_path / "mine" / "a dog.mp4"
    content = bytearray(file.read_bytes())
    start = content.index(b"mdat")
    content[start + 800 : start + 860] = bytes(60)
    file.write_bytes(content)
    assert command(tmp_path) == 1
    cell = recorded(tmp_path)[1]["a dog"]
    assert cell.outcome == "failed" and "frame" in cell.reason and not cell.scores


def test_a_broken_reference_leaves_its_row_without_that_score(tmp_path: Path) -> None:
    pairs(tmp_path, "a dog", "a cat")
    (tmp_path / "original" / "a dog.mp4").write_bytes(b"")
    assert command(tmp_path) == 1
    cells = recorded(tmp_path)[1]
    assert cells["a dog"].scores[0].outcome == "missing"
    assert cells["a cat"].scores[0].outcome == "done"


def test_references_that_are_all_broken_are_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(tmp_path, "a dog", "a cat")
    for name in ("a dog", "a cat"):
        (tmp_path / "original" / f"{name}.mp4").write_bytes(b"")
    assert command(tmp_path) == 2
    assert "no video of original can be read" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


# Formats


def test_a_difference_of_format_is_a_warning_above_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(tmp_path, "a dog", "a cat", "a bird")
    mp4(tmp_path / "mine" / "a dog.mp4", 2, "yuv420p10le")
    mp4(tmp_path / "mine" / "a cat.mp4", 2, matrix=1)
    assert command(tmp_path) == 0
    record, cells, _ = recorded(tmp_path)
    ten, tagged = (w for w in record.warnings if "comes from the format" in w)
    assert "1 of 3 videos (h264, yuv420p" in ten and "matrix bt709" in ten + tagged
    assert "h264, yuv420p10le, matrix untagged (read as bt601), limited range" in ten + tagged
    assert "their references (h264, yuv420p, matrix untagged" in ten
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.index("yuv420p10le") < shown.index("PSNR")
    assert cells["a cat"].encoding == "h264, yuv420p, matrix bt709, limited range"


def test_equal_formats_give_no_warning(tmp_path: Path) -> None:
    pairs(tmp_path, "a dog")
    command(tmp_path)
    record, _, _ = recorded(tmp_path)
    assert not any("format" in w for w in record.warnings)
    assert record.resolved["family"]["conversion to RGB"] == decoding.CONVERSION


def test_a_score_by_another_decoder_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs(tmp_path, "a dog")
    command(tmp_path, "ssim")
    _, cells, run = recorded(tmp_path)
    assert f"PyAV {av.__version__}" in cells["a dog"].decoder
    assert decoding.CONVERSION in cells["a dog"].decoder
    scored: list[int] = []
    compare = PSNR.compare
    monkeypatch.setattr(PSNR, "compare", lambda *given: scored.append(1) or compare(*given))
    assert command(tmp_path, "ssim") == 0 and not scored
    monkeypatch.setattr(av, "__version__", "99.0")
    assert command(tmp_path) == 0 and scored
    cell = recorded(tmp_path)[1]["a dog"]
    assert "PyAV 99.0" in cell.decoder
    assert [s.metric.name for s in cell.scores] == ["psnr"]  # SSIM was of the other decoder
    assert recorded(tmp_path)[2] == run


def test_another_conversion_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs(tmp_path, "a dog")
    command(tmp_path)
    monkeypatch.setattr(decoding, "CONVERSION", "another, version 3")
    command(tmp_path)
    assert len(list((tmp_path / "results" / "imported").iterdir())) == 2


def test_metrics_through_mp4_take_the_videos_own_frame_rate(tmp_path: Path) -> None:
    pairs(tmp_path, "a dog")  # 8 frames a second
    assert command(tmp_path, "psnr_mp4") == 0
    (cell,) = recorded(tmp_path)[1].values()
    name = "psnr/x264-medium-crf25-8fps"
    assert [s.metric.name for s in cell.scores] == ["psnr", name, f"{name}/floor"]


# Names and seeds


@pytest.mark.parametrize("seed", [0, 2**31, 2**53 + 1, 2**63 - 1, 2**63, LARGEST])
def test_seeds_of_64_bits_make_a_report(tmp_path: Path, seed: int) -> None:
    pairs(tmp_path, f"a dog-{seed}", "a dog-7")
    assert command(tmp_path) == 0
    record, _, run = recorded(tmp_path)
    assert seed in record.seeds
    seeds = pq.read_table(run / "table.parquet")["seed"].to_pylist()
    assert {s for s in seeds if s is not None} == {7, seed}
    assert (run / "report.html").exists()


@pytest.mark.parametrize("seed", [str(2**64), "9" * 100])
def test_a_seed_of_more_than_64_bits_is_refused(seed: str) -> None:
    assert key_of(f"a dog-{LARGEST}") == Key("a dog", LARGEST)
    with pytest.raises(UserError, match="a seed from 0 to 18446744073709551615"):
        key_of(f"a dog-{seed}")


def test_names_that_are_not_utf_8_are_scored(tmp_path: Path) -> None:
    folder = tmp_path / "b\udcffse"
    pairs(folder, "caf\udce9-3", "caf\udce8-3")
    (folder / "mine").rename(folder / "m\udcefne")
    given = [str(folder / "m\udcefne"), "--reference", str(folder / "original"), "--metric", "psnr"]
    assert score.main([*given, "--results", str(folder / "results")]) == 0
    record, cells, run = recorded(folder)
    assert set(cells) == {r"caf\xe9", r"caf\xe8"}
    assert {c.seed for c in cells.values()} == {3}
    assert as_text(folder) in record.resolved["folders"]["original"]
    assert (run / "report.html").exists()


def test_a_folder_of_the_longest_name_is_scored(tmp_path: Path) -> None:
    name = "数" * 83 + "x"  # 250 bytes
    pairs(tmp_path, "a dog")
    mine = (tmp_path / "mine").rename(tmp_path / name)
    given = [str(mine), "--reference", str(tmp_path / "original"), "--metric", "psnr"]
    assert score.main([*given, "--results", str(tmp_path / "results")]) == 0
    _, _, run = recorded(tmp_path)
    links = [p for p in (run / "videos").rglob("*.webm") if p.name.startswith("数")]
    assert len(links) == 1 and links[0].resolve() == (mine / "a dog.mp4").resolve()


@pytest.mark.parametrize("name", ["absent", "a file", "x" * 300, "loop"])
def test_a_folder_that_is_none_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    pairs(tmp_path, "a dog")
    (tmp_path / "a file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    assert score.main([str(tmp_path / name), "--reference", str(tmp_path / "original")]) == 2
    assert "a folder of videos" in capsys.readouterr().err


def test_long_names_are_cut_between_characters_and_stay_apart() -> None:
    first, second = (link_name(0, 0, "数" * 90, f"{i}" * 12).split("/")[1] for i in (1, 2))
    assert first != second and first.endswith("数-11111111.webm")
    assert all(len(os.fsencode(n)) <= 255 for n in (first, second))
    assert link_name(3, 1, "srd", "0123456789ab") == "p003-seed1/srd-01234567.webm"
