"""Result files that others made: what is right is shown, what cannot be right is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.errors import UserError
from srbench.vbench import __main__ as command
from srbench.vbench import export, foreign, run


def lines(*values: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"video_path": f"v/thing-{i}.mp4", "video_results": v, **more} for i, v in enumerate(values)]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """`write(plain)`: a result file of this JSON."""

    def made(plain: Any, name: str = "r_eval_results.json") -> Path:
        path = tmp_path / name
        path.write_text(plain if isinstance(plain, str) else json.dumps(plain))
        return path

    return made


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert command.main(["read", str(path)]) == 0
    out, err = capsys.readouterr()
    return " ".join(out.split()), " ".join(err.split())


GOOD = {
    "the mean over videos": ({"aesthetic_quality": [0.6, lines(0.5, 0.7)]}, "0.600000 2 videos"),
    "imaging quality is a percentage a video": (
        {"imaging_quality": [0.6, lines(50.0, 70.0)]},
        "0.600000 2 videos",
    ),
    "yes or no": ({"dynamic_degree": [0.5, lines(True, False)]}, "0.500000 2 videos"),
    "a cosine below zero": ({"temporal_style": [-0.1, lines(-0.1)]}, "-0.100000 1 video"),
    "VBench-2.0 leaves out what does not apply": (
        {"Mechanics": [0.5, lines(1, 0, -1)]},
        "0.500000 2 of 3 videos",
    ),
    "a score of VBench-2.0's diversity is a prompt's": ({"Diversity": [0.4, lines(0.3, 0.5)]}, "2 prompts"),
    "motion order that applies to few videos is 0": (
        {"Motion_Order_Understanding": [0, lines(1, *[-1] * 19)]},
        "0.000000 1 of 20 videos",
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_results_are_shown_with_what_they_rest_on(case: str, write: Any, capsys: Any) -> None:
    plain, expected = GOOD[case]
    out, err = shown(write(plain), capsys)
    assert out.endswith(expected) and err == ""


def test_the_mean_over_frames_weighs_videos_with_theirs(write: Any) -> None:
    own = lines(0.5, 1.0)
    own[0]["frame_count"], own[1]["frame_count"] = 10, 30
    assert foreign.read([write({"scene": [0.875, own]})])["scene"].warning == ""
    with pytest.raises(UserError, match=r"the mean is 0.75\d*, but the mean of its 2 lines is 0.875"):
        foreign.read([write({"scene": [0.75, own]})])


def test_a_mean_over_frames_that_are_not_in_the_file_is_a_warning(write: Any, capsys: Any) -> None:
    out, err = shown(write({"subject_consistency": [0.96, lines(0.9, 1.0)]}), capsys)
    assert out.endswith("0.960000 2 videos")
    assert (
        "warning: subject_consistency: the mean is 0.960000, but the mean of its 2 lines is 0.950000" in err
    )
    with pytest.raises(UserError, match=r"the mean is 0.100000, but the mean of its 2 lines is 0.950000"):
        foreign.read([write({"subject_consistency": [0.1, lines(0.9, 1.0)]})])


def clips(**videos: list[float]) -> list[dict[str, Any]]:
    return [
        {"video_path": f"out/split_clip/{name}/{name}_{i:03}.mp4", "video_results": v}
        for name, values in videos.items()
        for i, v in enumerate(values)
    ]


def test_clips_of_vbench_long_are_not_videos(write: Any, capsys: Any) -> None:
    """Its mean is over all clips, not over videos: (40 + 50 + 60 + 70) / 4."""
    own = clips(a=[40, 50, 60], b=[70])
    videos = [{"video_path": f"out/{n}.mp4", "video_results": v} for n, v in (("a", 50.0), ("b", 70.0))]
    assert shown(write({"imaging_quality": [0.55, own, videos]}), capsys) == (
        "imaging_quality 0.550000 4 clips of 2 videos",
        "",
    )
    with pytest.raises(UserError, match=r"0.600000, but the mean of its 4 lines is 0.55"):
        foreign.read([write({"imaging_quality": [0.6, own, videos]})])
    videos[0]["video_results"] = 45.0
    with pytest.raises(UserError, match=r"a\.mp4 is 45, but its clips' mean is 50"):
        foreign.read([write({"imaging_quality": [0.55, own, videos]})])


def test_what_is_unknown_is_a_warning(write: Any, capsys: Any) -> None:
    out, err = shown(write({"colour": [7.0, lines(7.0)]}), capsys)
    assert out == "colour 7.000000 1 video" and "srbench does not know this dimension" in err


BAD = {
    "above the range": ({"overall_consistency": [0.2, lines(3.1, -2.7)]}, "is 3.1"),
    "a mean above the range": ({"imaging_quality": [72.9, lines(72.9)]}, "the mean is 72.9"),
    "below the range": ({"color": [-0.5, lines(-0.5)]}, "the mean is -0.5"),
    "a share of videos": ({"Mechanics": [0.5, lines(0.5, -2)]}, "thing-1.mp4 is -2"),
    "NaN": ('{"color": [NaN, [{"video_path": "a", "video_results": 0.5}]]}', "the mean is nan"),
    "infinity": ('{"color": [0.5, [{"video_path": "a", "video_results": Infinity}]]}', "a is inf"),
    "another mean": ({"color": [0.5, lines(0.1, 0.2)]}, "0.500000, but the mean of its 2 lines is 0.15"),
    "one video twice": ({"color": [0.5, lines(0.5) + lines(0.5)]}, "thing-0.mp4 comes twice"),
    "no video": ({"color": [0.0, []]}, "0 videos"),
    "none that counts": ({"Material": [0.0, lines(-1)]}, "it applies to 0 of 1 video"),
    "no list of videos": ({"color": [0.5]}, "is [0.5]"),
    "a bare mean": ({"color": 0.5}, "is 0.5"),
    "another tool's": ({"accuracy": 0.5, "details": {}}, "is 0.5"),
    "a line that is no object": ({"color": [0.5, [0.5]]}, "a line is 0.5"),
    "a line without a path": ({"color": [0.5, [{"video_results": 0.5}]]}, "a line is"),
    "a score in words": ({"color": [0.5, lines("0.5")]}, "thing-0.mp4 is '0.5'"),
    "a score too large for a number": ({"color": [0.5, lines(10**400)]}, "thing-0.mp4 is 1000"),
    "a mean in words": ({"color": ["0.5", lines(0.5)]}, "the mean is '0.5'"),
    "frames below one": ({"scene": [0.5, lines(0.5, frame_count=0)]}, "has 0 frames"),
    "a dimension twice": ('{"color": [0.5, []], "color": [0.6, []]}', "color comes twice"),
    "an empty object": ({}, "is {}"),
    "a number": (3, "is 3"),
    "another list": ([1, 2], "is [1, 2]"),
    "no JSON": ("{", "no JSON"),
    "nothing": ("", "no JSON"),
    "too deep": ("[" * 100_000, "nested too deeply"),
    "what was to be scored": ([{"prompt_en": "a", "dimension": ["color"]}], "no result in"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_right_is_refused_with_its_value(case: str, write: Any, capsys: Any) -> None:
    plain, expected = BAD[case]
    assert command.main(["read", str(write(plain))]) == 2
    out, err = capsys.readouterr()
    assert out == "" and expected in " ".join(err.split())


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, write: Any) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"caf\xe9": 1}')
    for path in (tmp_path / "absent.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(UserError, match=path.name):
            foreign.read([path])


def test_a_dimension_in_two_files_is_refused_with_both(write: Any) -> None:
    """VBench names results by the time, so a pattern over two days finds both."""
    first = write({"color": [0.5, lines(0.5)]}, "monday.json")
    other = write({"color": [0.6, lines(0.6)], "scene": [0.6, lines(0.6)]}, "tuesday.json")
    with pytest.raises(UserError, match=r"color is in \S+monday.json and in \S+tuesday.json"):
        foreign.read([first, other])


def test_lists_of_what_was_to_be_scored_are_passed_over(write: Any) -> None:
    about = write([{"prompt_en": "a", "dimension": ["color"]}], "r_full_info.json")
    good = write({"color": [0.5, lines(0.5)]})
    assert foreign.read([about, good])["color"] == foreign.Result(0.5, 1, "1 video")


SCORES = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3))
JSON = st.recursive(
    SCORES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["color", "scene", "Material", "video_path", "video_results", "frame_count"]),
            inner,
        ),
    ),
    max_leaves=12,
)


@given(plain=JSON)
@settings(max_examples=200)
def test_any_json_is_read_or_refused(plain: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(plain))
    try:
        found = foreign.read([path])
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert all(own.lines > 0 for own in found.values())


# Names that VBench-2.0 looks for


def test_names_for_vbench2_are_cut_at_180_characters(make_run: Any, tmp_path: Path) -> None:
    long = "A tale in many words. " * 12
    job = run.open_run(make_run(prompts=(long, "short"), seeds=(0,), suite="prompts"))
    export.stage(job, "large", tmp_path / "out", "vbench2")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{long[:180]}-0.mp4", "short-0.mp4"}
    with pytest.raises(UserError, match="as a file's name"):
        export.stage(job, "large", tmp_path / "long", "long")


def test_prompts_that_the_cut_makes_equal_are_refused(make_run: Any, tmp_path: Path) -> None:
    begin = "x" * 180
    job = run.open_run(make_run(prompts=(f"{begin} a", f"{begin} b"), seeds=(0, 1), suite="prompts"))
    with pytest.raises(UserError, match="prompts with different names"):
        export.stage(job, "large", tmp_path / "out", "vbench2")
    assert not (tmp_path / "out").exists()
    assert export.stage(job, "large", tmp_path / "out", "long") == 4
