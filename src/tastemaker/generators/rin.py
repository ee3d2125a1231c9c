"""The recurrent interface network of MIRO's release (Jabri et al. 2022, arXiv 2212.11972; Dufour et al. 2025, arXiv
2510.25897), under the names of its checkpoint's keys.

Few latents read from many data tokens, think, and write back. Reward tokens, registers and text tokens pass through
two blocks of self-attention; each block's latents attend to these and to the time before they read. The latents that
an evaluation ends with may be handed to the next one. Letters: B batch, N data tokens, Z latents, L text tokens,
R rewards, D width, d width of one head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError
from .dit_parts import rms_norm

MIXING = 2  # blocks of self-attention over the conditions
MIXING_HEADS = 16
FIXED: dict[str, Any] = {
    "use_cond_rin_block": True,
    "concat_cond_token_to_latents": False,
}  # of all that was released


@dataclass(frozen=True)
class RinConfig:
    """Sizes, under the release's names; the defaults are those of its 360 M network."""

    data_size: int = 32
    data_dim: int = 512
    num_input_channels: int = 4
    num_latents: int = 256
    latents_dim: int = 1024
    label_dim: int = 2048
    num_processing_layers: int = 4
    num_blocks: int = 4
    patch_size: int = 2
    read_write_heads: int = 16
    compute_heads: int = 32
    latent_mlp_multiplier: int = 4
    data_mlp_multiplier: int = 4
    num_text_registers: int = 16
    coherence_keys: tuple[str, ...] = ()  # R rewards
    use_self_conditioning: bool = True

    @classmethod
    def of(cls, said: Mapping[str, Any], origin: str) -> RinConfig:
        """From the `network` of a config.json; what only training reads is passed over. Raises TastemakerError where
        a network of another layout is described, or one without rewards."""
        other = [f"{k}={said[k]}" for k, v in FIXED.items() if said.get(k, v) != v]
        if other or not said.get("coherence_keys"):
            raise TastemakerError(
                f"{origin} describes a network of another layout ({', '.join(other) or 'no coherence_keys'}); "
                "expected one of MIRO's released checkpoints"
            )
        known = {f.name for f in fields(cls)}
        sizes = {k: v for k, v in said.items() if k in known}
        return cls(**{**sizes, "coherence_keys": tuple(said["coherence_keys"])})


class Waves(nn.Module):
    """(B,) -> (B, D): cosines of random frequencies and phases, in float32."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(width))
        self.register_buffer("phases", 2 * math.pi * torch.rand(width))

    def forward(self, values: Tensor) -> Tensor:
        return math.sqrt(2) * (values.float()[:, None] * self.freqs + self.phases).cos()


class ScalarEmbedder(nn.Module):
    """A time or a level (B,) -> (B, D). The waves of each row are standardised."""

    def __init__(self, width: int):
        super().__init__()
        self.encode_time = Waves(width // 4)
        self.map_time_input, self.map_time_output = nn.Linear(width // 4, width), nn.Linear(width, width)

    def forward(self, values: Tensor) -> Tensor:
        waves = self.encode_time(values)
        waves = (waves - waves.mean(-1, keepdim=True)) / waves.std(-1, keepdim=True)
        return self.map_time_output(F.silu(self.map_time_input(waves)))


class Mlp(nn.Module):
    def __init__(self, width: int, multiplier: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, multiplier * width), nn.Linear(multiplier * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x)))


class GatedMlp(nn.Module):
    """SwiGLU with two thirds of the hidden width, rounded up to a multiple of 256."""

    def __init__(self, width: int, multiplier: int):
        super().__init__()
        hidden = -(-int(multiplier * width * 2 / 3) // 256) * 256
        self.linear_packed, self.linear_out = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.linear_packed(x).chunk(2, -1)
        return self.linear_out(value * F.silu(gate))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads d) -> (B, heads, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """plain: biases and no norm of queries and keys, as where the conditions are mixed."""

    def __init__(self, width: int, heads: int, plain: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=plain), nn.Linear(width, width)
        norms = (nn.Identity() if plain else nn.LayerNorm(width // heads, eps=1e-6) for _ in range(2))
        self.q_norm, self.k_norm = norms

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, visible)
        return self.out(x.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """The inner width is the smaller of the two."""

    def __init__(self, width: int, source: int, heads: int):
        super().__init__()
        inner, self.heads = min(width, source), heads
        self.q, self.kv = nn.Linear(width, inner, bias=False), nn.Linear(source, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.q_norm, self.k_norm = (nn.LayerNorm(inner // heads, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor, source: Tensor, visible: Tensor | None = None) -> Tensor:
        q = split_heads(self.q(x), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.kv(source).chunk(2, -1))
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, visible)
        return self.out(x.transpose(1, 2).flatten(2))


class _Masked(nn.Module):
    """The release keeps a mask of one place among the weights of every block."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("attention_mask_dummy", torch.ones(1, 1, dtype=torch.bool))


class CrossBlock(_Masked):
    def __init__(self, width: int, source: int, heads: int, multiplier: int):
        super().__init__()
        self.initial_to_ln, self.middle_ln = rms_norm(width), rms_norm(width)
        self.ca, self.ffn = CrossAttention(width, source, heads), GatedMlp(width, multiplier)

    def forward(self, x: Tensor, source: Tensor, visible: Tensor | None = None) -> Tensor:
        """visible (B, 1, 1, tokens of the source) bool."""
        x = x + self.ca(self.initial_to_ln(x), source, visible)
        return x + self.ffn(self.middle_ln(x))


