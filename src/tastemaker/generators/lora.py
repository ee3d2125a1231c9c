"""LoRA (Hu et al., arXiv 2106.09685) on the transformer blocks of a network of our own, through peft.

W x becomes W x + alpha / rank B A x, B = 0 at the start, so that a fresh adapter changes nothing. `merge` adds the
product to W and takes the adapter away: a tuned tiny-flow is saved as any other. diffusers networks have
`diffusers_lora`.
"""

from __future__ import annotations

import torch
from torch import nn

from ..errors import TastemakerError
from .diffusers_load import require
from .diffusers_lora import NAME, adapters, train_adapter_only


def add(network: nn.Module, rank: int, alpha: float | None = None, seed: int = 0) -> None:
    """A fresh adapter on every linear layer of `network.blocks`; the rest is frozen. alpha None: rank, so scale 1.

    A is drawn from `seed`. Raises MissingExtra without peft, and TastemakerError for a rank below 1 or a network
    without blocks.
    """
    require("peft")
    from peft import LoraConfig, inject_adapter_in_model

    blocks = getattr(network, "blocks", None)
    if rank < 1 or not isinstance(blocks, nn.ModuleList):
        raise TastemakerError(f"expected a LoRA rank of 1 or more and a network with blocks, got rank {rank}")
    linear = [name for name, module in blocks.named_modules() if isinstance(module, nn.Linear)]
    alpha = rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear, init_lora_weights=True)  # type: ignore
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, blocks, NAME)
    train_adapter_only(network)


def merge(network: nn.Module) -> None:
    """Add every adapter to the weights below it and take it away; nothing where there is none."""
    found = {id(layer) for layer in adapters(network)}
    for name, layer in list(network.named_modules()):
        if id(layer) in found:
            layer.merge()  # type: ignore[operator]
            above, _, last = name.rpartition(".")
            setattr(network.get_submodule(above), last, layer.get_base_layer())  # type: ignore[operator]
