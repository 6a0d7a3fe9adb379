"""Any prompts: a list, or a file with one a line."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from srbench.config.registry import build
from srbench.errors import UserError
from srbench.suites.prompts import Prompts


def test_a_list_keeps_its_order_and_its_texts() -> None:
    suite = Prompts(prompts=("a fox", " a dog ", "a cat"))
    assert suite.list_prompts() == ("a fox", " a dog ", "a cat")
    assert suite.list_seeds() == (0,)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (("a cat", ""), "entry 2: an empty prompt"),
        (("a cat", "a dog", "a  cat "), "entry 3: 'a cat ' is the prompt of entry 1 again"),
        (("a\0cat",), "a NUL character"),
        (("a \udcff cat",), r"lone surrogate, \\udcff"),
    ],
)
def test_a_list_with_something_else_than_different_texts_is_refused(
    prompts: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Prompts(prompts=prompts)


def test_a_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\ufeffein Bär, 熊\r\n\n  a dog\ra fox", "utf-8", newline="")
    suite = build("suites", {"kind": "prompts", "prompts": str(file), "seeds": [3, 1]}, "suite")
    assert suite.list_prompts() == ("ein Bär, 熊", "  a dog", "a fox")
    assert suite.list_seeds() == (3, 1)


def test_a_csv_has_them_in_its_column_prompt(tmp_path: Path) -> None:
    file = tmp_path / "mine.CSV"
    file.write_text('\ufeffid,prompt\n1,"a cat, ""grey"""\n\n2,"a dog\nthat runs"\n', "utf-8")
    assert Prompts(prompts=str(file)).list_prompts() == ('a cat, "grey"', "a dog\nthat runs")


