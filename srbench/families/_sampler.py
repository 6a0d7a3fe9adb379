"""What the denoising loops of all families share: components, guidance, one step, states."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from srbench.accelerators.base import Attachment
from srbench.config.custom_weights import OwnWeights
from srbench.config.experiment import Denoiser, DType, Role, Sampling, digest
from srbench.config.registry import identity
from srbench.errors import UserError, raise_all
from srbench.families import _checkpoint, _fusing, _own, _tiny
from srbench.families._attention import pin, refuse_other_version, using
from srbench.families._budget import loaded, shortage
from srbench.families._clock import timed
from srbench.families._residency import Residents, release
from srbench.families._settings import FamilySettings
from srbench.families.base import Encoded, State, Text
from srbench.trace import Step

F = TypeVar("F", bound=FamilySettings)

# their bars would tear ours, and a worker has no terminal
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


def relative_change(now: Tensor, before: Tensor) -> float:
    """Equation 3: tanh(|s_τ − s_{τ−1}|₁ / |s_{τ−1}|₁), in float32."""
    now, before = now.float(), before.float()
    return float(torch.tanh((now - before).abs().sum() / before.abs().sum()))


def to_pixels(video: Tensor) -> NDArray[np.uint8]:
    """A VAE's output (3, frames, height, width) in [-1, 1] → uint8 (frames, height, width, 3)."""
    pixels = (video / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).float().cpu().numpy()
    return np.rint(pixels * 255).astype(np.uint8)


def refuse_other_tensors(cls: Any, folder: Path) -> None:
    """Refuse a folder whose tensors are not those of the class, before they are loaded.

    diffusers would leave out what the class does not know, with a line in a log, as the scales of a
    quantized model.  Raises UserError.
    """
    with init_empty_weights():
        known = set(cls.from_config(cls.load_config(str(folder))).state_dict())
    there = set(_checkpoint.tensors(folder))
    # position tables are computed, whatever a file says
    ignored = [*(cls._keys_to_ignore_on_load_unexpected or ()), r"pos_embedding$"]
    strange = {name for name in there - known if not any(re.search(i, name) for i in ignored)}
    if wrong := sorted(strange) or sorted(known - there):
        has = "has" if strange else "lacks"
        raise UserError(
            f"{folder} {has} {wrong[0]}" + f" and {len(wrong) - 1} more" * (len(wrong) > 1),
            f"the tensors of {cls.__name__}, all of them and no others",
            "convert the checkpoint again, or take that of this architecture",
        )


