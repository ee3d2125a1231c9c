"""DRL's first stage: a discriminator on frozen features, between real pictures and a generator's own
(Beltran-Velez et al. 2026, arXiv 2606.19162, section 4, Algorithm 2 and I.1).

    L = E_real[-log sigma(l)] + E_fake[-log(1 - sigma(l))] + (gamma / 2) E_real |grad_x l|^2,   l = head(phi(x), y)

At the optimum l = log q / p in the features, real over generated, so that E_fake[exp l] = 1: that figure, and not the
accuracy, says whether the logit may be trusted as a density ratio. (In the paper an encoder trained from nothing
reaches 95 % accuracy and is the worst reward.) What is kept is chosen by the held-out loss.

R1 (the last term) is taken in the space of pictures, through the encoder. With z = phi(x), J its Jacobian and
g = J^T grad_z l, the gradient of (gamma / 2) |g|^2 in the head's weights is that of

    gamma <sg(J g), grad_z l>

since J does not depend on them: one vector-Jacobian and one Jacobian-vector product through the frozen encoder, and a
second derivative of the small head alone.

What differs from the paper: a fixed set of pictures in place of a buffer that is drawn anew, so that without R1 every
picture goes through the encoder once; R1 is estimated, without bias, on `r1_pictures` of a step's real pictures.
Letters: B pairs of a batch, N pairs of a set, D features, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.epochs import Epochs
from ..errors import expect
from ..randomness import stream
from ..records import StepRecord
from .optimise import OptimiserConfig
from .selection import Selection

PRESETS = {"theory": 0.0, "default": 1e-5}  # R1's weight; DRL's lambda beside it: 1 and 10
WORLDS = ("noisy", "clean")
Encode = Callable[[Tensor], Tensor]  # (B, 3, H, W) in [0, 1] -> (B, D)
ROWS = 4096  # of one evaluation of the head where nothing is learned


@dataclass(frozen=True)
class Config:
    """What the discriminator looks through, what it is told, and on how many pictures it learns."""

    model: str = "tiny-flow"
    """the generator whose pictures are the generated ones"""
    encoder: str = "tiny-clip"
    """the frozen feature space: a name of `tastemaker models`"""
    condition: str = ""
    """what the head is told: class, none, or a reader of prompts (tiny-clip, minilm, clip:PATH); empty: what fits"""
    width: int = 512
    """W: of the map h"""
    blocks: int = 0
    """GELU residual blocks before it; 0: the paper's linear head, 2: its MLP-2"""
    pictures: int = 3000
    """N: real ones, and as many generated; fewer where the data has fewer"""
    world: str = "noisy"
    """without --data: the real pictures; noisy: as tiny-flow was trained on, clean: none of them degraded"""
    real_through_decoder: bool = False
    """real pictures are encoded and decoded first, so that what the decoder leaves cannot tell the two apart"""
    looks: int = 0
    """copies of a picture, shifted, tinted and with noise, that the logit is a mean over; the head learns from one of
    them; 0: the picture as it is, the published form"""
    look_noise: float = 0.05
    """standard deviation of a copy's noise, of pixels in [0, 1]"""
    look_shift: float = 0.05
    """the farthest that a copy is shifted, as a share of the sides"""
    look_tint: float = 0.15
    """standard deviation of what each channel of a copy is moved by as a whole"""
    prompts: str = ""
    """a prompt file for the generated pictures; empty: the real pictures' own captions or classes"""
    guidance: float = 1.0
    """of the generated pictures; 1: none, as in DRL"""
    sample_steps: int | None = None
    """of the generator's sampler; null: its own number"""
    preset: str | None = None
    """the paper's R1 weight in place of r1; theory: 0, default: 1e-5"""
    r1: float = 0.0
    """gamma: weight of the squared gradient in real pictures; above 0 every step goes through the encoder"""
    r1_range: float = 2.0
    """width of the pixels' range in which that gradient is measured; 2: [-1, 1], 1: [0, 1]"""
    r1_pictures: int = 16
    """real pictures a step that R1 is measured on"""
    steps: int = 2000
    """the most optimiser steps"""
    batch_size: int = 512
    """pairs of a real and a generated picture a step"""
    validation_share: float = 0.15
    """share of the pairs that chooses the weights and ends the training"""
    test_share: float = 0.15
    """share of the pairs that only measures"""
    validate_every: int = 10
    """steps between two validations"""
    patience: int = 15
    """validations without a better loss after which training ends"""
    seed: int = 0
    """of pictures, split, order and first weights"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=1e-4, betas=(0.9, 0.999), max_grad_norm=float("inf"))
    )

    def __post_init__(self) -> None:
        expect(self.preset is None or self.preset in PRESETS, f"a preset among {', '.join(PRESETS)}", self.preset)
        expect(self.world in WORLDS, f"a world among {', '.join(WORLDS)}", self.world)
        expect(self.width >= 1 and self.blocks >= 0, "a width of at least 1 and blocks of at least 0", self.blocks)
        expect(self.pictures >= 8, "pictures of at least 8", self.pictures)
        expect(self.r1 >= 0 and self.r1_range > 0, "r1 of at least 0 and r1_range above 0", self.r1)
        expect(self.r1_pictures >= 1, "r1_pictures of at least 1", self.r1_pictures)
        expect(self.steps >= 1 and self.batch_size >= 1, "steps and batch_size of at least 1", self.batch_size)
        shares = self.validation_share, self.test_share
        expect(
            min(shares) > 0 and sum(shares) < 1,
            "validation_share and test_share above 0, below 1 together",
            f"{shares[0]} and {shares[1]}",
        )
        expect(self.validate_every >= 1 and self.patience >= 1, "validate_every and patience of at least 1", "less")
        expect(self.sample_steps is None or self.sample_steps >= 1, "sample_steps of at least 1", self.sample_steps)

    @property
    def r1_weight(self) -> float:
        """gamma."""
        return self.r1 if self.preset is None else PRESETS[self.preset]


# objectives


def logistic(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigma(l_real) - log(1 - sigma(l_fake)), (B,): Algorithm 2. 2 log 2 where the logits are 0."""
    return F.softplus(-real) + F.softplus(fake)


