"""drl.py, fourth part, one seed: the same discriminator followed by DRL, Flow-GRPO, DiffusionNFT and AWM.

All are given as many floating-point operations as DRL's run had, forward and backward, generator and reward together,
as torch counts them. Every other setting is the method's own default, but for the step size, which is DRL's for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tastemaker.algorithms import awm, flow_grpo, nft

from . import drl_training as training
from .drl_ablations import ratio_row, sweep
from .drl_lab import OPTIMISER, PRESETS, Lab, generator

REWARD = "default"  # the preset whose discriminator all follow
SAME = "lambda-10"  # the run of the sweep that is DRL at that preset


@dataclass(frozen=True)
class Method:
    config: Any  # with steps of one round
    loop: Callable[..., training.Loop]


def methods(strength: float) -> dict[str, Method]:
    how = {"optimiser": OPTIMISER, "pretraining_weight": 0.0, "seed": 0}
    return {
        "flow_grpo": Method(flow_grpo.Config(strength=strength, **how), training.flow_grpo_loop),
        "nft": Method(nft.Config(**how), training.nft_loop),
        "awm": Method(awm.Config(**how), training.awm_loop),
    }


def budget(lab: Lab, reward: Any) -> float:
    """Operations of one DRL run: those of a round, times the rounds."""
    made, config = generator(), lab.config(PRESETS[REWARD][0], steps=lab.scale.short)
    loop = training.drl_loop(made, reward, lab.training_prompts(0), config)
    return training.operations(loop, made, config, config.round_steps) * config.steps / config.round_steps


def trained(lab: Lab, name: str, method: Method) -> dict[str, Any]:
    """Train for the budget, in whole rounds."""
    strength, r1 = PRESETS[REWARD]
    reward, made, prompts = lab.discriminator(r1, 0), generator(), lab.training_prompts(0)
    spent = lab.once("operations-drl", lambda: {"operations": budget(lab, reward)})["operations"]
    updates = method.config.groups.updates
    one = training.operations(method.loop(made, reward, prompts, method.config), made, method.config, updates)
    rounds = max(1, round(spent / one))
    steps = rounds * updates
    ending = replace(OPTIMISER, cosine_steps=max(steps, OPTIMISER.warmup_steps + 1))
    config = replace(method.config, steps=steps, optimiser=ending)
    training.carried_out(method.loop(made, reward, prompts, config), made, config, lab.cache / name)
    return {"operations": one * rounds, "rounds": rounds, "strength": strength, **lab.about(lab.tuned(name))}


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = [ratio_row(lab, "drl_equal_compute", sweep(lab)[SAME])]
    for name, method in methods(PRESETS[REWARD][0]).items():
        about = lab.once(name, lambda name=name, method=method: trained(lab, name, method))
        one = ratio_row(lab, name, about)
        one["beside"] |= {key: about[key] for key in ("operations", "rounds", "seconds")}
        found.append(one)
    return found
