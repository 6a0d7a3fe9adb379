"""What the settings of every family share; no torch."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from srbench.config import attention, fingerprint
from srbench.config.custom_weights import lacking_peft
from srbench.config.experiment import Denoiser, DType, Role, Sampling
from srbench.config.registry import STRICT, identity
from srbench.errors import UserError
from srbench.families import _checkpoint, _facts, _own
from srbench.families._facts import Facts
from srbench.families._weights import BUILTIN, Weights
from srbench.shapes import world

if TYPE_CHECKING:
    from srbench.families.base import Sampler

Polynomial = Annotated[tuple[float, ...], Field(min_length=2)]
Residency = Literal["both", "swap", "offload", "group"]
# Published polynomials belong to published checkpoints.  A twin's time embedding means nothing:
# every step adds the same, so each published threshold reuses some steps and computes some.
TWIN_TEACACHE = {
    role: {mode: (0.0, 0.02) for mode in ("default", "ret_steps")} for role in ("large", "small")
}
TWIN_NOTE = "random weights (scale: tiny): this run shows that the plumbing works, and nothing about quality"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Price:
    """What a plan reckons with: seconds of one guided step, and where they come from.

    rest: seconds of encoding and decoding one video.  memory: bytes with both models
    resident.  weights: of these, each model's.  video, state: bytes of one stored video and
    one kept state.  switch: after how many of 50 steps SRDiffusion leaves the large model, by
    δ.  gpu: the GPU that these are seconds of; None where they are of a CPU core.
    """

    large: Annotated[float, Field(gt=0)]
    small: Annotated[float, Field(gt=0)]
    rest: Annotated[float, Field(ge=0)] = 0.0
    memory: Annotated[float, Field(gt=0)] | None = None
    weights: dict[Role, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    video: Annotated[float, Field(gt=0)] | None = None
    state: Annotated[float, Field(gt=0)] | None = None
    switch: dict[float, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    gpu: str | None = None
    source: str


def _numbers(listed: Sequence[float]) -> tuple[float, ...]:
    """A polynomial's coefficients.  Raises ValueError for anything else."""
    made = tuple(float(n) for n in listed)
    if not made or not all(map(math.isfinite, made)):
        raise ValueError("no coefficients")
    return made


