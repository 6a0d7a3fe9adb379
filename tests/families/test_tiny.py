"""Twins are made on the fly, outside the repository, and always the same."""

from __future__ import annotations

import pytest

from srbench.families import _tiny
from srbench.families._weights import Weights
from srbench.store.objects import file_hash


def files(folder):
    return {str(p.relative_to(folder)): file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", ["wan", "cogvideox"])
def test_the_same_recipe_gives_the_same_bytes(kind, tmp_path):
    for name in ("a", "b"):
        _tiny.make(kind, tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".json", ".safetensors"}


def test_a_twin_is_made_once(own_cache):
    weights = Weights(source="tiny:wan")
    _tiny.make_if_missing(weights)
    before = {p: p.stat().st_mtime_ns for p in weights.folder.rglob("*")}
    _tiny.make_if_missing(weights)
    assert {p: p.stat().st_mtime_ns for p in weights.folder.rglob("*")} == before
    assert weights.folder.is_relative_to(own_cache)
    assert [p.name for p in (own_cache / "tiny").iterdir() if p.name.startswith(".")] == []


def test_any_text_in_any_language_has_tokens_of_its_own():
    tokenizer = _tiny.byte_tokenizer()
    texts = ["a red circle", "a red circlf", "色调艳丽"]
    ids = [tuple(tokenizer(t).input_ids) for t in texts]
    assert len(set(ids)) == 3
    assert all(tokenizer.unk_token_id not in i and i[-1] == tokenizer.eos_token_id for i in ids)
