"""Any prompts: a list, or a file with one a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srbench.errors import UserError
from srbench.registry import build
from srbench.suites.prompts import Prompts


def test_a_list_keeps_its_order_and_says_everything_once() -> None:
    suite = Prompts(prompts=("a cat", " a dog ", "", "a cat"))
    assert suite.list_prompts() == ("a cat", "a dog")
    assert suite.list_seeds() == (0,)


def test_a_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("ein Bär, 熊\r\n\n  a dog\na dog\n", "utf-8")
    suite = build("suites", {"kind": "prompts", "prompts": str(file), "seeds": [3, 1]}, "suite")
    assert suite.list_prompts() == ("ein Bär, 熊", "a dog")
    assert suite.list_seeds() == (3, 1)


def test_a_csv_has_them_in_its_column_prompt(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('\ufeffid,prompt\n1,"a cat, ""grey"""\n2,"a dog\nthat runs"\n3,\n', "utf-8")
    assert Prompts(prompts=str(file)).list_prompts() == ('a cat, "grey"', "a dog\nthat runs")
    file.write_text("text\na cat\n")
    with pytest.raises(UserError, match="columns text"):
        Prompts(prompts=str(file))


def test_a_jsonl_has_a_text_or_an_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('"ein Bär"\n\n{"prompt": "a dog", "id": 3}\n', "utf-8")
    assert Prompts(prompts=str(file)).list_prompts() == ("ein Bär", "a dog")
    for line in ("a dog", '{"text": "a dog"}', "[1]"):
        file.write_text(f'"a cat"\n{line}\n')
        with pytest.raises(UserError, match="line 2"):
            Prompts(prompts=str(file))


@pytest.mark.parametrize("text", ["", "\n  \n\t\n"])
def test_an_empty_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.txt").write_text(text)
    with pytest.raises(UserError, match=r"no prompt in .*empty\.txt"):
        Prompts(prompts=str(tmp_path / "empty.txt"))


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UserError, match=r"no prompt in suite\.prompts"):
        Prompts(prompts=())


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("ein Bär".encode("latin-1"))
    with pytest.raises(UserError, match=r"old\.txt\n.*UTF-8"):
        Prompts(prompts=str(tmp_path / "old.txt"))


def test_a_missing_file_is_told_from_a_prompt(tmp_path: Path) -> None:
    """A bare string is a path; whoever meant one prompt is told how to write it."""
    with pytest.raises(UserError, match="No such file") as told:
        Prompts(prompts="a cat")
    assert 'suite.prompts=["…"]' in told.value.do
    with pytest.raises(UserError, match="directory"):
        Prompts(prompts=str(tmp_path))


def test_mistakes_come_when_the_suite_is_made_not_when_it_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        build("suites", {"kind": "prompts", "prompts": str(tmp_path / "none.txt")}, "suite")
    with pytest.raises(UserError, match=r"suite\.seeds\.0 = -1"):
        build("suites", {"kind": "prompts", "prompts": ["a"], "seeds": [-1]}, "suite")


def test_the_model_may_be_given_longer_texts(tmp_path: Path) -> None:
    file = tmp_path / "long.json"
    file.write_text(json.dumps({"a cat": "a grey cat on a wall", "a dog": "a dog"}))
    suite = Prompts(prompts=("a cat", "a dog"), extended=str(file))
    assert [suite.text(p) for p in suite.list_prompts()] == ["a grey cat on a wall", "a dog"]
    assert suite.mistakes() == [] and suite.variant() != Prompts(prompts=("a cat",)).variant() == ""


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("some.json", '{"a cat": "a grey cat"}', "without 'a dog' and 1 more"),
        ("list.json", '["a grey cat"]', "list.json"),
        ("empty.json", '{"a cat": " "}', "empty.json"),
        ("torn.json", '{"a cat', "JSONDecodeError"),
        ("some.txt", "a grey cat\n", "of 1 lines"),
    ],
)
def test_extensions_that_lack_a_prompt_are_refused(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    suite = Prompts(prompts=("a cat", "a dog", "a fox"), extended=str(file))
    (mistake,) = suite.mistakes()
    assert told in mistake.got
