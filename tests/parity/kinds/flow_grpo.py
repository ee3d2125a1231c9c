"""Flow-GRPO's step, density, clipped surrogate, KL and advantages. Theirs: sigma = 1 - t is noise, velocities point
to the noise, log-probabilities are means over the elements."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close, equal
from torch import Tensor, nn

from tastemaker.algorithms.advantages import require_groups, standardised, surrogate
from tastemaker.algorithms.flow_grpo import log_ratio, published_kl
from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import FlowGenerator, PixelCodec
from tastemaker.generators.samplers import sde
from tastemaker.protocols import Condition, Plan, State


class Given(FlowGenerator):
    """Answers with the velocities that it was given, in our sign."""

    def __init__(self, shape, plan: Plan):
        super().__init__(nn.Linear(1, 1), shape, PixelCodec(), plan)
        self.answer = torch.empty(0)

    def predict_velocity(self, x, t, condition):
        return -self.answer


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    inputs = {n: torch.from_numpy(v) for n, v in np.load(folder / "inputs.npz").items()}
    arrays = np.load(folder / "expected.npz")
    plan = Plan(sde, tuple((1 - inputs["sigmas"].double()).tolist()), config["noise_level"])
    generator = Given(inputs["sample"].shape[2:], plan)
    yield from steps(generator, inputs, arrays)
    yield from mixed(generator, inputs, arrays)
    yield from clipped(config["grpo"], inputs, arrays)
    yield from tracker(
        json.loads((folder / "inputs.json").read_text()), json.loads((folder / "expected.json").read_text())
    )


def state_at(generator: Given, x: Tensor, steps: Tensor) -> State:
    state = generator.start(Condition.of([""] * len(x)), torch.arange(len(x)))
    return State(**{**vars(state), "x": x, "step": steps})


def lengths(generator: Given, steps: Tensor) -> Tensor:
    times = torch.tensor(generator.plan.times)
    return times[steps + 1] - times[steps]


def density(generator: Given, before: State, x: Tensor) -> Tensor:
    after = State(**{**vars(before), "x": x, "step": before.step + 1})
    return generator.log_prob(before, after) / x[0].numel()


def steps(generator: Given, inputs, arrays) -> Iterator[Comparison]:
    for k, x in enumerate(inputs["sample"]):
        generator.answer, at = inputs["model_output"][k], torch.full((len(x),), k)
        before = state_at(generator, x, at)
        step, after = generator.transition(before), generator.advance(before, inputs["noise"][k])
        found = {
            "prev_sample_mean": step.mean,
            "std_dev_t": step.std / lengths(generator, at).sqrt(),
            "prev_sample": after.x,
        }
        for name, ours in found.items():
            yield close(f"{name}, step {k}", ours, arrays[name][k], rtol=1e-5, atol=1e-5)
        given = inputs["given_prev_sample"][k]
        for name, x_next in (("log_prob", torch.from_numpy(arrays["prev_sample"][k])), ("log_prob_given", given)):
            yield close(
                f"{name}, step {k}", density(generator, before, x_next), arrays[name][k], rtol=1e-5, atol=2e-5
            )
        yield from ratio_of(k, step.mean, step.std, given)


def ratio_of(k: int, mean: Tensor, std: Tensor, x: Tensor) -> Iterator[Comparison]:
    """Our log-ratio from the means beside the difference of two densities in float64."""
    other, wide = mean + 0.01 * std.reshape(-1, 1, 1, 1), std.double().reshape(-1, 1, 1, 1)
    new, old = (torch.distributions.Normal(m.double(), wide).log_prob(x.double()) for m in (mean, other))
    yield close(
        f"log-ratio, step {k}", log_ratio(mean, other, std, x), (new - old).flatten(1).sum(1), rtol=1e-3, atol=1e-3
    )


def mixed(generator: Given, inputs, arrays) -> Iterator[Comparison]:
    """The first step's rows, each at a step of its own."""
    at = torch.tensor([int((inputs["timesteps"] - t).abs().argmin()) for t in inputs["mixed_timesteps"]])
    generator.answer = inputs["model_output"][0]
    before = state_at(generator, inputs["sample"][0], at)
    step = generator.transition(before)
    yield close("mixed_mean", step.mean, arrays["mixed_mean"], rtol=1e-5, atol=1e-5)
    yield close("mixed_std", step.std / lengths(generator, at).sqrt(), arrays["mixed_std"], rtol=1e-5, atol=1e-5)
    ours = density(generator, before, inputs["given_prev_sample"][0])
    yield close("mixed_log_prob", ours, arrays["mixed_log_prob"], rtol=1e-5, atol=2e-5)


def clipped(config, inputs, arrays) -> Iterator[Comparison]:
    log_prob = inputs["grpo_log_prob"].clone().requires_grad_()
    mean, noise = inputs["grpo_mean"].clone().requires_grad_(), inputs["grpo_std_dev_t"].reshape(-1)
    log = log_prob - inputs["grpo_old_log_prob"]
    cut = inputs["grpo_advantages"].clamp(-config["adv_clip_max"], config["adv_clip_max"])
    policy = surrogate(log, cut, config["clip_range"]).mean()
    kl = published_kl(mean, inputs["grpo_mean_ref"], noise).mean()
    loss = policy + config["kl_beta"] * kl
    loss.backward()
    found = {"ratio": log.exp(), "policy_loss": policy, "kl_loss": kl, "loss": loss}
    found |= {"grad_log_prob": log_prob.grad, "grad_mean": mean.grad}
    for name, ours in found.items():
        yield close(f"grpo_{name}", ours.detach(), arrays[f"grpo_{name}"], rtol=1e-5, atol=1e-5)


def tracker(inputs, expected) -> Iterator[Comparison]:
    """Each call by itself, as after the tracker was cleared; a group of one is refused before training."""
    number = {text: k for k, text in enumerate(dict.fromkeys(inputs["prompts"]))}
    groups = torch.tensor([number[text] for text in inputs["prompts"]])
    for name, everywhere in (("per_prompt_std", False), ("global_std", True)):
        for which, rewards in (("first", "rewards_1"), ("second_after_clear", "rewards_2")):
            ours = standardised(torch.tensor(inputs[rewards], dtype=torch.float64), groups, everywhere)
            yield close(f"{name}/{which}", ours, expected[name][which], atol=1e-12)
    alone = bool((groups.bincount() == 1).any())
    yield equal("a group of one is refused", refused(groups), alone)


def refused(groups: Tensor) -> bool:
    try:
        require_groups(groups)
    except TastemakerError:
        return True
    return False
