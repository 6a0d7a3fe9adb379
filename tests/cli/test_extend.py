"""Prompts written out by a tiny random Qwen2, through the whole command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from srbench.cli import extend
from srbench.errors import UserError
from srbench.families._tiny import byte_tokenizer
from srbench.suites.prompts import Prompts
from srbench.suites.vbench import DIMENSIONS, VBench

PROMPTS = ("a cat", "a dog that runs", "ein Bär, 熊")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def qwen(folder: Path, seed: int = 0, template: str | None = TEMPLATE) -> Path:
    """A random Qwen2 of two layers, which draws as Qwen2.5 does."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    drawn = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    model.generation_config.update(**drawn)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen(tmp_path_factory.mktemp("models") / "qwen")


Command = Callable[..., dict[str, str]]


@pytest.fixture
def command(model: Path, tmp_path: Path) -> Command:
    """`command("a cat", …, "--greedy")`: the exported table, and what `command.code` was."""

    def run(*prompts: str, options: tuple[str, ...] = (), on: Path = model) -> dict[str, str]:
        (tmp_path / "prompts.txt").write_text("\n".join(prompts or PROMPTS), "utf-8")
        out = tmp_path / "extended.json"
        words = [str(tmp_path / "prompts.txt"), "--model", str(on), "--dtype", "float32", "--device", "cpu"]
        words += ["--most", "16", "--store", str(tmp_path / "store"), "--export", str(out), *options]
        assert extend.main(words) == 0
        return json.loads(out.read_text("utf-8"))

    return run


def no_model(*_: Any) -> Any:
    raise AssertionError("a model was loaded")


def test_what_it_writes_is_what_a_suite_accepts(command: Command, tmp_path: Path) -> None:
    table = command()
    assert tuple(table) == PROMPTS
    suite = Prompts(prompts=PROMPTS, extended=str(tmp_path / "extended.json"))
    assert suite.mistakes() == [] and suite.variant()
    assert [suite.text(p) for p in PROMPTS] == list(table.values())
    assert all(t.strip() and t not in PROMPTS and t == " ".join(t.split()) for t in table.values())


def test_it_is_done_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = command()
    monkeypatch.setattr(extend.Extender, "open", no_model)
    assert command() == before


def test_it_goes_on_where_it_stopped(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = extend.Extender._answer

    def interrupted(self: Any, tokenizer: Any, model: Any, prompt: str) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(prompt)
        return answer(self, tokenizer, model, prompt)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extend.Extender, "_answer", interrupted)
        command()

    def watched(self: Any, tokenizer: Any, model: Any, prompt: str) -> Any:
        asked.append(prompt)
        return answer(self, tokenizer, model, prompt)

    monkeypatch.setattr(extend.Extender, "_answer", watched)
    table = command()
    assert tuple(asked) == PROMPTS == tuple(table)


@pytest.mark.parametrize("how", [(), ("--greedy",)])
def test_the_same_input_gives_the_same_text_whatever_came_before(
    command: Command, tmp_path: Path, how: tuple[str, ...]
) -> None:
    first = command(options=how)
    other = ("--store", str(tmp_path / "other"))
    torch.manual_seed(99)
    assert command(PROMPTS[1], options=(*how, *other)) == {PROMPTS[1]: first[PROMPTS[1]]}


