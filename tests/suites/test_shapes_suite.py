"""The shapes suite: held-out captions, the same ones on every machine."""

from __future__ import annotations

import pytest

from srbench.config.registry import build
from srbench.errors import UserError
from srbench.shapes.world import parse, scenes
from srbench.suites.shapes import Shapes

EXPECTED = (
    "a red circle moving up on a white background",
    "a red triangle below a purple triangle both moving left on a white background",
    "a blue triangle moving right on a black background",
)


def test_default_is_64_different_captions_held_out_from_training() -> None:
    prompts = Shapes().list_prompts()
    assert len(prompts) == len(set(prompts)) == 64
    assert {parse(p).split for p in prompts} == {"test"}


def test_one_thing_and_two_things_in_turn_while_there_are_any_with_one() -> None:
    """Only 18 captions with one thing are held out for test, so 64 prompts are 18 + 46."""
    counts = [len(parse(p).things) for p in Shapes().list_prompts()]
    assert counts[:36] == [1, 2] * 18
    assert set(counts[36:]) == {2}


def test_fewer_prompts_are_the_beginning_of_more() -> None:
    """So a run that is extended keeps what it has."""
    assert Shapes(prompts=12).list_prompts() == Shapes().list_prompts()[:12]


def test_the_order_is_random_but_fixed() -> None:
    """Written down: if this changes, stored runs are no longer of the same prompts."""
    assert Shapes(prompts=3).list_prompts() == EXPECTED
    attributes = {(parse(p).motion, parse(p).background) for p in Shapes(prompts=12).list_prompts()}
    assert len(attributes) > 5


def test_tune_and_test_share_no_scene_however_it_is_said() -> None:
    everything = {
        split: {parse(p).canonical for p in Shapes(prompts=n, split=split).list_prompts()}
        for split, n in (("tune", 1133), ("test", 1010))
    }
    assert everything["tune"] and not everything["tune"] & everything["test"]


def test_all_that_are_held_out_can_be_asked_for_and_no_more() -> None:
    most = len(scenes(1, "test")) + len(scenes(2, "test"))
    assert len(set(Shapes(prompts=most).list_prompts())) == most
    with pytest.raises(UserError, match=rf"suite.prompts = {most + 1}\n.*at most {most}"):
        Shapes(prompts=most + 1)


def test_a_list_of_captions_is_taken_in_its_order() -> None:
    a, b = (
        "a red circle moving left on a black background",
        "a blue square standing still on a gray background",
    )
    assert Shapes(prompts=(b, a)).list_prompts() == (b, a)
    with pytest.raises(UserError, match=r"entry 3: .* is the prompt of entry 1 again"):
        Shapes(prompts=(b, a, b))


@pytest.mark.parametrize(
    "foreign",
    [
        "a cat playing the piano",
        "a red circle",
        "a red circle moving sideways on a black background",
        "a red circle moving left on a pink background",
        "a red circle above a red square both moving left on a black background",
        "a red circle moving left on a black background, 4k",
    ],
)
def test_a_sentence_of_another_world_is_refused_with_an_example(foreign: str) -> None:
    with pytest.raises(UserError, match=r"a red circle moving left on a black background") as told:
        Shapes(prompts=("a red circle moving left on a black background", foreign))
    assert repr(foreign) in told.value.got


@pytest.mark.parametrize("settings", [{"prompts": 0}, {"prompts": []}, {"seeds": 0}, {"seeds": []}])
def test_no_prompt_or_no_seed_is_no_suite(settings: dict) -> None:
    with pytest.raises(UserError, match=r"suite\.(prompts|seeds)"):
        build("suites", {"kind": "shapes"} | settings, "suite")


def test_a_number_of_seeds_counts_from_zero_and_a_list_is_taken_as_it_is() -> None:
    assert Shapes().list_seeds() == (0, 1, 2, 3, 4)
    assert Shapes(seeds=(42, 7, 42)).list_seeds() == (42, 7)
