"""DRL's second stage: KL-regularised reinforcement learning by adjoint matching with the local-linear integrator
(Beltran-Velez et al. 2026, arXiv 2606.19162; adjoint matching: Domingo-Enrich et al. 2024, arXiv 2409.08861).

    max_p E_p[r] - (1 / lambda) KL(p || p_base),  reached at  p(x) = p_base(x) exp(lambda r(x)) / Z

in its path form, on the memoryless process of `memoryless.py`:

    a_T = -lambda grad r(x_T),   a_0 .. a_{T-1} carried back by the base's vector-Jacobian products     (Eq. 31)
    L   = 1 / (2 |S|) sum_{k in S} |(2 / sigma_k) (v - v_base)(x_k, t_k) + sigma_k a_k|^2               (Eq. 32)

The square is a sum over the elements of x, and r is the reward as it is, not standardised: lambda = 1 with the logit
of a calibrated discriminator aims at the data's own distribution in its features. In DRL the reward is that logit;
any differentiable reward may stand there, for example a preference after DRL with the DRL model as the base
(section 5). Trajectories are drawn by the policy as it is, kept with their adjoints and trained on several times.

What differs from the paper: the adjoint is the exact transpose of the steps (see memoryless.py for why; the paper's
is integrator=published); the outlier mask compares with the threshold as it stood before the step, so that a step can
be computed in pieces; loss norms are roots, as in the code of adjoint matching; a step draws |S| of the T times, and
its trajectories share them. Guidance is off: it breaks the relation between the process and the ODE (Appendix B).
Pictures are not clamped before they are judged, since a clamp has no gradient outside. Needs of the generator:
`velocity`, a trajectory, `preview(grad=True)`, `reference()`. Needs of the reward: differentiable. Letters: B rows of
a piece, N trajectories of the buffer, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..protocols import Condition, Reward
from ..randomness import mix, stream
from ..ranks import beside, gather, own, rank, world
from ..records import Prompt, StepRecord
from .adjoint_buffer import buffer_bytes, checked, on_host, shortened, with_adjoints
from .anchor import captioned_data
from .kept import Kept, require_memory, update_in_pieces, with_anchor
from .memoryless import (
    Scheme,
    euler_maruyama_scheme,
    in_data_units,
    in_velocity_units,
    local_linear_scheme,
    matching,
    published_scheme,
    require_memoryless,
)
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .rollout import require_gradient
from .tuning import TuningConfig

EARLY = 0.6  # half of a step's times are drawn before this t, half after (Appendix H)
INTEGRATORS = {
    "local-linear": local_linear_scheme,
    "published": published_scheme,
    "euler-maruyama": euler_maruyama_scheme,
}
NATIVE = "native"
WEIGHTINGS: dict[str, Callable[[Scheme], Scheme]] = {
    "data": in_data_units,
    "velocity": in_velocity_units,
    "path": lambda scheme: scheme,
}
PRESETS: dict[str, dict[str, Any]] = {
    "theory": {"strength": 1.0},  # for a discriminator without R1: SiT's Inception distance from 9.38 to 2.62
    "default": {"strength": 10.0},  # for one with an R1 weight of 1e-5: SiT's DINOv2 distance from 242 to 54
    "quick": {  # four rounds of 16 steps; docs/rl.md has its duration and its effect
        "steps": 64,
        "integration_steps": 16,
        "time_share": 0.25,
        "epochs": 4,
        "first_time": 0.3,
        "adjoint_cut": 2.0,
        "weighting": "velocity",
        "optimiser": {"learning_rate": 3e-4, "warmup_steps": 5, "ema_decay": 0.9, "cosine_steps": 64},
    },
}


@dataclass(frozen=True)
class Config(TuningConfig):
    """DRL: how strongly, by which integrator, on how many trajectories."""

    strength: float = 1.0
    """lambda: multiplies the reward, the weight of the KL is 1 / lambda"""
    preset: str | None = None
    """several settings at once, where they are not given: theory, strength=1; default, strength=10; quick, minutes"""
    integrator: str = "local-linear"
    """local-linear; published: with the paper's adjoint; euler-maruyama; native: DDIM on the generator's own times"""
    weighting: str = "data"
    """of the steps: data or velocity, whose errors count alike at all times; path, Eq. 32 as it stands"""
    integration_steps: int = 25
    """T: steps of a trajectory; the paper takes 100 and finds 50 with local-linear about as good"""
    guidance: float = 1.0
    """1, and nothing else: guidance in training breaks the relation between the process and the ODE"""
    buffer: int = 64
    """N: trajectories drawn at once; a multiple of batch_size"""
    epochs: int = 5
    """how often each is trained on before new ones are drawn"""
    batch_size: int = 16
    """trajectories a step; captioned pictures for the pretraining loss"""
    time_share: float = 0.4
    """share of the T steps that one update takes of each trajectory, in (0, 1]"""
    first_time: float = 0.0
    """steps that begin before this t are not trained; an adjoint is noisiest there"""
    adjoint_cut: float = float("inf")
    """adjoints longer than this multiple of their step's median are shortened to it; inf: the published form"""
    quantile: float = 0.9
    """of the loss norms: what reaches its running mean is left out; 1: nothing is"""
    threshold_memory: float = 0.9
    """rho of that running mean"""
    spike_cap: float = 5.0
    """c: a quantile counts for at most this multiple of the running mean"""
    half: bool = False
    """keep trajectories in float16 and adjoints in bfloat16: half the memory"""
    rows_at_once: int = 64
    """states that one evaluation of the network sees; less: less memory"""
    pretraining_weight: float = 0.0
    """of the loss on captioned pictures; 0 is the published form"""
    seed: int = 0
    """of prompts, noise and times"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-4, warmup_steps=10, max_grad_norm=float("inf"))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.preset is None or self.preset in PRESETS, f"a preset among {', '.join(PRESETS)}", self.preset)
        expect(
            self.integrator in (*INTEGRATORS, NATIVE),
            f"a memoryless integrator, {', '.join(INTEGRATORS)} or {NATIVE}, as other noise makes the result depend "
            "on where a trajectory began",
            self.integrator,
        )
        expect(self.strength >= 0, "a strength of at least 0", self.strength)
        expect(self.weighting in WEIGHTINGS, f"a weighting among {', '.join(WEIGHTINGS)}", self.weighting)
        expect(
            self.guidance == 1,
            "guidance = 1 in DRL's training: the process and the ODE agree only without it, and the result may be "
            "sampled with guidance later",
            self.guidance,
        )
        expect(self.integration_steps >= 2, "integration_steps of at least 2", self.integration_steps)
        expect(
            self.buffer >= self.batch_size and self.buffer % self.batch_size == 0,
            f"a buffer that is a multiple of batch_size = {self.batch_size}",
            self.buffer,
        )
        expect(self.epochs >= 1 and self.rows_at_once >= 1, "epochs and rows_at_once of at least 1", self.epochs)
        expect(0 < self.time_share <= 1, "time_share in (0, 1]", self.time_share)
        expect(0 <= self.first_time < 1, "first_time in [0, 1)", self.first_time)
        expect(self.adjoint_cut > 0, "an adjoint_cut above 0", self.adjoint_cut)
        expect(0 < self.quantile <= 1, "quantile in (0, 1]", self.quantile)
        expect(0 <= self.threshold_memory < 1, "threshold_memory in [0, 1)", self.threshold_memory)
        expect(self.spike_cap > 1, "a spike_cap above 1", self.spike_cap)

    @staticmethod
    def presets() -> dict[str, dict[str, Any]]:
        """What `preset=NAME` stands for, at the command line and in a file of settings."""
        return PRESETS

    @property
    def round_steps(self) -> int:
        """Steps between two fillings of the buffer."""
        return self.epochs * self.buffer // self.batch_size


def require_buffer(config: Config, shape: Sequence[int]) -> None:
    """Raise TastemakerError where the buffer, and its copy while a checkpoint is written, cannot fit in memory."""
    require_memory(
        2 * buffer_bytes(config.buffer * beside() // world(), config.integration_steps, shape, config.half),
        f"the buffer of {config.buffer} trajectories with {config.integration_steps} steps of {tuple(shape)}",
        f"give a smaller buffer (a multiple of batch_size = {config.batch_size}), fewer integration_steps, half=true",
    )


# one update


def strata(scheme: Scheme) -> tuple[list[int], list[int]]:
    """The trainable steps that begin before t = 0.6, and the others."""
    trained = scheme.trained
    early = [k for k in trained if scheme.times[k] < EARLY - 1e-9]
    return early, trained[len(early) :]


def stratified(scheme: Scheme, share: float, seed: int, step: int) -> list[int]:
    """S: ceil(share T) of the trainable steps, half of them from before t = 0.6, without replacement."""
    early, late = strata(scheme)
    count = math.ceil(share * (len(early) + len(late)) - 1e-9)
    first = min(len(early), max(count // 2, count - len(late)))
    draw = stream(seed, step=step, purpose="times")
    chosen = [*draw.permutation(early)[:first], *draw.permutation(late)[: count - first]]
    return sorted(int(k) for k in chosen)


def running_threshold(norms: Tensor, before: float | None, quantile: float, memory: float, cap: float) -> float:
    """tau = rho tau_before + (1 - rho) min(q, c tau_before), q the quantile of the finite norms; at first q itself.
    A quantile of 1 leaves nothing out: infinity."""
    finite = norms[norms.isfinite()]
    if quantile >= 1 or not len(finite):
        return float("inf") if before is None else before
    q = float(finite.quantile(quantile))
    return q if before is None else memory * before + (1 - memory) * min(q, cap * before)


def first_threshold(kept: Kept, scheme: Scheme, config: Config) -> float:
    """Before any update v = v_base, and the loss norms of the buffer (T, N, ...) are weight_k sigma_k |a_k|."""
    norms = kept.tensors["adjoint"].float().flatten(2).norm(dim=2) * torch.tensor(scheme.spread)[:, None]
    norms = torch.where(kept.tensors["sound"], norms * torch.tensor(scheme.weight)[:, None], torch.inf)
    return running_threshold(gather(norms[scheme.trained].flatten()), None, config.quantile, 0.0, 1.0)


def within(terms: Tensor, threshold: float) -> Tensor:
    """(B,) bool: whose root is finite and below the threshold. The others stay in the mean's denominator."""
    return terms.detach().sqrt() < threshold


