"""Checkpoints of MIRO's release (Dufour et al. 2025, arXiv 2510.25897): `miro:FOLDER`, with pictures of 256 x 256.

The folder has config.json, model.safetensors and uncond_embedding.npy, as released, and beside them what the release
downloads: `vae`, a diffusers AutoencoderKL (SDXL's), and `text_encoder` with `tokenizer` (FLAN-T5-XL's encoder).

The release answers noise - data at x_t of our time, with its input divided by the deviation of x_t for data of
deviation sigma, and its output multiplied by sqrt(1 + sigma^2). Each evaluation begins with the latents that the one
before ended with; `advance` hands them on, for both branches of guidance. As in the release all rewards are asked for
at level 1, the other branch has level 0 and no caption, and w = 7; `with_caption_kept` gives the paper's equation.
Letters: B batch, L text tokens, T width of the text, Z latents, D width.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..encoders.official import assemble, read_json, read_tensors
from ..errors import TastemakerError
from ..protocols import Condition, Plan, State
from .class_checkpoints import Checkpoint, vae_codec, vae_folder
from .diffusers_common import VaeCodec
from .diffusers_load import require
from .flow import uniform_times
from .paths import expand
from .reward_targets import with_caption_emptied
from .rin import Rin, RinConfig, Waves
from .samplers import euler
from .told import Scale, ToldRewards

BINS = 64
STEPS = 50
TOKENS = 77


class Released(nn.Module):
    """All that lies in model.safetensors. The uncertainty of the loss is only trained with, and kept for saving."""

    def __init__(self, config: RinConfig, channels: int):
        super().__init__()
        self.network = Rin(config)
        self.preconditioning = nn.ModuleDict({"logvar_proj": nn.Sequential(Waves(channels), nn.Linear(channels, 1))})
        self.data_preprocessing, self.postprocessing = Affine(config), Affine(config)


class Affine(nn.Module):
    """x1 = scale z + bias, channel by channel, of the VAE's latent z."""

    scale: Tensor
    bias: Tensor

    def __init__(self, config: RinConfig):
        super().__init__()
        shape = (1, config.num_input_channels, 1, 1)
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("bias", torch.zeros(shape))


