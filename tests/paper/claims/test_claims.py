"""Every kind of claim, on runs where the answer is known: it holds, it does not, it cannot be told."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from srbench.analysis.inference import LEVEL
from srbench.paper import claims
from srbench.paper.claims import CLAIMS

FAST, SLOW = 0.03, 0.01  # δ


# speed


@pytest.mark.parametrize(
    ("switch", "word"), [(6, "holds"), (30, "does not hold"), (lambda p, s: 4 + p, "cannot be told")]
)
def test_more_than_three_times_as_fast(world: Any, paths: Any, switch: Any, word: str) -> None:
    """50 large steps at 16 s against k at 16 and the rest at 3: k = 6 is 3.5×, 30 is 1.5×, 4–15 is 3.0×."""
    w = world().basics().add("srd", paths.srd(FAST), switch=switch)
    assert w.measured("speed_fast").word == word
    # no verdict rests on the times of several jobs
    w.cells = [c.model_copy(update={"job": f"job-{c.prompt_index % 2}"}) for c in w.cells]
    assert w.measured("speed_fast").word == "cannot be told"


def test_a_speedup_is_the_tables_own(world: Any, paths: Any) -> None:
    w = world().basics().add("srd", paths.srd(FAST), switch=6)
    row = next(r for r in w.made()[2].main if r.label == "srd")
    assert w.measured("speed_fast").findings[0].estimate == pytest.approx(row["speedup"].value)


def test_a_speedup_of_two_prompts_is_badly_known_but_above_zero(world: Any, paths: Any) -> None:
    w = world(prompts=2).basics().add("srd", paths.srd(FAST), switch=lambda p, s: 6 + 30 * p)
    found = w.measured("speed_fast")
    assert found.word == "cannot be told" and found.findings[0].low > 0


def test_a_shared_runs_speedup_is_judged_and_marked(world: Any, paths: Any) -> None:
    w = world(timing="shared").basics().add("srd", paths.srd(FAST), switch=6)
    found = w.measured("speed_fast")
    assert found.word == "holds" and found.estimated and "est." in found.why


def test_a_speedup_knows_that_the_machine_was_not_always_as_fast(world: Any, paths: Any) -> None:
    """One median for the whole run hides that step times of some prompts were others."""
    w = world().basics().add("srd", paths.srd(FAST), switch=6)
    slow = [c for c in w.cells if c.method == "large" and c.prompt_index % 2]
    for c in slow:
        w.cells[w.cells.index(c)] = c.model_copy(
            update={"step_seconds": tuple(2 * t for t in c.step_seconds)}
        )
    steady = world().basics().add("srd", paths.srd(FAST), switch=6)
    wide, narrow = (x.measured("speed_fast").findings[0] for x in (w, steady))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_so_many_times_as_fast_allows_five_percent(world: Any, paths: Any) -> None:
    """After 11 of 50 steps at 16 s, the rest at 3: 2.73 times, of the 2.84 claimed; after 14 2.4."""
    for switch, word in ((11, "holds"), (14, "does not hold")):
        w = world().basics().add("srd", paths.srd(SLOW), switch=switch)
        assert w.measured("speed").word == word


def test_the_slowest_against_the_fastest_other(world: Any, paths: Any) -> None:
    w = world().basics().add("a", paths.srd(FAST), switch=6).add("b", paths.srd(0.002), switch=20)
    w.add("tea", paths.tea(), times=(9.0, 3.0))
    assert w.measured("speed_of_all").word == "holds"
    assert "b, the slowest" in w.measured("speed_of_all").why
    w.add("faster", paths.tea(0.3), times=(5.0, 3.0))
    assert w.measured("speed_of_all").word == "does not hold"
    assert "PAB or TeaCache" in world().basics().add("a", paths.srd(FAST)).measured("speed_of_all").why


# scores


@pytest.mark.parametrize(
    ("semantic", "word"), [(0.86, "holds"), (0.6, "does not hold"), (0.75, "cannot be told")]
)
def test_next_to_no_loss_is_less_than_half_the_lead(
    world: Any, paths: Any, semantic: float, word: str
) -> None:
    """The large model has 90 %, the small 80 and 60 %: totals 90 and 76; half of that is 83."""
    quality = 0.8 + (semantic - 0.6) / 3
    w = world().basics().add("srd", paths.srd(SLOW), quality=quality, semantic=semantic)
    assert w.measured("no_loss").word == word


def test_no_loss_is_not_told_where_the_small_model_has_none(world: Any, paths: Any) -> None:
    w = world().basics(quality=0.9, semantic=0.9).add("srd", paths.srd(SLOW), quality=0.9, semantic=0.9)
    found = w.measured("no_loss")
    assert found.word == "cannot be told" and "lead over the small one is not resolved" in found.why


def test_no_loss_is_not_told_of_seven_prompts(world: Any, paths: Any) -> None:
    w = world(prompts=7).basics().add("srd", paths.srd(SLOW), quality=0.9, semantic=0.9)
    assert "fewer than 8 prompts" in w.measured("no_loss").why


def test_scores_above_every_rival(world: Any, paths: Any) -> None:
    w = world().basics().add("srd", paths.srd(FAST), quality=0.9, semantic=0.9)
    w.add("pab", paths.pab(), quality=0.8, semantic=0.8).add("tea", paths.tea(), quality=0.85, semantic=0.8)
    assert w.measured("above_rivals").word == "holds"
    w.add("better", paths.tea(0.05), quality=0.95, semantic=0.95)
    found = w.measured("above_rivals")
    assert found.word == "does not hold" and "better" in found.why and "of 3 comparisons" in found.why
    assert (
        "neither PAB"
        in world().basics().add("srd", paths.srd(FAST), quality=1.0).measured("above_rivals").why
    )


def _hard_half_lost(world: Any, paths: Any) -> Any:
    """Even prompts are hard; `pab` is a point below `srd` on every video, but its hard ones failed."""

    def level(less: float) -> Any:
        return lambda p, s: (0.9 if p % 2 else 0.3) - less

    w = world(prompts=20)
    for name, path, less in (
        ("large", [paths.segment("large")], 0.0),
        ("small", [paths.segment("small")], 0.1),
        ("srd", paths.srd(FAST), 0.01),
        ("srd_slow", paths.srd(SLOW), 0.01),
        ("pab", paths.pab(), 0.02),
    ):
        w.add(name, path, quality=level(less), semantic=level(less))
    lost = {"outcome": "failed", "reason": "out of memory", "scores": ()}
    w.cells = [
        c.model_copy(update=lost) if c.method in ("pab", "srd_slow") and c.prompt_index % 2 == 0 else c
        for c in w.cells
    ]
    return w


def test_scores_are_compared_over_the_videos_that_all_have(world: Any, paths: Any) -> None:
    found = _hard_half_lost(world, paths).measured("above_rivals")
    assert found.word == "holds" and "over the 20 videos that all have, 20 left out" in found.why
    (one,) = found.findings
    assert one.estimate == pytest.approx(1.0)
    assert (one.clusters, one.n, one.dropped) == (10, 20, 20)


def test_what_is_kept_of_the_lead_is_too(world: Any, paths: Any) -> None:
    """Over all videos of large and small, and the easy ones that are left, it would keep 390 %."""
    kept, margin = _hard_half_lost(world, paths).measured("no_loss").findings
    assert (kept.estimate, kept.n, kept.dropped) == (pytest.approx(90.0), 20, 20)
    assert (margin.estimate, margin.dropped) == (pytest.approx(-1.0), 20)


def test_above_the_large_model_itself(world: Any, paths: Any) -> None:
    for level, word in ((0.95, "holds"), (0.85, "does not hold"), (0.9, "cannot be told")):
        w = world().basics().add("srd", paths.srd(FAST), quality=level, semantic=level)
        assert w.measured("above_large").word == word


@pytest.mark.parametrize(
    ("quality", "semantic", "word"),
    [(0.85, 0.6, "holds"), (0.6, 0.85, "does not hold"), (0.8, 0.8, "cannot be told")],
)
def test_the_gap_is_in_semantics(world: Any, quality: float, semantic: float, word: str) -> None:
    assert world().basics(quality, semantic).measured("gap_semantic").word == word


# similarity


def test_closer_than_rivals_that_are_no_faster(world: Any, paths: Any) -> None:
    w = world().basics().near("srd", paths.srd(SLOW), 25, switch=10).near("pab", paths.pab(), 22)
    assert w.measured("closer").word == "holds"
    w.near("tea", paths.tea(), 30)  # as slow as the large model, and closer
    found = w.measured("closer")
    assert found.word == "does not hold" and "tea" in found.why


def test_a_faster_rival_counts_only_where_it_is_closer(world: Any, paths: Any) -> None:
    w = world().basics().near("srd", paths.srd(SLOW), 25, switch=10).near("pab", paths.pab(), 22)
    w.near("fast", paths.tea(), 20, times=(2.0, 3.0))
    found = w.measured("closer")
    assert found.word == "holds"
    assert [f.counts for f in found.findings] == [True] * 3 + [False] * 3
    w.near("faster", paths.tea(0.2), 30, times=(2.0, 3.0))
    assert w.measured("closer").word == "does not hold"


def test_closer_is_not_told_where_nothing_differs(world: Any, paths: Any) -> None:
    w = world().basics().near("srd", paths.srd(SLOW), 25, switch=10).near("pab", paths.pab(), 25)
    assert w.measured("closer").word == "cannot be told"


@pytest.mark.parametrize(
    ("slow", "fast", "word"), [(27, 24, "holds"), (24, 27, "does not hold"), (25, 25, "cannot be told")]
)
def test_a_smaller_delta_is_closer(world: Any, paths: Any, slow: float, fast: float, word: str) -> None:
    w = world().basics().near("a", paths.srd(FAST), fast).near("b", paths.srd(SLOW), slow)
    assert w.measured("smaller_delta").word == word
    assert "fewer than two" in world().basics().near("a", paths.srd(FAST), 20).measured("smaller_delta").why


# the switch


def curve(w: Any, paths: Any, *steps: int) -> Any:
    for k in steps:
        w.near(f"fixed {k}", paths.switch(k), 20 + 0.5 * k, switch=k)
    return w


@pytest.mark.parametrize(("gain", "word"), [(1, "holds"), (-1, "does not hold"), (0, "cannot be told")])
def test_adaptive_against_fixed_at_equal_cost(world: Any, paths: Any, gain: float, word: str) -> None:
    """The fixed curve has half a dB a step; the adaptive switch is after 9 or 10, so 24.75 is on it."""
    w = curve(world().basics(), paths, 7, 12)
    w.near("srd", paths.srd(SLOW), 24.75 + gain, switch=lambda p, s: 9 + s)
    found = w.measured("adaptive")
    assert found.word == word
    assert "between 7 and 12, at equal cost" in found.findings[0].what


def test_no_equal_cost_without_fixed_switches_on_both_sides(world: Any, paths: Any) -> None:
    for steps in ((7,), (12, 15), (3, 30)):
        w = curve(world().basics(), paths, *steps).near("srd", paths.srd(SLOW), 24, switch=9)
        found = w.measured("adaptive")
        assert found.word == "cannot be told" and "add method fixed_step" in found.why
    assert "no fixed switch" in world().basics().near("srd", paths.srd(SLOW), 24).measured("adaptive").why


@pytest.mark.parametrize(("share", "word"), [(0.3, "holds"), (3.0, "does not hold"), (1.0, "cannot be told")])
def test_lower_variance(world: Any, paths: Any, share: float, word: str) -> None:
    w = world(prompts=24).basics()
    w.add("fixed", paths.switch(10), switch=10, psnr=lambda p, s: 25 + w.hard[p] + 0.3 * s)
    w.add(
        "srd",
        paths.srd(SLOW),
        switch=10,
        psnr=lambda p, s: 25 + share * (w.hard[p] + 0.3 * s) + 0.01 * (p % 3),
    )
    assert w.measured("steadier").word == word


def test_videos_that_never_switched_are_told_apart(world: Any, paths: Any) -> None:
    """The large model's own video at PSNR's cap makes the variance large, and is no switch at all."""
    w = world(prompts=24).basics()
    w.add("fixed", paths.switch(10), switch=10, psnr=lambda p, s: 25 + w.hard[p] + 0.3 * s)
    psnr = lambda p, s: 100.0 if (p, s) == (0, 0) else 25 + 0.3 * (w.hard[p] + s)  # noqa: E731
    w.add("srd", paths.srd(SLOW), switch=lambda p, s: 50 if (p, s) == (0, 0) else 9, psnr=psnr)
    with_it, without = w.measured("steadier").findings
    assert with_it.estimate > 1 > without.high and "without 1 of 48 videos" in without.what
    assert len(w.measured("hard_later").findings) == 2


def test_variance_wants_a_fixed_switch_of_about_its_cost(world: Any, paths: Any) -> None:
    w = curve(world().basics(), paths, 20).near("srd", paths.srd(SLOW), 25, switch=9)
    assert "add method fixed_step at 9" in w.measured("steadier").why


@pytest.mark.parametrize(("sign", "word"), [(1, "holds"), (-1, "does not hold"), (0, "cannot be told")])
def test_hard_prompts_switch_later(world: Any, paths: Any, sign: int, word: str) -> None:
    w = world(prompts=24).basics()
    w.add("fixed", paths.switch(10), switch=10, psnr=lambda p, s: 25 - w.hard[p] + 0.1 * s)
    order = sorted(range(24), key=lambda p: w.hard[p])
    later = (lambda p: 8 + order.index(p) // 4 * sign) if sign else (lambda p: 8 + 5 * p % 7)
    w.add("srd", paths.srd(SLOW), switch=lambda p, s: later(p) + 5 * (sign < 0), psnr=25)
    assert w.measured("hard_later").word == word


def two(world: Any, paths: Any, wide: int, narrow: int) -> Any:
    runs = []
    for family, spread in (("wan21_480p", wide), ("cogvideox", narrow)):
        w = world(family=family, prompts=16).basics()
        runs.append(w.near("srd", paths.srd(SLOW), 25, switch=lambda p, s, r=spread: 10 + r * (p % 4)).made())
    (found,) = claims.judge(runs, [c for c in CLAIMS if c.key == "wider"])
    return found.measured


def test_wans_switch_steps_are_spread_wider(world: Any, paths: Any) -> None:
    assert two(world, paths, 4, 1).word == "holds"
    assert two(world, paths, 1, 4).word == "does not hold"
    assert two(world, paths, 2, 2).word == "cannot be told"
    alone = world(family="cogvideox").basics().made()
    (found,) = claims.judge([alone], [c for c in CLAIMS if c.key == "wider"])
    assert found.measured.word == "cannot be told" and "one of CogVideoX" in found.measured.why


def test_large_again_at_equal_cost_goes_by_the_total(world: Any, paths: Any) -> None:
    for level, word in ((0.9, "holds"), (0.7, "does not hold"), (0.8, "cannot be told")):
        w = world(prompts=16).basics()
        for k in (18, 22):
            w.add(f"fixed {k}", paths.switch(k), switch=k, quality=0.8, semantic=0.8, psnr=28)
        path = [
            paths.segment("large", paths.fixed(10)),
            paths.segment("small", paths.fixed(40)),
            paths.segment("large"),
        ]
        w.add("again", path, switch=20, quality=level, semantic=level, psnr=26)
        found = w.measured("again_large")
        assert found.word == word
        assert [f.counts for f in found.findings] == [True, False]
    assert "no large–small–large" in world().basics().measured("again_large").why


# why it may work


@pytest.mark.parametrize(
    ("early", "late", "word"), [(18, 26, "holds"), (26, 18, "does not hold"), (22, 22, "cannot be told")]
)
def test_early_noise_matters_more(world: Any, paths: Any, early: float, late: float, word: str) -> None:
    w = world().basics()
    for k in (2, 10, 20, 40):
        db = early if k <= 10 else late
        w.near(f"noise {k}", paths.noise(k), db, quality=0.9, semantic=db / 30)
    assert w.measured("early").word == word
    assert "experiment fig1" in world().basics().measured("early").why


def test_noise_on_one_side_tells_nothing(world: Any, paths: Any) -> None:
    assert "only up to" in world().basics().near("n", paths.noise(2), 20).measured("early").why


def test_the_change_of_d_settles(world: Any, paths: Any) -> None:
    shrinking, steady, growing = (
        lambda t: 0.5 * 0.8**t, lambda t: 0.3 + 0.01 * (t % 2), lambda t: 0.001 * t**1.5,
    )  # fmt: skip
    for change, word in ((shrinking, "holds"), (steady, "does not hold"), (growing, "does not hold")):
        w = world().add("large", [paths.segment("large")], change=change)
        assert w.measured("settles").word == word
    assert "no D" in world().basics().measured("settles").why


# runs and reports


def test_of_random_weights_nothing_is_judged(world: Any, paths: Any) -> None:
    w = (
        world(resolved={"family": {"kind": "wan", "scale": "tiny"}})
        .basics()
        .add("srd", paths.srd(FAST), switch=6)
    )
    found = w.measured("speed_fast")
    assert found.word == "cannot be told" and "random weights" in found.why


def test_a_family_with_random_weights_has_one_line(world: Any, paths: Any) -> None:
    w = (
        world(resolved={"family": {"kind": "wan", "scale": "tiny"}})
        .basics()
        .add("srd", paths.srd(FAST), switch=6)
    )
    said = claims.lines(claims.judge([w.made()]))
    assert said[0].startswith("? toy: none of 20 claims can be told: random weights") and len(said) == 3


def test_the_numbers_are_those_of_the_table(world: Any, paths: Any) -> None:
    w = world().basics().add("srd", paths.srd(SLOW), quality=0.85, semantic=0.8)
    row = next(r for r in w.made()[2].main if r.label == "srd")
    share, loss = w.measured("no_loss").findings
    table = row["toy/total_difference"]
    assert (loss.estimate, loss.low, loss.high) == pytest.approx((table.value, table.low, table.high))
    assert share.estimate == pytest.approx(100 * (1 + table.value / _lead(w)))


def _lead(w: Any) -> float:
    large, small = (next(r for r in w.made()[2].main if r.label == name) for name in ("large", "small"))
    return large["toy/total"].value - small["toy/total"].value


def test_a_claim_about_a_model_is_one_about_its_fifty_steps(world: Any, paths: Any) -> None:
    for family, word in (("wan21_480p", "cannot be told"), ("toy", "holds")):
        w = world(family=family, resolved={"family": {"kind": "wan", "steps": 20}})
        w.basics().add("srd", paths.srd(FAST), switch=6)
        assert w.measured("speed_fast").word == word


def test_similarity_is_that_of_lossless_frames(world: Any, paths: Any) -> None:
    """A run may have both; through an mp4 the order here is the other way round."""
    w = world().basics().near("a", paths.srd(FAST), 20).near("b", paths.srd(SLOW), 25)
    for i, cell in enumerate(w.cells):
        lossy = [
            s.model_copy(
                update={
                    "metric": s.metric.model_copy(update={"name": f"{s.metric.name}/x264-crf18"}),
                    "value": -s.value,
                }
            )
            for s in cell.scores
            if s.metric.group == "similarity"
        ]
        w.cells[i] = cell.model_copy(update={"scores": (*lossy, *cell.scores)})
    assert w.measured("smaller_delta").word == "holds"


def test_what_a_run_lacks_is_said(world: Any) -> None:
    found = world().basics().measured("speed_fast")
    assert found.word == "cannot be told" and "no method like SRDiffusion C3 (δ=0.03)" in found.why


def test_of_several_runs_that_which_has_the_methods_is_taken(world: Any, paths: Any) -> None:
    large = world(prompts=14).basics().made()
    small = world(prompts=9).basics().add("srd", paths.srd(FAST), switch=6).made()
    (found,) = claims.judge([large, small], [c for c in CLAIMS if c.key == "speed_fast"])
    assert found.measured.word == "holds" and "9 prompts" in found.runs[0]


def test_another_family_is_said_to_be_one(world: Any, paths: Any) -> None:
    found = world().basics().add("srd", paths.srd(FAST), quality=0.9, semantic=0.9).verdict("no_loss_fast")
    assert found.text.startswith("family toy: ") and "the total of suite toy" in found.text
    assert "VBench" not in found.text and found.setting == "wan21_480p"


def test_a_run_of_the_papers_own_setting_is_held_to_its_own_methods(world: Any, paths: Any) -> None:
    """On Wan TeaCache is 0.14 and 0.2 and PAB has its range; elsewhere any settings are the family's."""
    w = world(family="wan21_480p").basics().near("srd", paths.srd(SLOW), 25, switch=10)
    w.near("tea", paths.tea(0.14), 22).near("other", paths.tea(0.05), 35)
    found = w.measured("closer")
    assert found.word == "cannot be told"
    assert {f.word for f in found.findings} == {"holds", "cannot be told"}
    assert any("no method like PAB C3" in f.reason for f in found.findings)


