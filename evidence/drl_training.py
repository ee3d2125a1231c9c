"""The trainings of drl.py: discriminators, and any method of the library from objects at hand, run by run.

A run is a folder that can be taken up again where it was left; what it ends with is TUNED in it. Nothing is looked at
on the way: all that is claimed is measured on other prompts when a run is over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tastemaker.algorithms import awm, drl, flow_grpo, nft
from tastemaker.algorithms.discriminator import Config
from tastemaker.algorithms.kept import Kept
from tastemaker.algorithms.optimise import TrainingState, begin
from tastemaker.data.batches import Dataset
from tastemaker.generators.samplers import sde
from tastemaker.protocols import Plan, Reward
from tastemaker.records import Prompt, StepRecord
from tastemaker.rewards.discriminator import Discriminator, load_discriminator
from tastemaker.workflows.discriminator import Bench, learn, told_of
from tastemaker.workflows.files import write_json
from tastemaker.workflows.follow import follow
from tastemaker.workflows.real_pictures import choose
from tastemaker.workflows.rl import scheme_of
from tastemaker.workflows.runs import open_run
from tastemaker.workflows.tuning import Together, beginning

from .drl_pictures import space
from .simulated_pool import stored

TUNED = "tuned.safetensors"
Loop = Callable[[TrainingState, Kept], Iterator[StepRecord]]


def discriminator(generator: Any, real: Dataset, config: Config, folder: Path, pairs: Path) -> Discriminator:
    """Trained once, then read from its folder. pairs: where features lie, which trainings with another R1 share."""
    if not (folder / "result.json").is_file():
        encoder = space(config.encoder)
        bench = Bench(generator, encoder, told_of(config, generator), choose(real, config), config)

        def keep(name: str, make: Callable) -> dict:
            pairs.mkdir(parents=True, exist_ok=True)
            return stored(pairs / name, make)

        def drive(records: Iterator[StepRecord], selection: Any) -> None:
            for _ in records:
                pass

        reward, result = learn(bench, keep, drive)
        folder.mkdir(parents=True, exist_ok=True)
        reward.write(folder / "model.safetensors")
        write_json(folder / "result.json", result)
    return load_discriminator(folder, space(config.encoder))


def carried_out(loop: Loop, generator: Any, config: Any, folder: Path, hidden: Collection[str] = ()) -> None:
    """Train, or go on where it was left; the generator has the tuned weights afterwards. hidden: for Muon."""
    end = folder / TUNED
    if not end.is_file():
        begun = folder if (folder / "config.yaml").is_file() else None
        run = open_run(config, folder, begun, beginning(generator))
        state, kept = begin(generator.network, config.optimiser, hidden), Kept()
        whole: Any = Together({"training": state, "round": kept})
        run.restore(whole)
        follow(run, loop(state, kept), whole, config.steps, every_seconds=60)
        state.keep_average()
        weights = {name: value.contiguous() for name, value in generator.network.state_dict().items()}
        save_file(weights, end.with_suffix(".part"))
        end.with_suffix(".part").rename(end)
    tuned(generator, folder)


def tuned(generator: Any, folder: Path) -> Any:
    """The generator with the weights that a run ended with, as they are sampled: frozen."""
    generator.network.load_state_dict(load_file(folder / TUNED))
    generator.network.eval()
    return generator


# one function per method: -> the loop that `carried_out` drives


def drl_loop(generator: Any, reward: Reward, prompts: Sequence[Prompt], config: drl.Config) -> Loop:
    base, scheme = generator.reference(), scheme_of(config, generator)
    return lambda state, kept: drl.train(generator, base, reward, prompts, None, config, state, scheme, kept)


def flow_grpo_loop(generator: Any, reward: Reward, prompts: Sequence[Prompt], config: flow_grpo.Config) -> Loop:
    base, plan = generator.reference(), Plan(sde, generator.plan.times, config.noise_level)
    return lambda state, kept: flow_grpo.train(generator, base, [reward], prompts, None, config, state, plan, kept)


def nft_loop(generator: Any, reward: Reward, prompts: Sequence[Prompt], config: nft.Config) -> Loop:
    base = generator.reference()
    return lambda state, kept: nft.train(generator, base, [reward], prompts, None, config, state, kept)


def awm_loop(generator: Any, reward: Reward, prompts: Sequence[Prompt], config: awm.Config) -> Loop:
    base = generator.reference()
    return lambda state, kept: awm.train(generator, base, [reward], prompts, None, config, state, kept)


class Operations(TorchDispatchMode):
    """Counts floating-point operations by torch's own formulas. FlopCounterMode follows modules too, and refuses
    `torch.autograd.grad` at a leaf, which is where a reward's gradient begins."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def operations(loop: Loop, generator: Any, config: Any, steps: int) -> int:
    """Floating-point operations of the first `steps` steps, forward and backward, generator and reward together.

    The generator's weights are as before afterwards.
    """
    before = {name: value.clone() for name, value in generator.network.state_dict().items()}
    state = begin(generator.network, config.optimiser)
    with Operations() as counter:
        for record in loop(state, Kept()):
            if record.step >= steps:
                break
    generator.network.load_state_dict(before)
    generator.network.zero_grad(set_to_none=True)
    return counter.total


@torch.no_grad()
def matching_loss(generator: Any, pictures: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    """(B,) the generator's own loss on pictures (B, 3, H, W) with their captions; time and noise depend on the row
    alone, so that two generators are compared on the same draws."""
    found = []
    for first in range(0, len(prompts), 32):
        rows = slice(first, first + 32)
        seeds = torch.arange(first, min(first + 32, len(prompts)))
        x1 = generator.codec.encode(pictures[rows].to(generator.device), seeds)
        found.append(generator.loss(x1, generator.caption_condition(prompts[rows]), generator.draw(x1, seeds)))
    return torch.cat(found).cpu()
