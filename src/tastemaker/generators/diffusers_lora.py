"""LoRA (Hu et al., arXiv 2106.09685) on the attention of a diffusers network, through peft.

W x becomes W x + alpha / rank B A x, B = 0 at the start, so that a fresh adapter changes nothing. The reference is
the same network with the adapter switched off, which costs no memory.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import TastemakerError

NAME = "tastemaker"
FILE = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def adapters(network: nn.Module) -> list[Any]:
    """The layers that carry an adapter."""
    return [m for m in network.modules() if hasattr(m, "lora_A") and hasattr(m, "enable_adapters")]


def add(network: nn.Module, rank: int, alpha: float | None = None, seed: int = 0) -> None:
    """A fresh adapter on every attention projection; the rest is frozen. alpha None: rank, that is scale 1.

    A is drawn from `seed`. Adapter weights are float32 whatever the network is.
    """
    from peft import LoraConfig

    if rank < 1:
        raise TastemakerError(f"expected a LoRA rank of 1 or more, got {rank}")
    present = [t for t in ATTENTION if any(name.endswith("." + t) for name, _ in network.named_modules())]
    alpha = rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=present, init_lora_weights=True)  # type: ignore
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_adapter(config, adapter_name=NAME)  # type: ignore
    train_adapter_only(network)


def read(pipeline: Any, network: nn.Module, folder: str | os.PathLike) -> None:
    """The adapter of an earlier `save`, ready to go on training."""
    if not os.path.isfile(os.path.join(folder, FILE)):
        raise TastemakerError(f"expected the LoRA file '{FILE}' in '{folder}', found none")
    try:
        loading = pipeline.load_lora_weights if hasattr(pipeline, "load_lora_weights") else network.load_lora_adapter
        loading(str(folder), weight_name=FILE, adapter_name=NAME, local_files_only=True)  # type: ignore[operator]
    except Exception as error:
        raise TastemakerError(f"cannot read the LoRA file in '{folder}': {error}") from error
    train_adapter_only(network)


def train_adapter_only(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def as_it_is(network: nn.Module) -> Iterator[None]:
    yield


@contextmanager
def adapters_off(network: nn.Module) -> Iterator[None]:
    """The base network. Checkpointing is off as well: its second forward would run outside this block."""
    layers = adapters(network)
    checkpointed = [m for m in network.modules() if getattr(m, "gradient_checkpointing", False)]
    for layer in layers:
        layer.enable_adapters(False)
    for module in checkpointed:
        module.gradient_checkpointing = False  # type: ignore
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for module in checkpointed:
            module.gradient_checkpointing = True  # type: ignore


def reference(generator: Any, frozen_copy: Callable[[], Any]) -> Any:
    """The generator with its adapter switched off inside `predict`, or a frozen copy where there is no adapter."""
    if not adapters(generator.network):
        return frozen_copy()
    base = copy.copy(generator)
    base.around = adapters_off
    return base


def weights(network: nn.Module) -> dict[str, Tensor]:
    """The adapter in peft's keys with alpha / rank multiplied into B, so that every reader takes scale 1."""
    from peft import get_peft_model_state_dict

    scaling = {name: layer.scaling[NAME] for name, layer in network.named_modules() if NAME in _scaling(layer)}
    state = get_peft_model_state_dict(network, adapter_name=NAME)
    scaled = {}
    for key, value in state.items():
        owner, _, part = key.partition(".lora_")
        scaled[key] = (value * scaling[owner] if part.startswith("B") else value).detach().cpu().contiguous()
    return scaled


def _scaling(layer: nn.Module) -> dict[str, float]:
    found = getattr(layer, "scaling", None)
    return found if isinstance(found, dict) else {}


def write(pipeline_class: Any, component: str, network: nn.Module, folder: str | os.PathLike) -> None:
    """`FILE` in the layout that `load_lora_weights` of this pipeline class reads; aMUSEd's has none, and its network
    reads the same layout with `load_lora_adapter`."""
    if not hasattr(pipeline_class, "save_lora_weights"):
        named = {f"{component}.{key}": value for key, value in weights(network).items()}
        save_file(named, os.path.join(folder, FILE), metadata={"format": "pt"})
        return
    layers = {f"{component}_lora_layers": weights(network)}
    pipeline_class.save_lora_weights(str(folder), weight_name=FILE, safe_serialization=True, **layers)