class SelfBlock(_Masked):
    def __init__(self, width: int, heads: int, multiplier: int):
        super().__init__()
        self.initial_ln, self.middle_ln = rms_norm(width), rms_norm(width)
        self.sa, self.ffn = SelfAttention(width, heads), GatedMlp(width, multiplier)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sa(self.initial_ln(x))
        return x + self.ffn(self.middle_ln(x))


class MixingBlock(_Masked):
    """Of the conditions among each other, with scaled layers."""

    def __init__(self, width: int):
        super().__init__()
        self.initial_ln, self.middle_ln = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.sa, self.ffn = SelfAttention(width, MIXING_HEADS, plain=True), Mlp(width, 4)
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(torch.full((width,), 0.1)) for _ in range(2))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = x + self.layer_scale_1 * self.sa(self.initial_ln(x), visible)
        return x + self.layer_scale_2 * self.ffn(self.middle_ln(x))


class RinBlock(nn.Module):
    def __init__(self, config: RinConfig):
        super().__init__()
        data, width, heads = config.data_dim, config.latents_dim, config.read_write_heads
        times = config.latent_mlp_multiplier
        self.retrieve_cond = CrossBlock(width, width, heads, times)
        self.retriever_ca = CrossBlock(width, data, heads, times)
        self.processer_sa = nn.ModuleList(
            SelfBlock(width, config.compute_heads, times) for _ in range(config.num_processing_layers)
        )
        self.writer_ca = CrossBlock(data, width, heads, config.data_mlp_multiplier)

    def forward(self, data: Tensor, latents: Tensor, about: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.retriever_ca(self.retrieve_cond(latents, about, visible), data)
        for think in self.processer_sa:
            latents = think(latents)
        return self.writer_ca(data, latents), latents


class Rin(nn.Module):
    def __init__(self, config: RinConfig):
        super().__init__()
        self.config, width, data = config, config.latents_dim, config.data_dim
        pixels, rewards = config.num_input_channels * config.patch_size**2, len(config.coherence_keys)
        self.patch_extractor, self.data_ln = nn.Linear(pixels, data), rms_norm(data)
        self.data_pos_embedding = begun((config.data_size // config.patch_size) ** 2, data)
        self.latents, self.time_embedder = begun(config.num_latents, width), ScalarEmbedder(width)
        self.transformers_blocks = nn.ModuleList(MixingBlock(width) for _ in range(MIXING))
        self.coherence_embedder = nn.ModuleDict(
            {f"{k}_coherence": ScalarEmbedder(width) for k in config.coherence_keys}
        )
        self.coherence_positional_embedding = begun(rewards, width)
        self.map_text_tokens = nn.Linear(config.label_dim, width)
        self.text_registers = begun(config.num_text_registers, width)
        if config.use_self_conditioning:
            self.ln_previous_1, self.ln_previous_2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
            self.linear_previous = Mlp(width, config.latent_mlp_multiplier)
        self.rin_blocks = nn.ModuleList(RinBlock(config) for _ in range(config.num_blocks))
        self.map_tokens_to_patches = nn.Sequential(rms_norm(data), nn.Linear(data, pixels))
        always = config.num_text_registers + rewards
        self.register_buffer("registers_coherence_mask", torch.ones(always, dtype=torch.bool))
        self.register_buffer("cond_mask", torch.ones(always + 1, dtype=torch.bool))

    def forward(
        self, x: Tensor, t: Tensor, levels: Tensor, text: Tensor, mask: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W), t (B,) with 1 = data, levels (B, R), NaN where one is missing, text (B, L, T), mask (B, L)
        bool, previous (B, Z, D) latents or zeros -> (B, C, H, W) and the latents (B, Z, D)."""
        p, side = self.config.patch_size, x.shape[-1] // self.config.patch_size
        patches = x.unflatten(3, (side, p)).unflatten(2, (side, p)).permute(0, 2, 4, 3, 5, 1)  # (B, h, w, p, p, C)
        data = self.data_ln(self.patch_extractor(patches.flatten(3).flatten(1, 2))) + self.data_pos_embedding
        time, conditions = self.time_embedder(t)[:, None], self.conditions(levels, text, mask)
        latents = self.latents + time + self.remembered(previous)
        about, visible = torch.cat([time, conditions], 1), self._visible(mask, self.cond_mask)
        for block in self.rin_blocks:
            data, latents = block(data, latents, about, visible)
        out = self.map_tokens_to_patches(data).unflatten(2, (p, p, -1)).unflatten(1, (side, side))
        return out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3), latents

    def conditions(self, levels: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """(B, R + registers + L, D). A missing level has its place alone, as in the release's sampling."""
        rewards = torch.stack([embed(levels[:, j]) for j, embed in enumerate(self.coherence_embedder.values())], 1)
        rewards = torch.where(levels.isnan()[..., None], 0.0, rewards) + self.coherence_positional_embedding
        registers = self.text_registers.expand(len(text), -1, -1)
        tokens = torch.cat([rewards, registers, self.map_text_tokens(text)], 1)
        visible = self._visible(mask, self.registers_coherence_mask)
        for block in self.transformers_blocks:
            tokens = block(tokens, visible)
        return tokens

    def remembered(self, previous: Tensor) -> Tensor | float:
        if not self.config.use_self_conditioning:
            return 0.0
        return self.ln_previous_2(previous + self.linear_previous(self.ln_previous_1(previous)))

    def _visible(self, mask: Tensor, always: Any) -> Tensor:
        """(B, 1, 1, tokens): padding of the text is not seen."""
        return torch.cat([always.expand(len(mask), -1), mask], 1)[:, None, None]


def begun(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02, a=-0.04, b=0.04))
