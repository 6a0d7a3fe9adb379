"""Another attention backend for one model, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    dispatch_attention_fn,
)
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from srbench.config.attention import Attention, installed, mistake
from srbench.config.experiment import Denoiser
from srbench.errors import UserError


def pin() -> None:
    """Let what asks for no backend have torch's own choice, whatever DIFFUSERS_ATTN_BACKEND says.

    A variable of the shell is in no key.
    """
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


@contextlib.contextmanager
def using(backend: Attention, model: Any) -> Iterator[None]:
    """Let `model` alone attend with `backend`; on leaving, it attends as before.

    Raises UserError where the backend's package is missing or this machine cannot run it.
    """
    missing = mistake(backend, "method")
    if missing:
        raise missing
    if isinstance(model, CogVideoXTransformer3DModel):
        with _own_processors(backend, model):
            yield
        return
    with _dispatched(backend, model):
        yield


def refuse_other_version(denoiser: Denoiser) -> None:
    """A worker may have another version of a package than the process that named the cells."""
    here, named = installed(denoiser.attention), denoiser.attention_package
    if named is not None and here != named:
        raise UserError(
            f"attention = {denoiser.attention} with {here or 'no such package'} here",
            f"{named}, which these cells are named by",
            "let every machine have the same versions",
        )


@contextlib.contextmanager
def _dispatched(backend: Attention, model: Any) -> Iterator[None]:
    """By diffusers' own setting, without its leak.

    `set_attention_backend` also changes the backend of the whole process, and
    `reset_attention_backend` does not change it back.
    """
    processors = {id(p): p for p in model.attn_processors.values()}.values()
    before = [(p, p._attention_backend) for p in processors]
    process_wide, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        try:
            model.set_attention_backend(backend)
        except (RuntimeError, ImportError, ValueError) as error:
            raise UserError(
                f"attention = {backend}", "a backend that runs here", str(error).splitlines()[0]
            ) from None
        finally:
            _AttentionBackendRegistry.set_active_backend(process_wide)
        yield
    finally:
        for processor, own in before:
            processor._attention_backend = own


@contextlib.contextmanager
def _own_processors(backend: Attention, model: Any) -> Iterator[None]:
    """On CogVideoX, whose own processor calls torch's attention whatever backend is set."""
    before = model.attn_processors
    model.set_attn_processor(DispatchedCogVideoXAttention(backend))
    try:
        yield
    finally:
        model.set_attn_processor(before)


class DispatchedCogVideoXAttention:
    """Joint attention of text and video tokens, through diffusers' dispatcher.

    With `native` it gives the bits of diffusers' `CogVideoXAttnProcessor2_0`.
    """

    def __init__(self, backend: Attention) -> None:
        self.backend = AttentionBackendName(backend)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(batch, video tokens, width), (batch, text tokens, width) → the same."""
        words = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)

        def heads(projected: Tensor, norm: Any) -> Tensor:
            split = projected.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            return split if norm is None else norm(split)

        def turned(x: Tensor) -> Tensor:
            if image_rotary_emb is None:
                return x
            return torch.cat([x[:, :, :words], apply_rotary_emb(x[:, :, words:], image_rotary_emb)], dim=2)

        query, key = (
            turned(heads(attn.to_q(tokens), attn.norm_q)),
            turned(heads(attn.to_k(tokens), attn.norm_k)),
        )
        value = heads(attn.to_v(tokens), None)
        # the dispatcher wants (batch, tokens, heads, width of one)
        attended = dispatch_attention_fn(
            *(x.transpose(1, 2) for x in (query, key, value)), attn_mask=attention_mask, backend=self.backend
        )
        output = attn.to_out[1](attn.to_out[0](attended.flatten(2, 3).to(tokens.dtype)))
        return output[:, words:], output[:, :words]
