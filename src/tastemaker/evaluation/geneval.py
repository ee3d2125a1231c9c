"""GenEval scores (Ghosh et al., arXiv 2310.11513): the share of pictures that show what the prompt says, by task.

The task of a prompt is its spec's `tag`. Overall is the mean over tasks, as the paper reports it; pooled is the share
over all pictures. Who decides is a callable check(images, prompts) -> (B,) of 0 and 1, NaN where it failed; a picture
whose check failed counts as wrong and is listed, so that no failure can raise a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import TastemakerError
from ..protocols import Generator, Plan
from ..records import Interval, Prompt
from ..sampling import sample_batches
from .intervals import bootstrap, means, paired_difference, wilson

Check = Callable[[Tensor, Sequence[Prompt]], Tensor]


@dataclass(frozen=True)
class GenEval:
    tasks: dict[str, Interval]  # for one model Wilson's intervals, for a difference bootstrapped ones
    overall: Interval  # mean over tasks
    pooled: Interval  # over all pictures
    failed: tuple[int, ...]  # rows whose check gave no answer, counted as wrong


def check_images(check: Check, batches: Iterable[Tensor], prompts: Sequence[Prompt]) -> Tensor:
    """(B,) float32 of 1, 0 and NaN. batches: images (b, 3, H, W) in [0, 1], in the order of the prompts.

    Raises TastemakerError where the check gives something else, or pictures and prompts differ in number.
    """
    found, done = [], 0
    for images in batches:
        wanted = prompts[done : done + len(images)]
        if len(wanted) != len(images):
            raise TastemakerError(f"expected {len(prompts)} pictures, one per prompt; got more")
        found.append(check_answers(check(images, wanted), len(images)))
        done += len(images)
    if done != len(prompts):
        raise TastemakerError(f"expected {len(prompts)} pictures, one per prompt; got {done}")
    return torch.cat(found) if found else torch.empty(0)


def check_answers(answers: Any, count: int) -> Tensor:
    answers = torch.as_tensor(answers).float().cpu()
    if answers.shape != (count,):
        raise TastemakerError(f"a check must give one answer per picture, ({count},); got {tuple(answers.shape)}")
    if not ((answers == 0) | (answers == 1) | answers.isnan()).all():
        raise TastemakerError("a check must answer 0, 1 or NaN; for graded scores use the bootstrap of intervals.py")
    return answers


def check_generator(
    check: Check, generator: Generator, prompts: Sequence[Prompt], seeds: Sequence[int], plan: Plan | None = None,
    guidance: float | None = None, batch: int = 64,
) -> Tensor:  # fmt: skip
    """`check_images` on the generator's own pictures, a batch at a time; image k from prompt k and seed k."""
    return check_images(check, sample_batches(generator, prompts, seeds, plan, guidance, batch), prompts)


def geneval(prompts: Sequence[Prompt], correct: Any) -> GenEval:
    """Scores of one model; correct (B,) as `check_images` gives it, several rows per prompt or one.

    The interval of a task takes its pictures as independent; those of overall and pooled resample by prompt.
    """
    right, failed = settle(correct, len(prompts))
    tasks, groups = task_codes(prompts)
    by_task = {name: wilson(int(right[tasks == i].sum()), int((tasks == i).sum())) for name, i in names(prompts)}
    return GenEval(by_task, over_tasks(right, tasks, groups), bootstrap(means(right), groups), failed)


def compare(prompts: Sequence[Prompt], a: Any, b: Any) -> GenEval:
    """a - b for two models on the same prompts and seeds, row by row; every interval resamples by prompt.

    a, b (B,): as `check_images` gives them. A task of a single picture has no interval and raises TastemakerError.
    """
    (a, a_failed), (b, b_failed) = settle(a, len(prompts)), settle(b, len(prompts))
    tasks, groups = task_codes(prompts)
    by_task = {n: paired_difference(a[tasks == i], b[tasks == i], groups[tasks == i]) for n, i in names(prompts)}
    failed = tuple(sorted({*a_failed, *b_failed}))
    return GenEval(by_task, over_tasks(a - b, tasks, groups), bootstrap(means(a - b), groups), failed)


def settle(correct: Any, count: int) -> tuple[NDArray, tuple[int, ...]]:
    """(B,) float64 with failures as 0, and which rows failed."""
    values = check_answers(correct, count).double().numpy()
    missing = np.isnan(values)
    return np.where(missing, 0.0, values), tuple(np.flatnonzero(missing).tolist())


def names(prompts: Sequence[Prompt]) -> list[tuple[str, int]]:
    """Tasks in the order of their first prompt, with their codes."""
    return [(name, i) for i, name in enumerate(dict.fromkeys(task_of(p) for p in prompts))]


def task_of(prompt: Prompt) -> str:
    if not prompt.spec or "tag" not in prompt.spec:
        raise TastemakerError(f"prompt '{prompt.text}' has no spec with a tag; make prompts with Prompt.from_geneval")
    return str(prompt.spec["tag"])


def task_codes(prompts: Sequence[Prompt]) -> tuple[NDArray, NDArray]:
    """(B,) the task and (B,) the prompt of each row, as integers from 0."""
    if not prompts:
        raise TastemakerError("expected at least one prompt, got none")
    code = dict(names(prompts))
    keys = [(task_of(p), p.text) for p in prompts]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([code[task] for task, _ in keys]), np.array([number[key] for key in keys])


def over_tasks(values: NDArray, tasks: NDArray, groups: NDArray) -> Interval:
    """The mean over tasks of the mean in each. Prompts are drawn from all tasks together; a resample without any
    prompt of some task, which only very small sets can give, averages the tasks that it has."""

    number = int(tasks.max()) + 1

    def overall(rows: NDArray, which: NDArray, count: int) -> NDArray:
        cells, shape = which * number + tasks[rows], (count, number)
        sizes = np.bincount(cells, minlength=count * number).reshape(shape)
        sums = np.bincount(cells, values[rows], count * number).reshape(shape)
        shares = np.divide(sums, sizes, out=np.zeros(shape), where=sizes > 0)
        return shares.sum(1) / (sizes > 0).sum(1)

    return bootstrap(overall, groups)
