"""The paper's own numbers against its claims; known by arithmetic on its tables."""

from __future__ import annotations

import pytest

from srbench.paper import claims
from srbench.paper.claims import CLAIMS, quoted
from srbench.paper.claims.base import Finding, judgement

WORDS = {
    ("speed_fast", "wan21_480p"): "holds",  # 3.21
    ("speed", "wan21_480p"): "holds",
    ("speed", "wan21_720p"): "holds",
    ("speed_cogvideox", "cogvideox"): "holds",  # 2.05
    ("speed_small", "wan21_480p"): "holds",  # 841 / 158
    ("speed_of_all", "wan21_480p"): "holds",  # 2.23 against 1.96
    ("speed_of_all", "cogvideox"): "does not hold",  # 1.65 against 2.39
    ("no_loss_fast", "wan21_480p"): "holds",
    ("no_loss", "wan21_720p"): "cannot be told",  # the large model leads by 0.09
    ("no_loss", "cogvideox"): "holds",
    ("above_large", "wan21_480p"): "holds",  # 84.12 against 84.05
    ("gap_semantic", "wan21_480p"): "holds",
    ("gap_turned", "wan21_720p"): "holds",  # 84.69 against 84.66
    ("closer", "wan21_480p"): "holds",
    ("closer", "cogvideox"): "holds",
    ("closer_fast", "wan21_480p"): "does not hold",  # PAB: 19.94 dB against 19.32
    ("closer_fast_cogvideox", "cogvideox"): "holds",
    ("smaller_delta", "wan21_480p"): "holds",
    ("adaptive", "wan21_480p"): "does not hold",  # LPIPS 0.197 against 0.196, at more cost
    ("adaptive", "cogvideox"): "cannot be told",  # 0.18 dB, of which the cost explains 0.14
    ("steadier", "wan21_480p"): "cannot be told",
    ("again_large", "wan21_480p"): "cannot be told",
}


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], claims.Verdict]:
    return {(v.claim.key, v.about): v for v in claims.judge([])}


@pytest.mark.parametrize(("key", "word"), WORDS.items(), ids=["-".join(k) for k in WORDS])
def test_word(verdicts: dict[tuple[str, str], claims.Verdict], key: tuple[str, str], word: str) -> None:
    assert verdicts[key].published.word == word


def test_without_runs_nothing_is_measured(verdicts: dict[tuple[str, str], claims.Verdict]) -> None:
    assert {v.measured.word for v in verdicts.values()} == {"cannot be told"}
    assert all(v.measured.why for v in verdicts.values())


def test_every_setting_of_every_claim_has_a_verdict(verdicts: dict[tuple[str, str], claims.Verdict]) -> None:
    wanted = {(c.key, s) for c in CLAIMS if c.key != "wider" for s in c.settings}
    assert wanted <= set(verdicts)
    assert len({c.key for c in CLAIMS}) == len(CLAIMS)


def test_the_switch_step_that_a_latency_implies(verdicts: dict[tuple[str, str], claims.Verdict]) -> None:
    """(117 − 75) / (213 − 75) · 50 = 15.2."""
    assert "switch step of 15.2" in verdicts["adaptive", "cogvideox"].published.findings[0].note


def test_printed_numbers_are_as_exact_as_their_last_digit() -> None:
    total = quoted.need("wan21_480p", "srd_c3", "vbench/total")
    large = quoted.need("wan21_480p", "large", "vbench/total")
    assert quoted.rounded(lambda a, b: a - b, total, large) == pytest.approx((0.07, 0.06, 0.08))


def test_what_is_equal_as_printed_is_not_told() -> None:
    own = quoted.need("wan21_480p", "srd_c2", "psnr", ("4",))
    fixed = quoted.need("wan21_480p", "fixed_switch", "psnr", ("4",))
    assert own.text == fixed.text
    one = quoted.difference(own, fixed, "PSNR", "dB")
    assert one.word == "cannot be told" and "last digit" in one.sentence
    a_digit_more = Finding("LPIPS", "", 0.001, 0.0, 0.002)
    assert a_digit_more.word == "holds"


def test_one_that_goes_the_other_way_decides() -> None:
    yes, no, open_ = (Finding("x", "", v, v - 1, v + 1) for v in (2.0, -2.0, 0.0))
    assert judgement([yes, yes]).word == "holds"
    assert judgement([yes, open_]).word == "cannot be told"
    assert judgement([yes, open_, no]).word == "does not hold"
    assert judgement([]).word == "cannot be told"


def test_methods_are_called_what_they_are() -> None:
    assert quoted.label("wan21_480p", "pab_c3") == "PAB 8 [100–970]"
    assert quoted.label("cogvideox", "srd_c3") == "SRDiffusion δ=0.015"
    assert quoted.label("wan21_480p", "large") == "Wan 14B"
