"""`tastemaker studio`: a generator that is told rewards, the rewards that measure its pictures, and their page.

Letters: B pictures, R rewards of the model, K pictures of a sweep.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ..data.bins import from_description
from ..errors import TastemakerError
from ..generators.told import ToldRewards
from ..picture_bytes import as_png
from ..protocols import Condition, Reward
from ..records import Prompt
from ..rewards.table import load_reward, load_rewards
from ..sampling import score_checked
from ..studio.app import serve
from ..studio.asked import Drawn, Look, Setting, Stopped, Superseded, Sweep
from ..world.grammar import evaluation_prompts
from .load import load_generator
from .targets import Wish, asked, told

console = Console(stderr=True)


def serve_studio(model: str, rewards: str = "", host: str = "127.0.0.1", port: int = 8001) -> None:
    """Load the model once, draw once, so that the first look is as quick as the others, and serve until interrupted.

    rewards: names of what measures the pictures; none: those that the model was trained with. Raises TastemakerError
    for a model that is told no rewards.
    """
    engine = Studio(model, rewards)
    took = engine.draw(engine.first(), lambda: False).seconds
    address = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"
    console.print(
        f"{model}: {', '.join(engine.generator.rewards)}; four pictures in {took:.1f} s; serving at {address}"
    )
    serve(engine, host, port)


class Studio:
    """Everything frozen is loaded once: the generator, its bins and the rewards that measure."""

    def __init__(self, model: str, rewards: str = ""):
        self.name, self.generator = model, told(load_generator(model), model)
        self.bins = {b.reward: b for b in from_description(self.generator.scale.described, model)}
        self.judges, self.notes = (load_rewards(rewards), []) if rewards else measurable(self.generator.rewards)
        self.scales = {j.name: self.bins[j.name] for j in self.judges if self._same_version(j)}

    def _same_version(self, judge: Reward) -> bool:
        """A score of another version has no level on the model's scale."""
        bins = self.bins.get(judge.name)
        if bins is not None and bins.provenance != judge.provenance:
            self.notes.append(
                f"{judge.name} is of another version than the model was trained with: no level is shown"
            )
        return bins is not None and bins.provenance == judge.provenance

    def first(self) -> Setting:
        """What the page begins with: the model's own targets, its guidance, and a prompt of the embedded world."""
        generator, own = self.generator, zip(self.generator.rewards, self.generator.positive.tolist())
        return Setting(
            prompt=evaluation_prompts(1)[2].text,
            levels={name: round(level, 4) for name, level in own if level == level},
            w=max(0.0, generator.guidance - 1),
        )

    def about(self) -> dict[str, Any]:
        """For the page: the model, its rewards, how fine their levels are, and the first setting."""
        rewards, bins = self.generator.rewards, self.generator.scale.bins
        return {"model": self.name, "rewards": rewards, "bins": bins, "first": self.first().model_dump()}

    def draw(self, setting: Setting, stopped: Stopped) -> Look:
        """Picture k is of setting.seed + k, as `tastemaker sample` draws it."""
        generator = self.asking(setting)
        condition = Condition.of([setting.prompt] * setting.pictures, 1 + setting.w)
        return self.look(generator, condition, setting.seeds, [setting.levels] * setting.pictures, stopped)

    def sweep(self, setting: Setting, sweep: Sweep, stopped: Stopped) -> Look:
        """The setting's first seed with K pairs of levels; what else is asked stays, and so does the other branch."""
        if sweep.first == sweep.second:
            raise TastemakerError(f"expected two rewards to sweep against each other, got '{sweep.first}' twice")
        levels = [{**setting.levels, **pair} for pair in sweep.levels()]
        each = [self.asking(setting.model_copy(update={"levels": one})) for one in levels]
        condition = Condition.of([setting.prompt] * sweep.count, 1 + setting.w)
        condition = each[0].ask(condition, each[0].positive, each[0].negative)
        condition = replace(condition, targets=torch.stack([one.positive for one in each]))  # (K, R)
        return self.look(each[0], condition, [setting.seed] * sweep.count, levels, stopped)

    def asking(self, setting: Setting) -> ToldRewards:
        """Raises UnknownName for a reward that the model is not told."""
        if not setting.levels:
            return self.generator.unasked()
        emptied, kept = setting.caption == "emptied", setting.caption == "kept"
        return asked(self.generator, Wish(setting.levels, empty_negative=emptied, keep_caption=kept))

    def look(
        self,
        generator: ToldRewards,
        condition: Condition,
        seeds: Sequence[int],
        levels: Sequence[Any],
        stopped: Stopped,
    ) -> Look:
        began = time.perf_counter()
        images = drawn_unless(generator, condition, torch.tensor(list(seeds)), stopped)
        scores, notes = measured(self.judges, images, condition.prompts)
        reached = {n: self.scales[n].level_of(v) for n, v in scores.items() if n in self.scales}
        pictures = tuple(
            Drawn(as_png(images[k]), seeds[k], levels[k], row(scores, k), row(reached, k)) for k in range(len(seeds))
        )
        return Look(pictures, time.perf_counter() - began, (*self.notes, *notes))


def measurable(names: Sequence[str]) -> tuple[list[Reward], list[str]]:
    """Those of a model's rewards that can be had by their name alone, and a sentence for each of the others."""
    judges: list[Reward] = []
    notes = []
    for name in names:
        try:
            judges.append(load_reward(name))
        except TastemakerError:
            notes.append(f"{name} is not measured: no reward is called so; name those to measure with --rewards")
    return judges, notes


def drawn_unless(generator: ToldRewards, condition: Condition, seeds: Tensor, stopped: Stopped) -> Tensor:
    """(B, 3, H, W) in [0, 1], as `sampling.sample` draws them. Raises Superseded at the step where it is stopped."""
    state = generator.start(condition, seeds)
    while not state.done.all():
        if stopped():
            raise Superseded
        state = generator.advance(state)
    return generator.preview(state).clamp(0, 1).float().cpu()


def measured(
    judges: Sequence[Reward], images: Tensor, prompts: Sequence[Prompt]
) -> tuple[dict[str, Tensor], list[str]]:
    """Scores (B,) by reward, and a sentence for each reward that failed."""
    shared: dict[object, Tensor] = {}
    scores, notes = {}, []
    for judge in judges:
        try:
            scores[judge.name] = score_checked(judge, images, prompts, shared=shared).cpu()
        except TastemakerError as error:
            notes.append(f"{judge.name} is not measured: {error}")
    return scores, notes


def row(columns: dict[str, Tensor], k: int) -> dict[str, float | None]:
    """Of picture k; None for NaN."""
    values = {name: float(column[k]) for name, column in columns.items()}
    return {name: value if value == value else None for name, value in values.items()}
