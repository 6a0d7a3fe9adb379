"""The door: plain data in, a typed experiment out, or all its mistakes at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from srbench.accelerators.teacache import TeaCache
from srbench.config.experiment import Denoiser, Experiment, Method, Segment, check
from srbench.errors import UserErrors
from srbench.rules.always import Always
from srbench.rules.fixed_step import FixedStep
from srbench.rules.srdiffusion import SRDiffusion


def good() -> dict[str, Any]:
    """A small experiment, as Hydra would hand it over."""
    return {
        "name": "trial",
        "family": {
            "kind": "wan",
            "name": "toy",
            "large": {"source": "org/large"},
            "small": {"source": "org/small"},
            "components": {"source": "org/rest"},
            "height": 64,
            "width": 96,
            "frames": 17,
            "fps": 8,
        },
        "suite": {"kind": "prompts", "prompts": ["a cat", "a dog"], "seeds": 2},
        "method": {
            "large": {"label": "large", "path": [{"model": "large"}]},
            "srd": {
                "label": "SRDiffusion",
                "delta": 0.02,  # a parameter, used in the path by interpolation
                "path": [
                    {"model": "large", "until": {"kind": "srdiffusion", "delta": 0.02}},
                    {"model": "small", "accelerators": [{"kind": "teacache", "threshold": 0.1}]},
                ],
            },
        },
        "metric": {"psnr": {"kind": "psnr"}},
        "engine": {"kind": "local"},
    }


def changed(place: str, value: Any) -> dict[str, Any]:
    """The good one with one thing changed: `changed("method.srd.path.0.model", "larg")`."""
    plain = copy.deepcopy(good())
    node: Any = plain
    *parents, last = place.split(".")
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[int(last) if last.isdigit() else last] = value
    return plain


def mistakes(plain: dict[str, Any]) -> list[str]:
    """What was wrong, each as "given | expected | do"."""
    with pytest.raises(UserErrors) as told:
        check(plain)
    return [f"{m.got} | {m.expected} | {m.do}" for m in told.value.mistakes]


def test_a_metric_of_encoded_videos_takes_the_familys_frame_rate() -> None:
    experiment = check(changed("metric", {"encoded": {"kind": "mp4", "of": "psnr", "fps": None}}))
    assert [m.facts.name for m in experiment.metrics] == ["psnr/x264-medium-crf25-8fps"]


def test_a_good_one_becomes_typed() -> None:
    experiment = check(good())
    assert isinstance(experiment, Experiment)
    assert (experiment.name, experiment.reference, experiment.late_attach) == ("trial", "large", True)
    assert experiment.family.width == 96
    assert experiment.suite.list_prompts() == ("a cat", "a dog")
    assert experiment.engine.kind == "local" and [m.kind for m in experiment.metrics] == ["psnr"]
    large, srd = experiment.methods
    assert large.segments == (Segment(denoiser=Denoiser(model="large"), until=Always()),)
    assert srd.segments == (
        Segment(denoiser=Denoiser(model="large"), until=SRDiffusion(delta=0.02)),
        Segment(denoiser=Denoiser(model="small", accelerators=(TeaCache(threshold=0.1),)), until=Always()),
    )
    assert experiment.method("srd") is srd


def test_checking_changes_nothing_in_what_it_was_given() -> None:
    plain = good()
    check(plain)
    assert plain == good()


def test_a_method_set_to_null_is_left_out() -> None:
    """How an experiment drops a method that its defaults brought in."""
    assert [m.name for m in check(changed("method.srd", None)).methods] == ["large"]


def test_a_label_is_the_name_where_none_is_given() -> None:
    assert check(changed("method.srd.label", None)).method("srd").label == "srd"


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("methods", {}, "key methods | a key of an experiment | did you mean method"),
        ("family.kind", "wann", "family.kind = 'wann' | one of the families .* | did you mean wan"),
        ("family.stepps", 3, "key family.stepps | .* | did you mean steps"),
        ("family.height", 60, "family.height = 60 | a multiple of 16: the VAE's stride 8 times the patch 2"),
        ("family.height", "tall", "family.height = 'tall' | a valid integer"),
        ("family.frames", 0, "family.frames = 0 | greater than 0"),
        ("family.dtype", "float8", "family.dtype = 'float8' | 'float32', 'bfloat16' or 'float16'"),
        ("family.large.sorce", "x", "key family.large.sorce"),
        ("family.large", {}, "family.large.source is missing"),
        ("family", None, "family without a kind | kind: one of .*wan"),
        ("suite.kind", "promts", "suite.kind = 'promts' | .* | did you mean prompts"),
        ("suite.prompts", [], "no prompt in suite.prompts"),
        ("suite.seeds", 0, "suite.seeds = 0 | greater than or equal to 1"),
        ("suite", 5, "suite = 5 | a mapping with a kind"),
        ("metric.psnr.kind", "pnsr", "metric.psnr.kind = 'pnsr' | .* | did you mean psnr"),
        ("metric.psnr.cap", -1, "metric.psnr.cap = -1 | greater than 0"),
        ("metric.psnr", None, "metric.psnr = None | a mapping with a kind"),
        ("engine.workers", 0, "engine.workers = 0 | greater than or equal to 1"),
        ("method.srd.path", [], "method.srd.path = .* | a list of segments"),
        ("method.srd.path", "large", "method.srd.path = 'large' | a list of segments"),
        ("method.srd.paths", [1], "key method.srd.paths | .* | did you mean path"),
        ("method.srd.steps", 0, "method.srd.steps = 0 | greater than or equal to 1"),
        ("method.srd.label", 5, "method.srd.label = 5 | a valid string"),
        ("method.srd.path.0.model", "larg", "method.srd.path.0.model = 'larg' | 'large' or 'small'"),
        ("method.srd.path.0", {}, "method.srd.path.0.model is missing"),
        ("method.srd.path.0.untill", {}, "key method.srd.path.0.untill | .* | did you mean until"),
        ("method.srd.path.0.until.kind", "srdifusion", "until.kind = 'srdifusion' | .* | did you mean srd"),
        ("method.srd.path.0.until.delta", -1, r"method.srd.path.0.until.delta = -1 | greater than 0"),
        ("method.srd.path.0.until.delta", "x", "method.srd.path.0.until.delta = 'x' | a valid number"),
        ("method.srd.path.0.until.delta", True, "method.srd.path.0.until.delta = True | less than 1"),
        ("method.srd.path.0.until", "always", "method.srd.path.0.until = 'always' | a mapping with a kind"),
        ("method.srd.path.0.guidance_scale", -1, "method.srd.path.0.guidance_scale = -1 | greater"),
        (
            "method.srd.path.1.accelerators.0.kind",
            "teacach",
            "accelerators.0.kind = 'teacach' | .* | did you",
        ),
        ("method.srd.path.1.accelerators.0.threshold", -1, "path.1.accelerators.0.threshold = -1 | greater"),
        ("method.srd.path.1.accelerators.0", "teacache", "accelerators.0 = 'teacache' | a mapping"),
        (
            "method.srd.path.1.accelerators",
            [{"kind": "teacache", "threshold": 0.1}, {"kind": "pab"}],
            "path.1.accelerators: teacache with pab | which teacache skips | a segment of its own",
        ),
        (
            "method.srd.path.1.accelerators",
            [{"kind": "teacache", "threshold": 0.1}, {"kind": "teacache", "threshold": 0.2}],
            "path.1.accelerators: teacache 2 times | leave one out",
        ),
        ("method", {}, "no method | at least one | try 'method="),
        ("method", None, "no method | at least one"),
        ("reference", "lrge", "methods large, srd | the reference 'lrge' among them"),
    ],
)
def test_one_mistake_is_told_with_its_place(place: str, value: Any, told: str) -> None:
    import re

    (only,) = mistakes(changed(place, value))
    assert all(re.search(part, only) for part in told.split(" | ")), only


def test_several_mistakes_are_told_together() -> None:
    plain = changed("family.stepps", 3)
    plain["method"]["srd"]["path"][0]["until"]["delta"] = -1
    plain["method"]["srd"]["path"][1]["model"] = "tiny"
    plain["metric"]["ssim"] = {"kind": "ssim", "definition": "mine"}
    plain["engin"] = {}
    found = "\n".join(mistakes(plain))
    for place in (
        "engin",
        "family.stepps",
        "method.srd.path.0.until.delta",
        "method.srd.path.1.model",
        "metric.ssim.definition",
    ):
        assert place in found
    assert found.count("\n") == 4


def test_many_mistakes_stay_readable() -> None:
    plain = good()
    plain |= {f"wrong{i}": i for i in range(9)}
    with pytest.raises(UserErrors) as told:
        check(plain)
    lines = str(told.value).splitlines()
    assert lines[0] == "9 mistakes" and len(lines) <= 12
    assert lines[-1] == "… and 4 more: key wrong5, key wrong6, key wrong7, key wrong8"


def test_a_wrong_method_does_not_also_count_as_a_missing_reference() -> None:
    (only,) = mistakes(changed("method.large.path.0.model", "larg"))
    assert only.startswith("method.large.path.0.model")


def test_the_reference_is_needed_for_metrics_alone() -> None:
    plain = changed("method.large", None)
    (only,) = mistakes(plain)
    assert "the reference 'large'" in only and "method=[large,srd]" in only
    assert check(plain | {"metric": {}}).reference == "large"
    assert check(plain | {"reference": "srd"}).reference == "srd"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("method.srd.path.0", "large"),
        ("method.srd", "large"),
        ("method", ["large"]),
        ("metric", ["psnr"]),
        ("late_attach", "perhaps"),
        ("method.srd.path.0.until", None),  # then the small segment is never reached
        ("method.srd.label", "large"),  # two rows that a reader cannot tell apart
    ],
)
def test_these_should_be_told_as_mistakes_too(place: str, value: Any) -> None:
    assert place in "\n".join(mistakes(changed(place, value)))


def method(*segments: Segment, name: str = "m", label: str = "M", steps: int | None = None) -> Method:
    return Method(name=name, label=label, segments=segments, steps=steps)


def test_a_methods_id_is_its_path_whatever_it_is_called() -> None:
    until = Segment(denoiser=Denoiser(model="large"), until=SRDiffusion(delta=0.01))
    rest = Segment(denoiser=Denoiser(model="small"), until=Always())
    one = method(until, rest)
    assert one.id == method(until, rest, name="other", label="Other").id
    later = Segment(denoiser=Denoiser(model="large"), until=SRDiffusion(delta=0.02))
    fixed = Segment(denoiser=Denoiser(model="large"), until=FixedStep(step=6))
    cached = Segment(
        denoiser=Denoiser(model="small", accelerators=(TeaCache(threshold=0.1),)), until=Always()
    )
    others = [
        method(later, rest),
        method(fixed, rest),
        method(until, cached),
        method(until),
        method(rest, until),
        method(until, rest, steps=20),
    ]
    assert len({one.id, *(m.id for m in others)}) == len(others) + 1


def test_an_id_does_not_depend_on_how_the_yaml_was_written() -> None:
    explicit = changed(
        "method.srd.path.0.until", {"min_steps": "5", "delta": 2e-2, "max_steps": None, "kind": "srdiffusion"}
    )
    assert check(explicit).method("srd").id == check(good()).method("srd").id


def test_a_denoisers_name_is_for_readers_and_its_id_tells_them_apart() -> None:
    plain = Denoiser(model="small")
    assert plain.name == "small" and plain.id.startswith("small#") and plain.id == Denoiser(model="small").id
    cached = Denoiser(model="small", accelerators=(TeaCache(threshold=0.1),))
    assert cached.name == "small+teacache"
    different = [
        plain,
        cached,
        Denoiser(model="small", accelerators=(TeaCache(threshold=0.2),)),
        Denoiser(model="large"),
        Denoiser(model="small", guidance_scale=1),
        Denoiser(model="small", negative_prompt=""),
    ]
    assert len({d.id for d in different}) == len(different)
    assert different[2].name == cached.name
    assert Denoiser(model="small", guidance_scale=1).id == Denoiser(model="small", guidance_scale=1.0).id