class DiffusersSampler(ABC, Generic[F]):
    """A family of diffusers models in memory; see `srbench.families.base.Sampler`.

    A family's own: its classes, its schedule, what a model is called with, what D is taken
    of, one scheduler step, hand-over and decoding.
    """

    transformer_class: ClassVar[Any]
    pipeline_class: ClassVar[Any]
    vae_class: ClassVar[Any]
    vae_dtype: torch.dtype
    encoder_class: ClassVar[Any]

    def __init__(self, family: F) -> None:
        pin()
        self.family = family
        self.fps = family.fps
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if family.device == "auto" else family.device)
        self.dtype: torch.dtype = getattr(torch, family.dtype)
        self._attachment: Attachment | None = None
        self._residents = Residents(family.residency, self.device)
        for weights in (family.large, family.small, family.components):
            _tiny.make_if_missing(weights)
        raise_all(family.unfit())
        self._facts = family.facts()

    # -- a family's own

    @abstractmethod
    def _text_pipeline(self, tokenizer: Any, encoder: Any) -> Any:
        """The stock pipeline with a text encoder and nothing else in it."""

    @abstractmethod
    def _schedule(self, steps: int | None, space: Role = "large", sampler: Sampling | None = None) -> Any:
        """A fresh scheduler with its timesteps set; the family's own where `sampler` is None."""

    @abstractmethod
    def _begin(self, seed: int, sampler: Sampling | None) -> tuple[Tensor, Tensor | None]:
        """Pure noise, and the generator's state after it where steps draw more."""

    @abstractmethod
    def _fork(self, scheduler: Any) -> Any:
        """A scheduler that can step on without touching this one."""

    @abstractmethod
    def _forward(self, model: Any, x: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The model's output, x and embedding in its dtype; t one number for each of the batch."""

    @abstractmethod
    def _noise_level(self, scheduler: Any, index: int) -> float:
        """σ before a step, in [0, 1]."""

    @abstractmethod
    def _signals(
        self, scheduler: Any, index: int, sample: Tensor, output: Tensor, latents: Tensor
    ) -> dict[str, Tensor]:
        """What D of the step `index` is taken of: model_output, x0, eps and latent (after it)."""

    @abstractmethod
    def _advance(self, scheduler: Any, state: State, output: Tensor) -> State:
        """One scheduler step: new latents, and the history that a state keeps itself."""

    @abstractmethod
    def decode(self, state: State) -> NDArray[np.uint8]:
        """The video of a finished state: (frames, height, width, 3), RGB."""

    # -- components, each loaded when it is first needed

    @functools.cached_property
    def _loaded_vae(self) -> Any:
        refuse_other_tensors(self.vae_class, self.family.components.folder / "vae")
        vae = self.vae_class.from_pretrained(
            self.family.components.path, subfolder="vae", dtype=self.vae_dtype, use_safetensors=True
        ).eval()
        if self.family.vae_tiling:
            vae.enable_tiling()
        return vae

    @property
    def _vae(self) -> Any:
        return self._residents.place("vae", self._loaded_vae)

    @functools.cached_property
    def _models(self) -> dict[tuple[Role, DType, OwnWeights | None], Any]:
        return {}

    def model(self, role: Role, dtype: DType | None = None, own: OwnWeights | None = None) -> Any:
        """The large or the small transformer in a dtype, or a method's own in its place, on the device."""
        denoiser = Denoiser(model=role, dtype=dtype, weights=own)
        key = loaded(self.family, denoiser)
        if key not in self._models:
            self._models[key] = self._load(denoiser, key[1])
        name = f"{role} {key[1]}" + (f" {own}" if own else "")  # whole: equal bytes may be loaded twice
        return self._residents.place(name, self._models[key], transformer=True)

    def _model_of(self, denoiser: Denoiser) -> Any:
        return self.model(denoiser.model, denoiser.dtype, denoiser.weights)

    def _load(self, denoiser: Denoiser, dtype: DType) -> Any:
        own = denoiser.weights
        if own is not None:
            self._refuse_other_weights(denoiser)
        folder, update = _own.folder(self.family, denoiser), None
        refuse_other_tensors(self.transformer_class, folder)
        if own is not None and own.lora is not None:
            update = _fusing.read(_own.lora_file(own.lora), _checkpoint.tensors(folder), self.family)
        # not .to(dtype) afterwards: this keeps in float32 what its class says must be
        model = self.transformer_class.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), use_safetensors=True
        ).eval()
        if own is not None and own.lora is not None and update is not None:
            _fusing.fuse(model, update, own.lora.scale)
        return model

    def _refuse_other_weights(self, denoiser: Denoiser) -> None:
        """What a worker finds may be missing there, or other than what the cells are named by."""
        own = denoiser.weights
        assert own is not None
        if (weights := _own.checkpoint(own)) is not None:
            _tiny.make_if_missing(weights)
        raise_all(_own.mistakes(self.family, denoiser, "method"))
        here = _own.named(own)
        if digest(own) != digest(here) and digest(own) != digest(_own.unnamed(own)):
            raise UserError(
                f"weights {own.said} with other bytes, or fused by another version of peft, here",
                "those that these cells are named by",
                "let every machine have the same files and packages, and start the run again",
            )

    # -- text

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> dict[str, Encoded]:
        self._residents.clear()
        path = self.family.components.path
        tokenizer = AutoTokenizer.from_pretrained(path, subfolder="tokenizer")
        encoder = self.encoder_class.from_pretrained(
            path, subfolder="text_encoder", dtype=self.dtype, use_safetensors=True
        ).to(self.device)
        pipeline = self._text_pipeline(tokenizer, encoder)
        encoded = {}
        for text in dict.fromkeys(texts):
            with timed(self.device) as seconds:
                embedding = pipeline.encode_prompt(
                    text,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.family.max_sequence_length,
                    device=self.device,
                )[0]
            encoded[text] = Encoded(embedding, seconds.value)
        del encoder, pipeline
        release(self.device)
        return encoded

    # -- the schedule

    def timesteps(self, steps: int | None, sampler: Sampling | None = None) -> tuple[float, ...]:
        return tuple(float(t) for t in self._schedule(steps, sampler=sampler).timesteps)

    def start(self, seed: int, steps: int | None, sampler: Sampling | None = None) -> State:
        noise, generator = self._begin(seed, sampler)
        scheduler = self._schedule(steps, sampler=sampler)
        return State(0, noise, scheduler, generator=generator, sampler=sampler)

    def _noise(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        # drawn on the CPU: the same on every device
        return randn_tensor(shape, generator=generator, device=self.device, dtype=dtype)

    def _latent_size(self) -> tuple[int, int, int]:
        """Frames, height and width of the latents."""
        return self._facts.latent_size(self.family.frames, self.family.height, self.family.width)

    # -- denoising

    def _guidance_at(self, denoiser: Denoiser, t: float, steps: int) -> float:
        return self.family.guidance(denoiser)

    def calls_per_step(self, denoiser: Denoiser) -> int:
        return self.family.calls_per_step(denoiser)

    @contextlib.contextmanager
    def attach(self, denoiser: Denoiser, steps: int) -> Iterator[None]:
        self._refuse_what_does_not_fit(denoiser)
        self._attachment = Attachment(
            role=denoiser.model,
            steps=steps,
            calls_per_step=self.calls_per_step(denoiser),
            polynomials=self.family.polynomials_of(denoiser),
        )
        try:
            with contextlib.ExitStack() as stack:
                # only here: with nothing to attach, a segment that is all known loads no model
                if denoiser.attention is not None:
                    refuse_other_version(denoiser)
                    stack.enter_context(using(denoiser.attention, self._model_of(denoiser)))
                for accelerator in denoiser.accelerators:
                    stack.enter_context(accelerator.attach(self._model_of(denoiser), self._attachment))
                yield
        finally:
            self._attachment = None

    def _refuse_what_does_not_fit(self, denoiser: Denoiser) -> None:
        """Before its model loads: a denoiser that cannot fit is refused, with what would help."""
        available = self.family.memory
        if available is None and self.device.type == "cuda":
            available = torch.cuda.get_device_properties(self.device).total_memory
        if available is not None:
            here = [
                Denoiser(model=role, dtype=dtype, weights=own)
                for role, dtype, own in self._models
                if self.family.residency == "both"
            ]
            lacking = shortage(self.family, [*here, denoiser], available)
            if lacking:
                raise lacking

    def _predict(self, denoiser: Denoiser, state: State, text: Text) -> Tensor:
        """The guided model output, in the latents' shape."""
        model = self._model_of(denoiser)
        t, steps = state.scheduler.timesteps[state.index], len(state.scheduler.timesteps)
        where = {
            "step_index": state.index,
            "sigma": self._noise_level(state.scheduler, state.index),
            "num_inference_steps": steps,
        }

        # not model.dtype, which looks through all parameters: a tenth of a tiny model's time
        dtype = getattr(torch, denoiser.dtype or self.family.dtype)

        def call(branch: str, *embeddings: Tensor) -> Tensor:
            n = len(embeddings)
            x = torch.cat([state.latents] * n).to(dtype)
            embedding = torch.cat(embeddings).to(dtype)
            # entering it looks through all modules, for hooks that only accelerators have
            context = (
                model.cache_context(branch, **where) if denoiser.accelerators else contextlib.nullcontext()
            )
            with context:
                return self._forward(model, x, t.expand(n), embedding)

        if self.family.branches(denoiser) == 1:
            return call("cond", text.prompt)
        if self.family.batch(denoiser) == 2:
            uncond, cond = call("cond_uncond", text.negative, text.prompt).chunk(2)
        else:
            cond, uncond = call("cond", text.prompt), call("uncond", text.negative)
        return uncond + self._guidance_at(denoiser, float(t), steps) * (cond - uncond)

    @torch.no_grad()
    def step(self, denoiser: Denoiser, state: State, text: Text) -> tuple[State, Step]:
        i, scheduler = state.index, self._fork(state.scheduler)
        timesteps = [float(t) for t in scheduler.timesteps[i : i + 2]]
        attachment = self._attachment or Attachment(denoiser.model, len(scheduler.timesteps), 1)
        attachment.begin_step(i, timesteps[0])
        output = self._predict(denoiser, state, text)
        after = self._advance(scheduler, state, output)
        after = replace(after, index=i + 1, scheduler=scheduler, sample=state.latents, output=output)
        calls = self.calls_per_step(denoiser)
        record = Step(
            index=i,
            timestep=timesteps[0],
            next_timestep=timesteps[1] if len(timesteps) > 1 else 0.0,
            sigma=self._noise_level(scheduler, i),
            denoiser=denoiser.id,
            model=denoiser.model,
            change=self._change(state, after),
            calls_computed=calls - attachment.calls_reused,
            calls_reused=attachment.calls_reused,
            modules_computed=attachment.modules_computed,
            modules_reused=attachment.modules_reused,
        )
        return after, record

    def _change(self, before: State, after: State) -> dict[str, float] | None:
        """D of every signal against the step before; None where there was none to compare with."""
        if before.sample is None or before.output is None:
            return None
        assert after.sample is not None and after.output is not None
        earlier = self._signals(
            before.scheduler, before.index - 1, before.sample, before.output, before.latents
        )
        now = self._signals(after.scheduler, before.index, after.sample, after.output, after.latents)
        return {name: relative_change(now[name], earlier[name]) for name in now}

    def hand_over(self, state: State, new: Denoiser) -> State:
        """The state as the next denoiser needs it: here, as it is."""
        return state

    def disturb(self, state: State, noise: Tensor) -> State:
        """The state with noise added to its latents."""
        return replace(state, latents=state.latents + noise.to(state.latents))

    # -- states as files

    def freeze(self, state: State) -> tuple[dict[str, Tensor], dict[str, str]]:
        own = {"sample": state.sample, "output": state.output}
        own |= {"generator": state.generator, "previous_x0": state.previous_x0}
        history, told = self._freeze_scheduler(state.scheduler)
        tensors = {"latents": state.latents} | {k: v for k, v in (own | history).items() if v is not None}
        meta = {"index": str(state.index), "steps": str(len(state.scheduler.timesteps)), "space": state.space}
        if state.sampler is not None:
            meta["sampler"] = json.dumps(identity(state.sampler))
        # a safetensors file takes no memory twice, and the scheduler may hold our own tensors
        return {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, meta | told

    def thaw(self, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> State:
        space: Role = "small" if meta["space"] == "small" else "large"
        sampler = Sampling(**json.loads(meta["sampler"])) if "sampler" in meta else None
        scheduler = self._schedule(int(meta["steps"]), space, sampler)
        self._thaw_scheduler(scheduler, tensors, meta)
        generator = tensors.get("generator")
        return State(
            int(meta["index"]),
            tensors["latents"],
            scheduler,
            sample=tensors.get("sample"),
            output=tensors.get("output"),
            generator=None if generator is None else generator.cpu(),
            previous_x0=tensors.get("previous_x0"),
            space=space,
            sampler=sampler,
        )

    def _freeze_scheduler(self, scheduler: Any) -> tuple[dict[str, Tensor | None], dict[str, str]]:
        """A scheduler's history; none where the state keeps it."""
        return {}, {}

    def _thaw_scheduler(self, scheduler: Any, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
        """Give a fresh scheduler its history again."""
