"""Weights that a denoiser may have instead of its family's; settings only, no torch.

Where they lie, whether they fit and what names their bytes is the family's matter
(`families/_own.py`).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from srbench.config.attention import is_at_least
from srbench.config.registry import STRICT
from srbench.errors import UserError

# of the files that diffusers' `save_lora_weights` writes
LORA_FILE = "pytorch_lora_weights.safetensors"
PEFT = "0.17.0"  # what the extra `lora` asks for

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Bytes = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoRA:
    """A low-rank update that is fused into a model when it is loaded: W + scale · (α / r) B A.

    source: a hub repository, a folder, or the file itself.  revision: the commit of a hub
    repository, 40 hexadecimal digits.  weight_name: the file inside it, safetensors.  scale: what
    `fuse_lora` calls `lora_scale`.  size: bytes to download, for messages.
    content, package: what names the file's bytes, and the version of peft that fuses them; filled in by
    `check`.
    """

    source: str
    revision: str | None = None
    weight_name: str = LORA_FILE
    scale: float = 1.0
    size: Bytes | None = None
    content: str | None = dataclasses.field(default=None, metadata={"if_set": True})
    package: str | None = dataclasses.field(default=None, metadata={"if_set": True})

    def named_by(self) -> Any:
        """What keys hold of it: the same bytes are the same wherever they lie."""
        return [self.content or [self.source, self.revision, self.weight_name], self.scale, self.package]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OwnWeights:
    """A checkpoint of the family's class, a LoRA, or a LoRA on such a checkpoint.

    source: a hub repository, or a local folder; the family's own weights where None.  revision: the
    commit of a hub repository, 40 hexadecimal digits.  subfolder: where the model lies in it; the
    source itself where None.  size: bytes to download, for messages.  lora: fused into them.
    name: what readers know them by, in the denoiser's name.
    content: what names the checkpoint's bytes, filled in by `check`.
    Raises UserError where there is neither a source nor a LoRA.
    """

    source: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    size: Bytes | None = None
    lora: LoRA | None = None
    name: Name | None = None
    content: str | None = dataclasses.field(default=None, metadata={"if_set": True})

    def __post_init__(self) -> None:
        if self.source is None and self.lora is None:
            raise UserError(
                "weights without a source and without a lora",
                "a hub repository with its commit, or a folder; or a lora on the family's own",
                "set weights.source (and weights.revision), or weights.lora",
            )

    @property
    def short(self) -> str:
        """In a denoiser's name.

        >>> OwnWeights(source="a/b", lora=LoRA(source="c/d")).short
        'weights+lora'
        """
        parts = ["weights"] * (self.source is not None) + ["lora"] * (self.lora is not None)
        return self.name or "+".join(parts)

    @property
    def said(self) -> str:
        """For a reader: whose they are.

        >>> OwnWeights(source="a/b", revision="0123456789" * 4, lora=LoRA(source="x.safetensors")).said
        'a/b at 0123456, LoRA x.safetensors × 1'
        """
        parts = [_place(self.source, self.revision, self.subfolder)] if self.source else []
        if self.lora is not None:
            named = None if self.lora.source.endswith(".safetensors") else self.lora.weight_name
            place = _place(self.lora.source, self.lora.revision, None if named == LORA_FILE else named)
            parts.append(f"LoRA {place} × {self.lora.scale:g}")
        return ", ".join(parts)

    def named_by(self) -> Any:
        """What keys hold of it: neither the place of a folder, nor a name, nor a size."""
        if self.source is None:
            return [None, self.lora]
        return [self.content or [self.source, self.revision, self.subfolder], self.lora]


def _place(source: str, revision: str | None, inside: str | None) -> str:
    return source + (f"/{inside}" if inside else "") + (f" at {revision[:7]}" if revision else "")


def lacking_peft(where: str) -> UserError | None:
    """What this machine lacks to fuse a LoRA, told before a model loads."""
    if peft() is not None and is_at_least(importlib.metadata.version("peft"), PEFT):
        return None
    return UserError(f"{where}.lora", f"peft {PEFT} or newer", "install 'srbench[lora]'")


def peft() -> str | None:
    """The package that fuses, with its version, which the bits may depend on; None without it."""
    if importlib.util.find_spec("peft") is None:
        return None
    return f"peft {importlib.metadata.version('peft')}"
