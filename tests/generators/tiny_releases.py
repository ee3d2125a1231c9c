"""Tiny random checkpoints in the layouts of the released SiT, REPA, JiT and RAE; a network that knows its data."""

from __future__ import annotations

import json
import pathlib
from types import SimpleNamespace

import torch
from small import shaken
from torch import nn

from tastemaker.generators.dit_parts import fixed_positions
from tastemaker.generators.jit import JiTConfig, JiTNetwork, jit_release
from tastemaker.generators.rae import RaeConfig, RaeNetwork, rae_release
from tastemaker.generators.rae_codec import DecoderConfig, RaeDecoder
from tastemaker.generators.sit import REPA, SIT, SiTConfig, SiTNetwork

CLASSES = 5
SIT_TINY = SiTConfig(size=4, width=16, depth=3, heads=2, hidden=24, classes=CLASSES)
REPA_TINY = SiTConfig(
    size=4, answers=4, width=16, depth=3, heads=2, hidden=24, classes=CLASSES, projectors=((8, 6),), projected=2
)
JIT_TINY = JiTConfig(
    size=8, patch=2, bottleneck=4, width=16, depth=3, heads=2, hidden=20, classes=CLASSES, context=2, context_start=1
)
RAE_TINY = RaeConfig(
    size=4, channels=8, widths=(16, 24), depths=(2, 1), heads=(2, 2), hidden=(20, 30), classes=CLASSES
)
DECODER_TINY = DecoderConfig(features=8, tokens=16, patch=2, width=12, depth=2, heads=2, hidden=16)


def networks() -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "sit": SiTNetwork(SIT_TINY),
            "repa": SiTNetwork(REPA_TINY),
            "jit": JiTNetwork(JIT_TINY),
            "rae": RaeNetwork(RAE_TINY),
        }
    return {kind: shaken(network, 1, 0.2) for kind, network in made.items()}


def write(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """The folder of a checkpoint: PyTorch files as the releases have them, settings beside, and the codec's files."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = networks()[kind].state_dict()
    if kind == "jit":
        torch.save({"model_ema1": {f"net.{k}": v for k, v in tensors.items()}}, folder / "checkpoint-last.pth")
        said = {"in_context_start": JIT_TINY.context_start}
    elif kind == "rae":
        torch.save(tensors, folder / "stage2_model.pt")
        said = {"depth": list(RAE_TINY.depths), "decoder_num_attention_heads": 2}
        write_codec(folder)
    else:
        torch.save({"ema": tensors}, folder / "last.pt")
        said = {"num_heads": 2, "encoder_depth": 2}
        write_vae(folder / "vae")
    (folder / "config.json").write_text(json.dumps(said))
    return folder


def write_vae(folder: pathlib.Path) -> None:
    """It halves a side."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
    vae.save_pretrained(folder)


def write_codec(folder: pathlib.Path) -> None:
    decoder = RaeDecoder(DECODER_TINY)
    decoder.decoder_pos_embed = fixed_positions(1, 12 * 17)
    decoder.decoder_pos_embed.data = decoder.decoder_pos_embed.data.reshape(1, 17, 12)
    torch.save(shaken(decoder, 2, 0.05).state_dict(), folder / "decoder.pt")
    torch.save({"mean": torch.full((8, 4, 4), 0.3), "var": torch.full((8, 4, 4), 4.0)}, folder / "stat.pt")


def write_dino(folder: pathlib.Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    Dinov2WithRegistersModel(config).save_pretrained(folder)


class Knowing(nn.Module):
    """Answers as the release would of data that is one picture alone, `x1` (C, H, W), in the release's own time."""

    def __init__(self, kind: str, x1: torch.Tensor, noise_scale: float = 1.0):
        super().__init__()
        self.kind, self.x1, self.config = kind, nn.Parameter(x1), SimpleNamespace(classes=CLASSES)
        self.release = {"sit": SIT, "repa": REPA, "jit": jit_release(noise_scale), "rae": rae_release(6.9)}[kind]

    def forward(self, z, t, classes):
        t = t.reshape(-1, 1, 1, 1)
        if self.kind == "jit":
            return self.x1.expand_as(z)
        return (self.x1 - z) / (1 - t) if self.kind == "sit" else (z - self.x1) / t
