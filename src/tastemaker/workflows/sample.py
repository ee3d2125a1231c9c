"""`tastemaker sample`: pictures into a folder, with a table of what they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..data.grid import save_grid
from ..data.images import save_image
from ..data.prompts import read_prompts
from ..errors import TastemakerError
from ..generators.class_flow import ClassFlow
from ..generators.flow import FlowGenerator, uniform_times
from ..generators.reward_guidance import guided_by, of_predicted_picture
from ..generators.unmasking import SAMPLERS, times_of
from ..protocols import Condition, Generator, Plan, Reward
from ..records import Prompt
from ..rewards.combine import weighted_sum
from ..rewards.table import load_rewards
from ..sampling import sample_batches, score
from ..world.grammar import evaluation_prompts
from .files import write_text
from .load import load_generator

MOST_IN_GRID = 64


def wanted_prompts(words: Sequence[str], file: Path | None) -> list[Prompt]:
    """From the command line, a file, or the embedded world where neither is given."""
    given = [Prompt.of(w) for w in words] + (read_prompts(file) if file else [])
    return given or evaluation_prompts(2)


def plan_of(generator: Generator, steps: int | None, schedule: str = "") -> Plan:
    """The generator's own plan, or the same sampler in another number of steps; schedule: of masked tokens, how many
    are known after each. Raises UnknownName for another schedule, and TastemakerError where there are no tokens."""
    if schedule:
        if generator.plan.sampler not in SAMPLERS.values():
            raise TastemakerError(f"the schedule '{schedule}' is for masked tokens; take tiny-masked or its kind")
        return replace(generator.plan, times=times_of(schedule, steps or generator.plan.steps))
    if steps is None:
        return generator.plan
    if hasattr(generator, "native_plan"):
        return generator.native_plan(steps)
    times = generator.plan.times
    return replace(generator.plan, times=uniform_times(steps, times[0], times[-1]))


@dataclass(frozen=True)
class Steering:
    """Guidance by a reward's gradient while sampling: its name, scale, first time; generators/reward_guidance."""

    reward: str
    scale: float = 1.0
    after: float = 0.1


def steered_generator(generator: Any, by: Steering | None) -> Any:
    """The generator, steered where it is asked for. Raises TastemakerError for several rewards or one without a
    gradient, and for a generator that does not answer in velocities."""
    if by is None:
        return generator
    rewards = load_rewards(by.reward)
    if len(rewards) != 1:
        raise TastemakerError(f"expected one reward to steer by, got {by.reward}")
    if not isinstance(generator, FlowGenerator):
        raise TastemakerError("guidance by a reward needs a generator that answers in velocities; use best-of-n")
    return guided_by(generator, of_predicted_picture(generator, rewards[0]), by.scale, by.after)


def sample_to_folder(
    model: str,
    words: Sequence[str],
    file: Path | None,
    seeds: Sequence[int],
    out: Path,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 16,
    by: Steering | None = None,
    ask: Callable[[Any], Any] | None = None,
    schedule: str = "",
) -> Path:
    """Every prompt with every seed: OUT/000000.png ..., OUT/pictures.jsonl, OUT/grid.png.

    ask: the loaded generator -> the same with other targets. schedule: see `plan_of`."""
    loaded = load_generator(model) if ask is None else ask(load_generator(model))
    generator = steered_generator(loaded, by)
    prompts, numbers = crossed(wanted_prompts(words, file), seeds)
    check_words(generator, prompts)
    plan = plan_of(generator, steps, schedule)
    pictures = sample_batches(generator, prompts, numbers, plan, guidance, batch)
    return write_pictures(out, (image for images in pictures for image in images), prompts, numbers)


def check_words(generator: Generator, prompts: Sequence[Prompt]) -> None:
    """Raise UnknownName for a word that the generator does not know, and TastemakerError for a prompt without a class
    where it draws classes; before anything is drawn or written."""
    vocabulary = getattr(generator, "vocabulary", None)
    if vocabulary is not None:
        vocabulary.encode([p.text for p in prompts])
    if isinstance(generator, ClassFlow):
        generator.encode_text(Condition.of(prompts))


def crossed(prompts: Sequence[Prompt], seeds: Sequence[int]) -> tuple[list[Prompt], list[int]]:
    """Each prompt with each seed."""
    return [p for p in prompts for _ in seeds], [s for _ in prompts for s in seeds]


def write_pictures(out: Path, pictures: Iterable[Tensor], prompts, seeds, more: Sequence[dict] = ()) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    rows, shown = [], []
    console = Console(stderr=True)
    for k, image in enumerate(track(pictures, "drawing", len(prompts), console=console)):
        name = f"{k:06d}.png"
        save_image(image, out / name)
        shown += [image] if k < MOST_IN_GRID else []
        about = {"file": name, "prompt": prompts[k].text, "seed": int(seeds[k])}
        rows.append(about | (dict(prompts[k].spec) if prompts[k].spec else {}) | (more[k] if more else {}))
    write_text(out / "pictures.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    save_grid(shown, out / "grid.png", [p.text for p in prompts[: len(shown)]])
    return out / "grid.png"


class Combined:
    """Several rewards as one: the weighted sum of their z-scores on a reference set of pictures."""

    range = (-float("inf"), float("inf"))

    def __init__(self, rewards: Sequence[Reward], reference: Tensor, prompts: Sequence[Prompt]):
        scores = score(rewards, reference, prompts)
        self.rewards, self.mean, self.std = rewards, scores.nanmean(0), zscore_scale(scores)
        self.name = "+".join(r.name for r in rewards)
        self.differentiable = all(r.differentiable for r in rewards)
        self.provenance = rewards[0].provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        columns = torch.stack([r.score(images, prompts).to(images) for r in self.rewards], 1)  # (B, R)
        standard = (columns - self.mean.to(columns)) / self.std.to(columns)
        return weighted_sum(standard, [1.0 / len(self.rewards)] * len(self.rewards))


def zscore_scale(scores: Tensor) -> Tensor:
    """(R,): the standard deviation of each column, NaN left out, 1 where nothing varies."""
    known = (column[~column.isnan()] for column in scores.T)
    std = torch.stack([column.std() if len(column) > 1 else scores.new_zeros(()) for column in known])
    return torch.where(std > 0, std, 1.0)


def one_reward(rewards: Sequence[Reward], generator: Generator, prompts: Sequence[Prompt]) -> Reward:
    """The reward itself, or several combined on 64 pictures of the generator."""
    if len(rewards) == 1:
        return rewards[0]
    chosen = [prompts[i % len(prompts)] for i in range(64)]
    pictures = torch.cat(list(sample_batches(generator, chosen, range(10_000, 10_064))))
    return Combined(rewards, pictures, chosen)
