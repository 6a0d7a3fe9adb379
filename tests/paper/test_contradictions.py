"""Every check speaks where numbers contradict each other, and falls silent where they do not."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from srbench.paper import contradictions, published
from srbench.paper.contradictions import Place, Values

WAN, COG = "wan21_480p", "cogvideox"


def said(check: str, kind: str, values: Values | None = None) -> list[str]:
    """The sentences of one check and kind."""
    return [f.sentence for c, f in contradictions.find(values) if (c.name, f.kind) == (check, kind)]


def planted(changes: dict[Place, str]) -> Values:
    """The published values with other numbers in some places."""
    values = dict(published.by_place())
    return values | {
        place: replace(values[place], value=float(text), text=text) for place, text in changes.items()
    }


def test_a_number_that_two_tables_print_differently() -> None:
    (sentence,) = said("repeated numbers", "disagrees")
    assert "1.66× in Table 2" in sentence and "1.81× in Table 6" in sentence
    assert sentence.endswith("which gives 1.66 to PAB C2.")
    assert said("repeated numbers", "disagrees", planted({("6", WAN, "pab_c3", "speedup"): "1.66"})) == []
    two = said("repeated numbers", "disagrees", planted({("3", COG, "srd_c2", "psnr"): "22.94"}))
    assert any("22.93 dB in Table 2 and 22.94 dB in Table 3" in s for s in two)


def test_trailing_zeros_are_no_difference() -> None:
    assert published.by_place()["2", WAN, "small", "vbench/semantic"].text == "78.50"
    assert published.by_place()["6", WAN, "small", "vbench/semantic"].text == "78.5"
    assert not any("Wan 1.3B" in s for s in said("repeated numbers", "disagrees"))


def test_a_speedup_that_no_rounding_of_its_latencies_gives() -> None:
    (sentence,) = said("speedups", "disagrees")
    assert "841 s / 427 s = 1.97, printed 1.96×" in sentence
    assert f"{840.5 / 427.5:.3f} to {841.5 / 426.5:.3f}" in sentence
    place = ("2", WAN, "teacache_c2", "speedup")
    assert said("speedups", "disagrees", planted({place: "1.97"})) == []
    assert said("speedups", "disagrees", planted({("2", WAN, "teacache_c2", "latency"): "429"})) == []
    assert (
        len(said("speedups", "disagrees", planted({("5", "wan21_720p", "srd_c2", "speedup"): "2.85"}))) == 2
    )


def test_a_speedup_within_rounding_is_none() -> None:
    """3130 / 1104 = 2.8351 prints as 2.84, and 2.83 is still what 3129.5 / 1104.5 prints as."""
    place = ("5", "wan21_720p", "srd_c2", "speedup")
    assert len(said("speedups", "disagrees", planted({place: "2.83"}))) == 1


def test_intervals_have_the_digits_of_their_table() -> None:
    values = published.by_place()
    assert contradictions.interval(values, ("2", WAN, "large", "latency")) == (840.5, 841.5)
    # printed 98, in a table with 97.80
    low, high = contradictions.interval(values, ("6", WAN, "large", "vbench/human_action"))
    assert (low, high) == pytest.approx((97.995, 98.005))


def test_scores_against_their_dimensions() -> None:
    assert said("means of dimensions", "disagrees") == []
    (sentence,) = said("means of dimensions", "agrees")
    assert sentence.startswith("23 of 23 columns")
    off = planted({("7", COG, "srd_c4", "vbench/scene"): "62.96"})  # a point in nine
    (wrong,) = said("means of dimensions", "disagrees", off)
    assert "Table 7, CogVideoX, SRDiffusion C4: semantic is printed 74.65" in wrong
    assert said("means of dimensions", "agrees", off)[0].startswith("22 of 23")


def test_the_dynamic_degree_is_printed_times_its_weight() -> None:
    (sentence,) = said("dynamic degree", "noted")
    assert "37.5 is a dynamic degree of 75 %" in sentence
    plain = {
        place: f"{2 * value.value:g}"
        for place, value in published.by_place().items()
        if place[3] == "vbench/dynamic_degree"
    }
    assert said("dynamic degree", "noted", planted(plain)) == []


def test_adaptive_and_fixed_at_unequal_cost() -> None:
    wan, cog = said("equal cost", "noted")
    assert (
        f"after {50 * (117 - 75) / (213 - 75):.1f} of 50 steps" in cog
        and "at 15, which costs the same" in cog
    )
    low, high = 50 * (295.5 - 158.5) / (841.5 - 158.5), 50 * (296.5 - 157.5) / (840.5 - 157.5)
    assert f"({low:.2f} to {high:.2f} as latencies are rounded)" in wan and "at 10, which costs less" in wan
    places = [(t, WAN, "srd_c2", "latency") for t in ("2", "3")]
    (equal, _) = said("equal cost", "noted", planted(dict.fromkeys(places, "295")))
    assert "at 10, which costs the same" in equal


def test_below_the_small_model_which_is_faster() -> None:
    wan480, cog, wan720 = said("below the small model", "noted")
    assert "PAB C2 (82.42 at 1.66×); PAB C3 (81.83 at 1.66×)." in wan480 and "PAB C1" not in wan480
    assert "PAB C2" in cog and "TeaCache C2" in cog and "TeaCache C3" in cog and "SRD" not in cog
    assert "TeaCache C2 (83.45 at 1.99×)." in wan720
    up = planted({("5", "wan21_720p", "teacache_c2", "vbench/total"): "83.58"})
    assert not any("720p" in s for s in said("below the small model", "noted", up))
    fast = planted({("5", "wan21_720p", "teacache_c2", "speedup"): "4.92"})  # the small one: 4.91
    assert not any("720p" in s for s in said("below the small model", "noted", fast))


def test_quoted_scores_against_own() -> None:
    assert any(
        "total: Wan 14B 86.22 there and 84.05 in Table 2" in s and "2.91 points there and 0.93 here" in s
        for s in said("leaderboard", "noted")
    )
    same = {
        ("1", WAN, m, f"vbench/{c}"): published.by_place()["2", WAN, m, f"vbench/{c}"].text
        for m in ("large", "small")
        for c in ("total", "quality", "semantic")
    }
    assert said("leaderboard", "noted", planted(same)) == []


def test_every_finding_names_cells_that_are_printed() -> None:
    found = contradictions.find()
    assert {c.name for c, _ in found} == {c.name for c in contradictions.CHECKS}
    for _, finding in found:
        assert finding.places and set(finding.places) <= set(published.by_place())
    lines = list(csv.DictReader(io.StringIO(contradictions.to_csv(found))))
    assert len(lines) == sum(len(f.places) for _, f in found)
    assert [k for k in dict.fromkeys(line["kind"] for line in lines)] == list(contradictions.WORDS.values())
