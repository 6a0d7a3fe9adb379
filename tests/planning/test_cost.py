"""What a run costs, before it runs: counts that can be checked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from srbench.config.experiment import Denoiser, Experiment, Method, Segment, check, read_method
from srbench.config.registry import build
from srbench.errors import Mistakes
from srbench.planning.cost import Price, Steps, cost, earliest, price
from srbench.planning.plan import Keys, Shard, progress, settings, units
from srbench.sampling.paths import as_walked, state_key, trace_key, walked
from srbench.store.objects import Store
from srbench.store.records import CellRecord, RunRecord, Stage, write_cell, write_json
from srbench.trace import Step, Trace

CONF = Path(__file__).parents[2] / "conf"
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
    "distilled": ((4, 0), (4, 0)),
    "lora": ((50, 0), (50, 0)),
    "pab": ((50, 0), (50, 0)),
    "pab_per_branch": ((50, 0), (50, 0)),
    "teacache": ((50, 0), (50, 0)),
    "fixed_step": ((10, 40), (10, 40)),
    "t_stitch": ((40, 10), (40, 10)),
    "large_small_large": ((20, 30), (20, 30)),
    "srdiffusion": ((6, 44), (50, 0)),
    "srdiffusion_teacache": ((6, 44), (50, 0)),
    "srdiffusion_sage": ((6, 44), (50, 0)),
    "disturbed": ((50, 0), (50, 0)),
    "scale_batched": ((50, 0), (50, 0)),
    "scale_bfloat16": ((50, 0), (50, 0)),
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
    assert (steps.alone.large, steps.alone.small) == (50 + 10 + 20, 40 + 30)
    assert (steps.shared.large, steps.shared.small) == (50, 40 + 30)


def test_methods_with_another_number_of_steps_share_nothing() -> None:
    made = experiment(method={"large": LARGE, "fewer": LARGE | {"steps": 20, "label": "fewer"}})
    steps = cost(made, made.methods, earliest)
    assert steps.shared == steps.alone == Steps({Denoiser(model="large"): 70})


GROUND = {"torch": "2.9", "device": "CPU", "threads": "1"}


def priced(
    made: Experiment, folder: Path, device: str = "a CPU, 2 cores", shard: Shard | None = None
) -> Price:
    """The price of an experiment, or of a shard of it, whose run and store lie in a folder."""
    store, todo = Store(folder / "store"), (shard or Shard()).part(units(made))
    done = progress(made, todo, folder / "trial" / "r", store, GROUND)
    return price(made, done, Keys(made, GROUND), store, folder, device, shard=shard)


def test_the_summary_counts_cells_and_guided_evaluations(tmp_path: Path) -> None:
    methods = {"large": LARGE, "small": SMALL}
    told = dict(priced(experiment(method=methods), tmp_path).lines)
    assert told["cells"] == "8"
    assert told["prompts × seeds"] == "2 × 2 = 4 videos a method"
    # 50 steps × 2 calls × 4 videos
    assert told["large model evaluations"] == "400"
    family: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    unguided = experiment(method=methods, family=family | {"guidance_scale": 1.0})
    assert dict(priced(unguided, tmp_path).lines)["small model evaluations"] == "200"


def test_a_family_without_a_price_says_that_time_is_unknown(tmp_path: Path) -> None:
    family: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    told = dict(priced(experiment(family=family | {"price": None}), tmp_path).lines)
    assert told["time"].startswith("unknown") and "disk" not in told


ADAPTIVE = {
    "label": "adaptive",
    "path": [{"model": "large", "until": {"kind": "srdiffusion", "delta": 0.01}}, {"model": "small"}],
}


def falling(steps: int, settles: int) -> Trace:
    """A large model's trace whose D falls by 0.02 a step, and from `settles` steps on by 0.001."""
    drops = [0.02 if i < settles else 0.001 for i in range(1, steps + 1)]
    changes = 2 - np.cumsum(drops)
    return Trace(
        tuple(
            Step(i, 1.0, 0.0, 1.0, "large#1", "large", {"model_output": float(d)} if i else None, 2, 0)
            for i, d in enumerate(changes)
        )
    )


