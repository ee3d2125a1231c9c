"""Gradient checkpointing for networks of our own: the inside of each part is computed again in the backward pass
rather than kept (Chen et al. 2016, arXiv 1604.06174). diffusers networks have a switch of their own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .diffusers_common import VaeCodec
from .rae_codec import RaeCodec


def checkpoint_parts(*parts: nn.Module) -> None:
    """From now on each part keeps its inputs alone; outputs and gradients are the same numbers."""
    for part in parts:
        part.forward = partial(recomputed, part.forward)  # type: ignore[method-assign]


def recomputed(forward: Any, *inputs: Any) -> Any:
    """forward(*inputs), checkpointed where a gradient is asked for."""
    return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)


def checkpoint_class_flow(generator: Any) -> None:
    """The network's blocks, and what decodes its latents."""
    checkpoint_parts(*generator.network.blocks)
    if isinstance(generator.codec, VaeCodec):
        generator.codec.vae.enable_gradient_checkpointing()  # type: ignore[operator]
    if isinstance(generator.codec, RaeCodec):
        checkpoint_parts(*generator.codec.decoder.decoder_layers)


def checkpoint_tiny_flow(generator: Any) -> None:
    """The blocks, the convolutions on both sides of them, and the decoder."""
    network = generator.network
    checkpoint_parts(*network.blocks, network.down, network.up, generator.decoder)


def checkpoint_tokens(generator: Any) -> None:
    """Of a masked-token network the blocks, and the convolutions on both sides of them."""
    network = generator.network
    checkpoint_parts(*network.blocks, network.enter, network.leave)
