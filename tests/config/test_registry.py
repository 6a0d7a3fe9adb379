"""Plug-ins by kind: found, built from plain data, named wholly by their identity."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError, dataclass

import pytest

from srbench.config import yaml_files
from srbench.config.experiment import digest
from srbench.config.registry import GROUPS, build, identity, known, lookup, plugin_of
from srbench.errors import UserError, UserErrors
from srbench.rules.fixed_step import FixedStep
from srbench.rules.srdiffusion import SRDiffusion


def test_a_kind_is_the_name_of_its_file() -> None:
    assert lookup("rules", "fixed_step") is FixedStep
    assert lookup("rules", "srdiffusion") is SRDiffusion
    assert set(known("rules")) >= {"always", "boundary", "fixed_step", "srdiffusion"}
    assert "base" not in known("rules") and "_pab" not in known("accelerators")


@pytest.mark.parametrize("group", GROUPS)
def test_every_kind_of_every_group_is_found_and_knows_its_own_name(group: str) -> None:
    assert known(group)
    for kind in known(group):
        assert lookup(group, kind).kind == kind  # type: ignore[attr-defined]


def test_looking_up_kinds_loads_no_model_code() -> None:
    """Checking a configuration must stay a matter of a second: settings only, torch later."""
    import subprocess

    code = (
        "import sys; from srbench.config.registry import GROUPS, known, lookup\n"
        "[lookup(g, k) for g in GROUPS for k in known(g)]\n"
        "sys.exit(' '.join({'torch', 'diffusers', 'ray'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_build_gives_a_frozen_object_with_defaults_filled() -> None:
    rule = build("rules", {"kind": "srdiffusion", "delta": 0.03}, "until")
    assert rule == SRDiffusion(delta=0.03, min_steps=5)
    with pytest.raises(FrozenInstanceError):
        rule.delta = 0.5


def test_build_leaves_its_settings_as_they_were() -> None:
    plain = {"kind": "fixed_step", "step": 3}
    build("rules", plain, "until")
    assert plain == {"kind": "fixed_step", "step": 3}


def test_an_unknown_kind_is_told_with_its_place_and_the_nearest_name() -> None:
    with pytest.raises(UserError) as told:
        build("rules", {"kind": "srdifusion"}, "method.mine.path.0.until")
    assert "method.mine.path.0.until.kind = 'srdifusion'" in told.value.got
    assert "did you mean srdiffusion?" in told.value.do
    with pytest.raises(UserError, match=r"known: always, boundary, .*fixed_step, .*srdiffusion"):
        lookup("rules", "qqq")


@pytest.mark.parametrize("kind", ["base", "__init__", "_pab", "", "pab.x", "../errors"])
def test_modules_that_are_no_plug_ins_are_no_kinds(kind: str) -> None:
    with pytest.raises(UserError, match="accelerators that srbench knows"):
        lookup("accelerators", kind)


@pytest.mark.parametrize("plain", [{}, {"step": 3}, {"kind": None}, {"kind": 3}])
def test_settings_without_a_kind_say_which_there_are(plain: dict) -> None:
    with pytest.raises(UserError, match=r"until without a kind(.|\n)*fixed_step"):
        build("rules", plain, "until")


@pytest.mark.parametrize("given", ["fixed_step", None, 5, ["fixed_step"]])
def test_settings_that_are_no_mapping_are_a_users_mistake(given: object) -> None:
    with pytest.raises(UserError, match=r"until = .*\n.*a mapping with a kind"):
        build("rules", given, "until")  # type: ignore[arg-type]


def test_all_mistakes_of_one_plug_in_are_told_together() -> None:
    with pytest.raises(UserErrors) as told:
        build("rules", {"kind": "srdiffusion", "delta": "much", "min_step": 3, "sign": "minus"}, "until")
    told_of = {m.got: m for m in told.value.mistakes}
    assert set(told_of) == {"until.delta = 'much'", "key until.min_step", "until.sign = 'minus'"}
    assert "did you mean min_steps" in told_of["key until.min_step"].do
    assert told_of["until.sign = 'minus'"].expected == "'diminishing' or 'literal'"


def test_a_value_of_several_types_is_told_once_and_at_the_users_key() -> None:
    with pytest.raises(UserErrors) as told:
        build("suites", {"kind": "prompts", "prompts": 3.5}, "suite")
    (mistake,) = told.value.mistakes
    assert mistake.got == "suite.prompts = 3.5"
    assert "string" in mistake.expected and "tuple" in mistake.expected


@pytest.mark.parametrize(
    ("seeds", "got", "expected"),
    [
        ("many", "suite.seeds = 'many'", "how many seeds, or a list of them"),
        (0, "suite.seeds = 0", "greater than or equal to 1"),
        ([0, "b"], "suite.seeds.1 = 'b'", "a valid integer"),
        (["b"], "suite.seeds.0 = 'b'", "a valid integer"),
        ([], "suite.seeds = []", "one seed at least"),
    ],
)
def test_a_number_or_a_list_is_told_as_that_one(seeds: object, got: str, expected: str) -> None:
    with pytest.raises(UserErrors) as told:
        build("suites", {"kind": "shapes", "seeds": seeds}, "suite")
    (mistake,) = told.value.mistakes
    assert mistake.got == got and expected in mistake.expected


def test_a_missing_setting_is_called_missing() -> None:
    with pytest.raises(UserError, match=r"until\.step is missing"):
        build("rules", {"kind": "fixed_step"}, "until")


def test_booleans_are_taken_for_whole_numbers_and_refused_by_the_bounds_alone() -> None:
    """What pydantic's lax mode does; δ = true is 1.0, which is out of range."""
    assert build("rules", {"kind": "srdiffusion", "min_steps": True}, "until").min_steps == 1
    with pytest.raises(UserError, match=r"until\.delta = True"):
        build("rules", {"kind": "srdiffusion", "delta": True}, "until")


