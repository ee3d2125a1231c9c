"""GenEval scores: means by hand, failures counted as wrong, pairs by prompt and seed."""

import math

import numpy as np
import pytest
import torch

from tastemaker.errors import TastemakerError
from tastemaker.evaluation.geneval import check_images, compare, geneval, over_tasks
from tastemaker.evaluation.intervals import wilson
from tastemaker.records import Prompt


def prompts_of(**counts):
    return [Prompt(f"{tag} {i}", spec={"tag": tag, "include": []}) for tag, n in counts.items() for i in range(n)]


def test_overall_is_the_mean_over_tasks_and_pooled_over_pictures():
    prompts = prompts_of(counting=4, colors=16)
    correct = np.r_[np.zeros(4), np.ones(8), np.zeros(8)]
    found = geneval(prompts, correct)
    assert found.tasks == {"counting": wilson(0, 4), "colors": wilson(8, 16)}
    assert found.overall.value == 0.25 and found.pooled.value == 0.4 and found.failed == ()
    assert found.overall.low <= 0.25 <= found.overall.high < 0.5


def test_a_failed_check_counts_as_wrong_and_is_listed():
    prompts = prompts_of(counting=4)
    found = geneval(prompts, [1, math.nan, 1, math.nan])
    assert found.pooled.value == 0.5 and found.failed == (1, 3) and found.tasks["counting"].count == 4


def test_pictures_of_one_prompt_are_resampled_together():
    alone = prompts_of(counting=60)
    shared = [p for p in prompts_of(counting=10) for _ in range(6)]
    correct = np.repeat(np.arange(10) % 2, 6)
    widths = [(i.high - i.low) for i in (geneval(p, correct).pooled for p in (alone, shared))]
    assert widths[1] > 2 * widths[0]


def test_two_models_are_compared_pair_by_pair():
    rng = np.random.default_rng(0)
    prompts = prompts_of(counting=100, colors=100)
    b = (rng.random(200) < 0.4).astype(float)
    a = np.maximum(b, rng.random(200) < 0.15)  # never worse on any pair
    found = compare(prompts, a, b)
    assert found.overall.verdict() == "better" and found.pooled.value == pytest.approx((a - b).mean())
    assert found.tasks["counting"].value == pytest.approx((a - b)[:100].mean())
    assert compare(prompts, b, a).overall.verdict() == "worse"
    same = compare(prompts, a, a)
    assert (same.overall.value, same.overall.verdict()) == (0, "undecided")
    a[3], b[5] = math.nan, math.nan
    assert compare(prompts, a, b).failed == (3, 5)


def test_the_paired_interval_covers():
    rng = np.random.default_rng(1)
    tasks, covered = np.repeat([0, 1], 40), 0
    for _ in range(60):
        b = (rng.random(80) < 0.4).astype(float)
        a = np.where(rng.random(80) < 0.2, 1.0, b)  # the truth: 0.2 of the wrong 0.6 mended
        interval = over_tasks(a - b, tasks, np.arange(80))
        covered += interval.low <= 0.12 <= interval.high
    assert covered >= 51  # 95 % less three standard errors


def test_images_are_checked_in_batches_in_the_order_of_the_prompts():
    prompts = prompts_of(counting=5)
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 2, 2)

    def check(batch, wanted):
        assert [int(p.text.split()[1]) for p in wanted] == batch[:, 0, 0, 0].tolist()
        return batch[:, 0, 0, 0] % 2

    assert check_images(check, images.split(2), prompts).tolist() == [0, 1, 0, 1, 0]
    for wrong in (images[:4].split(2), torch.cat([images, images]).split(4)):
        with pytest.raises(TastemakerError, match="expected 5 pictures"):
            check_images(lambda batch, wanted: torch.ones(len(batch)), wrong, prompts)


def test_what_a_check_may_not_answer():
    prompts, images = prompts_of(counting=2), torch.zeros(2, 3, 2, 2)
    with pytest.raises(TastemakerError, match="one answer per picture"):
        check_images(lambda batch, wanted: torch.ones(1), [images], prompts)
    with pytest.raises(TastemakerError, match="0, 1 or NaN"):
        check_images(lambda batch, wanted: torch.tensor([0.5, 1]), [images], prompts)
    with pytest.raises(TastemakerError, match="no spec with a tag"):
        geneval([Prompt("a cat")] * 2, [0, 1])
    with pytest.raises(TastemakerError, match="at least one prompt"):
        geneval([], [])
