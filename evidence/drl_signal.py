"""drl.py, sixth part, one seed: how much of what eight trajectories teach is what any eight would.

The gradient of DRL's loss at the base, of eight groups of eight trajectories, without and with copies of a picture
for the discriminator to look at. With g_i the gradient of group i, the share of signal is the mean of <g_i, g_j> over
pairs of groups, over the mean of |g_i|^2: 1 where all groups say the same, about 0 where they share nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tastemaker.algorithms.adjoint_buffer import shortened, terminal, trajectory
from tastemaker.algorithms.memoryless import Scheme, adjoints
from tastemaker.protocols import Condition, Reward
from tastemaker.records import Interval
from tastemaker.workflows.rl import scheme_of

from .drl_distance import GROUPS, interval
from .drl_lab import COMMAND, Lab, generator
from .rows import row

EACH = 8  # trajectories of a group
BANDS = ((0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0))
TOLD = (0.7, 0.9)  # the band of the row


def rows(lab: Lab) -> list[dict[str, Any]]:
    def measured() -> dict[str, Any]:
        rewards = {"plain": lab.discriminator(0.0, 0, looks=0), "copies": lab.discriminator(0.0, 0)}
        return {name: shares(lab, reward) for name, reward in rewards.items()}

    found = lab.once("signal", measured)
    value = Interval(**found["copies"][f"{TOLD[0]:g} to {TOLD[1]:g}"])
    beside = {name: found[name] for name in ("plain", "copies")}
    return [row("signal_share_copies", value, [value.value], (0,), COMMAND, None, beside, unit="share")]


def shares(lab: Lab, reward: Reward) -> dict[str, Any]:
    made, config = generator(), lab.config(1.0)
    scheme = scheme_of(config, made)
    condition = made.prepare(Condition.of(lab.training_prompts(0)[: GROUPS * EACH]))
    parts = [drawn(made, reward, condition[rows], rows, scheme) for rows in torch.arange(GROUPS * EACH).split(16)]
    x, a = (torch.cat(part, 1) for part in zip(*parts))  # (T, N, ...) both
    a = shortened(a, torch.ones(x.shape[1], dtype=torch.bool, device=a.device), config.adjoint_cut)
    return {f"{low:g} to {high:g}": share(made, condition, x, a, scheme, (low, high)) for low, high in BANDS}


def drawn(made: Any, reward: Reward, condition: Condition, rows: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        states = trajectory(made, condition, rows, scheme.plan)
    last, _ = terminal(made, reward, states[-1], 1.0)
    x = [state.x for state in states]
    back = adjoints(scheme, lambda x, t: made.velocity(x, t, condition), x, last)
    return torch.stack(x[:-1]), torch.stack(back[:-1])


def share(made: Any, condition: Condition, x: Tensor, a: Tensor, scheme: Scheme, band: tuple[float, float]) -> Any:
    """Of the two outer steps of the band; at the base the loss's gradient is that of <v, a>, up to a factor."""
    inside = [k for k in scheme.trained if band[0] <= scheme.times[k] < band[1]]
    weights = [p for p in made.network.parameters() if p.requires_grad]
    found = []
    for rows in torch.arange(x.shape[1]).split(EACH):
        said = x.new_zeros(())
        for k in {inside[0], inside[-1]}:
            v = made.velocity(x[k, rows], x.new_full((len(rows),), scheme.times[k]), condition[rows])
            said = said + scheme.weight[k] ** 2 * scheme.gain[k] * scheme.spread[k] * (v * a[k, rows]).sum() / EACH
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(said, weights)]))
    products = (torch.stack(found) @ torch.stack(found).T).cpu().numpy()

    def figure(rows: np.ndarray) -> float:
        part = products[np.ix_(rows, rows)]
        own = np.trace(part)
        return float((part.sum() - own) / (len(rows) - 1) / own)

    every = np.arange(GROUPS)
    return interval(np.array([figure(every), *(figure(every[every != k]) for k in every)]), GROUPS)