def test_identity_is_the_kind_and_every_field() -> None:
    assert identity(FixedStep(step=3)) == {"kind": "fixed_step", "step": 3}
    assert identity(SRDiffusion()) == {
        "kind": "srdiffusion",
        "delta": 0.01,
        "min_steps": 5,
        "max_steps": None,
        "signal": "model_output",
        "sign": "diminishing",
    }


def test_identity_does_not_see_how_a_value_was_written() -> None:
    written = [
        build("rules", {"kind": "srdiffusion"}, "a"),
        build("rules", {"delta": 0.01, "kind": "srdiffusion"}, "b"),
        build("rules", {"kind": "srdiffusion", "delta": "0.01", "min_steps": 5.0}, "c"),
    ]
    assert len({str(identity(w)) for w in written}) == 1
    assert identity(written[0]) != identity(SRDiffusion(delta=0.011))


def test_identity_goes_through_containers_and_plain_dataclasses() -> None:
    @dataclass(frozen=True)
    class Pair:
        rules: tuple
        words: dict

    assert identity(Pair((FixedStep(step=1),), {1: (2, 3)})) == {
        "rules": [{"kind": "fixed_step", "step": 1}],
        "words": {"1": [2, 3]},
    }


def test_an_identity_builds_an_equal_object() -> None:
    rule = SRDiffusion(delta=0.2, signal="x0", max_steps=30)
    assert build("rules", identity(rule), "until") == rule


# What a kind needs beyond its defaults.
NEEDED = {
    "fixed_step": {"step": 7},
    "boundary": {"ratio": 0.5},
    "teacache": {"threshold": 1},
    "mp4": {"of": "psnr"},
    "mp4_floor": {"of": "psnr"},
    "prompts": {"prompts": ["a cat"]},
}


@pytest.mark.parametrize(
    ("group", "settings"),
    [
        *((g, {"kind": k} | NEEDED.get(k, {})) for g in GROUPS if g != "families" for k in known(g)),
        *(("families", yaml_files.read("family", name)) for name in yaml_files.names("family")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("name") or value["kind"],
)
def test_a_default_has_the_name_that_it_has_when_it_is_given(group: str, settings: dict) -> None:
    """100 equals 100.0 and is written otherwise: equal plug-ins would have two keys."""
    made = build(group, settings, group)
    given = {k: v for k, v in identity(made).items() if k != "source"}
    assert digest(build(group, given, group)) == digest(made)


def test_a_default_of_another_type_is_brought_to_the_fields_own() -> None:
    @plugin_of("rules")
    class Mine:
        bounds: tuple[float, float] = (100, 800)

    assert digest(Mine()) == digest(Mine(bounds=(100, 800))) == digest(Mine(bounds=(100.0, 800.0)))