def test_many_comparisons_make_each_harder_to_tell(world: Any, paths: Any) -> None:
    """Holm's p is over all claims of a report: what one claim alone resolves, all together may not."""
    w = world().basics().add("srd", paths.srd(FAST), switch=6, quality=0.91, semantic=0.91)
    w.near("even", paths.tea(), 25).near("slow", paths.srd(SLOW), 25, switch=10)
    alone = w.verdict("above_large").measured.findings[0]
    every = {v.claim.key: v for v in claims.judge([w.made()]) if v.about == "toy"}[
        "above_large"
    ].measured.findings[0]
    assert alone.holm == alone.p and every.holm > alone.holm
    assert (every.word == "holds") == (every.low > 0 and every.holm < LEVEL)


@pytest.fixture
def judged(world: Any, paths: Any) -> Any:
    w = curve(world().basics(), paths, 7, 10, 14).near(
        "srd", paths.srd(SLOW), 25, switch=9, quality=0.9, semantic=0.8
    )
    return claims.judge([w.near("tea", paths.tea(), 22, quality=0.9, semantic=0.9).made()])


def test_files_say_what_each_verdict_rests_on(judged: Any, tmp_path: Path) -> None:
    tmp_path = tmp_path / "paper"
    claims.write(tmp_path, judged)
    with open(tmp_path / "claims.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["claim"] for line in lines} == {c.key for c in CLAIMS}
    measured = [x for x in lines if x["level"] == "measured" and x["estimate"]]
    assert measured and all(x["methods"] and x["columns"] and x["run"] and x["prompts"] for x in measured)
    printed = [x for x in lines if x["level"] == "published" and x["estimate"]]
    assert printed and all(x["places"] and x["methods"] and not x["p"] for x in printed)
    assert all(x["why"] for x in lines)
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    for verdict in judged:
        assert f"## {verdict.text}" in text


def test_the_terminal_tells_what_was_measured_and_counts_the_rest(judged: Any) -> None:
    said = claims.lines(judged)
    assert all("family toy: " in line for line in said[:-2:2])
    assert said[-1].endswith("judged as printed alone")
    assert claims.lines(claims.judge([]))[-1].startswith(f"{len(claims.judge([]))} ")


def test_the_same_records_give_the_same_verdicts(world: Any, paths: Any) -> None:
    runs = [world().basics().near("srd", paths.srd(SLOW), 25, quality=0.8, semantic=0.8).made()]
    assert claims.judge(runs) == claims.judge(runs)