def r1(slope: Tensor, moved: Tensor) -> Tensor:
    """|grad_x l|^2 / 2, (B,), with its exact gradient in the head's weights.

    slope: grad_z l (B, D), with its graph back to the head. moved: J J^T slope (B, D), a constant. The value is half
    of <moved, slope> = |J^T slope|^2, the gradient that of <sg(moved), slope>.
    """
    product = (moved.detach() * slope).sum(1)
    return product - product.detach() / 2


def feature_slope(head: nn.Module, features: Tensor, told: Tensor) -> Tensor:
    """grad_z l (B, D), differentiable in the head's weights."""
    z = features.detach().requires_grad_()
    (slope,) = torch.autograd.grad(head(z, told).sum(), z, create_graph=True)
    return slope


def picture_slope(encode: Encode, images: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """g = J^T slope (B, 3, H, W), the logit's gradient in the pictures, and J g (B, D); both without a graph.

    The second is a forward derivative, which of the kernels of attention only the plain one has.
    """
    x = images.detach().requires_grad_()
    (g,) = torch.autograd.grad(encode(x), x, slope.detach())
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        moved = forward_ad.unpack_dual(encode(forward_ad.make_dual(x, g))).tangent
    return g, moved.detach()


# training


@dataclass(frozen=True)
class Pairs:
    """Features of N pairs. Row k of both was drawn for the same prompt."""

    real: Tensor  # (N, D)
    fake: Tensor  # (N, D)
    told: Tensor  # (N,) or (N, F)

    def __len__(self) -> int:
        return len(self.real)

    def at(self, rows: Sequence[int] | Tensor | slice) -> Pairs:
        return Pairs(self.real[rows], self.fake[rows], self.told[rows])

    def to(self, device: torch.device) -> Pairs:
        return Pairs(self.real.to(device), self.fake.to(device), self.told.to(device))


@dataclass(frozen=True)
class Pixels:
    """Where R1 finds the pictures behind the features."""

    encode: Encode
    real: Callable[[Sequence[int]], Tensor]  # rows of the training pairs -> (B, 3, H, W) in [0, 1]


def train(
    head: nn.Module, pairs: Pairs, held_out: Pairs, pixels: Pixels | None, config: Config, selection: Selection
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `selection.step`, and ends where the held-out loss rises.

    pixels: needed where R1 has a weight. After the last turn `selection.keep_best()` puts the best weights into the
    head.
    """
    state, gamma = selection.state, config.r1_weight
    rows = Epochs(len(pairs), min(config.batch_size, len(pairs)), lambda epoch: _order(len(pairs), config, epoch))
    while state.step < config.steps and not selection.stale(config):
        head.train()
        chosen = rows.at(state.step)
        batch = pairs.at(chosen)
        real, fake = head(batch.real, batch.told), head(batch.fake, batch.told)
        loss, figures = logistic(real, fake).mean(), {}
        if gamma and pixels is not None:
            penalty = r1_of(head, batch, pixels, chosen[: config.r1_pictures], config.r1_range).mean()
            loss = loss + gamma * penalty
            figures["r1"] = 2 * float(penalty.detach())
        figures = state.update(loss) | figures
        if state.step % config.validate_every == 0 or state.step == config.steps:
            figures |= validate(head, held_out)
            selection.take(figures["validation_loss"])
        yield StepRecord(state.step, figures)


def r1_of(head: nn.Module, batch: Pairs, pixels: Pixels, rows: Sequence[int], width: float) -> Tensor:
    """`r1` of the batch's first real pictures, which are the training pairs' `rows`; (B,).

    width: of the pixels' range; the gradient in x width is the gradient in x over width.
    """
    slope = feature_slope(head, batch.real[: len(rows)], batch.told[: len(rows)])
    _, moved = picture_slope(pixels.encode, pixels.real(rows), slope)
    return r1(slope, moved.to(slope)) / width**2


def _order(count: int, config: Config, epoch: int):
    return stream(config.seed, step=epoch, purpose="pairs").permutation(count)


@torch.no_grad()
def logits(head: nn.Module, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """(N,) of the real and (N,) of the generated pictures."""
    head.eval()
    parts = [pairs.at(slice(first, first + ROWS)) for first in range(0, len(pairs), ROWS)]
    return torch.cat([head(p.real, p.told) for p in parts]), torch.cat([head(p.fake, p.told) for p in parts])


def validate(head: nn.Module, pairs: Pairs) -> dict[str, float]:
    """`validation_loss`, by which weights are chosen, `validation_accuracy`, which is only told, and `calibration`,
    the mean of exp(l) on generated pictures."""
    real, fake = logits(head, pairs)
    right = torch.cat([real > 0, fake < 0]).float().mean()
    return {
        "validation_loss": float(logistic(real, fake).mean()),
        "validation_accuracy": float(right),
        "calibration": float(fake.exp().mean()),
    }
