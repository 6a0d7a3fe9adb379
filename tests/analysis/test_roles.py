"""The order of rows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.analysis.roles import natural, order, role

LARGE, SMALL = {"model": "large", "accelerators": []}, {"model": "small", "accelerators": []}
ALWAYS = {"kind": "always"}


def srd(delta, accelerators=()):
    rule = {"kind": "srdiffusion", "delta": delta, "min_steps": 5}
    return [
        {"denoiser": LARGE, "until": rule},
        {"denoiser": {"model": "small", "accelerators": list(accelerators)}, "until": ALWAYS},
    ]


def fixed(step):
    return [
        {"denoiser": LARGE, "until": {"kind": "fixed_step", "step": step}},
        {"denoiser": SMALL, "until": ALWAYS},
    ]


def alone(model, *accelerators):
    return [{"denoiser": {"model": model, "accelerators": list(accelerators)}, "until": ALWAYS}]


def cached(threshold):
    return alone("large", {"kind": "teacache", "threshold": threshold})


IN_ORDER = [  # label, path, steps, scale
    ("large", alone("large"), None, False),
    ("small", alone("small"), None, False),
    ("large in 10 steps", alone("large"), 10, False),
    ("large in 20 steps", alone("large"), 20, False),
    ("fixed 8", fixed(8), None, False),
    ("fixed 10", fixed(10), None, False),
    ("SRD 0.002", srd(0.002), None, False),
    ("SRD 0.01", srd(0.01), None, False),
    ("SRD 0.03", srd(0.03), None, False),
    ("SRD 0.01 + TeaCache", srd(0.01, [{"kind": "teacache", "threshold": 0.1}]), None, False),
    ("TeaCache 0.05", cached(0.05), None, False),
    ("TeaCache 0.1", cached(0.1), None, False),
    ("reference in bfloat16", alone("large"), None, True),
]


def key(label, path, steps, scale):
    return order(role(label == "large", path, steps, scale), path, steps, label)


def test_order_whatever_the_run_named_first():
    for seed in range(20):
        mixed = random.Random(seed).sample(IN_ORDER, len(IN_ORDER))
        assert [m[0] for m in sorted(mixed, key=lambda m: key(*m))] == [m[0] for m in IN_ORDER]


@settings(max_examples=100)
@given(st.lists(st.text()))
def test_any_labels_can_be_sorted(labels):
    assert sorted(sorted(labels, key=natural), key=natural) == sorted(labels, key=natural)


FAMILY = {"steps": 50, "guidance_scale": 5.0, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("model", "steps", "own", "expected"),
    [
        ("large", 20, {}, "fewer"),
        ("large", 49, {"guidance_scale": 5.0, "dtype": "bfloat16", "attention": None}, "fewer"),
        ("large", 50, {}, "other"),
        ("large", 100, {}, "other"),
        ("large", 20, {"dtype": "float32"}, "other"),
        ("large", 20, {"guidance_scale": 1.0}, "other"),
        ("large", 20, {"batch_guidance": True}, "other"),
        ("large", 20, {"attention": "flash"}, "other"),
        ("large", 20, {"negative_prompt": "blurred"}, "other"),
        ("small", None, {}, "small"),
        ("small", 50, {"batch_guidance": False}, "small"),
        ("small", 20, {}, "other"),
        ("small", 100, {}, "other"),
        ("small", None, {"dtype": "float32"}, "other"),
        ("small", None, {"guidance_scale": 0.0}, "other"),
        ("small", None, {"accelerators": [{"kind": "teacache"}]}, "other"),
    ],
)
def test_the_usual_rivals_are_the_familys_models_as_they_are(model, steps, own, expected):
    """More steps, other arithmetic or other guidance make another method."""
    path = [{"denoiser": {"model": model, **own}, "until": ALWAYS}]
    assert role(False, path, steps, family=FAMILY) == expected