class Texts:
    """FLAN-T5's states of captions, padded to one length, with the mask of what is no padding."""

    def __init__(self, encoder: Any, tokenizer: Any, empty: Tensor, length: int):
        """empty (L, T): the states of the empty caption."""
        self.encoder, self.tokenizer, self.length = encoder, tokenizer, length
        self.empty = empty[:length]

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(B, L, T), (B, L) bool."""
        said = self.tokenizer(
            texts, return_tensors="pt", padding="max_length", max_length=self.length, truncation=True
        ).to(self.encoder.device)
        mask = said["attention_mask"].bool()
        states = self.encoder(input_ids=said["input_ids"], attention_mask=said["attention_mask"])[0].float()
        blank = torch.tensor([not text for text in texts], device=states.device)
        short = len(self.empty)
        states[blank], mask[blank] = 0.0, False
        states[blank, :short], mask[blank, :short] = self.empty.to(states), True
        return states, mask


class MiroRelease(ToldRewards):
    """A flow in SDXL's latents that is told the rewards of `config.json`."""

    network: Rin

    def __init__(self, released: Released, said: Mapping[str, Any], codec: VaeCodec, texts: Texts):
        network: Any = released.network
        config, preset = network.config, said.get("sampler_defaults", {})
        shape = (config.num_input_channels, config.data_size, config.data_size)
        guidance = 1 + float(preset.get("guidance_scale", 7.0))
        plan = Plan(euler, uniform_times(int(preset.get("num_steps", STEPS))))
        super().__init__(network, shape, codec, plan, guidance)
        self.released, self.said, self.texts = released, said, texts
        self.sigma = float(said.get("preconditioning", {}).get("sigma_data", 0.5))
        rewards = config.coherence_keys
        self.scale = Scale(rewards, BINS, (), torch.empty(0, len(rewards)))
        self.positive, self.negative = torch.ones(len(rewards)), torch.zeros(len(rewards))
        self.ask = with_caption_emptied

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        texts = [p.text for p in condition.prompts]
        distinct = list(dict.fromkeys(texts))
        rows = torch.tensor([distinct.index(text) for text in texts])
        states, mask = self.texts(distinct)
        config = self.network.config
        nothing = torch.zeros(len(texts), config.num_latents, config.latents_dim)
        found = {"text": states[rows.to(states.device)], "mask": mask[rows.to(mask.device)], "latents": nothing}
        return {"levels": self.levels_of(condition), **{k: v.to(self.device) for k, v in found.items()}}

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.answer(x, t, condition)[0]

    def answer(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """The velocity, and the latents (B, Z, D) that the evaluation ended with."""
        gain = ((t * self.sigma) ** 2 + (1 - t) ** 2).rsqrt()
        cache = condition.cache
        out, latents = self.network(
            x * expand(gain, x), t, cache["levels"], cache["text"], cache["mask"], cache["latents"]
        )
        return -math.sqrt(1 + self.sigma**2) * out.float(), latents

    def advance(self, state: State, noise: Tensor | None = None, grad: bool = False) -> State:
        """One step, from the latents of the step before to those of this one's first evaluation."""
        heard: list[Tensor] = []

        def listening(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            velocity, latents = self.answer(x, t, condition)
            heard.append(latents.detach())
            return velocity

        made: Any = copy.copy(self)
        made.predict_velocity = listening
        after = ToldRewards.advance(made, state, noise, grad)
        return replace(after, condition=remembering(after.condition, heard[0]))

    def save(self, folder: str | os.PathLike) -> None:
        """The three files of the release, float32, with the places of VAE and text encoder in config.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.released.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        np.save(folder / "uncond_embedding.npy", self.texts.empty.cpu().numpy())
        (folder / "config.json").write_text(json.dumps(dict(self.said), indent=1) + "\n", encoding="utf-8")


def remembering(condition: Condition, latents: Tensor) -> Condition:
    """The condition and its negative with the latents that each ended with: (B + guided rows, Z, D)."""
    rows, other = len(condition), condition.negative
    own = replace(condition, cache={**condition.cache, "latents": latents[:rows]})
    if other is None or not other.cache or len(latents) == rows:
        return own
    kept = other.cache["latents"].clone()
    kept[(condition.guidance != 1).to(kept.device)] = latents[rows:]
    return replace(own, negative=replace(other, cache={**other.cache, "latents": kept}))


def load(
    path: str | os.PathLike, vae: str | os.PathLike | None = None, text: str | os.PathLike | None = None
) -> MiroRelease:
    """From a folder, strict keys. vae, text: folders of the VAE, and of text encoder and tokenizer, if they lie
    elsewhere. Raises TastemakerError where a file is missing, broken or of another layout; MissingExtra without
    diffusers or transformers."""
    folder = Path(path)
    said, file = read_json(folder / "config.json"), folder / "model.safetensors"
    config = RinConfig.of(said.get("network", {}), str(folder / "config.json"))
    channels = int(said.get("preconditioning", {}).get("logvar_channels", 128))
    tensors = read_tensors(file)
    released = assemble(lambda: Released(config, channels), tensors, str(file))
    released.network.requires_grad_(True)
    place = vae_folder(Checkpoint(file, tensors, said), vae)
    codec, after = vae_codec(place, config.data_size), released.postprocessing
    codec.gain, codec.offset = 1 / after.scale[0], -after.bias[0] / after.scale[0]
    home = Path(text or said.get("text") or folder).resolve()
    texts = _texts(home, _empty(folder), int(said.get("max_text_len", TOKENS)))
    return MiroRelease(released, {**said, "vae": str(place), "text": str(home)}, codec, texts)


def _texts(folder: Path, empty: Tensor, length: int) -> Texts:
    require("transformers")
    from transformers import AutoTokenizer, T5EncoderModel

    try:
        encoder: Any = T5EncoderModel.from_pretrained(str(folder / "text_encoder"), local_files_only=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TastemakerError(
            f"cannot read the text encoder of {folder}: {reason}; expected google/flan-t5-xl's in 'text_encoder' and "
            "'tokenizer'"
        ) from error
    return Texts(encoder.float().eval().requires_grad_(False), tokenizer, empty, length)


def _empty(folder: Path) -> Tensor:
    """(L, T)."""
    file = folder / "uncond_embedding.npy"
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TastemakerError(
            f"cannot read {file}: {error}; it is the text encoder's answer to an empty caption"
        ) from None
    return torch.from_numpy(np.atleast_2d(found).astype(np.float32))