def test_seed_instructions_and_model_each_give_another_text(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.txt"
    own.write_text("Say it in other words.\n")
    ways: list[dict[str, Any]] = [
        {},
        {"options": ("--seed", "7")},
        {"options": ("--greedy",)},
        {"options": ("--instructions", str(own))},
        {"on": qwen(tmp_path / "another", seed=1)},
    ]
    texts = [command("a cat", **way)["a cat"] for way in ways]
    assert len(set(texts)) == len(ways)
    assert capsys.readouterr().out.count("1 written, 0 were there already") == len(ways)


def test_beside_the_list_stands_how_it_was_made(command: Command, tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    own.write_text("Say it in other words.\n")
    command(options=("--instructions", str(own), "--seed", "5"))
    about = json.loads((tmp_path / "extended.about.json").read_text("utf-8"))
    assert about["instructions"] == "Say it in other words." and about["instructions_are"] == "given"
    assert (about["seed"], about["most_tokens"], about["prompts"]) == (5, 16, 3)
    assert about["ground"]["transformers"] and about["weights"]
    command()
    about = json.loads((tmp_path / "extended.about.json").read_text("utf-8"))
    assert about["instructions"] == extend.INSTRUCTIONS and about["instructions_are"] == "srbench's own"


def test_the_model_is_told_the_instructions_and_then_the_prompt(model: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    seen: list[str] = []

    class Echo:
        device = torch.device("cpu")

        def generate(self, input_ids: Any, **_: Any) -> Any:
            seen.append(tokenizer.decode(input_ids[0], skip_special_tokens=False))
            answer = tokenizer([" two\n lines "], add_special_tokens=False, return_tensors="pt")["input_ids"]
            return torch.cat([input_ids, answer], dim=1)

    how = extend.Extender(extend.Weights(source=str(model)), "Do it.", 1, 8, "float32", "cpu")
    assert how._answer(tokenizer, Echo(), "a cat").text == "two lines"
    assert seen == ["<system>Do it.</s><user>a cat</s><assistant>"]


# -- VBench's list


@pytest.fixture
def info(tmp_path: Path) -> Path:
    """A list in VBench's format, one prompt of two entries in it; its own is not ours to copy."""
    entries = [{"prompt_en": f"thing {i % 5}", "dimension": [DIMENSIONS[i]]} for i in range(6)]
    file = tmp_path / "VBench_full_info.json"
    file.write_text(json.dumps(entries))
    return file


def of_vbench(model: Path, tmp_path: Path, info: Path, *options: str) -> int:
    words = ["vbench", "--info", str(info), "--model", str(model), "--dtype", "float32", "--device", "cpu"]
    return extend.main([*words, "--most", "8", "--store", str(tmp_path / "store"), *options])


def test_a_file_of_lines_has_one_for_every_entry(
    model: Path, tmp_path: Path, info: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "extended.txt"
    assert of_vbench(model, tmp_path, info, "--export", str(out)) == 0
    assert "5 written" in capsys.readouterr().out
    lines = out.read_text("utf-8").splitlines()
    assert len(lines) == 6 and lines[0] == lines[5]
    suite = VBench(info=str(info), extended=str(out))
    assert suite.mistakes() == []
    assert [suite.text(f"thing {i}") for i in range(5)] == lines[:5]


def test_a_subset_is_exported_as_json(model: Path, tmp_path: Path, info: Path) -> None:
    with pytest.raises(UserError, match=r"of 2 prompts, 5 being in the list"):
        of_vbench(model, tmp_path, info, "--subset", "2", "--export", str(tmp_path / "extended.txt"))
    out = tmp_path / "extended.json"
    assert of_vbench(model, tmp_path, info, "--subset", "2", "--export", str(out)) == 0
    assert VBench(info=str(info), subset=2, extended=str(out)).mistakes() == []


# -- what is refused


def test_a_model_that_is_not_here_is_told_with_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(extend.Extender, "open", no_model)
    (tmp_path / "prompts.txt").write_text("a cat")
    with pytest.raises(UserError) as told:
        extend.main([str(tmp_path / "prompts.txt"), "--store", str(tmp_path / "store")])
    assert "Qwen/Qwen2.5-14B-Instruct: not on this machine" in told.value.got
    assert "29.5 GB" in told.value.expected and str(tmp_path / "hub") in told.value.expected
    commit = extend.MODELS["Qwen/Qwen2.5-14B-Instruct"][0]
    assert told.value.do.startswith(f"hf download Qwen/Qwen2.5-14B-Instruct --revision {commit};")


@pytest.mark.parametrize("revision", [(), ("--revision", "main")])
def test_a_repository_without_a_commit_is_refused(tmp_path: Path, revision: tuple[str, ...]) -> None:
    (tmp_path / "prompts.txt").write_text("a cat")
    words = [str(tmp_path / "prompts.txt"), "--model", "Qwen/Qwen3-4B", *revision]
    with pytest.raises(UserError, match="40 hexadecimal digits"):
        extend.main(words)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"(?s)no weights in .*as safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"torn"), "torn"),
        (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "no tokenizer"),
    ],
)
def test_a_folder_that_is_not_whole_is_told(command: Command, tmp_path: Path, spoil: Any, told: str) -> None:
    broken = qwen(tmp_path / "broken")
    spoil(broken)
    with pytest.raises(UserError, match=told):
        command("a cat", on=broken)


def test_a_model_without_a_chat_template_is_refused(command: Command, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="chat template"):
        command("a cat", on=qwen(tmp_path / "base", template=None))


def test_an_empty_answer_is_no_extension(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extend.Extender, "_answer", lambda *_: extend.Answer("", 1))
    (tmp_path / "prompts.txt").write_text("a cat")
    words = [str(tmp_path / "prompts.txt"), "--model", str(model), "--dtype", "float32"]
    words += ["--store", str(tmp_path / "store"), "--export", str(tmp_path / "extended.json")]
    assert extend.main(words) == 1
    assert "said nothing for 1, as 'a cat'" in capsys.readouterr().err
    assert not (tmp_path / "extended.json").exists()
