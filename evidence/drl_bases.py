"""Four small generators in the manners of SiT, JiT, REPA and RAE, for drl.py: what is the same is the world, the
captions and about the size of the network; what differs is what the network predicts, and where the flow runs.

| manner | the flow runs in | the network predicts | beside the flow's loss |
|---|---|---|---|
| sit (arXiv 2401.08740) | pictures of half the side, behind the shipped decoder | velocity | nothing |
| jit (arXiv 2511.13720) | the same | the clean picture | nothing |
| repa (arXiv 2410.06940) | the same | velocity | a hidden layer foretells tiny-clip's states of the picture |
| rae (arXiv 2510.11690) | maps of a frozen ImageNet network, behind a decoder trained for them | velocity | nothing |

Letters: B batch, N image tokens, L caption tokens, M all tokens, D width, C channels of the latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tastemaker.encoders.efficientnet_lite0 import EfficientNetLite0
from tastemaker.encoders.lite0_stages import maps
from tastemaker.encoders.tiny_clip import load_tiny_clip
from tastemaker.encoders.words import Vocabulary
from tastemaker.generators.flow import FlowGenerator
from tastemaker.generators.networks import Block, NetworkConfig, TimeEmbedding, TinyFlowNetwork
from tastemaker.generators.tiny_flow import STEPS, TinyFlow, load_tiny_flow
from tastemaker.protocols import Condition, Draw
from tastemaker.weights import shipped
from tastemaker.world.grammar import vocabulary

SHAPE = NetworkConfig(size=32, patch=4, width=96, depth=3, heads=3, channels=48)
LATENT_WIDTH, LATENT_DEPTH, LATENT_STAGE, LATENTS = 128, 3, 3, 40  # stage 3 of lite0: C = 40 maps of 8 x 8
ALIGNED_BLOCK, ALIGNMENT = 1, 0.5  # REPA: behind which block, and the weight of that loss
LENGTH = 12  # words of a caption


class OnShippedDecoder(TinyFlow):
    """JiT's manner: the clean picture is predicted. tiny-flow's decoder is taken over as it is, and not trained."""

    def __init__(self, network: nn.Module, vocabulary: Vocabulary):
        super().__init__(network, vocabulary)  # type: ignore[arg-type]
        self.decoder.load_state_dict(load_tiny_flow(shipped("tiny-flow")).decoder.state_dict())
        self.decoder.requires_grad_(False)

    @property
    def parts(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network})

    def codec_loss(self, images: Tensor, draw: Draw) -> Tensor:
        return images.new_zeros(len(images))


class Velocity(OnShippedDecoder):
    """SiT's manner: the velocity is predicted."""

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.network(x, t, condition.cache["words"]).float()


class AlignedNetwork(TinyFlowNetwork):
    """With a projector from a hidden layer to a frozen tower's states, which only the pretraining calls."""

    def __init__(self, config: NetworkConfig, words: int, length: int, states: int):
        super().__init__(config, words, length)
        width = config.width
        self.projector = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, states))


class Aligned(Velocity):
    """REPA's manner: 1 - cosine between the projected hidden tokens and tiny-clip's states of the clean picture. Both
    lie on a grid of 8 x 8."""

    network: AlignedNetwork

    def __init__(self, network: AlignedNetwork, vocabulary: Vocabulary):
        super().__init__(network, vocabulary)
        self.tower = load_tiny_clip().network.image

    def loss(self, x1: Tensor, condition: Condition, draw: Draw) -> Tensor:
        seen: list[Tensor] = []
        hook = self.network.blocks[ALIGNED_BLOCK].register_forward_hook(lambda m, i, out: seen.append(out))
        flow = super().loss(x1, condition, draw)
        hook.remove()
        if not torch.is_grad_enabled():
            return flow
        return flow + ALIGNMENT * self.misalignment(seen[0][:, -self.network.tokens :], x1)

    def misalignment(self, hidden: Tensor, x1: Tensor) -> Tensor:
        """hidden (B, N, D), x1 (B, 3, H, W) -> (B,)."""
        with torch.no_grad():
            states = self.tower.states(self.codec.decode(x1).clamp(0, 1))[:, 1:]  # (B, N, D of tiny-clip)
        return 1 - F.cosine_similarity(self.network.projector(hidden), states, dim=-1).mean(1)