def leave(made: Experiment, folder: Path, methods: Sequence[str], device: str = "a CPU, 2 cores") -> None:
    """What a run of these methods leaves: records and objects, every step in half a second."""
    store, keys, run = Store(folder / "store"), Keys(made, GROUND), folder / "trial" / "r"
    write_json(
        run / "run.json",
        RunRecord(
            experiment="trial",
            run="r",
            family="shapes",
            asked=[],
            resolved=settings(made),
            store="../../store",
            methods=(),
            prompts=made.suite.list_prompts(),
            seeds=made.suite.list_seeds(),
            protocol=keys.protocol,
            commit=None,
            dirty=None,
            packages={},
            device=device,
            threads=1,
            started="",
        ),
    )
    for unit, method in itertools.product(units(made), map(made.method, methods)):
        key = keys.video(method, unit)
        path = store.put(key, ".webm", lambda p, key=key: p.write_text(key))  # type: ignore[misc]
        large = method.name == "large"
        write_cell(
            run,
            CellRecord(
                id=keys.cell(method, unit),
                key=key,
                family="shapes",
                method=method.name,
                label=method.label,
                method_id=method.id,
                path=[],
                prompt=unit.prompt,
                prompt_index=unit.prompt_index,
                seed=unit.seed,
                outcome="done",
                video=path.stem,
                video_bytes=path.stat().st_size,
                protocol=keys.protocol,
                trace=falling(50, settles=20) if large else None,
                step_seconds=(0.5,) * 50 if large else (),
                stages=(Stage(name="decode", seconds=2.0),),
            ),
        )


def test_what_is_there_already_is_not_priced_again(tmp_path: Path) -> None:
    made = experiment(method={"large": LARGE, "small": SMALL})
    leave(made, tmp_path, ["large"])
    told = dict(priced(made, tmp_path).lines)
    assert told["cells"] == "8, 4 of these are there already"
    assert told["large model evaluations"].endswith("; 0 left to do")
    assert told["small model evaluations"] == "400"  # nothing is shared, so nothing is said of it
    assert "4 videos" in told["disk"]


def test_another_seed_prices_the_new_videos_alone(tmp_path: Path) -> None:
    """It is another run, which takes the videos of the first from the store."""
    made = experiment(method={"large": LARGE, "small": SMALL})
    leave(made, tmp_path, ["large", "small"])
    more = experiment(
        method={"large": LARGE, "small": SMALL},
        suite={"kind": "prompts", "prompts": ["a cat", "a dog"], "seeds": 3},
        name="other",
    )
    store = Store(tmp_path / "store")
    done = progress(more, units(more), tmp_path / "other" / "s", store, GROUND)
    told = dict(price(more, done, Keys(more, GROUND), store, tmp_path, "a CPU, 2 cores").lines)
    assert told["cells"] == "12, 8 of these are there already"
    assert told["large model evaluations"].endswith("; 200 left to do")


def test_step_times_and_switch_steps_are_those_measured_here(tmp_path: Path) -> None:
    made = experiment(method={"large": LARGE, "adaptive": ADAPTIVE})
    assert "implied by the paper" in dict(priced(made, tmp_path).lines)["assumed switch steps"]
    leave(made, tmp_path, ["large"])
    told = dict(priced(made, tmp_path).lines)
    assert "adaptive: 20 (mean 20.0, measured here, 4 videos)" in told["assumed switch steps"]
    assert "0.5 s a large step (measured here, median of 200 steps)" in told["reckoned with"]
    # 0.011 / 0.056 × 0.5
    assert "0.0982 s a small step (guessed" in told["reckoned with"]
    assert "2 s to encode and decode" in told["reckoned with"]


def test_a_record_still_being_written_is_no_measurement(tmp_path: Path) -> None:
    made = experiment(method={"large": LARGE, "small": SMALL})
    leave(made, tmp_path, ["large"])
    cells = tmp_path / "trial" / "r" / "cells"
    whole = next(cells.iterdir())
    (cells / f".0123{whole.name}").write_bytes(whole.read_bytes())
    assert "median of 200 steps" in dict(priced(made, tmp_path).lines)["reckoned with"]


def test_times_of_another_device_are_not_ours(tmp_path: Path) -> None:
    made = experiment(method={"large": LARGE, "small": SMALL})
    leave(made, tmp_path, ["large"], device="another")
    assert "measured here" not in dict(priced(made, tmp_path).lines)["reckoned with"]


