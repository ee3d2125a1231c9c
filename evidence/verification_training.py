"""The trainings of verification.py: judges of a generator's own paths, and DPO in stages, run by run.

| judge | learns from | answers |
|---|---|---|
| `orm` | the ends of paths, right or wrong | is the end what was asked for? |
| `prm` | previews of any step, and whether a completion from there is right | does it lead there? |
| `parm` | the same ends, and previews: PARM's three tasks, and which words and regions are wrong | all of them |

| policy | begins as | pairs are told apart by |
|---|---|---|
| `dpo` | base | how many of the prompt's facts hold, by the detector whose labels judges learn from |
| `it_dpo` | `dpo`, which is the reference too | the same, on pictures drawn anew |
| `it_dpo_guided` | `it_dpo` | PARM's judge, in four rounds, each with pictures of the policy by then |
| `it_dpo_third` | `it_dpo` | the facts, in four rounds: as much training without PARM |

`corrected` is the base after self-correction tuning, on scenes of the world with one fact wrong, as `tastemaker train
self-correction` does it: twice as many steps as a stage of DPO.

Policies of a seed follow the judge of that seed, and it is pessimistic there: the mean of its three members less
their deviation, so that what one of them mistakes for good is not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tastemaker.algorithms import dpo, judge, self_correction
from tastemaker.algorithms.judge import QUESTIONS, SHARES, Rows
from tastemaker.algorithms.optimise import begin
from tastemaker.algorithms.selection import Selection
from tastemaker.data.batches import Batches
from tastemaker.devices import best_device, place
from tastemaker.randomness import mix
from tastemaker.records import Prompt
from tastemaker.report.metrics import read_metrics
from tastemaker.rewards.tiny_judge import TinyJudge, load_tiny_judge
from tastemaker.workflows.follow import follow
from tastemaker.workflows.judge import base_rate, conclude, kept_rows, labels_of, new_judge
from tastemaker.workflows.judge_rows import drawn_rows, not_said
from tastemaker.workflows.runs import open_run
from tastemaker.workflows.tuning import picture_side, pictures
from tastemaker.world.corrections import WorldCorrections

from .drl_training import TUNED, carried_out, tuned
from .verification_lab import WORLD, Lab

RECIPES = {"orm": "orm", "prm": "prm", "parm": "parm++"}
POLICIES = ("base", "dpo", "it_dpo", "it_dpo_guided")
KAPPA = 1.0  # pessimism of the judge that a policy follows
SURE = 1.0  # log-odds by which its two pictures of a pair differ


@dataclass(frozen=True)
class Stage:
    """Of DPO. number: of the draw of its prompts."""

    begins_as: str
    number: int
    rounds: int = 1
    guided: bool = False


STAGES = {
    "dpo": Stage("base", 1),
    "it_dpo": Stage("dpo", 2),
    "it_dpo_guided": Stage("it_dpo", 3, rounds=4, guided=True),
    "it_dpo_third": Stage("it_dpo", 3, rounds=4),
}


# judges


def judge_of(lab: Lab, name: str, seed: int, kappa: float = 0.0) -> TinyJudge:
    """Trained now if it is not; goes on where it was cut."""
    folder = lab.made / f"judge-{name}-{seed}"
    if not (folder / "result.json").is_file():
        learn(lab, name, seed, folder)
    return place(load_tiny_judge(folder, kappa))


def learn(lab: Lab, name: str, seed: int, folder: Path) -> None:
    """As `tastemaker train judge`, on the lab's own prompts, whose evaluated ones are left out."""
    config = lab.judge_config(RECIPES[name], seed)
    student = new_judge(config)
    student.network.to(best_device())
    train, held_out = (rows_of(lab, name, seed, part, student) for part in ("train", "validation"))
    begun = folder if (folder / "config.yaml").is_file() else None
    run = open_run(config, None if begun else folder, begun)
    selection = Selection(begin(student.network, config.optimiser))
    run.restore(selection)
    records = judge.train(student, train, held_out, config, selection)
    follow(run, records, selection, config.steps, every_seconds=60)
    selection.keep_best()
    conclude(run, student, selection, held_out, config)


