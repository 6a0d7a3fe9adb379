"""What a family takes of a device's memory, told before a model loads; no torch.

Weights are counted from the headers of their files, so that part is exact; activations
and caches are reckoned from the models' sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.config.custom_weights import OwnWeights
from srbench.config.experiment import Denoiser, DType, Role
from srbench.errors import UserError
from srbench.families import _checkpoint, _own
from srbench.families._settings import FamilySettings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 2**30


@dataclass(frozen=True)
class Model:
    """A transformer's sizes.  parameters: of its files.  tokens: of one video, text included."""

    parameters: int
    layers: int
    width: int
    inner: int
    tokens: int


@dataclass(frozen=True)
class Need:
    """Bytes on the device at the worst moment, by what takes them."""

    weights: int
    activations: int
    caches: int

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.caches


def model(family: FamilySettings, denoiser: Denoiser) -> Model | None:
    """Sizes of a denoiser's model, from its files; None where they are not there or are no such model's.

    What is wrong with files is a mistake of their own.  A LoRA adds nothing: it is fused into the weights.
    """
    folder = _own.folder(family, denoiser)
    if not (folder / "config.json").exists():
        return None
    try:
        return _sizes(family, folder)
    except (LookupError, TypeError, ValueError, _checkpoint.Fault, UserError):
        return None


def _sizes(family: FamilySettings, folder: Path) -> Model:
    config = _checkpoint.read_json(folder / "config.json")
    width = config["num_attention_heads"] * config["attention_head_dim"]
    latents = family.facts().tokens(family.frames, family.height, family.width)
    # CogVideoX attends over text and video together; its feed-forward is 4 times as wide
    joint = "ffn_dim" not in config
    return Model(
        parameters(folder),
        config["num_layers"],
        width,
        4 * width if joint else config["ffn_dim"],
        latents + (family.max_sequence_length if joint else 0),
    )


def loaded(family: FamilySettings, denoiser: Denoiser) -> tuple[Role, DType, OwnWeights | None]:
    """Equal for two denoisers if and only if they are one model in memory."""
    return denoiser.model, denoiser.dtype or family.dtype, denoiser.weights


def parameters(folder: Path) -> int:
    """Numbers in a folder's safetensors files.  Raises Fault where they are missing or damaged."""
    return sum(math.prod(shape) for shape in _checkpoint.tensors(folder).values())


def component(family: FamilySettings, name: str) -> int | None:
    """Numbers in the files of the VAE or the text encoder; None where they are missing or damaged."""
    try:
        return parameters(family.components.folder / name)
    except _checkpoint.Fault:
        return None


def need(family: FamilySettings, denoisers: Iterable[Denoiser]) -> Need | None:
    """What these denoisers need under the family's residency; None where files are missing.

    Activations are taken as the feed-forward's two layers beside six tensors of the hidden
    states' size, which is what a block holds at once with memory-efficient attention.
    """
    wanted = list(denoisers)
    sizes = {loaded(family, d): model(family, d) for d in wanted}
    vae_numbers = component(family, "vae")
    if not wanted or vae_numbers is None or any(m is None for m in sizes.values()):
        return None
    copies: dict[Any, int] = {}
    activations = caches = 0
    for denoiser in wanted:
        key = loaded(family, denoiser)
        m, item = sizes[key], BYTES[key[1]]
        assert m is not None
        copies[key] = m.parameters * item
        batch = family.batch(denoiser)
        activations = max(activations, batch * m.tokens * (6 * m.width + 2 * m.inner) * item)
        caches = max(caches, sum(cache(a, m, item, batch) for a in denoiser.accelerators))
    vae = vae_numbers * 4
    transformers = sum(copies.values()) if family.residency == "both" else max(copies.values())
    if family.residency == "group":
        transformers //= max(m.layers for m in sizes.values() if m is not None)
    weights = max(transformers, vae) if family.residency == "offload" else transformers + vae
    return Need(weights, activations, caches)


@dataclass(frozen=True)
class Peak:
    """What a plan says of a device's memory.

    need: counted from the files.  encoder: the text encoder's bytes, which precede all else.  expected: what
    the family's price says where files are missing.  unknown: why there is no number.
    """

    need: Need | None = None
    encoder: int = 0
    expected: float | None = None
    unknown: str = ""

    @property
    def total(self) -> float | None:
        return self.expected if self.need is None else max(self.need.total, self.encoder)


def peak(family: FamilySettings, denoisers: Iterable[Denoiser]) -> Peak:
    """Bytes on the device at the worst moment of a run under the family's residency."""
    wanted = list(denoisers)
    if (counted := need(family, wanted)) is not None:
        encoder = (component(family, "text_encoder") or 0) * BYTES[family.dtype]
        return Peak(counted, encoder)
    price = family.price
    if price is None or price.memory is None or set(price.weights) != {"large", "small"}:
        return Peak(unknown="no files of the weights are here, and the family's price does not give it")
    sizes = {loaded(family, d): bytes_of(family, d) for d in wanted}
    if family.residency not in ("both", "swap"):
        return Peak(unknown=f"no files of the weights are here to compute residency={family.residency} from")
    known = [n for n in sizes.values() if n is not None]
    if len(known) < len(sizes):
        return Peak(unknown="the size of a method's own weights is not given")
    rest = price.memory - sum(price.weights.values())
    return Peak(expected=rest + (sum(known) if family.residency == "both" else max(known, default=0)))


def bytes_of(family: FamilySettings, denoiser: Denoiser) -> float | None:
    """Bytes of a denoiser's model: from its files, else as its settings say; None where neither is known."""
    dtype, own = denoiser.dtype or family.dtype, denoiser.weights
    if (there := model(family, denoiser)) is not None:
        return there.parameters * BYTES[dtype]
    if own is not None and own.source is not None:
        return own.size
    given = family.price.weights.get(denoiser.model) if family.price else None
    return None if given is None else given * BYTES[dtype] / BYTES[family.dtype]


def cache(accelerator: Any, model: Model, item: int, batch: int) -> int:
    """Bytes an accelerator keeps between steps.

    PAB keeps one attention output a hooked module, twice if each guidance branch has its own;
    TeaCache one residual for each branch.
    """
    hidden = model.tokens * model.width * item
    if accelerator.kind == "pab":
        modules = model.layers * (2 if accelerator.hooks == "self+cross" else 1)
        branches = 2 if batch == 2 or accelerator.state == "per_branch" else 1
        return hidden * modules * branches
    return 2 * hidden if accelerator.kind == "teacache" else 0


def shortage(family: FamilySettings, denoisers: Iterable[Denoiser], available: float) -> UserError | None:
    """What does not fit into `available` bytes, and which setting mends it; None if all fits."""
    needed = need(family, denoisers)
    if needed is None or needed.total <= available:
        return None
    steps = ["both", "swap", "offload", "group"]
    further = steps[steps.index(family.residency) + 1 :]
    do = f"set family.residency={further[0]}" if further else "take a device with more memory"
    if needed.caches > needed.total / 4:
        do += ", or a cache that keeps less (pab with state: shared)"
    return UserError(
        f"family.residency = {family.residency} needs {needed.total / GIB:.3g} GiB: "
        f"weights {needed.weights / GIB:.3g}, activations about {needed.activations / GIB:.3g}, "
        f"caches {needed.caches / GIB:.3g}",
        f"what fits into the device's {available / GIB:.3g} GiB",
        do,
    )