class LatentNetwork(nn.Module):
    """Velocity of latents (B, C, 8, 8), one token each; captions as in `TinyFlowNetwork`."""

    def __init__(self, channels: int, side: int, width: int, depth: int, words: int, length: int):
        super().__init__()
        self.side, self.tokens = side, side**2
        self.enter, self.leave = nn.Linear(channels, width), nn.Linear(width, channels)
        self.word = nn.Embedding(words, width, padding_idx=0)
        self.place = nn.Parameter(torch.randn(1, length + self.tokens, width) * 0.1)
        self.time, self.caption = TimeEmbedding(width), nn.Linear(width, width)
        self.modulate = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, width // 32) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        for parameter in (*self.leave.parameters(), *self.modulate.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """x (B, C, S, S), t (B,), words (B, L) int64 -> (B, C, S, S)."""
        caption = self.word(words)  # (B, L, D)
        about = F.silu(self.time(t) + self.caption(caption.sum(1) / 2))
        h = torch.cat([caption, self.enter(x.flatten(2).transpose(1, 2))], 1) + self.place  # (B, M, D)
        modulation = self.modulate(about).unflatten(-1, (6, -1))
        for block in self.blocks:
            h = block(h, modulation)
        out = self.leave(self.norm(h[:, -self.tokens :]))  # (B, N, C)
        return out.transpose(1, 2).unflatten(2, (self.side, self.side))


class LatentCodec(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] to lite0's maps, centred and scaled by channel, and back by a decoder."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int = 96):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, LATENTS, 1, 1))
        self.register_buffer("scale", torch.ones(1, LATENTS, 1, 1))
        layers: list[nn.Module] = [nn.Conv2d(LATENTS, channels, 3, padding=1), nn.SiLU()]
        for _ in range(3):  # 8 -> 16 -> 32 -> 64
            narrower = max(32, channels // 2)
            layers += [nn.Conv2d(channels, 4 * narrower, 3, padding=1), nn.PixelShuffle(2), nn.SiLU()]
            channels = narrower
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))
        self.encoder: Any = [EfficientNetLite0().network]  # in a list: frozen, and no part of what is saved

    def _apply(self, *args: Any, **how: Any) -> LatentCodec:
        """The encoder moves with the decoder."""
        self.encoder[0]._apply(*args, **how)
        return super()._apply(*args, **how)

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, 8, 8), as the network has them."""
        behind = maps(self.encoder[0], images * 2 - 1)
        return next(found for k, found in enumerate(behind) if k == LATENT_STAGE)

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        found = self.maps(images)
        self.mean.copy_(found.mean((0, 2, 3), keepdim=True))
        self.scale.copy_(found.std((0, 2, 3), keepdim=True))

    @torch.no_grad()
    def encode(self, images: Tensor, seeds: Tensor | None = None) -> Tensor:
        return (self.maps(images) - self.mean) / self.scale

    def decode(self, x1: Tensor) -> Tensor:
        return self.decoder(x1) / 2 + 0.5


class Latent(FlowGenerator):
    """RAE's manner: the flow runs in a frozen encoder's maps."""

    def __init__(self, network: LatentNetwork, vocabulary: Vocabulary, codec: LatentCodec):
        shape, plan = (LATENTS, network.side, network.side), TinyFlow.native_plan(STEPS)
        super().__init__(network, shape, codec, plan, time_mean=-0.6)  # type: ignore[arg-type]
        self.vocabulary = vocabulary

    encode_text = TinyFlow.encode_text
    caption_condition = TinyFlow.caption_condition
    predict_velocity = Velocity.predict_velocity
    codec_loss = OnShippedDecoder.codec_loss

    @property
    def parts(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network})

    @property
    def hidden(self) -> list[str]:
        """Names in `parts` of the matrices inside, for Muon."""
        inside = (n for n, p in self.network.named_parameters() if p.ndim > 1 and not n.endswith("table"))
        return [f"network.{n}" for n in inside if n.split(".")[0] in ("blocks", "caption", "modulate")]


def words() -> Vocabulary:
    return Vocabulary(vocabulary(), LENGTH)
