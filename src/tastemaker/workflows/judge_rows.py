"""The rows that a verifier learns from: a generator's own paths on prompts of the world, labelled by the world's
check.

Labels come from `detector-a`; the one that makes final scores, `detector-b`, is never asked here. A batch of prompts
at a time, each with several paths; previews are kept at the steps that the recipe needs. Which prompts a generator
draws well says much about the answer, and nothing about which of a prompt's pictures is right, so every picture is
also judged against a prompt that has the other answer for it (`contrasts`, which the paper does not have).
Letters: P prompts, K paths of each, M = P K.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track as progress
from torch import Tensor

from ..algorithms.judge import QUESTIONS, Config, Rows, together
from ..data.images import crop_square, load_image, resize, save_image
from ..data.judgements import Judgement, write_judgements
from ..encoders.words import split_words
from ..object_rules import judge as verdict_of
from ..picture_bytes import as_bytes, from_bytes
from ..protocols import Condition, Plan, State
from ..randomness import mix, stream
from ..records import Prompt
from ..rewards import questions
from ..sampling import finish
from ..world.check import LABELS, detector
from ..world.faults import Detections, faults_of, wrong_regions, wrong_words
from ..world.grammar import evaluated_prompts, even_prompts, prompt_of, swapped, texts_but_single_objects

AT_ONCE = 64  # paths
TRIES = 96  # prompts of one changed fact, of which one may have the other answer
BLURRED, SHARP = round(10 / 18, 4), round(11 / 18, 4)  # the paper's steps: not clear before, clear after
ASKED = (questions.outcome, questions.clarity, questions.potential)


def judge_prompts(config: Config) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts of the world to train on and to validate on, as many of each task, and none of the evaluation's but for
    the single objects."""
    return even_prompts(config.prompts, mix(config.seed, 11), evaluated_prompts(), config.validation_share)


def not_said(other: Sequence[Prompt]) -> set[str]:
    """What contrasts must not say: the other part's prompts, and the evaluation's but for the single objects."""
    return texts_but_single_objects(evaluated_prompts()) | {p.text for p in other}


