"""Videos that other tools made: written as their scripts write them, scored as a run."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from srbench import video
from srbench.analysis.table import Row, dimension_rows, rows
from srbench.cli import score
from srbench.cli.score import Key, key_of
from srbench.config import fingerprint
from srbench.errors import UserError
from srbench.metrics.psnr import PSNR
from srbench.report.figures import draw
from srbench.report.printed import without_empty
from srbench.report.terminal import show
from srbench.store.records import CellRecord, Score, Software, read_run, read_run_record
from srbench.vbench.score import facts as vbench_facts
from srbench.video import Video

PROMPTS = ("a cat sits, calmly", "a dog runs")
REFERENCE = {"a cat sits, calmly": 0, "a dog runs": 5}


def noise(seed: int, frames: int = 3, size: tuple[int, int] = (32, 48)) -> Video:
    rng = np.random.default_rng(seed)
    smooth = np.kron(rng.integers(0, 200, (frames, size[0] // 8, size[1] // 8, 3)), np.ones((1, 8, 8, 1)))
    return (smooth + rng.integers(0, 40, smooth.shape)).astype(np.uint8)


def mp4(path: Path, pixels: Video, fps: int = 16) -> None:
    """As imageio writes it for VideoSys's and TeaCache's scripts: H.264 in yuv420p."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23"})
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """samples/<experiment>/{prompt}-{seed}.mp4 for two prompts and two seeds, and a note beside."""
    for name, moved in (("original", 0), ("teacache_fast", 100)):
        for prompt, base in REFERENCE.items():
            for seed in range(2):
                mp4(tmp_path / name / f"{prompt}-{seed}.mp4", noise(base + seed + moved))
    (tmp_path / "teacache_fast" / "0latency.txt").write_text("12.5")
    return tmp_path


def command(folders: Path, *more: str, methods: tuple[str, ...] = ("teacache_fast",)) -> int:
    given = [str(folders / m) for m in methods]
    given += ["--reference", str(folders / "original"), "--results", str(folders / "results")]
    return score.main([*given, "--metric", "psnr", *more])


def cells(folders: Path) -> list[CellRecord]:
    (run,) = (folders / "results" / "imported").iterdir()
    return read_run(run)[1]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a dog runs-3", Key("a dog runs", 3)),
        ("a dog runs", Key("a dog runs", 0)),
        ("a well-known dog-12", Key("a well-known dog", 12)),
        ("fac\u0327ades-0", Key("fa\u00e7ades", 0)),  # a disk that takes accents apart
    ],
)
def test_names_tell_prompt_and_seed(name: str, key: Key) -> None:
    assert key_of(name) == key


def test_a_folder_of_theirs_becomes_a_run(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folders) == 0
    (run,) = (folders / "results" / "imported").iterdir()
    record, found = read_run(run)
    assert (record.source, record.prompts, record.seeds) == ("imported", PROMPTS, (0, 1))
    assert record.resolved["family"]["steps"] == "unknown (imported)"
    assert {c.source for c in found} == {"imported"}
    assert len(found) == 8
    for cell in (c for c in found if not c.is_reference):
        own, other = (
            video.read(folders / m / f"{cell.prompt}-{cell.seed}.mp4")[0]
            for m in ("teacache_fast", "original")
        )
        assert cell.scores[0].per_frame == tuple(PSNR()(own, other))
    assert (run / "report.html").exists() and (run / "table.csv").exists()
    shown = capsys.readouterr().out
    assert "teacache_fast (imported)" in shown
    assert "how they were made is not known" in " ".join(shown.split())


def test_rows_stand_as_the_folders_were_given_and_no_column_is_empty(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "another").symlink_to(folders / "teacache_fast")
    assert command(folders, methods=("teacache_fast", "another")) == 0
    (run,) = (folders / "results" / "imported").iterdir()
    record, found = read_run(run)
    made = rows(record, found)
    assert [r.method for r in made] == ["original", "teacache_fast", "another"]
    assert [v.column.key for v in made[0].values] == ["psnr", "latency", "speedup"]
    shown = " ".join(capsys.readouterr().out.split())
    lacking = "4 of 4 videos lack it: no latency was given (--latency of srbench score)"
    assert f"no column for: latency, speedup ({lacking})" in shown


