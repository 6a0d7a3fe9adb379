"""Wan 2.1, and every family with its architecture (the embedded shapes family is one).

This module holds settings only and imports no torch; `open` gives the sampler.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from srbench.config.experiment import Denoiser, Sampling
from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.families import _facts
from srbench.families._facts import Facts
from srbench.families._settings import TWIN_TEACACHE, FamilySettings, Price
from srbench.families._weights import Weights

if TYPE_CHECKING:
    from srbench.families._wan import WanSampler

__all__ = ["Price", "Wan", "Weights"]


@plugin
class Wan(FamilySettings):
    """A Wan family: two transformers, one VAE, one UMT5 text encoder; see `FamilySettings`.

    steps, shift: of the UniPC flow schedule.  sigma_grid: `wan` is the grid of Wan's own
    code, to the last bit (diffusers up to 0.36 differs from it by rounding), `diffusers` that of 0.37 on.
    A method's own sampler may be `unipc` or `euler` (diffusers' flow-match Euler), with a shift and a
    grid, or with a list of timesteps.
    """

    TRANSFORMER: ClassVar = "WanTransformer3DModel"
    # diffusers', Wan's own, and musubi-tuner's
    LORA_LAYOUTS: ClassVar = ("transformer.", "diffusion_model.", "lora_unet_")

    shift: Annotated[float, Field(gt=0)] = 5.0
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    max_sequence_length: Annotated[int, Field(gt=0)] = 512
    sigma_grid: Literal["wan", "diffusers"] = "wan"

    def lora_names(self, layer: str) -> tuple[str, ...]:
        native = native_name(layer)
        return f"transformer.{layer}", f"diffusion_model.{native}", f"lora_unet_{native.replace('.', '_')}"

    def facts(self) -> Facts:
        vae = _facts.config(self, "components", "vae", "config.json")
        patches = [m.listed("patch_size", (1, 2, 2)) for m in _facts.transformers(self)]
        for model, patch in zip(_facts.transformers(self), patches, strict=True):
            if len(patch) != 3 or patch[0] != 1 or 0 in patch:
                raise model.refusal("patch_size", "[1, height, width]: a token covers one latent frame")
        return Facts(
            spatial=vae.whole("scale_factor_spatial", 8),
            temporal=vae.whole("scale_factor_temporal", 4),
            channels=vae.whole("z_dim", 16),
            patch=(math.lcm(*(p[1] for p in patches)), math.lcm(*(p[2] for p in patches))),
        )

    def unfit_configs(self) -> Iterator[UserError]:
        for pipeline in _facts.pipelines(self):
            if pipeline.get("expand_timesteps"):
                yield pipeline.refusal(
                    "expand_timesteps",
                    "false: models with a timestep for each token (Wan 2.2 TI2V-5B) are not supported yet",
                    "take Wan 2.1, or Wan 2.2 T2V-A14B",
                )
            yield from pipeline.unless_one_of("_class_name", ["WanPipeline"], "WanPipeline, text to video")
        vae = _facts.config(self, "components", "vae", "config.json")
        yield from vae.unless_one_of("_class_name", ["AutoencoderKLWan"], "AutoencoderKLWan, Wan's VAE")
        yield from _strides_of_other_layers(vae)
        yield from _unfit_statistics(vae)
        for model in _facts.transformers(self):
            yield from _facts.unfit_model(model, self.TRANSFORMER, vae.whole("z_dim", 16))
            for key in ("image_dim", "added_kv_proj_dim"):
                yield from model.unless_one_of(
                    key, [None], "null: this family runs text to video, without an image"
                )
        scheduler = _facts.config(self, "components", "scheduler", "scheduler_config.json")
        yield from scheduler.unless_one_of(
            "_class_name",
            ["UniPCMultistepScheduler"],
            "UniPCMultistepScheduler, whose settings UniPC is made from here",
        )
        yield from _unfit_schedule(scheduler)

    def twin(self) -> dict[str, Any]:
        """5 frames of 32×32; weights by the recipe `tiny:wan`."""
        return {
            "large": Weights(source="tiny:wan", subfolder="transformer"),
            "small": Weights(source="tiny:wan", subfolder="transformer_2"),
            "components": Weights(source="tiny:wan"),
            **{"height": 32, "width": 32, "frames": 5, "price": None, "teacache": TWIN_TEACACHE},
        }

    @property
    def sampling(self) -> Sampling:
        """UniPC on the flow schedule."""
        return Sampling(solver="unipc", shift=self.shift, sigma_grid=self.sigma_grid)

    def objections_to_path(
        self, denoisers: Sequence[Denoiser], rules: Sequence[Any], where: str
    ) -> list[UserError]:
        """WanPipeline decides by the scale before its boundary whether there is guidance at all."""
        return [
            UserError(
                f"{where}.path.{i + 1} with guidance {self.guidance(after):g} behind a boundary, "
                f"before which it is {self.guidance(before):g}",
                "guidance above 1 before the boundary too: WanPipeline takes guidance_scale ≤ 1 "
                "as no guidance in both segments, whatever guidance_scale_2 is",
                f"set {where}.path.{i}.guidance_scale above 1, or end that segment by fixed_step, where each "
                "segment has its own guidance",
            )
            for i, (before, after) in enumerate(itertools.pairwise(denoisers))
            if rules[i].kind == "boundary" and self.branches(before) < self.branches(after)
        ]

    def objections_to_sampler(self, sampler: Sampling, where: str) -> list[UserError]:
        found = []
        if sampler.solver not in (None, "unipc", "euler"):
            got = f"{where}.solver = {sampler.solver}"
            found.append(
                UserError(got, "unipc or euler, which flow matching has here", f"change {where}.solver")
            )
        if sampler.timesteps is not None:
            for name in ("shift", "sigma_grid"):
                if getattr(sampler, name) is not None:
                    got = f"{where}.{name} with {where}.timesteps"
                    found.append(UserError(got, "one of them: a list is taken as it is", "leave one out"))
            whole = all(t == int(t) for t in sampler.timesteps)
            if not whole and sampler.solver != "euler":
                got = f"{where}.timesteps with {next(t for t in sampler.timesteps if t != int(t)):g}"
                do = f"round it, or set {where}.solver=euler"
                found.append(UserError(got, "whole numbers, which is all that UniPC tells a model", do))
        return found

    def grid(self, steps: int, sampler: Sampling) -> np.ndarray | None:
        """The σ that a scheduler is given before it shifts them; None for the scheduler's own."""
        if sampler.timesteps is not None:
            return np.array(sampler.timesteps) / 1000
        if sampler.sigma_grid == "wan":
            # Wan's scheduler keeps its σ in float32 and begins a schedule from the first of them
            first = float(np.float32(1) - np.float32(1e-3))
            return np.linspace(first, 0, steps + 1)[:-1]
        return None

    def timesteps(self, steps: int | None = None, sampler: Sampling | None = None) -> tuple[float, ...]:
        """What the model is told at each step, without a model or a scheduler.

        σ shifted, σ' = s σ / (1 + (s − 1) σ), times 1000.  UniPC cuts that to a whole number, and makes a
        σ of 1 smaller by 1e-6 first, so it is told as 999; Euler tells it as it is.  A list of timesteps is
        told as it is, and σ is a thousandth of it.
        """
        how, n = sampler or self.sampling, steps or self.steps
        if how.timesteps is not None:
            return how.timesteps
        shift, sigma = how.shift or self.shift, self.grid(n, how)
        if how.solver == "euler":
            return _euler(n, shift, sigma)
        sigma = np.linspace(1, 1 / 1000, n + 1)[:-1] if sigma is None else sigma
        shifted = shift * sigma / (1 + (shift - 1) * sigma)
        shifted = np.where(np.abs(shifted - 1) < 1e-6, shifted - 1e-6, shifted)
        return tuple(float(t) for t in (shifted * 1000).astype(np.int64))

    def open(self) -> WanSampler:
        """Load the models (torch and diffusers are imported here)."""
        from srbench.families._wan import WanSampler

        return WanSampler(self)


