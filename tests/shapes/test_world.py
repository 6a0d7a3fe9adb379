"""Captions and scenes are one thing said two ways; every scene is in exactly one split."""

from __future__ import annotations

from collections import Counter

import pytest

from srbench.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    INVERSE,
    MOTIONS,
    SHAPES,
    Scene,
    Thing,
    parse,
    scenes,
    unknown_words,
    warning,
)

ONE, TWO = scenes(1), scenes(2)


def test_there_are_as_many_scenes_as_combinations() -> None:
    assert len(ONE) == len(set(ONE)) == len(COLOURS) * len(SHAPES) * len(MOTIONS) * len(BACKGROUNDS) == 225
    # ordered pairs of things of two colours, four relations, a motion, a background
    assert len(TWO) == len(set(TWO)) == (15 * 12) * 4 * 15 == 10_800


def test_captions_read_as_english() -> None:
    circle, square = Thing("red", "circle"), Thing("blue", "square")
    assert Scene((circle,), "still", "gray").caption == "a red circle standing still on a gray background"
    assert (
        Scene((circle, square), "up", "white", "left").caption
        == "a red circle to the left of a blue square both moving up on a white background"
    )
    assert (
        Scene((square, circle), "still", "black", "below").caption
        == "a blue square below a red circle both standing still on a black background"
    )


@pytest.mark.parametrize("some", [ONE, TWO[::7]], ids=["every single thing", "every seventh pair"])
def test_parse_is_the_inverse_of_caption(some: list[Scene]) -> None:
    assert [parse(s.caption) for s in some] == some


def test_captions_are_all_different() -> None:
    assert len({s.caption for s in ONE + TWO}) == 225 + 10_800


def test_parse_overlooks_capitals_and_spaces() -> None:
    said = "A red  circle moving LEFT on a black background "
    assert parse(said).caption == "a red circle moving left on a black background"


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "a red circle",
        "a red circle moving left",
        "red circle moving left on a black background",
        "a red circle moving still on a black background",
        "a red circle moving sideways on a black background",
        "a red circle moving left on a pink background",
        "a pink circle moving left on a black background",
        "a red circle both moving left on a black background",
        "a red circle above a red square both moving up on a black background",
        "a red circle near a blue square both moving up on a black background",
        "a red circle above a blue square moving up on a black background",
        "a red circle above a blue square above a green square both moving up on a black background",
        "a red circle moving left on a black background and a dog",
    ],
)
def test_parse_refuses_any_other_sentence(foreign: str) -> None:
    with pytest.raises(ValueError, match="not a sentence of the shapes world"):
        parse(foreign)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Scene((), "left", "black"),
        lambda: Scene((Thing("red", "circle"),), "left", "black", "above"),
        lambda: Scene((Thing("red", "circle"), Thing("blue", "circle")), "left", "black"),
        lambda: Scene((Thing("red", "circle"), Thing("red", "square")), "left", "black", "above"),
        lambda: Scene((Thing("red", "circle"),), "sideways", "black"),
        lambda: Scene((Thing("red", "circle"),), "left", "pink"),
    ],
)
def test_a_scene_that_no_caption_tells_cannot_be_made(made) -> None:
    with pytest.raises(ValueError):
        made()


def test_both_ways_of_saying_a_relation_are_one_combination() -> None:
    for s in TWO:
        other = Scene(s.things[::-1], s.motion, s.background, INVERSE[str(s.relation)])
        assert other != s and other.canonical == s.canonical
        assert other.split == s.split
        assert s.canonical.relation in ("left", "above")


def test_every_scene_is_in_one_split_and_nothing_is_lost() -> None:
    for count, everything in ((1, ONE), (2, TWO)):
        parts = {split: scenes(count, split) for split in ("train", "tune", "test")}
        assert sum(map(len, parts.values())) == len(everything)
        assert set().union(*map(set, parts.values())) == set(everything)
        held_out = {s.canonical for s in parts["tune"] + parts["test"]}
        assert not held_out & {s.canonical for s in parts["train"]}


def test_splits_are_about_80_10_10() -> None:
    assert Counter(s.split for s in ONE) == {"train": 182, "tune": 25, "test": 18}
    share = {split: n / len(TWO) for split, n in Counter(s.split for s in TWO).items()}
    assert share == pytest.approx({"train": 0.8, "tune": 0.1, "test": 0.1}, abs=0.01)


def test_training_has_seen_every_word_with_every_other() -> None:
    """Held out are combinations, not words: each motion, colour and shape is trained on."""
    seen = {(t.colour, t.shape) for s in scenes(1, "train") for t in s.things}
    assert len(seen) == len(COLOURS) * len(SHAPES)
    assert {(s.motion, s.background) for s in scenes(1, "train")} == {
        (m, b) for m in MOTIONS for b in BACKGROUNDS
    }


def test_captions_hold_no_unknown_word_and_give_no_warning() -> None:
    captions = [s.caption for s in (*ONE, *TWO[::97])]
    assert [w for c in captions for w in unknown_words(c)] == [] and warning(captions) == ""


def test_a_text_from_outside_is_named_with_its_unknown_words() -> None:
    said = warning([ONE[0].caption, "A cat playing piano in the rain"])
    assert said.startswith("1 of 2 prompts are no captions of the shapes world")
    assert "does not know the words cat, playing, piano, in, rain:" in said
    assert "such as 'a red red circle'" in warning(["a red red circle"])
