"""Words of the command line that are texts reach the settings as they were typed."""

from __future__ import annotations

import dataclasses
import shlex
import typing

import hydra
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srbench.__main__ import Door
from srbench.config import custom_weights, experiment, registry, words, yaml_files
from srbench.config.overrides import compose
from srbench.errors import UserError
from srbench.families import _settings, _weights

BASE = ["method=[large,small]", "metric=[psnr]"]


def composed(*typed: str) -> dict[str, typing.Any]:
    """The configuration that Hydra composes of words as they were typed."""
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        return compose(hydra.compose("config", [*BASE, *(words.as_typed(w, multirun=False) for w in typed)]))


letters = st.characters(exclude_categories=["Cs"]) | st.sampled_from("$\\${}'\"()[],=:_19 ")
texts = st.text(letters, min_size=1).filter(lambda t: t not in ("null", "???"))


@settings(deadline=None, max_examples=50)
@given(texts)
@example("12345_7")
@example("1e5")
@example("true")
@example("a\\${x} \\\\\\${y} ${oc.env:HOME}\\")
@example('it\'s (v2), "a=b"')
def test_any_text_is_read_as_it_was_typed(text: str) -> None:
    if words._QUOTED.fullmatch(text):
        text = text[1:-1].replace("\\", "") or "x"
    plain = composed(f"run={text}", f"results={text}", f"method.small.label={text}")
    assert (plain["run"], plain["results"], plain["method"]["small"]["label"]) == (text,) * 3
    assert plain["store"] == f"{text}/store"


@settings(deadline=None, max_examples=50)
@given(st.lists(texts, max_size=4))
def test_a_list_of_quoted_texts_is_read_as_it_was_typed(listed: list[str]) -> None:
    typed = ",".join(words.quoted(t) for t in listed).replace("\\${", "${") if listed else ""
    if any("${" in t for t in listed):
        return  # the next test
    assert composed("suite=prompts", f"suite.prompts=[{typed}]")["suite"]["prompts"] == listed


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("[it's a dog]", ["it's a dog"]),
        ("[a cat, 1984, true, null, 1e5, 12_3]", ["a cat", "1984", "true", "null", "1e5", "12_3"]),
        ("[a cat (grey, fat), a dog: big = good]", ["a cat (grey, fat)", "a dog: big = good"]),
        ("[a ${oc.env:HOME} cat, \"a, ${b} \\\"c\\\"\", 'it''s']", None),
        ('[a ${oc.env:HOME} cat, "a, ${b} \\"c\\""]', ["a ${oc.env:HOME} cat", 'a, ${b} "c"']),
        ("[猫が走る, a café]", ["猫が走る", "a café"]),
        ("[]", []),
        ("[a cat, the dogs' house]", None),
        ("[a cat :), a dog]", None),
        ("[a cat\\, a dog]", None),
        ("[a cat,, a dog]", None),
        ("[a cat, a dog", None),
        ('[a "big" cat]', None),
    ],
)
def test_lists_of_prompts(typed: str, read: list[str] | None) -> None:
    word = f"suite.prompts={typed}"
    if read is not None:
        assert composed("suite=prompts", word)["suite"]["prompts"] == read
        return
    with pytest.raises(UserError) as refused:
        words.as_typed(word, multirun=False)
    assert refused.value.got == word
    _, suggested = shlex.split(refused.value.do)  # as in: write 'suite.prompts=["a","b"]'
    assert words.as_typed(suggested, multirun=False).replace(r"\${", "${") == suggested


def test_with_m_commas_part_the_values_of_a_sweep() -> None:
    assert words.as_typed("run=12_3,a b", multirun=True) == 'run="12_3","a b"'
    assert words.as_typed("suite.prompts=[a (x, y)],[1]", multirun=True) == 'suite.prompts=["a (x, y)"],["1"]'
    assert words.as_typed("suite.prompts=2,4", multirun=True) == "suite.prompts=2,4"
    assert words.as_typed("label=choice(a,b)", multirun=True) == "label=choice(a,b)"
    assert words.as_typed("run=12_3,a b", multirun=False) == 'run="12_3,a b"'


@pytest.mark.parametrize(
    "word", ["suite.prompts=2", "run=null", "engine.threads=2", "run=job-7.a", "RUN", "-m"]
)
def test_words_that_hydra_reads_as_they_are_stay(word: str) -> None:
    assert words.as_typed(word, multirun=False) == word


@pytest.mark.parametrize("word", ["engine.threads=1_0", "family.large={source: a, revision: 12345_7}"])
def test_a_number_that_hydra_reads_without_its_underscore_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="where Hydra reads"):
        words.as_typed(word, multirun=False)


def test_a_word_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UserError, match="UTF-8"):
        words.as_typed("results=\udcff", multirun=False)


def _holds_text(hint: object) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return False
    return hint is str or any(map(_holds_text, typing.get_args(hint)))


def test_every_setting_that_is_a_text_is_known_as_one() -> None:
    classes = [registry.lookup(g, k) for g in registry.GROUPS for k in registry.known(g)]
    for module in (experiment, custom_weights, _settings, _weights):
        classes += [v for v in vars(module).values() if dataclasses.is_dataclass(v) and isinstance(v, type)]
    classes = [c for c in classes if c.__module__.startswith("srbench.")]
    found = {n for c in classes for n, hint in typing.get_type_hints(c).items() if _holds_text(hint)}
    found |= {name for name, field in Door.model_fields.items() if _holds_text(field.annotation)}
    filled_in_by_the_program = {"lacking", "content", "package", "attention_package", "TRANSFORMER"}
    constants = {n for n in found if n.isupper()}
    assert found - filled_in_by_the_program - constants <= words.TEXTS
