"""VBench's list is read where it lies; a plan can do without it, a run can't."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srbench.config.experiment import digest
from srbench.errors import UserError
from srbench.suites.vbench import DIMENSIONS, VBench

# A list in VBench's format; its own is not ours to copy.
ENTRIES = [{"prompt_en": f"thing {i}", "dimension": [DIMENSIONS[i % 16]]} for i in range(64)]
TWICE = [*ENTRIES, {"prompt_en": "thing 3", "dimension": ["overall_consistency"]}]


@pytest.fixture
def info(tmp_path: Path) -> str:
    path = tmp_path / "VBench_full_info.json"
    path.write_text(json.dumps(TWICE))
    return str(path)


def test_a_prompt_of_two_entries_is_one_prompt(info: str) -> None:
    assert len(VBench(info=info).list_prompts()) == 64
    assert VBench(info=info).list_seeds() == (0, 1, 2, 3, 4)


def test_prompts_of_some_dimensions(info: str) -> None:
    got = VBench(info=info, dimensions=("overall_consistency",)).list_prompts()
    assert got == ("thing 3", "thing 15", "thing 31", "thing 47", "thing 63")


@pytest.mark.parametrize("n", [1, 16, 20, 64])
def test_a_subset_is_spread_over_the_dimensions(info: str, n: int) -> None:
    got = VBench(info=info, subset=n).list_prompts()
    assert len(got) == len(set(got)) == n
    shares = [sum(int(p.split()[1]) % 16 == d for p in got) for d in range(16)]
    assert max(shares) - min(shares) <= 2
    assert set(VBench(info=info, subset=max(1, n // 2)).list_prompts()) <= set(got)


def test_without_the_list_a_plan_knows_how_many_and_a_run_is_refused() -> None:
    suite = VBench()
    if suite.mistakes():
        assert len(suite.list_prompts()) == 944
        assert "srbench vbench setup" in suite.mistakes()[0].do


def test_extended_prompts_by_line_and_by_name(info: str, tmp_path: Path) -> None:
    lines = tmp_path / "extended.txt"
    lines.write_text("\n".join(f"{e['prompt_en']}, at length" for e in TWICE))
    assert VBench(info=info, extended=str(lines)).text("thing 3") == "thing 3, at length"
    named = tmp_path / "extended.json"
    named.write_text(json.dumps({"thing 0": "a thing"}))
    suite = VBench(info=info, extended=str(named))
    assert suite.text("thing 0") == "a thing"
    assert "without 'thing 1' and 62 more" in suite.mistakes()[0].got
    with pytest.raises(UserError, match="thing 1"):
        suite.text("thing 1")
    short = tmp_path / "short.txt"
    short.write_text("one line")
    assert "65" in VBench(info=info, extended=str(short)).mistakes()[0].expected


@pytest.mark.parametrize("content", ["no json", "{}", "[1]", '[{"prompt": "x"}]'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    assert VBench(info=str(path)).mistakes()


def test_an_unknown_dimension_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError) as told:
        VBench(dimensions=("colour",))
    assert "color" in told.value.do


def test_prompts_says_how_many_as_in_other_suites(info: str) -> None:
    by_prompts, by_subset = VBench(info=info, prompts=2), VBench(info=info, subset=2)
    assert by_prompts == by_subset and len(by_prompts.list_prompts()) == 2
    assert digest(by_prompts) == digest(by_subset)
    with pytest.raises(UserError, match=r"suite\.prompts = 3 with suite\.subset = 2"):
        VBench(info=info, prompts=3, subset=2)
