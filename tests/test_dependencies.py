"""What pyproject.toml declares is what the code uses."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import sentencepiece
from transformers import AutoTokenizer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Used by another package, for srbench.
BEHIND = {
    "accelerate": "diffusers loads weights without a second copy in memory only with it",
    "sentencepiece": "transformers reads a tokenizer that is a spiece.model with it",
    "protobuf": "likewise",
    "ftfy": "diffusers cleans prompts with it",
}
# Imported only where they are installed; the code names the extra that brings them.
EXTRAS = {"flash-attn", "sageattention", "peft", "ray", "lpips"}
# They come with hydra-core and pydantic, which fix their versions.
COMPANIONS = {"omegaconf", "pydantic-core"}
# Another environment's, see srbench.vbench; and torch's, where it comes with CUDA.
ELSEWHERE = {"vbench", "detectron2"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(re.match(r"[\w.-]+", r).group()) for r in requirements}


def imported() -> set[str]:
    """The distributions whose modules srbench imports, anywhere in a file."""
    known, found = packages_distributions(), set()
    for file in (ROOT / "srbench").rglob("*.py"):
        if file.name == "worker.py" and file.parent.name == "vbench":
            continue  # it belongs to VBench's environment
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {a.name.partition(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    modules = found - set(sys.stdlib_module_names) - {"srbench"} - ELSEWHERE
    return {canonical(known[m][0]) if m in known else canonical(m) for m in modules}


def test_each_declared_package_is_imported_or_has_a_reason() -> None:
    assert declared(PROJECT["dependencies"]) == (imported() - EXTRAS - COMPANIONS) | set(BEHIND)


def test_the_tokenizer_of_cogvideox_loads(tmp_path: Path) -> None:
    """It is a spiece.model without a tokenizer.json."""
    text = tmp_path / "text"
    text.write_text("a red cat sits on the mat\nthe blue circle moves left\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=26,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("a cat")["input_ids"][-1] == tokenizer.eos_token_id