def test_the_familys_own_switch_steps_come_before_the_papers(tmp_path: Path) -> None:
    family: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    family["price"]["switch"] = {0.002: 30, 0.01: 22, 0.03: 9}
    told = dict(priced(experiment(family=family, method={"a": ADAPTIVE, "large": LARGE}), tmp_path).lines)
    assert "adaptive: 22 (of the family's price)" in told["assumed switch steps"]


def test_kept_states_spare_the_steps_before_them(tmp_path: Path) -> None:
    """Large is there with its states: a switch at 10 begins from the state after 10 steps."""
    made = experiment(method={"large": LARGE, "ten": fixed(10)}, keep="all")
    leave(made, tmp_path, ["large"])
    assert dict(priced(made, tmp_path).lines)["large model evaluations"].endswith("; 80 left to do")
    store, keys, large = Store(tmp_path / "store"), Keys(made, GROUND), Denoiser(model="large").digest
    for unit in units(made):
        named = keys.unit(unit.prompt, unit.seed), keys.weights(["large"]), 50, list[str](), large
        for key in (trace_key(*named), state_key(*named, 8)):
            store.put(key, ".x", lambda p: p.write_text("x"))
    assert dict(priced(made, tmp_path).lines)["large model evaluations"].endswith("; 16 left to do")


def test_kept_states_are_counted_by_the_policy() -> None:
    """Of 50 + 40 steps: every state of the trunk; those from 6 to 20; the one fork; none."""
    methods = {"large": LARGE, "ten": fixed(10)}
    made = {k: experiment(method=methods, keep=k) for k in ("all", "window(6,20)", "forks", "none")}
    counts = {k: cost(e, e.methods, earliest).states for k, e in made.items()}
    assert counts == {"all": 50, "window(6,20)": 15, "forks": 1, "none": 0}


def test_a_published_price_is_in_hours_of_its_gpu_whatever_this_machine_is(tmp_path: Path) -> None:
    wan: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "wan21_480p.yaml"))
    told = dict(priced(experiment(family=wan, engine={"kind": "local", "workers": 2}), tmp_path).lines)
    assert told["time"].endswith("with 2 workers on 2 A800s, not on this machine")
    assert told["GPU-hours"].startswith("0.934;")  # 4 videos of 50 steps of 16.82 s
    assert "core-hours" not in told


def test_a_cpus_price_is_in_hours_of_its_cores(tmp_path: Path) -> None:
    family: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    told = dict(priced(experiment(family=family | {"device": "cpu"}), tmp_path).lines)
    assert "core-hours" in told and "1 worker of 1 thread on " in told["time"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ray_as_it_ships_names_no_number_of_workers_and_has_a_price(tmp_path: Path, device: str) -> None:
    ray: Any = OmegaConf.to_container(OmegaConf.load(CONF / "engine" / "ray.yaml"))
    family: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    made = experiment(family=family | {"device": device}, engine=ray)
    told = dict(priced(made, tmp_path).lines)
    on_gpu = "with 1 worker; one a GPU there will be, reckoned with one"
    assert (on_gpu if device == "cuda" else "of 1 thread on ") in told["time"]
    assert " for each worker, residency=both" in told["memory"]
    elsewhere = experiment(family=family | {"device": device}, engine=ray | {"address": "auto"})
    assert "reckoned with one" in dict(priced(elsewhere, tmp_path).lines)["time"]


def test_rays_price_on_a_published_gpu_is_that_of_one(tmp_path: Path) -> None:
    ray: Any = OmegaConf.to_container(OmegaConf.load(CONF / "engine" / "ray.yaml"))
    wan: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "wan21_480p.yaml"))
    told = dict(priced(experiment(family=wan, engine=ray), tmp_path).lines)
    assert "1 worker on 1 A800, not on this machine; one a GPU there will be" in told["time"]


# -- one number for the calls of a step


def family_yaml(name: str = "shapes", **changed: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / f"{name}.yaml"))
    return plain | changed


