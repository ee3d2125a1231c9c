"""drl.py, second part, one seed each and therefore exploratory: what lambda and R1 do, what a reward is worth that
learned from nothing, and what cannot be had from the tuned model's pictures alone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from tastemaker.algorithms import sft
from tastemaker.algorithms.optimise import OptimiserConfig
from tastemaker.algorithms.rollout import ScoredPictures
from tastemaker.data.batches import Batches
from tastemaker.evaluation.intervals import paired_difference
from tastemaker.picture_bytes import as_bytes
from tastemaker.randomness import mix
from tastemaker.records import Interval
from tastemaker.sampling import sample_batches
from tastemaker.workflows.configs import plain
from tastemaker.world.dataset import clean_world, noisy_world

from . import drl_gain
from . import drl_training as training
from .drl_distance import log_ratio, ratio_interval
from .drl_lab import COMMAND, PRESETS, Lab, figure, generator
from .drl_pictures import HELD_OUT, TRAINED, WORLD
from .drl_scratch import scratch
from .rows import row
from .simulated_pool import stored

R1 = 1e-5  # of the sweep of lambda, as in the paper
STRENGTHS = (10.0, 30.0)
WEIGHTS = (0.0,)  # of R1 at lambda = 10, beside the default's 1e-5
MATCHED = 512  # held-out drawings that the matching loss is measured on
SFT = OptimiserConfig(learning_rate=3e-4, warmup_steps=5)


def sweep(lab: Lab) -> dict[str, dict[str, Any]]:
    """Name -> the record of one run, for other values of lambda and R1; all are short but for `whole` ones."""
    short, whole = lab.scale.short, lab.scale.steps
    wanted = {f"lambda-{strength:g}": (strength, R1, short) for strength in STRENGTHS}
    wanted |= {f"r1-{weight:.0e}": (10.0, weight, short) for weight in WEIGHTS}
    wanted |= {"theory": (*PRESETS["theory"], short), "lambda-30-whole": (30.0, R1, whole)}

    def trained(name: str, strength: float, r1: float, steps: int) -> dict[str, Any]:
        lab.drl(name, lambda: lab.discriminator(r1, 0), strength, steps=steps)
        return {"lambda": strength, "r1": r1, **lab.about(lab.tuned(name, scored=steps == whole))}

    return {name: lab.once(name, lambda name=name, how=how: trained(name, *how)) for name, how in wanted.items()}


def from_scratch(lab: Lab) -> dict[str, Any]:
    """DRL at lambda = 10 after a discriminator whose encoder had seen nothing else."""

    def trained() -> dict[str, Any]:
        reward = scratch(generator(), lab.real(0), lab.scale.pairs, lab.cache / "scratch-reward")
        lab.drl("scratch", lambda: reward, 10.0, steps=lab.scale.short)
        return {"lambda": 10.0, "held_out_accuracy": reward.accuracy, **lab.about(lab.tuned("scratch"))}

    return lab.once("scratch", trained)


def taught(lab: Lab) -> dict[str, Any]:
    """tiny-flow trained by flow matching on pictures of the teacher's, for about as long as that took."""
    prompts = lab.training_prompts(0)[: lab.scale.pairs]

    def draw() -> dict[str, torch.Tensor]:
        seeds = [mix(WORLD, 2, k) for k in range(len(prompts))]
        parts = sample_batches(drl_gain.teacher(lab), prompts, seeds, guidance=1.0, batch=32)
        return {"images": torch.cat([as_bytes(part).cpu() for part in parts])}

    def trained() -> dict[str, Any]:
        images = stored(lab.cache / "teacher", draw)["images"]
        dataset = ScoredPictures(images, tuple(prompts), torch.zeros(len(prompts)))
        learner, steps = generator(), 2 * lab.scale.steps
        config = sft.Config(steps=steps, batch_size=32, pretraining_weight=0.0, optimiser=SFT)
        kept = Batches(dataset, config.batch_size, 0)
        training.carried_out(
            lambda state, _: sft.train(learner, kept, None, config, state), learner, config, lab.cache / "sft"
        )
        return {"pictures": len(prompts), "steps": steps, **lab.about(lab.tuned("sft"))}

    return lab.once("sft", trained)


def matching(lab: Lab) -> dict[str, Any]:
    """The flow's own loss on held-out pictures with true captions, tuned minus base, on the same draws."""
    kinds = {"clean": clean_world(WORLD + 3), "as pretrained on": noisy_world(WORLD + 3, wrong_captions=0.0)}

    def compared() -> dict[str, Any]:
        found = {}
        for kind, world in kinds.items():
            pictures, prompts = zip(*(world[k] for k in range(min(MATCHED, lab.count))))
            base, tuned = (
                training.matching_loss(made, torch.stack(pictures), prompts)
                for made in (generator(), drl_gain.teacher(lab))
            )
            texts = [prompt.text for prompt in prompts]
            found[kind] = {"base": float(base.mean()), "change": asdict(paired_difference(tuned, base, texts))}
        return found

    return lab.once("matching-loss", compared)


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = [ratio_row(lab, "scratch", from_scratch(lab)), ratio_row(lab, "sft_on_samples", taught(lab))]
    found[0]["beside"]["sweep"] = plain({name: swept(lab, one) for name, one in sweep(lab).items()})
    found[1]["beside"]["matching_loss"] = matching(lab)
    return found


def swept(lab: Lab, made: dict[str, Any]) -> dict[str, Any]:
    spaces = {space: ratio_of(lab, made, space) for space in (HELD_OUT, TRAINED)}
    return {"lambda": made["lambda"], "r1": made["r1"], "coverage": made["spaces"][TRAINED]["coverage"][0], **spaces}


def ratio_row(lab: Lab, name: str, made: dict[str, Any]) -> dict[str, Any]:
    """Of one run, held out; beside it the other space."""
    ratios = {space: ratio_of(lab, made, space) for space in (HELD_OUT, TRAINED)}
    value = ratios[HELD_OUT]
    beside = {"lite0": ratios[TRAINED]}
    return row(f"{name}_frechet_ratio_heldout", value, [value.value], (0,), COMMAND, None, beside, unit="ratio")


def ratio_of(lab: Lab, made: dict[str, Any], space: str) -> Interval:
    """Of tiny-flow over a run, above the floor."""
    floor, base, tuned = (
        figure(one, "spaces", space, "distance") for one in (lab.clean_record(), lab.base_record(), made)
    )
    return ratio_interval(log_ratio(base, [tuned], floor), lab.count)