def test_a_video_that_a_folder_lacks_is_told_above_the_table(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "teacache_fast" / "a dog runs-1.mp4").unlink()
    assert command(folders) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Warning: teacache_fast: no video of 1 of 4 prompts and seeds, as a dog runs, seed 1" in shown


def test_the_page_asks_nothing_that_videos_alone_cannot_tell(folders: Path) -> None:
    assert command(folders, "ssim") == 0
    (run,) = (folders / "results" / "imported").iterdir()
    page = (run / "report.html").read_text("utf-8")
    assert "The small model alone" not in page and "Switch step over" not in page
    assert (
        "<h3>Speedup against PSNR; Speedup against SSIM</h3><p>Not drawn: no method has a speedup.</p>"
        in page
    )


def test_videos_that_are_not_vbenchs_have_its_dimensions_and_no_totals(folders: Path) -> None:
    """As VBench's pass leaves it on prompts that are not VBench's, with the weights of one dimension."""
    command(folders)
    (run,) = (folders / "results" / "imported").iterdir()
    record, found = read_run(run)
    score_of_it = Score(metric=vbench_facts("temporal_flickering"), value=0.97)
    found = [c.model_copy(update={"scores": (*c.scores, score_of_it)}) for c in found]
    assert not any(v.column.kind == "total" for v in rows(record, found)[0].values)
    out = io.StringIO()
    show(record, found, rows(record, found), Console(file=out, width=100), dimension_rows(record, found))
    shown = out.getvalue()
    assert "flickering ↑" in shown and "0.970" in shown and "quality lacks" not in shown


def test_a_total_of_which_little_is_scored_is_a_line_and_no_column(folders: Path) -> None:
    command(folders)
    (run,) = (folders / "results" / "imported").iterdir()
    record, found = read_run(run)
    score_of_it = Score(metric=vbench_facts("temporal_flickering"), value=0.97)
    found = [c.model_copy(update={"scores": (*c.scores, score_of_it)}) for c in found]
    table = rows(record.model_copy(update={"resolved": {"suite": {"kind": "vbench"}}}), found)
    assert {"vbench/quality", "vbench/total"} <= {v.column.key for v in table[0].values}, (
        "in CSV with its reason"
    )
    narrow, (said,) = without_empty(table)
    assert [v.column.key for v in narrow[0].values] == ["psnr"]
    assert said.startswith("no column for: quality (quality lacks vbench/subject_consistency, ")
    assert "; total (no total without quality and semantic); latency, speedup (4 of 4 videos lack it" in said


