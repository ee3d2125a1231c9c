"""Trajectories of every generator that answers in scores of tokens: the verbs of `protocols.Generator` on `logits`.

A state's x is (B, N) int64, MASK where a token is not known. A step draws a token at every masked position from the
guided distribution, and the plan's sampler (unmasking.py) says which are masked again. The last vector of draws,
those that were masked again included, is what `preview` decodes, as in Show-o's release: a picture, not one with
holes, and free of network evaluations after the first step. The draws of a step are a pure function of (seed, branch,
step), so image k is the same alone or in any batch, forked children part from the next step on, and no temperature
leaks from one candidate to another. Training: the mean cross-entropy over masked positions (MaskGIT, Chang et al.
2022, arXiv 2202.04200, Eq. 1).

Letters: B batch, N tokens, V codes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NotDifferentiable, TastemakerError
from ..protocols import Codec, Condition, Draw, Plan, State
from ..randomness import stream
from ..token_probability import token_log_prob
from .guidance import guided, negative_of
from .unmasking import FACTORISED, MASK, Step, confidence, cosine_times, require_masked_plan, staying

NO_GRADIENT = (
    "masked-token generator: a drawn token has no gradient; use `train masked-grpo`, `train dpo`, `train raft` "
    "or `search best-of-n`"
)


def masked_log_prob(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Their sum over the positions where mask (B, N) is true, (B,)."""
    return (token_log_prob(logits, tokens) * mask).sum(1)


def draw_tokens(logits: Tensor, uniform: Tensor) -> Tensor:
    """(B, N, V), (B, N) in [0, 1) -> (B, N) int64, from the softmax, by the inverse of its distribution function."""
    total = logits.float().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(total, (uniform * total[..., -1])[..., None], right=True)[..., 0]
    return drawn.clamp_max(logits.shape[-1] - 1)


def random_mask(tokens: int, seed: int) -> tuple[float, np.ndarray]:
    """One picture's (time, mask (N,) bool): the masked share is cos(pi u / 2) of an even u, at least one token, at
    random positions; time is 1 minus that share."""
    numbers = stream(seed, purpose="mask")
    share, order = float(np.cos(np.pi / 2 * numbers.random())), numbers.permutation(tokens)
    return 1 - share, order < max(1, round(tokens * share))