def rows_of(lab: Lab, name: str, seed: int, part: str, student: Any) -> Rows:
    """Drawn once. The ORM learns from the ends that PARM learns from too."""
    kind = "prm" if name == "prm" else "parm"
    config = lab.judge_config(RECIPES[kind], seed)
    parts = dict(zip(("train", "validation"), lab.training_prompts(seed, config.prompts)))
    own = parts.pop(part)
    draw = partial(drawn_rows, lab.generator(), own, config, *labels_of(student), without=not_said(*parts.values()))
    rows = kept_rows(lab.made / f"rows-{kind}-{seed}-{part}.safetensors", draw)
    return rows.take((rows.question == 0).nonzero()[:, 0]) if name == "orm" else rows


def judge_record(lab: Lab, name: str, seed: int) -> dict[str, Any]:
    """How often a judge is right on prompts that were not trained on: `accuracy` of each question, prompt by prompt,
    and the share of the commoner answer."""

    def make() -> dict[str, Any]:
        student = judge_of(lab, name, seed)
        rows = rows_of(lab, name, seed, "validation", student)
        asked = [q for q, share in zip(QUESTIONS, SHARES[RECIPES[name]]) if share]
        return {
            "accuracy": {q: by_prompt(student, rows, q) for q in asked},
            "base_rate": {q: base_rate(rows, f"{q}_accuracy") for q in asked},
            "steps": read_metrics(lab.made / f"judge-{name}-{seed}" / "metrics.jsonl")[-1]["step"],
        }

    return lab.once(f"judge-{name}-{seed}", make)


@torch.no_grad()
def by_prompt(student: TinyJudge, rows: Rows, question: str) -> list[float]:
    """The share of right answers to one question, of each prompt."""
    own = rows.take((rows.question == QUESTIONS.index(question)).nonzero()[:, 0])
    config = judge.Config(recipe="parm")
    odds = [judge.answered(student, own.take(part), config)[1].cpu() for part in torch.arange(len(own)).split(256)]
    agree = ((torch.cat(odds) > 0) == own.answer).float()
    return [float(agree[rows].mean()) for rows in rows_by_prompt(own.prompts)]


def rows_by_prompt(prompts: tuple[Prompt, ...]) -> list[Tensor]:
    """The rows of each prompt's words."""
    found: dict[str, list[int]] = {}
    for k, prompt in enumerate(prompts):
        found.setdefault(prompt.text, []).append(k)
    return [torch.tensor(rows) for rows in found.values()]


# policies


def policy(lab: Lab, name: str, seed: int) -> Any:
    """The generator after a stage, trained now with all before it if they are not; `base` is as it was."""
    if name == "base":
        return lab.generator()
    folder = lab.made / f"{name}-{seed}"
    if (folder / TUNED).is_file():
        return tuned(lab.generator(), folder)
    stage = STAGES[name]
    generator = policy(lab, stage.begins_as, seed)
    reference = generator.reference()
    reward = judge_of(lab, "parm", seed, KAPPA) if stage.guided else lab.labels
    config = lab.dpo_config(10 * seed + stage.number, stage.rounds, SURE if stage.guided else 0.0)
    prompts = [p for part in lab.training_prompts(config.seed, lab.scale.paired) for p in part]
    carried_out(
        lambda state, kept: dpo.train_rounds(generator, reference, reward, prompts, None, config, state, kept),
        generator, config, folder,
    )  # fmt: skip
    return generator


def corrected(lab: Lab, seed: int) -> Any:
    """The base, tuned to set right what a critique has found; trained now if it is not."""
    generator = lab.generator()
    config = self_correction.Config(
        model=lab.model, steps=2 * lab.scale.dpo_steps, batch_size=lab.scale.dpo_batch, seed=mix(WORLD, 3, seed)
    )
    groups = Batches(WorldCorrections(config.seed, picture_side(generator)), config.batch_size, config.seed)
    batches = pictures(generator, config, None)
    carried_out(
        lambda state, _: self_correction.train(generator, groups, batches, config, state),
        generator, config, lab.made / f"corrected-{seed}",
    )  # fmt: skip
    return generator


def trained_how(lab: Lab, name: str, seed: int) -> dict[str, Any]:
    """What was found at the beginning of a stage's rounds and at its end."""
    if name == "base":
        return {}
    metrics = read_metrics(lab.made / f"{name}-{seed}" / "metrics.jsonl")
    rounds = {one["round"]: one for one in reversed(metrics)}
    kept = ("pairs", "dropped_prompts", "drawn_reward")
    return {
        "rounds": [{name: rounds[number].get(name) for name in kept} for number in sorted(rounds)],
        "end": {name: metrics[-1].get(name) for name in ("margin", "accuracy", "gain_chosen", "gain_rejected")},
    }