# diffusers' names of Wan's layers → those of Wan's own code, the first that fits each place
_NATIVE = (
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^proj_out", "head.head"),
    (r"^scale_shift_table", "head.modulation"),
    (r"\.scale_shift_table", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_out\.0$", ".o"),
    (r"\.to_([qkv])$", r".\1"),
    (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
    (r"\.ffn\.net\.2$", ".ffn.2"),
    (r"\.norm2$", ".norm3"),
)


def native_name(layer: str) -> str:
    """What Wan's own code calls a layer of diffusers' transformer.

    >>> native_name("blocks.3.attn2.to_out.0"), native_name("blocks.0.norm2")
    ('blocks.3.cross_attn.o', 'blocks.0.norm3')
    """
    for ours, theirs in _NATIVE:
        layer = re.sub(ours, theirs, layer)
    return layer


def _strides_of_other_layers(vae: _facts.Config) -> Iterator[UserError]:
    """A VAE whose layers make another size of video than its scale factors say."""
    if not vae.there:
        return
    patch = 1 if vae.get("patch_size") is None else vae.whole("patch_size", 1)
    halvings = len(vae.listed("dim_mult", (1, 2, 4, 4))) - 1
    down = vae.listed("temperal_downsample", (False, True, True))[:halvings]
    made = {"scale_factor_spatial": (8, patch * 2**halvings), "scale_factor_temporal": (4, 2 ** sum(down))}
    for key, (default, factor) in made.items():
        if vae.whole(key, default) != factor:
            yield vae.refusal(key, f"{factor}, which its layers make", "correct the VAE's config.json")


def _euler(steps: int, shift: float, sigma: np.ndarray | None) -> tuple[float, ...]:
    """As diffusers' FlowMatchEulerDiscreteScheduler has it, in its precisions.

    Its own grid goes down to a least σ that is shifted already, and shifts all of it again.
    """
    if sigma is None:
        least = np.float32(1) / np.float32(1000)
        least = np.float32(shift) * least / (1 + np.float32(shift - 1) * least)
        sigma = np.linspace(1000.0, float(least) * 1000, steps) / 1000
    else:
        sigma = sigma.astype(np.float32)
    shifted = (shift * sigma / (1 + (shift - 1) * sigma)).astype(np.float32)
    return tuple(float(t) for t in shifted * np.float32(1000))


# Settings of UniPC: the values that this family runs, what they are, and diffusers' default
_SCHEDULE: Mapping[str, tuple[list[Any], str, Any]] = {
    "prediction_type": (["flow_prediction"], "flow_prediction, {flow}", "epsilon"),
    "use_flow_sigmas": ([True], "true, {flow}", False),
    "num_train_timesteps": ([1000], "1000 timesteps, as Wan has them", 1000),
    "use_dynamic_shifting": ([False], "false: family.shift is the shift of every step", False),
    "use_karras_sigmas": ([False], "false, {flow}", False),
    "use_exponential_sigmas": ([False], "false, {flow}", False),
    "use_beta_sigmas": ([False], "false, {flow}", False),
    "shift_terminal": ([None], "null: the schedule ends as family.sigma_grid says", None),
    "predict_x0": ([True], "true, as flow matching needs it", True),
    "solver_order": ([1, 2, 3], "1, 2 or 3", 2),
}


def _unfit_schedule(scheduler: _facts.Config) -> Iterator[UserError]:
    """Settings by which the schedule would not be the one that the family's settings name."""
    for key, (allowed, expected, default) in _SCHEDULE.items():
        told = expected.format(flow="the flow matching that Wan was trained with")
        yield from scheduler.unless_one_of(key, allowed, told, default)


def _unfit_statistics(vae: _facts.Config) -> Iterator[UserError]:
    """A mean and a standard deviation for each channel of the latents; diffusers has those of 16 channels."""
    channels = vae.whole("z_dim", 16)
    for key in ("latents_mean", "latents_std"):
        values = vae.get(key, [1.0] * 16)
        is_fit = isinstance(values, list) and len(values) == channels and all(map(_is_finite, values))
        if not is_fit or (key == "latents_std" and not all(v > 0 for v in values)):
            above = " above 0" if key == "latents_std" else ""
            yield vae.refusal(key, f"{channels} numbers{above}, one for each channel of z_dim")


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