def test_a_json_has_a_list_of_texts_or_objects(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('["a cat", {"prompt": "a\\u2028dog", "id": 3}]')
    assert Prompts(prompts=str(file)).list_prompts() == ("a cat", "a\u2028dog")


def test_a_jsonl_has_a_text_or_an_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('"ein Bär"\n\n{"prompt": "a dog", "id": 3}\n', "utf-8")
    assert Prompts(prompts=str(file)).list_prompts() == ("ein Bär", "a dog")


REFUSED = [
    ("x.txt", "a cat\na dog\n\n a cat\n", "line 4: ' a cat' is the prompt of line 1 again"),
    ("x.txt", "a cat\r\nb\0c\r\n", "line 2: a NUL character"),
    ("x.txt", b"a cat\r\nein B\xe4r\n", "line 2: byte 0xe4 is not UTF-8"),
    ("x.txt", "a cat".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
    ("x.txt", "a cat\n\ufeffa dog\n", "line 2: a byte order mark"),
    ("x.txt", "\u3000\n", "line 1: an empty prompt"),
    ("x.csv", "text\na cat\n", "line 1: the columns 'text'"),
    ("x.csv", "", "the columns none"),
    ("x.csv", "prompt,prompt\na,b\n", "the columns 'prompt', 'prompt'"),
    ("x.csv", "prompt\na dog, running\n", "line 2: 2 cells"),
    ("x.csv", "id,prompt\n1,a dog\n2\n", "line 3: 1 cells"),
    ("x.csv", 'id,prompt\n1,"a\ndog"\n2,\n', "line 4: an empty prompt"),
    ("x.csv", 'prompt\n"a\ndog"\n"a cat\nb\n', "line 4: a quote that is not closed"),
    ("x.csv", 'prompt\na "big" dog\n', "line 2: a quote"),
    ("x.csv", 'prompt\n"a" dog\n', "line 2: a quote"),
    ("x.jsonl", '"a cat"\na dog\n', "line 2: Expecting value"),
    ("x.jsonl", '"a cat"\r{"text": "a dog"}\r', 'line 2: {"text": "a dog"}'),
    ("x.jsonl", '"a cat"\n[1]\n', r"line 2: \[1\]"),
    ("x.jsonl", '{"prompt": "a", "prompt": "b"}\n', "line 1: an object has the key 'prompt' twice"),
    ("x.jsonl", '"\\ud800"\n', r"line 1: a lone surrogate, \\ud800"),
    ("x.jsonl", "[" * 100_000, "line 1: "),
    ("x.json", '{"a cat": "a dog"}', "holds no list"),
    ("x.json", '["a",\n"b"\n"c"]', "line 3: Expecting ',' delimiter"),
    ("x.json", '["a", 5]', "entry 2: 5"),
    ("x.json", '["a", ""]', "entry 2: an empty prompt"),
    ("x.md", "a cat", r"x.md, which ends in \.md\n.*\.txt, \.csv, \.json, \.jsonl"),
    ("x", "a cat", "which ends in nothing"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_a_file_that_does_not_give_its_prompts_exactly_is_refused_with_the_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        Prompts(prompts=str(tmp_path / name))


def written(texts: list[str], ending: str) -> str:
    """What the standard library writes for a list of texts."""
    if ending == ".csv":
        out = io.StringIO()
        csv.writer(out).writerows([["prompt"], *([t] for t in texts)])
        return out.getvalue()
    if ending == ".txt":
        return "".join(f"{t}\n" for t in texts)
    return json.dumps(texts) if ending == ".json" else "".join(f"{json.dumps(t)}\n" for t in texts)


def read(content: str, ending: str) -> list[str] | None:
    """The prompts of a file with this content; None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"mine{ending}"
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            return list(Prompts(prompts=str(file)).list_prompts())
        except UserError:
            return None


letters = st.characters() | st.sampled_from('",\n\r\0 \t\u2028\x85\x0b\x0c\x1c$\\\ufeff')
plain = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).filter(
    lambda t: t.strip() and "\ufeff" not in t
)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".json", ".jsonl"])
@settings(deadline=None)
@given(texts=st.lists(st.text(letters), max_size=5))
def test_any_list_of_texts_comes_back_or_is_refused(ending: str, texts: list[str]) -> None:
    # a line end inside a text begins another line, and an empty line is none
    assume(ending != ".txt" or not any(set("\r\n") & set(t) or not t.strip(" \t") for t in texts))
    assert read(written(texts, ending), ending) in (texts, None)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".json", ".jsonl"])
@settings(deadline=None)
@given(
    texts=st.lists(
        plain, min_size=1, max_size=5, unique_by=lambda t: unicodedata.normalize("NFKC", t).strip()
    )
)
def test_any_list_of_plain_texts_comes_back(ending: str, texts: list[str]) -> None:
    assume(len({" ".join(unicodedata.normalize("NFC", t).split()) for t in texts}) == len(texts))
    assert read(written(texts, ending), ending) == texts


@settings(deadline=None)
@given(st.lists(st.text('a", \n'), min_size=1, max_size=5), st.randoms())
def test_a_csv_that_lost_a_quote_never_gives_other_prompts(texts: list[str], random: Random) -> None:
    content = written(texts, ".csv")
    quotes = [i for i, c in enumerate(content) if c == '"']
    assume(quotes)
    lost = random.choice(quotes)
    assert read(content[:lost] + content[lost + 1 :], ".csv") is None


@pytest.mark.parametrize("separator", list("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"))
def test_no_other_character_ends_a_line(tmp_path: Path, separator: str) -> None:
    prompt = f"A dog runs.{separator}It is happy."
    for ending in (".txt", ".csv", ".json", ".jsonl"):
        assert read(written([prompt, "a cat"], ending), ending) == [prompt, "a cat"]
    raw = json.dumps({"prompt": prompt}, ensure_ascii=False)
    if separator > " ":  # JSON escapes the others
        assert read(raw + "\n", ".jsonl") == [prompt]


def test_dollars_and_braces_are_text(tmp_path: Path) -> None:
    for ending in (".txt", ".csv", ".json", ".jsonl"):
        assert read(written(["a ${oc.env:HOME} \\${x} cat"], ending), ending) == [
            "a ${oc.env:HOME} \\${x} cat"
        ]


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
    with pytest.raises(UserError, match=r"old\.txt, line 1.*\n.*UTF-8"):
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
        ("empty.json", '{"a cat": " "}', "without 'a cat'"),
        ("torn.json", '{"a cat', "line 1: Unterminated string"),
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