class MaskedGenerator:
    """The verbs of a generator, written on `predict_logits`.

    network: the module that is trained; tokens: N; plan: the default sampling plan; guidance: its default.
    """

    def __init__(
        self, network: nn.Module, tokens: int, codec: Codec, plan: Plan | None = None, guidance: float = 1.0
    ):
        self.network, self.shape, self.codec, self.guidance = network, (tokens,), codec, guidance
        self.plan = plan or Plan(confidence, cosine_times(12))

    # what a family fills in

    def predict_logits(self, tokens: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(B, N) int64 -> (B, N, V). t (B,) is 1 minus the masked share."""
        raise TypeError(f"{type(self).__name__} does not say how it predicts tokens")

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        """Tensors (B, ...) for `condition.cache`."""
        return {}

    def save(self, folder: str) -> None:
        raise TypeError(f"{type(self).__name__} does not say how it is saved")

    # the verbs

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def prepare(self, condition: Condition) -> Condition:
        """The condition with its text encoded; encoding twice costs nothing."""
        if condition.cache:
            return condition
        negative = negative_of(condition) if (condition.guidance != 1).any() else None
        return replace(
            condition, cache=self.encode_text(condition), negative=self.prepare(negative) if negative else None
        )

    def start(
        self, condition: Condition, seeds: Tensor, plan: Plan | None = None, branch: Tensor | None = None
    ) -> State:
        """All masked. seeds (B,) int64; branch (B,) tells candidates of one seed apart. Raises TastemakerError for a
        plan of a flow."""
        if len(seeds) != len(condition):
            raise TastemakerError(f"expected one seed per prompt, got {len(seeds)} seeds, {len(condition)} prompts")
        plan = plan or self.plan
        require_masked_plan(plan)
        zero = torch.zeros(len(seeds), dtype=torch.int64)
        branch = zero if branch is None else branch
        x = torch.full((len(seeds), *self.shape), MASK, device=self.device)
        rows = zip(seeds.tolist(), branch.tolist())
        orders = [stream(seed, b, purpose="order").permutation(self.shape[0]) for seed, b in rows]
        memory = {"drawn": x, "order": torch.from_numpy(np.stack(orders)).to(self.device)}
        condition = self.prepare(condition)
        return State(x, zero, seeds, branch, zero, zero.float(), condition, plan, memory)

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """(B, N) int64, MASK where not known -> (B, N, V), not guided."""
        return self.predict_logits(tokens, known_share(tokens), self.prepare(condition))

    def guided_logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """(B, N) -> (B, N, V): out- + g (out+ - out-) on scores."""
        condition = self.prepare(condition)
        return guided(self.predict_logits, self.prepare, tokens, known_share(tokens), condition).float()

    def advance(self, state: State, noise: Tensor | None = None, grad: bool = False) -> State:
        """One step of every particle. noise (B, 2, N) in [0, 1): in place of the seeds' own, for tokens and order."""
        if grad:
            raise NotDifferentiable(NO_GRADIENT)
        if state.done.any():
            raise TastemakerError(
                f"cannot advance past the last of {state.plan.steps} steps; drop particles that are done"
            )
        uniform = uniforms(state) if noise is None else noise.to(state.x.device)
        with torch.no_grad():
            drawn, log_p = self.propose(state, uniform[:, 0])
        stay = state.plan.sampler(self.step_of(state, log_p, uniform[:, 1]))
        memory = {**state.memory, "drawn": drawn}
        return replace(state, x=torch.where(stay, MASK, drawn), step=state.step + 1, memory=memory)

    def propose(self, state: State, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """A token at every masked position, and the others as they are, (B, N); and log p of each, (B, N)."""
        logits = self.guided_logits(state.x, state.condition)
        drawn = torch.where(state.x == MASK, draw_tokens(logits, uniform), state.x)
        return drawn, token_log_prob(logits, drawn)

    def step_of(self, state: State, log_p: Tensor, uniform: Tensor) -> Step:
        """What the sampler sees."""
        ends = torch.tensor(state.plan.times, dtype=torch.float64)[state.step + 1].to(state.x.device)
        last, known = (state.step + 1 == state.plan.steps).to(state.x.device), state.x != MASK
        stay = staying((~known).sum(1), self.shape[0], ends, last)
        return Step(log_p, known, stay, state.memory["order"], uniform, state.step.to(state.x.device), state.plan)

    def log_prob(self, before: State, after: State) -> Tensor:
        """log p(after | before), a sum in nats over the tokens revealed, (B,); -inf where `after` cannot follow. Its
        gradient is the score function's. Raises TastemakerError where the sampler chooses by what was drawn."""
        if before.plan.sampler not in FACTORISED:
            raise TastemakerError(
                f"'{before.plan.sampler.__name__}' keeps tokens by what was drawn, which has no density: sample with "
                "`random_order` or `raster` of generators/unmasking.py"
            )
        none = torch.zeros_like(before.x, dtype=torch.float32)
        stay = before.plan.sampler(self.step_of(before, none, none))
        revealed = (before.x == MASK) & ~stay
        follows = torch.where(before.x == MASK, (after.x == MASK) == stay, after.x == before.x).all(1)
        log_p = masked_log_prob(self.guided_logits(before.x, before.condition), after.x, revealed)
        return torch.where(follows, log_p, -torch.inf)

    def preview(self, state: State, grad: bool = False) -> Tensor:
        """The picture of the last draws, (B, 3, H, W), not clamped; before the first step that of the draws it will
        make, which costs an evaluation."""
        if grad:
            raise NotDifferentiable(NO_GRADIENT)
        drawn, fresh = state.memory["drawn"], (state.step == 0).nonzero()[:, 0]
        with torch.no_grad():
            if len(fresh):
                first = state[fresh]
                at = fresh.to(drawn.device)
                drawn = drawn.index_copy(0, at, self.propose(first, uniforms(first)[:, 0])[0])
            return self.codec.decode(drawn)

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Raises NotDifferentiable: tokens have no velocity."""
        raise NotDifferentiable(NO_GRADIENT)

    def draw(self, x1: Tensor, seeds: Tensor) -> Draw:
        """A mask (B, N) bool in `noise` and 1 minus its share in `time`, both from the seeds alone."""
        times, masks = zip(*(random_mask(self.shape[0], seed) for seed in seeds.tolist()))
        return Draw(torch.tensor(times, device=x1.device), torch.from_numpy(np.stack(masks)).to(x1.device))

    def loss(self, x1: Tensor, condition: Condition, draw: Draw) -> Tensor:
        """-log p of the masked tokens given the others, a mean over the masked ones in nats, (B,)."""
        logits = self.logits(torch.where(draw.noise, MASK, x1), condition)
        return -masked_log_prob(logits, x1, draw.noise) / draw.noise.sum(1)

    def reference(self) -> MaskedGenerator:
        """A frozen copy."""
        frozen = copy.copy(self)
        frozen.network = copy.deepcopy(self.network).requires_grad_(False).eval()
        return frozen


def known_share(tokens: Tensor) -> Tensor:
    """(B, N) -> (B,)."""
    return (tokens != MASK).float().mean(1)


def uniforms(state: State) -> Tensor:
    """(B, 2, N) in [0, 1): row k is a pure function of (seed, branch, step)."""
    rows: Sequence = list(zip(state.seeds.tolist(), state.branch.tolist(), state.step.tolist()))
    shape = (2, state.x.shape[1])
    numbers = [stream(s, b, k, "unmask").random(shape, np.float32) for s, b, k in rows]
    return torch.from_numpy(np.stack(numbers)).to(state.x.device) if rows else torch.empty(0, *shape)