def drawn_rows(
    generator: Any, prompts: Sequence[Prompt], config: Config, grid: int, length: int, without: Collection[str] = ()
) -> Rows:
    """Rows of `config.per_prompt` paths of each prompt. grid: G, regions a side; length: L, words that are
    labelled; without: what contrasts must not say."""
    at_once, parts = max(1, AT_ONCE // config.per_prompt), []
    for first in progress(range(0, len(prompts), at_once), "drawing paths", console=Console(stderr=True)):
        own = [p for p in prompts[first : first + at_once] for _ in range(config.per_prompt)]
        seeds = torch.tensor([mix(config.seed, 12, first, k) for k in range(len(own))])
        guidance = getattr(generator, "guidance", 1.0)
        state = generator.start(generator.prepare(Condition.of(own, guidance)), seeds)
        parts += RECIPES[config.recipe](Paths(generator, state, own, grid, length, without), config, first)
    return together(parts)


@dataclass
class Paths:
    """Paths of one batch and how their rows are made."""

    generator: Any
    state: State
    prompts: Sequence[Prompt]
    grid: int
    length: int
    without: Collection[str]

    def to(self, step: int) -> State:
        """Take steps up to that one."""
        while int(self.state.step[0]) < step:
            self.state = self.generator.advance(self.state)
        return self.state

    def pictures(self, state: State) -> Tensor:
        """(M, 3, H, W) uint8."""
        return as_bytes(self.generator.preview(state)).cpu()

    def rows(self, images: Tensor, question: str, answer: Tensor) -> Rows:
        """Without labels of words and regions."""
        count = len(images)
        kind = torch.full((count,), QUESTIONS.index(question))
        unknown = torch.full((count, self.length), -1, dtype=torch.int8)
        places = torch.full((count, self.grid**2), -1, dtype=torch.int8)
        return Rows(images, tuple(self.prompts), kind, answer, unknown, places)

    def ends(self) -> tuple[Rows, list[Detections]]:
        """The finished pictures with all that is known of them, and what the check sees in each."""
        images = self.pictures(self.to(self.state.plan.steps))
        seen: list[Detections] = list(detector(LABELS).detect(from_bytes(images)))
        return labelled(self.rows(images, "score", torch.zeros(len(images), dtype=torch.bool)), seen, self.grid), seen

    def others(
        self, seen: Sequence[Sequence[Detections]], answer: Tensor, config: Config, number: int
    ) -> list[Prompt | None]:
        """For each path a prompt with the other answer, if one is found. seen: what the check sees in the pictures of
        which one has to be right."""
        if not config.contrasts:
            return [None] * len(seen)
        asked = enumerate(zip(seen, self.prompts, answer.tolist()))
        return [opposite(*one, self.without, mix(config.seed, 13, number, k)) for k, one in asked]


def opposite(
    seen: Sequence[Detections], prompt: Prompt, answer: bool, without: Collection[str], seed: int
) -> Prompt | None:
    """The first prompt of one changed fact that has the other answer; else an object that is there."""
    changed = (swapped(prompt.spec or {}, mix(seed, k)) for k in range(TRIES))
    single = ({"tag": "single_object", "include": [{"class": name, "count": 1}]} for one in seen for name in one)
    for spec in chain(changed, single):
        other = prompt_of(spec)
        if other.text not in without and shown(seen, spec) != answer:
            return other
    return None


def shown(seen: Sequence[Detections], spec: Mapping[str, Any]) -> bool:
    """Whether one of the pictures is right. seen: what the check sees in each."""
    return any(verdict_of(one, spec).correct for one in seen)


def turned(rows: Rows, others: Sequence[Prompt | None]) -> tuple[Rows, list[int]]:
    """The rows for which there is another prompt, with it and the other answer; and which rows they are."""
    own = [k for k, other in enumerate(others) if other]
    found = rows.take(torch.tensor(own, dtype=torch.int64))
    return replace(found, prompts=tuple(p for p in others if p), answer=~found.answer), own


def labelled(rows: Rows, found: Sequence[Detections], grid: int) -> Rows:
    """The same rows with the check's verdict, the words and the regions that are wrong. found: what it sees."""
    answer, words, places = rows.answer.clone(), torch.full_like(rows.words, -1), rows.places.clone()
    for k, (seen, prompt) in enumerate(zip(found, rows.prompts)):
        spec = prompt.spec or {}
        answer[k] = verdict_of(seen, spec).correct
        faults = [] if answer[k] else faults_of(seen, spec)
        said = split_words(prompt.text)[: words.shape[1]]
        words[k, : len(said)] = torch.tensor(wrong_words(faults, said), dtype=torch.int8)
        places[k] = wrong_regions(faults, seen, spec, grid).flatten().to(torch.int8)
    return Rows(rows.images, rows.prompts, rows.question, answer, words, places)


def outcome_rows(paths: Paths, config: Config, number: int) -> list[Rows]:
    """ORM: the ends."""
    ends, seen = paths.ends()
    return end_rows(paths, ends, seen, paths.others([[one] for one in seen], ends.answer, config, number))


def end_rows(paths: Paths, ends: Rows, seen: Sequence[Detections], others: Sequence[Prompt | None]) -> list[Rows]:
    """The ends, and those with another prompt, words and regions included."""
    more, own = turned(ends, others)
    return [ends, labelled(more, [seen[k] for k in own], paths.grid)]


def process_rows(paths: Paths, config: Config, number: int) -> list[Rows]:
    """PRM: previews at one step of the batch; yes where one of the completions from there is right."""
    steps, rollouts = paths.state.plan.steps, config.rollouts
    step = 1 + int(stream(config.seed, step=number, purpose="judge step").integers(max(1, steps - 1)))
    state = paths.to(min(step, steps))
    images = paths.pictures(state)
    ends = paths.pictures(finish(paths.generator, state.fork(rollouts)))
    found = detector(LABELS).detect(from_bytes(ends))
    seen = [found[k : k + rollouts] for k in range(0, len(found), rollouts)]
    right = [shown(own, p.spec or {}) for own, p in zip(seen, paths.prompts)]
    rows = paths.rows(images, "potential", torch.tensor(right))
    return [rows, turned(rows, paths.others(seen, rows.answer, config, number))[0]]


def progress_of(generator: Any, plan: Plan, step: int) -> float:
    """How far a path is after so many steps, in [0, 1]: their share of all, or with masked tokens that share of the
    cosine schedule, the paper's, at which as many are known. Rounded, so that a step of that schedule is itself."""
    share = 2 / math.pi * math.acos(1 - plan.times[step]) if hasattr(generator, "logits") else step / plan.steps
    return round(share, 4)


def potential_rows(paths: Paths, config: Config, number: int) -> list[Rows]:
    """PARM: a preview that is not clear, one that is, one with the label of its own end, and the end."""
    rng, steps = stream(config.seed, step=number, purpose="judge step"), paths.state.plan.steps
    early = [k for k in range(1, steps) if progress_of(paths.generator, paths.state.plan, k) < BLURRED]
    late = [k for k in range(1, steps) if progress_of(paths.generator, paths.state.plan, k) > SHARP]
    wanted = [(int(rng.choice(early)), "no")] if early else []
    wanted += [(int(rng.choice(late)), word) for word in ("yes", "later")] if late else []
    kept = {step: paths.pictures(paths.to(step)) for step, _ in sorted(wanted)}
    (ends, seen), every = paths.ends(), torch.ones(len(paths.prompts), dtype=torch.bool)
    others = paths.others([[one] for one in seen], ends.answer, config, number)
    labels = {"no": ("clear", ~every), "yes": ("clear", every), "later": ("potential", ends.answer)}
    previews = [paths.rows(kept[step], *labels[word]) for step, word in wanted]
    later = [turned(rows, others)[0] for rows, (_, word) in zip(previews, wanted) if word == "later"]
    return [*previews, *later, *end_rows(paths, ends, seen, others)]


RECIPES = {"orm": outcome_rows, "prm": process_rows, "parm": potential_rows, "parm++": potential_rows}


@dataclass(frozen=True)
class FileRows:
    """Rows of a file, whose pictures are read when they are taken; cut square and resized to S pixels."""

    judgements: tuple[Judgement, ...]  # yes and no alone
    size: int  # S
    grid: int
    length: int

    def __len__(self) -> int:
        return len(self.judgements)

    @property
    def question(self) -> Tensor:
        return torch.tensor([QUESTIONS.index(j.task) for j in self.judgements])

    @property
    def answer(self) -> Tensor:
        return torch.tensor([bool(j.answer) for j in self.judgements])

    def take(self, rows: Tensor) -> Rows:
        own = [self.judgements[i] for i in rows.tolist()]
        pictures = [as_bytes(resize(crop_square(load_image(j.image)), self.size, self.size)) for j in own]
        unknown = torch.full((len(own), self.length), -1, dtype=torch.int8)
        places = torch.full((len(own), self.grid**2), -1, dtype=torch.int8)
        prompts = tuple(j.prompt for j in own)
        return Rows(torch.stack(pictures), prompts, self.question[rows], self.answer[rows], unknown, places)


def export_rows(rows: Rows, folder: Path) -> None:
    """FOLDER/orm.json, FOLDER/parm.json and the pictures, in the release's form."""
    made: dict[str, list[Judgement]] = {"orm": [], "parm": []}
    for k, prompt in enumerate(rows.prompts):
        number, answer = int(rows.question[k]), questions.YES if rows.answer[k] else questions.NO
        image = folder / "pictures" / f"{k:07d}.png"
        save_image(from_bytes(rows.images[k]), image)
        *before, (asked, _) = ASKED[number](prompt.text)
        turns = (*before, (asked, answer.capitalize() if number == 0 else answer))
        made["parm" if number else "orm"].append(Judgement(image, prompt, QUESTIONS[number], turns))
    for name, listed in made.items():
        if listed:
            write_judgements(listed, folder / f"{name}.json")
