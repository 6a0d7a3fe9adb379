"""The plan: units in order, and hashes that move only when they must."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from srbench.config.experiment import Experiment, check
from srbench.planning.plan import Keys, protocol, run_folder, units, warnings
from srbench.suites.base import extensions

CONF = Path(__file__).parents[2] / "conf"
LARGE = {"path": [{"model": "large"}]}
GROUND = {"torch": "2.9", "device": "CPU", "threads": "1"}
SMALL = {"path": [{"model": "small"}]}


def experiment(weights: Path, family: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    """Two prompts, two seeds and one method, on weights that are three small files."""
    for part in ("transformer", "transformer_2"):
        (weights / part).mkdir(parents=True, exist_ok=True)
        if not (file := weights / part / "model.safetensors").exists():
            file.write_text(part)
    shapes: Any = OmegaConf.to_container(OmegaConf.load(CONF / "family" / "shapes.yaml"))
    for role in ("large", "small", "components"):
        shapes[role]["source"] = str(weights)
    return check(
        {
            "name": "trial",
            "family": shapes | (family or {}),
            "suite": {"kind": "prompts", "prompts": ["a cat", "a dog"], "seeds": 2},
            "method": {"large": LARGE},
            "metric": {"psnr": {"kind": "psnr"}},
            "engine": {"kind": "local"},
        }
        | changes
    )


def test_units_are_prompt_by_prompt(tmp_path: Path) -> None:
    assert [(u.prompt_index, u.prompt, u.seed) for u in units(experiment(tmp_path))] == [
        (0, "a cat", 0),
        (0, "a cat", 1),
        (1, "a dog", 0),
        (1, "a dog", 1),
    ]


def test_a_prompt_keeps_its_number_when_an_earlier_job_began_the_run(tmp_path: Path) -> None:
    numbered = units(experiment(tmp_path), ["a bird", "a dog", "a cat"])
    assert [(u.prompt_index, u.prompt) for u in numbered[::2]] == [(2, "a cat"), (1, "a dog")]


def test_more_methods_or_metrics_are_the_same_run_other_prompts_or_seeds_another(tmp_path: Path) -> None:
    def folder(**changes: Any) -> Path:
        return run_folder(experiment(tmp_path / "w", **changes), tmp_path / "results", None, GROUND)

    one = folder()
    assert one.parent == tmp_path / "results" / "trial"
    assert folder(method={"large": LARGE, "small": SMALL}) == one
    assert folder(suite={"kind": "prompts", "prompts": ["a cat", "a dog", "a bird"], "seeds": 5}) != one
    assert folder(metric={}) == one
    assert folder(engine={"kind": "local", "workers": 2}) == one
    assert folder(late_attach=False) == one


def test_another_schedule_or_other_weights_are_another_run(tmp_path: Path) -> None:
    def folder(weights: str, **family: Any) -> str:
        return run_folder(experiment(tmp_path / weights, family), tmp_path, None, GROUND).name

    one = folder("w")
    (tmp_path / "v" / "transformer").mkdir(parents=True)
    (tmp_path / "v" / "transformer" / "model.safetensors").write_text("trained longer")
    names = [one, folder("w", steps=40), folder("w", shift=3.0), folder("w", guidance_scale=5.0), folder("v")]
    assert len(set(names)) == len(names)


def test_a_run_that_was_given_a_name_keeps_it(tmp_path: Path) -> None:
    assert run_folder(experiment(tmp_path), Path("results"), "mine", GROUND) == Path("results/trial/mine")


def test_another_torch_or_thread_count_is_another_run(tmp_path: Path) -> None:
    """Their bits differ, so two generations of one cell must not meet in one table."""
    made = experiment(tmp_path)
    grounds = [GROUND, GROUND | {"torch": "2.10"}, GROUND | {"threads": "2"}]
    assert len({run_folder(made, tmp_path, None, g) for g in grounds}) == 3
    assert len({protocol(made, g) for g in grounds}) == 3


def test_a_video_is_named_by_all_that_determines_its_bytes_and_nothing_else(tmp_path: Path) -> None:
    def cell(prompt: int = 0, seed: int = 0, ground: dict[str, str] = GROUND, **changes: Any) -> str:
        made = experiment(tmp_path, **changes)
        unit = next(u for u in units(made) if (u.prompt_index, u.seed) == (prompt, seed))
        return Keys(made, ground).video(made.methods[0], unit)

    one = cell()
    assert len(one) == 64
    assert one == cell(method={"renamed": LARGE | {"label": "Other"}}, reference="renamed", name="elsewhere")
    assert one == cell(metric={}, method={"large": LARGE, "small": SMALL})
    others = [
        cell(prompt=1),
        cell(seed=1),
        cell(ground=GROUND | {"threads": "2"}),
        cell(family={"steps": 40}),
        cell(method={"large": SMALL}),
        cell(method={"large": LARGE | {"steps": 50}}),
    ]
    assert len({one, *others}) == len(others) + 1


def extended(folder: Path, table: dict[str, str], *prompts: str) -> Experiment:
    file = folder / "extended.json"
    file.write_text(json.dumps(table))
    extensions.cache_clear()
    asked = {"prompts": list(prompts or table), "extended": str(file)}
    return experiment(folder, suite={"kind": "prompts", "seeds": 1} | asked)


def test_a_video_is_named_by_the_text_that_the_model_is_given(tmp_path: Path) -> None:
    given = extended(tmp_path, {"a cat": "a grey cat"})
    plain = experiment(tmp_path, suite={"kind": "prompts", "prompts": ["a grey cat"], "seeds": 1})
    (long,), (same,) = units(given), units(plain)
    assert (long.prompt, long.text, same.text) == ("a cat", "a grey cat", "a grey cat")
    keys, others = Keys(given, GROUND), Keys(plain, GROUND)
    method = given.methods[0]
    assert keys.video(method, long) == others.video(method, same)  # so it is not made twice
    assert keys.cell(method, long) != others.cell(method, same)
    assert keys.video(method, long) != keys.video(method, replace(long, given=None))


def test_two_prompts_with_one_text_share_a_video_and_are_two_cells(tmp_path: Path) -> None:
    made = extended(tmp_path, {"a cat": "an animal", "a dog": "an animal"})
    keys, (one, other), method = Keys(made, GROUND), units(made), made.methods[0]
    assert keys.video(method, one) == keys.video(method, other)
    assert keys.cell(method, one) != keys.cell(method, other)


def test_extended_and_plain_prompts_are_two_runs(tmp_path: Path) -> None:
    names = []
    for table in ({"a cat": "a grey cat"}, {"a cat": "a red cat"}):
        made = extended(tmp_path, table)
        names.append((protocol(made, GROUND), run_folder(made, tmp_path, None, GROUND)))
    plain = experiment(tmp_path, suite={"kind": "prompts", "prompts": ["a cat"], "seeds": 1})
    names.append((protocol(plain, GROUND), run_folder(plain, tmp_path, None, GROUND)))
    assert len(set(names)) == len({p for p, _ in names}) == 3


def test_prompts_from_outside_the_shapes_world_are_warned_of(tmp_path: Path) -> None:
    """Only for the embedded models, and also for the prompts of earlier jobs."""
    sources = {role: {"source": "builtin:shapes"} for role in ("large", "small", "components")}
    (warning,) = warnings(experiment(tmp_path, sources), ("a cat", "a dog", "a fox"))
    assert warning.startswith("3 of 3 prompts are no captions") and "cat, dog, fox" in warning
    assert warnings(experiment(tmp_path), ("a cat",)) == ()