def batch_rows(config: Config, step: int) -> Tensor:
    """(batch_size,) int64, rising: which trajectories of the buffer this step takes, one of each of batch_size equal
    parts, so that as many lie in every process; an epoch takes every trajectory, in an order of its own."""
    each = config.buffer // config.batch_size
    epoch, turn = divmod(step % config.round_steps, each)
    draw = stream(config.seed, branch=epoch, step=step // config.round_steps, purpose="order")
    order = draw.permuted(torch.arange(config.buffer).reshape(-1, each).numpy(), axis=1)  # (batch_size, each)
    return torch.from_numpy(order[:, turn])


@dataclass
class Tally:
    """What the pieces of one update found."""

    terms: list[Tensor] = field(default_factory=list)
    kept: int = 0
    kl: float = 0.0

    def figures(self) -> dict[str, float]:
        """Mean loss norm, share of the terms that counted, and the path's KL to the base in nats."""
        norms = self.norms()
        residual = float(norms[norms.isfinite()].mean())
        return {"residual": residual, "kept_share": self.kept / len(norms), "kl": self.kl}

    def norms(self) -> Tensor:
        """Infinite for trajectories that are not to be trained on."""
        return torch.cat(self.terms).sqrt()


def losses(
    generator: Any,
    base: Any,
    kept: Kept,
    condition: Condition,
    config: Config,
    scheme: Scheme,
    step: int,
    tally: Tally,
) -> Iterator[Tensor]:
    """The loss of one update, a scalar for each piece of rows_at_once states; their sum is L."""
    x, adjoint, sound = (kept.tensors[name] for name in ("x", "adjoint", "sound"))  # (T, N, ...) twice, (N,)
    device = next(generator.network.parameters()).device
    steps = stratified(scheme, config.time_share, config.seed, step)
    weights, rows = stands_for(scheme, steps), own(batch_rows(config, step)) - rank() * x.shape[1]
    for k, part in ((k, part) for k in steps for part in rows.split(config.rows_at_once)):
        x_k, a_k = (whole[k, part].to(device).float() for whole in (x, adjoint))  # (B, ...)
        t, gain, spread = (x_k.new_full((len(part),), v[k]) for v in (scheme.times, scheme.gain, scheme.spread))
        with torch.no_grad():
            v_base = base.velocity(x_k, t, condition[part])
        v = generator.velocity(x_k, t, condition[part])
        terms = scheme.weight[k] ** 2 * matching(v, v_base, a_k, gain, spread)  # (B,)
        counted, moved = sound[part].to(device), v.detach() - v_base
        inside = within(terms, kept.figures["threshold"]) & counted
        tally.terms.append(torch.where(counted, terms.detach(), torch.inf).cpu())
        tally.kept += int(inside.sum())
        tally.kl += float(weights[k] * (gain[0] * moved[counted]).pow(2).sum() / (2 * len(rows)))
        yield torch.where(inside, terms, 0.0).sum() / (2 * len(steps) * len(rows))


def stands_for(scheme: Scheme, steps: Sequence[int]) -> dict[int, float]:
    """For an estimate of the path's KL: how many steps of its stratum a drawn one speaks for, times its duration."""
    early, late = strata(scheme)
    return {
        k: scheme.duration[k] * len(own) / len(drawn)
        for own in (early, late)
        if (drawn := [k for k in steps if k in own])
        for k in drawn
    }


def train(
    generator: Any,
    base: Any,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    scheme: Scheme,
    kept: Kept,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`, with the buffer in `kept` where its round is not over.

    base: the reference of the KL, `generator.reference()` before any update. batches: captioned pictures for the
    pretraining loss, or None. Raises NotDifferentiable for a reward without gradient, TastemakerError for a plan that
    is not memoryless, a buffer that does not fit in memory, and adjoints that explode.
    """
    require_gradient(reward)
    require_memoryless(scheme.plan)
    require_buffer(config, generator.shape)
    if not prompts:
        raise TastemakerError("no prompts to train on; expected at least one")
    generator.network.eval()
    data, condition = captioned_data(batches, config.pretraining_weight, state.step, config.workers), None
    while state.step < config.steps:
        step, number = state.step, state.step // config.round_steps
        if kept.number != number:
            kept.begin(number, *filled(generator, base, reward, prompts, config, scheme, number))
            condition = None
        if condition is None:
            condition = generator.prepare(Condition.of([prompts[i] for i in kept.tensors["prompt"].tolist()]))
        if "threshold" not in kept.figures:
            kept.figures["threshold"] = first_threshold(kept, scheme, config)
        tally = Tally()
        found = losses(generator, base, kept, condition, config, scheme, step, tally)
        seeds = own(draw_seeds(mix(config.seed, 2), step, config.batch_size))
        figures = update_in_pieces(state, with_anchor(found, generator, data, config.pretraining_weight, seeds))
        record = StepRecord(state.step, kept.figures | tally.figures() | figures)
        norms, before = gather(tally.norms()), kept.figures["threshold"]
        kept.figures["threshold"] = running_threshold(
            norms, before, config.quantile, config.threshold_memory, config.spike_cap
        )
        yield record


def filled(
    generator: Any, base: Any, reward: Reward, prompts: Sequence[Prompt], config: Config, scheme: Scheme, number: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Round `number`'s buffer by the policy as it is, with prompts drawn evenly, and its figures. Of W processes each
    draws and keeps N / W of the trajectories."""
    chosen = torch.from_numpy(
        stream(config.seed, step=number, purpose="prompts").integers(len(prompts), size=config.buffer)
    )
    seeds = draw_seeds(mix(config.seed, 1), number, config.buffer)
    parts = []
    for rows in own(torch.arange(config.buffer)).split(config.rows_at_once):
        asked = [prompts[i] for i in chosen[rows].tolist()]
        drawn = with_adjoints(generator, base, reward, asked, seeds[rows], config.strength, scheme)
        parts.append(on_host(drawn, config.half) | {"prompt": chosen[rows]})
    tensors, figures = checked(parts, reward.name)
    if config.adjoint_cut < float("inf"):
        tensors["adjoint"] = shortened(tensors["adjoint"], tensors["sound"], config.adjoint_cut)
    return tensors, figures