def test_the_same_command_again_scores_nothing(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(folders)
    before = [c.scores for c in cells(folders)]
    monkeypatch.setattr(PSNR, "__call__", None)
    monkeypatch.setattr(video, "chunks", None)
    assert command(folders) == 0
    assert [c.scores for c in cells(folders)] == before


def test_a_video_made_again_takes_the_old_ones_place(folders: Path) -> None:
    command(folders)
    again = folders / "teacache_fast" / f"{next(iter(REFERENCE))}-0.mp4"
    mp4(again, noise(999))
    command(folders)
    assert len(cells(folders)) == 8
    again.unlink()
    mp4(again, noise(next(iter(REFERENCE.values()))))  # now it is the reference's own
    command(folders)
    best = max(s.value or 0.0 for c in cells(folders) if not c.is_reference for s in c.scores)
    assert best == 100.0


def test_one_name_in_two_places_is_two_runs(folders: Path) -> None:
    command(folders)
    elsewhere = folders / "elsewhere"
    elsewhere.mkdir()
    (folders / "teacache_fast").rename(elsewhere / "teacache_fast")
    command(folders, methods=("elsewhere/teacache_fast",))
    assert len(list((folders / "results" / "imported").iterdir())) == 2


def test_latencies_are_taken_from_a_table_and_each_video_has_its_own(folders: Path) -> None:
    told = folders / "latency.csv"
    told.write_text(
        "method,video,seconds\noriginal,,80\nteacache_fast,a dog runs-1.mp4,40\n"
        "teacache_fast,a dog runs-0.mp4,20\n"
    )
    assert command(folders, "--latency", str(told)) == 0
    (run,) = (folders / "results" / "imported").iterdir()
    record, found = read_run(run)
    seconds = {(c.method, c.prompt, c.seed): c.latency_seconds for c in found}
    assert {v for k, v in seconds.items() if k[0] == "original"} == {80.0}
    assert seconds["teacache_fast", "a dog runs", 1] == 40.0
    assert seconds["teacache_fast", "a cat sits, calmly", 0] is None
    row = next(r for r in rows(record, found) if r.method == "teacache_fast")
    assert (row["latency"].value, row["latency"].n) == (30.0, 2)  # of the two that are told
    assert row["speedup"].value == pytest.approx(160 / 60)
    assert row["latency"].outcome == "missing"
    bars = next(
        f for f in draw(folders / "figures", record, found, rows(record, found)) if f.name == "latency"
    )
    assert not bars.missing and "not measured here" in bars.caption
    assert "<dt>latencies</dt><dd>as told, not measured here</dd>" in (run / "report.html").read_text()


def test_a_metric_through_mp4_has_the_encoders_floor_beside_it(folders: Path) -> None:
    assert command(folders, "psnr_mp4") == 0
    assert {s.metric.name for c in cells(folders) if not c.is_reference for s in c.scores} == {
        "psnr",
        "psnr/x264-medium-crf25-16fps",
        "psnr/x264-medium-crf25-16fps/floor",
    }
    (run,) = (folders / "results" / "imported").iterdir()
    row = next(r for r in rows(*read_run(run)) if not r.is_reference)
    floor = row["psnr/x264-medium-crf25-16fps/floor"].column
    assert floor.higher_is_better is None  # no method's merit: neither marked nor drawn
    assert "the encoder alone" in floor.note
    assert not (run / "figures" / "speedup_psnr_x264-medium-crf25-16fps_floor.png").exists()


def test_a_table_may_pair_them(folders: Path) -> None:
    (folders / "teacache_fast" / "a dog runs-1.mp4").rename(folders / "teacache_fast" / "out7.mp4")
    pairs = folders / "pairs.csv"
    pairs.write_text("video,reference,prompt,seed\nout7.mp4,a dog runs-1.mp4,a dog runs,1\n")
    assert command(folders, "--pairs", str(pairs)) == 0
    assert {(c.prompt, c.seed) for c in cells(folders)} == {("a dog runs", 1)}


def test_what_differs_is_refused_with_the_whole_list(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = folders / "teacache_fast"
    mp4(bad / "a dog runs-0.mp4", noise(1, frames=2))
    mp4(bad / "a dog runs-1.mp4", noise(1, size=(32, 64)))
    mp4(bad / "a cat sits, calmly-0.mp4", noise(1), fps=8)
    assert command(folders) == 2
    said = capsys.readouterr().err
    assert "3 videos that differ" in said
    for part in ("2 frames, expected 3 frames", "64×32, expected 48×32", "8 fps, expected 16 fps"):
        assert part in said
    assert not (folders / "results").exists()


def test_every_video_that_differs_is_in_the_list(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("original", "teacache_fast"):
        for i in range(30):
            mp4(
                folders / place / f"{'a very long prompt ' * 5}-{i}.mp4",
                noise(i, 1 if place == "original" else 2),
            )
    assert command(folders) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("  teacache_fast/a very long") and "2 frames" in line for line in lines) == 30


@pytest.mark.parametrize(("seeds", "told"), [((0,), "1 video without"), ((0, 1), "2 videos without")])
def test_videos_without_a_reference_are_counted(seeds: tuple[int, ...], told: str) -> None:
    own = score.Imported("mine", {Key("a cat", s): Path(f"a cat-{s}.mp4") for s in seeds})
    with pytest.raises(UserError, match=told):
        score.paired([own], score.Imported("original", {}), None)


def test_videos_without_a_reference_are_refused(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mp4(folders / "teacache_fast" / "a dog runs-2.mp4", noise(1))
    assert command(folders) == 2
    assert "teacache_fast/a dog runs-2.mp4" in capsys.readouterr().err


def test_a_suites_prompts_must_be_the_folders(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folders, "--suite", "shapes") == 2
    said = capsys.readouterr().err
    assert "2 prompts that are not the suite's" in said and "a dog runs" in said


def test_a_suite_whose_list_is_not_here_says_so(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(folders / "none"))
    assert command(folders, "--suite", "vbench") == 2
    assert "suite vbench without VBench's list" in capsys.readouterr().err


def given(folders: Path, text: str | bytes) -> str:
    """A CSV of latencies, by its path."""
    path = folders / "latency.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def told_rows(folders: Path) -> dict[str, Row]:
    (run,) = (folders / "results" / "imported").iterdir()
    return {r.method: r for r in rows(*read_run(run))}


EACH = [  # one number a video
    *("original,a dog runs-0,80", "original,a dog runs-1,84", 'original,"a cat sits, calmly-0.mp4",90'),
    *("teacache_fast,a dog runs-0.mp4,40", "teacache_fast,a dog runs-1,41"),
    'teacache_fast,"a cat sits, calmly-0",47',
]


def test_one_number_for_many_videos_has_no_error(folders: Path) -> None:
    path = given(folders, "method,seconds\noriginal,8_0\nteacache_fast,2e1\n")
    assert command(folders, "--latency", path) == 0
    (run,) = (folders / "results" / "imported").iterdir()
    found = told_rows(folders)
    for name, latency, speedup in (("original", 80.0, 1.0), ("teacache_fast", 20.0, 4.0)):
        row = found[name]
        assert (row["latency"].value, row["speedup"].value) == (latency, speedup)
        for value in (row["latency"], row["speedup"]):
            assert (value.standard_error, value.low, value.high, value.best) == (None, None, None, False)
            assert "one number was given for several videos" in value.no_error
    assert "one number was given for several videos" in (run / "table.md").read_text()


def test_a_number_for_each_video_has_an_error_unless_the_references_has_none(folders: Path) -> None:
    assert command(folders, "--latency", given(folders, "\n".join(["method,video,seconds", *EACH]))) == 0
    row = told_rows(folders)["teacache_fast"]
    assert row["latency"].standard_error is not None and row["speedup"].standard_error is not None
    mixed = ["method,video,seconds", "original,,80", *EACH[3:]]
    assert command(folders, "--latency", given(folders, "\n".join(mixed))) == 0
    row = told_rows(folders)["teacache_fast"]
    assert row["latency"].standard_error is not None
    assert row["speedup"].standard_error is None


def test_the_order_of_lines_changes_nothing(folders: Path) -> None:
    found = []
    for lines in (EACH, EACH[::-1], EACH[3:] + EACH[:3]):
        assert command(folders, "--latency", given(folders, "\n".join(["method,video,seconds", *lines]))) == 0
        found.append([(m, r["latency"], r["speedup"]) for m, r in told_rows(folders).items()])
    assert found[0] == found[1] == found[2]


REFUSED = [
    # no number of seconds
    *((f"method,seconds\noriginal,80\nteacache_fast,{s}\n", "line 3") for s in (
      "nan", "NaN", "inf", "-inf", "-1", "0", "-0.0", "1e400", "1e300", "1e-300", "80s", "", "1;5",
      "0x10",
    )),
    # two numbers for one video
    ("method,seconds\noriginal,80\noriginal,81\n", "line 2 has given a number for the same video"),
    ("method,seconds\noriginal,80\noriginal,80\n", "line 2 has given a number"),
    ("method,video,seconds\noriginal,,80\noriginal,a dog runs-0,70\n", "line 2 has given a number"),
    ("method,video,seconds\noriginal,a dog runs-0,70\noriginal,,80\n", "line 2 has given a number"),
    ("method,video,seconds\noriginal,a dog runs-0,7\noriginal,a dog runs-0.mp4,8\n", "line 2 has given"),
    # no row, or several
    ("video,seconds\na dog runs-0,3\n", "is a video of original, teacache_fast"),
    ("method,video,seconds\n,a dog runs-0.mp4,3\n", "is a video of original, teacache_fast"),
    ("seconds\n3\n", "neither a method nor a video"),
    ("method,seconds\nnobody,3\n", "line 2 (nobody, 3): no row is called 'nobody'"),
    ("method,video,seconds\noriginal,a cow,3\n", "no video is called 'a cow' in original"),
    # no CSV of these columns
    ("", "the columns none"),
    ("method\noriginal\n", "line 1: the columns 'method'"),
    ("method,seconds,seconds\noriginal,1,2\n", "line 1: the columns"),
    ("method,seconds,fps\noriginal,1,2\n", "line 1: the columns"),
    ("method,video,seconds\noriginal,3\n", "line 2: 2 cells"),
    ("method,seconds\noriginal,3,4\n", "line 2: 3 cells"),
    ("method,seconds\n\noriginal,80\nteacache_fast,a cat, 3\n", "line 4: 3 cells"),
    ('method,seconds\n"original,3\n', "line 2: a quote that is not closed"),
    ('method,seconds\noriginal,3\n"teacache_fast,4\nx,"5\n', "line 3"),
    ("method,seconds\noriginal,3\0\n", "line 2"),
    ("method,seconds\n\ufefforiginal,3\n", "line 2"),
    ("\ufeff\ufeffmethod,seconds\noriginal,3\n", "line 1: the columns"),
    ("method,seconds\noriginal,3\n".encode("utf-16"), "line 1"),
    (b"method,seconds\noriginal,3\n\xff,4\n", "line 3"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_latencies_that_mean_nothing_are_refused_before_anything_is_scored(
    folders: Path, capsys: pytest.CaptureFixture[str], text: str | bytes, said: str
) -> None:
    assert command(folders, "--latency", given(folders, text)) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (folders / "results").exists()


def test_a_byte_order_mark_as_excel_writes_it_is_no_part_of_the_header(folders: Path) -> None:
    path = given(folders, "\ufeffmethod,seconds\r\noriginal,80\r\nteacache_fast,20\r\n")
    assert command(folders, "--latency", path) == 0
    assert told_rows(folders)["teacache_fast"]["speedup"].value == 4.0


def test_prompts_may_have_seeds_of_their_own(folders: Path) -> None:
    """Three videos of two prompts: none is missing, though two prompts × two seeds are four."""
    for name in ("original", "teacache_fast"):
        (folders / name / "a dog runs-1.mp4").unlink()
    assert command(folders) == 0
    (run,) = (folders / "results" / "imported").iterdir()
    record, found = read_run(run)
    row = next(r for r in rows(record, found) if not r.is_reference)
    assert (row["psnr"].n, row["psnr"].outcome, row["psnr"].reason) == (3, "done", "")
    assert "2 prompts with different seeds, 3 videos a method" in (run / "report.html").read_text()
    assert "6 of 6 cells done" in (run / "report.html").read_text()


def test_a_later_call_keeps_when_and_by_what_the_videos_were_first_scored(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(letter: str) -> Software:
        return Software(commit=letter * 40, dirty=False, packages={"av": f"17.{letter}"})

    monkeypatch.setattr(fingerprint, "software", lambda: made("a"))
    command(folders)
    (at,) = folders.rglob("run.json")
    first = read_run_record(at.parent)
    monkeypatch.setattr(fingerprint, "software", lambda: made("b"))
    command(folders)
    again = read_run_record(at.parent)
    assert (again.started, again.commit) == (first.started, "a" * 40)
    assert [job.commit for job in again.jobs] == ["a" * 40, "b" * 40]
    assert all(c.made == made("a") for c in cells(folders))
