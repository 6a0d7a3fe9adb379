"""CogVideoX 1.0, text to video: 5B and 2B.

This module holds settings only and imports no torch; `open` gives the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from srbench.config.experiment import Denoiser, Sampling
from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.families import _facts
from srbench.families._facts import Facts
from srbench.families._settings import TWIN_TEACACHE, FamilySettings
from srbench.families._weights import Weights

if TYPE_CHECKING:
    from srbench.families._cogvideox import CogVideoXSampler


@plugin
class CogVideoX(FamilySettings):
    """A CogVideoX family: two transformers, one VAE, one T5 text encoder; see `FamilySettings`.

    The models share the VAE's weights but neither its scaling factor nor the noise
    schedule, so `small` is also asked for its scheduler and for vae/config.json.

    sampler: `dpm` is CogVideoXDPMScheduler, which draws noise at every step; `ddim` is
    CogVideoXDDIMScheduler.
    dynamic_guidance: `use_dynamic_cfg` of diffusers and of CogVideo's cli_demo, after
    which the guidance is 1 + g (1 − cos(π ((N − t) / N)⁵)) / 2 with t the timestep: it
    swings between 1 and 1 + g from step to step.  That is how the authors' code has it too
    (zai-org/CogVideo, issue 267); it is not ours to mend.
    """

    TEACACHE_MODES: ClassVar = ("default",)
    TRANSFORMER: ClassVar = "CogVideoXTransformer3DModel"
    BATCHED: ClassVar = True

    guidance_scale: Annotated[float, Field(ge=0)] = 6.0
    dynamic_guidance: bool = True
    max_sequence_length: Annotated[int, Field(gt=0)] = 226
    sampler: Literal["dpm", "ddim"] = "dpm"

    def facts(self) -> Facts:
        vae = _facts.config(self, "components", "vae", "config.json")
        patches = [m.whole("patch_size", 2) for m in _facts.transformers(self)]
        return Facts(
            spatial=2 ** (len(vae.listed("block_out_channels", (128, 256, 256, 512))) - 1),
            temporal=vae.whole("temporal_compression_ratio", 4),
            channels=vae.whole("latent_channels", 16),
            patch=(math.lcm(*patches), math.lcm(*patches)),
        )

    def unfit_configs(self) -> Iterator[UserError]:
        for pipeline in _facts.pipelines(self):
            yield from pipeline.unless_one_of(
                "_class_name", ["CogVideoXPipeline"], "CogVideoXPipeline, text to video"
            )
        vae = _facts.config(self, "components", "vae", "config.json")
        yield from vae.unless_one_of(
            "_class_name", ["AutoencoderKLCogVideoX"], "AutoencoderKLCogVideoX, CogVideoX's VAE"
        )
        for model in _facts.transformers(self):
            yield from _facts.unfit_model(model, self.TRANSFORMER, vae.whole("latent_channels", 16))
            yield from model.unless_one_of(
                "patch_size_t",
                [None],
                "null: srbench supports CogVideoX 1.0, whose tokens cover one latent frame",
            )
        for role in ("components", "small"):
            yield from self._unfit_schedule(role)

    def _unfit_schedule(self, role: str) -> Iterator[UserError]:
        scheduler = _facts.config(self, role, "scheduler", "scheduler_config.json")
        yield from scheduler.unless_one_of(
            "_class_name",
            ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"],
            "CogVideoXDDIMScheduler or CogVideoXDPMScheduler",
        )
        yield from scheduler.unless_one_of(
            "prediction_type",
            ["v_prediction"],
            "v_prediction: srbench takes the model's output as v, in its switch signals too",
            "epsilon",
        )
        yield from scheduler.unless_one_of("num_train_timesteps", [1000], "1000 timesteps", 1000)

    def twin(self) -> dict[str, Any]:
        """9 frames of 64×64; weights by the recipe `tiny:cogvideox`."""
        return {
            "large": Weights(source="tiny:cogvideox/large"),
            "small": Weights(source="tiny:cogvideox/small"),
            "components": Weights(source="tiny:cogvideox/large"),
            **{"height": 64, "width": 64, "frames": 9, "price": None, "teacache": TWIN_TEACACHE},
        }

    def subfolders(self, role: str) -> tuple[str, ...]:
        own = super().subfolders(role)
        return own if role == "components" else (*own, "scheduler", "vae/config.json")

    @property
    def sampling(self) -> Sampling:
        """The noise schedule is each model's own."""
        return Sampling(solver=self.sampler)

    def objections_to_sampler(self, sampler: Sampling, where: str) -> list[UserError]:
        found = []
        if sampler.solver not in (None, "dpm", "ddim"):
            got = f"{where}.solver = {sampler.solver}"
            found.append(
                UserError(got, "dpm or ddim: CogVideoX predicts v, no flow", f"change {where}.solver")
            )
        for name in ("shift", "sigma_grid"):
            if getattr(sampler, name) is not None:
                got = f"{where}.{name} = {getattr(sampler, name)}"
                found.append(UserError(got, "nothing: each model has its own noise schedule", "leave it out"))
        if sampler.timesteps is not None:
            expected = "nothing: CogVideoX's schedulers go down by 1000 / N from timestep to timestep"
            found.append(UserError(f"{where}.timesteps", expected, "set the method's steps"))
        return found

    def timesteps(self, steps: int | None = None, sampler: Sampling | None = None) -> tuple[float, ...]:
        """What the model is told at each step: `trailing` spacing of 1000 timesteps, by either solver."""
        n = steps or self.steps
        return tuple(float(t) for t in np.round(np.arange(1000, 0, -1000 / n)) - 1)

    def objections(self, denoiser: Denoiser, where: str) -> list[UserError]:
        found = super().objections(denoiser, where)
        if denoiser.batch_guidance:
            found.append(
                UserError(
                    f"{where}.batch_guidance = true",
                    "nothing: CogVideoX always runs both guidance branches as one batch",
                    f"leave it out, or give {where}.dtype another precision",
                )
            )
        for accelerator in denoiser.accelerators:
            if getattr(accelerator, "mode", None) == "ret_steps":
                found.append(
                    UserError(
                        f"{where}: teacache in mode ret_steps",
                        "mode default: CogVideoX has no projected time embedding for the other to read",
                        "leave mode out",
                    )
                )
            if getattr(accelerator, "hooks", None) == "self+cross":
                found.append(
                    UserError(
                        f"{where}: pab with hooks self+cross",
                        "hooks self: text and video share one attention in CogVideoX",
                        "leave hooks out",
                    )
                )
        return found

    def objections_to_steps(self, steps: int | None, where: str) -> list[UserError]:
        """A last step that does not end at no noise leaves noise in the video.

        The schedulers step by 1000 // N from the last timestep, which must come out below 0.
        """
        n = steps or self.steps
        if self.timesteps(n)[-1] < 1000 // n:
            return []
        return [
            UserError(
                f"{where if steps else 'family.steps'} = {n}",
                "a number of steps that CogVideoX's schedulers end without noise",
                "take one that divides 1000, as 8, 10, 20, 25, 40 or 50",
            )
        ]

    def open(self) -> CogVideoXSampler:
        """Load the models (torch and diffusers are imported here)."""
        from srbench.families._cogvideox import CogVideoXSampler

        return CogVideoXSampler(self)