@pytest.mark.parametrize(
    ("family", "own", "evaluations"),
    [
        (3.0, {}, 20),
        (3.0, {"guidance_scale": 1.0}, 10),
        (3.0, {"batch_guidance": True}, 10),  # both branches in one call
        (1.0, {}, 10),
        (1.0, {"guidance_scale": 4.0}, 20),  # guidance of the method's own in a family without
        (1.0, {"batch_guidance": True}, 10),
    ],
)
def test_evaluations_are_counted_by_the_denoisers_own_guidance(
    family: float, own: dict[str, Any], evaluations: int, tmp_path: Path
) -> None:
    """The same function tells the sampler how often it calls the model."""
    made = experiment(
        family=family_yaml(guidance_scale=family),
        suite={"kind": "prompts", "prompts": ["a cat"]},
        method={"large": {"path": [{"model": "large", **own}], "steps": 10}},
    )
    assert dict(priced(made, tmp_path).lines)["large model evaluations"] == str(evaluations)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    guidance=st.sampled_from([1.0, 3.0]),
    own=st.sampled_from([None, 0.0, 1.0, 5.0]),
    skip_range=st.integers(2, 9),
    low=st.integers(0, 900),
)
def test_a_plan_attaches_accelerators_at_the_step_where_a_run_does(
    guidance: float, own: float | None, skip_range: int, low: int
) -> None:
    pab = {"kind": "pab", "skip_range": skip_range, "timestep_range": [low, low + 90]}
    segment = {"model": "large", "accelerators": [pab], "guidance_scale": own}
    made = experiment(
        family=family_yaml(guidance_scale=guidance), method={"large": LARGE, "pab": {"path": [segment]}}
    )
    method, family = made.method("pab"), made.family
    late = as_walked(method, family)
    calls = 2 if (guidance if own is None else own) > 1 else 1
    times = family.timesteps(method.steps, method.sampler)
    (accelerator,) = method.segments[0].denoiser.accelerators
    first = accelerator.inert_steps(times, calls, len(times) - 1)
    assert late.attached_late == (first >= 1)
    if late.attached_late:
        assert late.segments[0].until.step == first


# -- a shard


def test_a_plan_of_a_shard_counts_the_shard_and_names_it(tmp_path: Path) -> None:
    made = experiment(
        method={"large": LARGE, "small": SMALL}, suite={"kind": "prompts", "prompts": list("abcdefghi")}
    )
    whole = dict(priced(made, tmp_path).lines)
    parts = [dict(priced(made, tmp_path, shard=Shard(i, 4)).lines) for i in (1, 2, 3, 4)]
    assert "shard" not in whole
    said = "1/4: 3 of these 9 videos a method; every number below is of this shard alone"
    assert parts[0]["shard"] == said
    assert [p["cells"] for p in parts] == ["6", "4", "4", "4"]
    for line in ("cells", "large model evaluations", "small model evaluations"):
        assert sum(int(p[line].replace(",", "")) for p in parts) == int(whole[line].replace(",", ""))
    videos = [int(p["disk"].split(": ")[1].split(" video")[0]) for p in parts]
    assert videos == [6, 4, 4, 4]


# -- memory


def memory(tmp_path: Path, name: str, methods: dict[str, Any], **family: Any) -> str:
    made = experiment(family=family_yaml(name, **family), method=methods)
    return dict(priced(made, tmp_path).lines)["memory"]


def test_memory_follows_the_residency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the weights: both models, the larger of the two, and no number that nobody knows."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    both = {"large": LARGE, "small": SMALL}

    def told(residency: str, methods: dict[str, Any] = both) -> str:
        return memory(tmp_path, "wan21_480p", methods, residency=residency)

    assert told("both").startswith("about 37.3 GiB for each of 1 worker, residency=both")
    assert told("swap").startswith(f"about {(4.0e10 - 2.84e9) / 2**30:.3g} GiB")
    assert told("both", {"large": LARGE}) == told("swap", {"large": LARGE}).replace("swap", "both")
    for residency in ("offload", "group"):
        assert told(residency).startswith("not known for each of 1 worker")
        assert f"residency={residency}" in told(residency) and "GiB" not in told(residency)


def test_memory_is_counted_from_the_files_where_they_are(tmp_path: Path) -> None:
    both = {"large": LARGE, "small": SMALL}
    told = {r: memory(tmp_path, "shapes", both, residency=r) for r in ("both", "swap", "offload", "group")}
    assert all(f"residency={r}: weights " in line for r, line in told.items())
    assert len({line.partition("weights ")[2].partition(",")[0] for line in told.values()}) == 4
