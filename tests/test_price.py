"""What a run costs, before it runs: counts that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from srbench.experiment import Denoiser, Experiment, Method, Mistakes, Segment, check, read_method
from srbench.paths import walked
from srbench.price import Steps, cost, earliest, summary
from srbench.registry import build

CONF = Path(__file__).parents[1] / "conf"
FIFTY = tuple(float(t) for t in range(1000, 0, -20))


def shipped(name: str, **parameters: Any) -> Method:
    """A method of conf/method, as Hydra resolves it."""
    node = OmegaConf.load(CONF / "method" / f"{name}.yaml")
    tree = OmegaConf.create({"method": {name: OmegaConf.merge(node, parameters)}})
    plain = OmegaConf.to_container(tree, resolve=True)
    mistakes = Mistakes()
    method = read_method(name, plain["method"][name], mistakes)  # type: ignore[index, call-overload]
    mistakes.stop_if_any()
    assert method is not None
    return method


def never(rule: Any, timesteps: Any) -> int:
    """Assume that every rule fires as late as it can, or not at all."""
    return rule.window(timesteps)[1]


def bounds(method: Method) -> tuple[tuple[int, int], tuple[int, int]]:
    """(large, small) steps of 50 if every rule fires as early as it can, and as late."""
    timesteps = FIFTY[: method.steps]
    early, late = (Steps.of(walked(method, timesteps, a)) for a in (earliest, never))
    return (early.large, early.small), (late.large, late.small)


# Of 50 steps, with the large and with the small model: rules at their earliest, at their latest.
SHIPPED = {
    "large": ((50, 0), (50, 0)),
    "another_seed": ((50, 0), (50, 0)),
    "small": ((0, 50), (0, 50)),
    "fewer_steps": ((20, 0), (20, 0)),
    "pab": ((50, 0), (50, 0)),
    "pab_per_branch": ((50, 0), (50, 0)),
    "teacache": ((50, 0), (50, 0)),
    "fixed_step": ((10, 40), (10, 40)),
    "t_stitch": ((40, 10), (40, 10)),
    "large_small_large": ((20, 30), (20, 30)),
    "srdiffusion": ((6, 44), (50, 0)),
    "srdiffusion_teacache": ((6, 44), (50, 0)),
}


def test_every_method_that_ships_is_in_this_list() -> None:
    assert {p.stem for p in (CONF / "method").glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_steps_of_each_model(name: str) -> None:
    assert bounds(shipped(name)) == SHIPPED[name]


def test_labels_are_resolved_and_tell_the_methods_apart() -> None:
    labels = [shipped(name).label for name in SHIPPED]
    assert len(set(labels)) == len(labels)
    assert not any("${" in label for label in labels)


def test_parameters_reach_the_path() -> None:
    assert bounds(shipped("fixed_step", step=13))[0] == (13, 37)
    assert bounds(shipped("srdiffusion", min_steps=9))[0] == (10, 40)
    assert shipped("srdiffusion", delta=0.03).segments[0].until.delta == 0.03
    assert (
        shipped("srdiffusion_teacache", threshold=0.2).segments[1].denoiser.accelerators[0].threshold == 0.2
    )
    assert shipped("pab", low=50).segments[0].denoiser.accelerators[0].timestep_range == (50, 950)


def switch(until: dict[str, Any]) -> Method:
    """Large, then small."""
    large = Segment(denoiser=Denoiser(model="large"), until=build("rules", until, "until"))
    small = Segment(denoiser=Denoiser(model="small"), until=build("rules", {"kind": "always"}, "until"))
    return Method(name="m", label="m", segments=(large, small))


@pytest.mark.parametrize(
    ("until", "early", "late"),
    [
        ({"kind": "fixed_step", "step": 80}, 50, 50),  # beyond the last step: never
        ({"kind": "boundary", "ratio": 0.9}, 6, 6),  # 1000, 980, … 900, and then 880 is below
        ({"kind": "srdiffusion", "max_steps": 30}, 6, 30),
        ({"kind": "srdiffusion", "min_steps": 0}, 3, 50),  # d exists from the third step on
        ({"kind": "srdiffusion", "min_steps": 5, "max_steps": 3}, 3, 3),  # the maximum comes first
    ],
)
def test_large_steps_before_a_switch(until: dict[str, Any], early: int, late: int) -> None:
    assert [large for large, _ in bounds(switch(until))] == [early, late]


LARGE = {"path": [{"model": "large"}]}
SMALL = {"path": [{"model": "small"}]}


def fixed(step: int) -> dict[str, Any]:
    until = {"kind": "fixed_step", "step": step}
    return {"label": f"at {step}", "path": [{"model": "large", "until": until}, {"model": "small"}]}


def experiment(**changes: Any) -> Experiment:
    """Two prompts, two seeds, 50 steps."""
    return check(
        {
            "name": "trial",
            "family": OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml")),
            "suite": {"kind": "prompts", "prompts": ["a cat", "a dog"], "seeds": 2},
            "method": {"large": LARGE},
            "metric": {},
            "engine": {"kind": "local"},
        }
        | changes
    )


def test_walking_together_costs_the_large_steps_once() -> None:
    """Switches at 10 and 20 beside the large model: 50 + 50 + 40 + 30 steps become 50 + 40 + 30."""
    made = experiment(method={"large": LARGE, "ten": fixed(10), "twenty": fixed(20)})
    steps = cost(made, made.methods, earliest)
    assert steps.alone == Steps(large=50 + 10 + 20, small=40 + 30)
    assert steps.shared == Steps(large=50, small=40 + 30)


def test_methods_with_another_number_of_steps_share_nothing() -> None:
    made = experiment(method={"large": LARGE, "fewer": LARGE | {"steps": 20, "label": "fewer"}})
    steps = cost(made, made.methods, earliest)
    assert steps.shared == steps.alone == Steps(large=70, small=0)


def test_the_summary_counts_cells_and_guided_evaluations() -> None:
    methods = {"large": LARGE, "small": SMALL}
    told = dict(summary(experiment(method=methods)))
    assert told["cells"] == "8"
    assert told["prompts × seeds"] == "2 × 2 = 4 videos a method"
    # 50 steps × 2 calls × 4 videos
    assert told["large model evaluations"].startswith("400 ")
    family: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    unguided = experiment(method=methods, family=family | {"guidance_scale": 1.0})
    assert dict(summary(unguided))["small model evaluations"].startswith("200 ")