def _known_device(device: str) -> str:
    kind, colon, number = device.partition(":")
    if kind not in fingerprint.DEVICES or (colon and not (number.isdecimal() and kind in ("cuda", "xpu"))):
        raise ValueError(f"one of {', '.join(fingerprint.DEVICES)}, or a GPU by its number as cuda:1")
    return device


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FamilySettings:
    """Fields and questions that all families have.

    name: for readers and folders.  components: tokenizer, text encoder, VAE and
    scheduler.  height, width: pixels, multiples of the VAE's stride times the patch size
    (16 for Wan 2.1 and CogVideoX).  frames: n times the VAE's stride in time, and 1.  dtype: of
    models and encoder.  vae_tiling: decode in tiles, which takes less memory and changes
    bits.
    residency: `both` models on the device; `swap`, one of them while the other waits in
    the host's memory; `offload`, one component of any kind; `group`, block by block.
    It changes no bit.  memory: bytes the device has; asked of the device where None.
    scale: `tiny` puts a twin with random weights in the family's place: the same classes,
    2 layers, few pixels, made on this machine, deterministic.  It runs whole anywhere.
    teacache: rescale polynomials by model and mode, highest power first; where there are
    none, `teacache.json` beside the weights, as `srbench calibrate` writes it.
    """

    name: str
    large: Weights
    small: Weights
    components: Weights
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    frames: Annotated[int, Field(gt=0)]
    fps: Annotated[int, Field(gt=0)]
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    negative_prompt: str = ""
    dtype: DType = "bfloat16"
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    vae_tiling: bool = False
    residency: Residency = "both"
    memory: Annotated[float, Field(gt=0)] | None = None
    scale: Literal["full", "tiny"] = "full"
    price: Price | None = None
    teacache: dict[Role, dict[Literal["default", "ret_steps"], Polynomial]] = Field(default_factory=dict)

    # settings that change no bit of a video, and what `weights_identity` and `settled` name better
    NOT_ESSENCE: ClassVar = (
        *("name", "price", "device", "residency", "memory", "scale"),
        *("large", "small", "components", "teacache"),
    )
    TEACACHE_MODES: ClassVar[tuple[str, ...]] = ("default", "ret_steps")
    # which subfolders each role reads
    COMPONENTS: ClassVar[tuple[str, ...]] = ("tokenizer", "text_encoder", "vae", "scheduler")
    # diffusers' class of both models, which a method's own weights must be of; any where it is empty
    TRANSFORMER: ClassVar[str] = ""
    # whether both guidance branches always go through the model in one call
    BATCHED: ClassVar[bool] = False
    # with what the keys of a LoRA's file begin that diffusers can load into them
    LORA_LAYOUTS: ClassVar[tuple[str, ...]] = ("transformer.",)

    if TYPE_CHECKING:  # a subclass's own
        guidance_scale: float
        max_sequence_length: int

    def __post_init__(self) -> None:
        if self.scale == "tiny":
            for name, value in self.twin().items():
                object.__setattr__(self, name, value)

    # -- a family's own

    @abstractmethod
    def twin(self) -> dict[str, Any]:
        """The settings that `scale: tiny` puts in the place of the family's."""

    @abstractmethod
    def timesteps(self, steps: int | None = None, sampler: Sampling | None = None) -> tuple[float, ...]:
        """What the model is told at each step, without a model or a scheduler."""

    @property
    @abstractmethod
    def sampling(self) -> Sampling:
        """The family's own solver and schedule, as a method would write it."""

    @abstractmethod
    def objections_to_sampler(self, sampler: Sampling, where: str) -> list[UserError]:
        """Why this family cannot step so, told at the door; `where` is its place."""

    @abstractmethod
    def facts(self) -> Facts:
        """Strides and channels by the checkpoint's configurations, else those of the architecture.

        Raises UserError where a configuration has no such number.
        """

    @abstractmethod
    def unfit_configs(self) -> Iterator[UserError]:
        """What the configurations on this machine hold that this family does not support."""

    @abstractmethod
    def open(self) -> Sampler:
        """The sampler (torch and diffusers are imported here)."""

    def lora_names(self, layer: str) -> tuple[str, ...]:
        """What LoRA files call a layer of the transformer; each begins as one of LORA_LAYOUTS."""
        return (f"transformer.{layer}",)

    def subfolders(self, role: str) -> tuple[str, ...]:
        """What is read from `large`, `small` or `components`."""
        if role == "components":
            return self.COMPONENTS
        return (self.weights(role).subfolder or "transformer",)

    def guidance(self, denoiser: Denoiser) -> float:
        """The scale that decides whether there is guidance at all: only above 1."""
        own = denoiser.guidance_scale
        return self.guidance_scale if own is None else own

    def branches(self, denoiser: Denoiser) -> int:
        """How many branches one step evaluates: 2 with guidance, else 1."""
        return 2 if self.guidance(denoiser) > 1 else 1

    def batch(self, denoiser: Denoiser) -> int:
        """How many of them one call of the model evaluates."""
        return self.branches(denoiser) if self.BATCHED or denoiser.batch_guidance else 1

    def calls_per_step(self, denoiser: Denoiser) -> int:
        """Model calls of one step."""
        return self.branches(denoiser) // self.batch(denoiser)

    def objections(self, denoiser: Denoiser, where: str) -> list[UserError]:
        """Why this family cannot run a denoiser, told at the door; `where` is its place."""
        return _own.objections(denoiser, where)

    def objections_to_path(
        self, denoisers: Sequence[Denoiser], rules: Sequence[Any], where: str
    ) -> list[UserError]:
        """Why this family cannot walk a path; rules: what ends each of its segments."""
        return []

    def lacking(self, denoiser: Denoiser, where: str) -> list[UserError]:
        """What this machine lacks to run a denoiser, and how to get it."""
        own = denoiser.weights
        missing = [
            attention.mistake(denoiser.attention, where) if denoiser.attention else None,
            lacking_peft(f"{where}.weights") if own and own.lora else None,
        ]
        return [m for m in missing if m]

    def objections_to_steps(self, steps: int | None, where: str) -> list[UserError]:
        """Why this family cannot run so many steps."""
        return []

    # -- shared

    def weights(self, role: str) -> Weights:
        return {"large": self.large, "small": self.small, "components": self.components}[role]

    def unfit(self) -> list[UserError]:
        """Why the files that are here cannot run as this family, a plan included."""
        return _facts.unfit(self)

    def mistakes(self) -> list[UserError]:
        """What can be known to be wrong before a model loads: no such device, missing or unpinned weights."""
        no_device = fingerprint.lacking(self.device)
        found = [] if no_device is None else [no_device]
        return found + [
            mistake
            for role in ("large", "small", "components")
            for mistake in self.weights(role).mistakes(
                f"family.{role}",
                self.subfolders(role),
                also=("model_index.json",) if role == "components" else (),
            )
        ]

    def mistakes_of(self, denoiser: Denoiser, where: str) -> list[UserError]:
        """What is missing of a denoiser's own weights, or keeps them from its family's place."""
        return _own.mistakes(self, denoiser, where)

    def warnings(self) -> tuple[str, ...]:
        """What every reader of this family's numbers must be told."""
        return (TWIN_NOTE,) if self.large.is_tiny or self.small.is_tiny else ()

    def warnings_of(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What every reader must know of this family's videos of these texts."""
        if self.large.source == self.small.source == f"{BUILTIN}shapes" and (said := world.warning(texts)):
            return (said,)
        return ()

    def essence(self) -> dict[str, Any]:
        """The settings that can change a bit of a video."""
        return {k: v for k, v in identity(self).items() if k not in self.NOT_ESSENCE}

    def weights_identity(self, roles: Collection[str] = get_args(Role)) -> dict[str, Any]:
        """What names the weights in keys, by role and subfolder.

        Only the files that a role reads count, so another small model leaves the large
        one's videos as they are.  roles: those that the work uses; the components always.
        """
        used = [*sorted(roles), "components"]
        return {role: self.weights(role).identity(self.subfolders(role)) for role in used}

    def polynomials(self, role: Role) -> dict[str, tuple[float, ...]]:
        """TeaCache's polynomials of a model by mode: the setting's, else those beside the weights."""
        if role in self.teacache:
            return {str(mode): p for mode, p in self.teacache[role].items()}
        file = self.components.local / "teacache.json" if self.components.local else None
        if file is None or not file.exists():
            return {}
        try:
            fits: Mapping[str, Any] = _checkpoint.read_json(file).get(role, {})
            return {mode: _numbers(fit["coefficients"]) for mode, fit in fits.items()}
        except (_checkpoint.Fault, AttributeError, LookupError, TypeError, ValueError):
            raise UserError(
                f"{file}, which holds no polynomials",
                'JSON as {"large": {"default": {"coefficients": [1.0, 0.0]}}}',
                "make it again by srbench calibrate teacache, or remove it",
            ) from None

    def settled(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser with what its accelerators take from the family written into it.

        So a key and a record hold the coefficients themselves, and calibrating anew
        concerns those denoisers alone that use them.  Likewise with the bytes of its own weights.
        """
        known = self.polynomials_of(denoiser)
        accelerators = tuple(a.settled(known) if hasattr(a, "settled") else a for a in denoiser.accelerators)
        own = None if denoiser.weights is None else _own.named(denoiser.weights)
        return replace(denoiser, accelerators=accelerators, weights=own)

    def polynomials_of(self, denoiser: Denoiser) -> dict[str, tuple[float, ...]]:
        """TeaCache's polynomials by mode; none for weights that are not the family's."""
        return {} if denoiser.weights else self.polynomials(denoiser.model)

    def settled_sampler(self, sampler: Sampling) -> Sampling | None:
        """The sampler with the family's settings where it has none; None where it is the family's."""
        own = self.sampling
        if sampler.timesteps is not None:  # nothing to shift
            return replace(sampler, solver=sampler.solver or own.solver)
        settled = Sampling(
            solver=sampler.solver or own.solver,
            shift=sampler.shift or own.shift,
            sigma_grid=sampler.sigma_grid or own.sigma_grid,
        )
        return None if settled == own else settled
