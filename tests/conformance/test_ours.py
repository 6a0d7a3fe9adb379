"""Every plug-in of ours keeps every rule that others' are held to."""

from __future__ import annotations

import pytest

from srbench.cli import check
from srbench.cli.check import Lab, Subject, rules, try_rule
from srbench.config import registry
from srbench.metrics.base import unavailable

LAB = Lab("shapes", steps=10)
# What a kind needs beyond its defaults, and kinds that need something a laptop lacks.
SETTINGS = {
    "fixed_step": [{"step": 7}],
    "boundary": [{"ratio": 0.9}],
    "srdiffusion": [{}, {"delta": 0.5, "min_steps": 2}, {"max_steps": 9}],
    "pab": [{"timestep_range": [100, 970]}, {"state": "per_branch", "timestep_range": [100, 800]}],
    "teacache": [{"threshold": 0.3}],
    "prompts": [{"prompts": ["a cat", "a dog"], "seeds": 2}],
    "shapes": [{}],
    "mp4": [{"of": "psnr"}],
    "mp4_floor": [{"of": "psnr"}],
}


def subjects() -> list[Subject]:
    made = []
    for group in ("rules", "accelerators", "metrics", "suites", "engines"):
        for kind in registry.known(group):
            made += [Subject(group, {"kind": kind, **s}, LAB) for s in SETTINGS.get(kind, [{}])]
    return made


def name(subject: Subject) -> str:
    return "-".join(map(str, subject.settings.values())).replace(" ", "")


CASES = [(s, r) for s in subjects() for r in rules(s.group)]


@pytest.mark.parametrize(
    ("subject", "rule"), CASES, ids=[f"{s.group}-{name(s)}-{r.__name__}" for s, r in CASES]
)
def test_ours(subject: Subject, rule: check.Rule) -> None:
    if rule not in check.EVERY and (lacking := unavailable(subject.make())):
        pytest.skip(lacking)
    assert try_rule(rule, subject) is None
