"""When a reward is being exploited: changes against closed forms, the rule, what is kept, and what a resume needs."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.watching import Look, Watch, WatchConfig, changes, exploited, watched
from tastemaker.errors import TastemakerError
from tastemaker.records import StepRecord

PICTURES = 6


def test_changes_are_paired_and_in_deviations_of_the_first_look():
    before = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    now = before + torch.tensor([[0.5, 1.0], [1.0, 1.0], [1.5, 1.0]])
    assert changes(now, before).tolist() == [1.0, 1.0]  # deviation 1; a column without spread counts as it is
    before[1, 0], now[2, 0] = math.nan, math.nan  # only the first pair is left; the deviation is of 1 and 3
    assert changes(now, before)[0] == pytest.approx(0.5 / math.sqrt(2))
    assert changes(torch.full((2, 1), math.nan), torch.ones(2, 1)).isnan().all()


@pytest.mark.parametrize(
    "proxy, held_out, best, expected",
    [
        (0.5, -0.6, 0.0, True),
        (0.5, -0.5, 0.0, False),  # not more than the tolerance
        (-0.1, -2.0, 0.0, False),  # both fall: something else is wrong
        (0.5, 0.2, 1.0, True),  # above the beginning, far below its best
        (0.5, 0.6, 1.0, False),
    ],
)
def test_exploited_where_the_reward_is_up_and_the_held_out_far_below_its_best(proxy, held_out, best, expected):
    assert exploited(proxy, held_out, best, 0.5) is expected


def reward(name):
    return SimpleNamespace(name=name, differentiable=True)


class Course:
    """A watch whose looks are told: the change of the proxy and of what is held out, at one look after another."""

    def __init__(self, patience=2, held_out=("other",), ema_decay=0.5):
        network = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(network.weight)
        self.state = begin(network, OptimiserConfig(ema_decay=ema_decay))
        config = WatchConfig(every=1, pictures=PICTURES, tolerance=0.5, patience=patience)
        generator = SimpleNamespace(network=network)
        self.watch = Watch(generator, reward("own"), [reward(n) for n in held_out], ["a"], config)
        spread = torch.arange(PICTURES).float()
        self.first = torch.stack([spread / spread.std()] * (1 + len(held_out)), 1)  # deviation 1
        self.watch.first = Look(self.first, {"brightness": torch.zeros(PICTURES)})
        self.watch._keep_if_best(self.state, 0.0)

    def step(self):
        """One more step, to weights that are its number."""
        self.state.step += 1
        for tensors in (dict(self.state.network.named_parameters()), self.state.ema or {}):
            for p in tensors.values():
                p.data.fill_(self.state.step)

    def found(self, proxy, *others):
        return Look(self.first + torch.tensor([proxy, *others]), {"brightness": torch.full((PICTURES,), 0.25)})

    def look(self, *told):
        """After one more step."""
        self.step()
        return self.watch.judge(self.found(*told), self.state)

    def training(self, total):
        """The records of `total` steps, as an algorithm yields them."""
        while self.state.step < total:
            self.step()
            yield StepRecord(self.state.step, {"loss": -float(self.state.step)})

    def watched(self, told, total):
        """The records with a look after each step, which finds what is told."""
        looks = iter(told)
        self.watch.look = lambda: self.found(*next(looks))
        return watched(self.training(total), self.watch, self.state, total)

    def kept(self):
        went_back = self.watch.keep(self.state)
        return went_back, float(self.state.network.weight.detach()[0, 0])


def test_it_stops_after_patience_looks_and_keeps_the_best_that_was_not_exploited():
    course = Course(patience=2)
    figures = [course.look(*c) for c in [(0.3, 0.2), (0.8, 0.1), (0.6, 0.15), (1.2, -0.4)]]
    assert [f["watch/exploited"] for f in figures] == [0, 0, 0, 1] and not course.watch.stopped
    assert figures[1]["watch/reward_change"] == pytest.approx(0.8) and figures[1]["drift/brightness"] == 0.25
    assert figures[3]["watch/held_out_change"] == pytest.approx(-0.4, abs=1e-6)
    course.look(1.5, -0.9)
    assert course.watch.stopped
    assert course.kept() == (True, 2.0)  # the look with the highest proxy before the fall


def test_the_records_of_a_training_end_where_the_watch_says_stop():
    course = Course(patience=2)
    told = [(0.3, 0.2), (0.8, 0.1), (0.6, 0.15), (1.2, -0.4), (1.5, -0.9), (1.6, -1.0)]
    records = list(course.watched(told, 100))
    assert [r.step for r in records] == [1, 2, 3, 4, 5] and course.watch.stopped
    assert [r.values["watch/exploited"] for r in records] == [0, 0, 0, 1, 1]
    assert [r.values["loss"] for r in records] == [-1, -2, -3, -4, -5]  # the training's own figures stay
    assert course.kept() == (True, 2.0)
    assert list(course.watched(told, 100)) == [] and course.state.step == 5  # over is over


def test_without_a_stop_the_records_are_those_of_the_training_looked_at_when_told_to_and_at_the_end():
    course = Course(patience=2)
    course.watch.config = replace(course.watch.config, every=3)
    records = list(course.watched([(0.3, 0.2), (0.4, 0.2)], 5))
    assert [r.step for r in records] == [1, 2, 3, 4, 5] and not course.watch.stopped
    assert [r.step for r in records if "watch/exploited" in r.values] == [3, 5]


def test_the_first_look_comes_before_the_first_step():
    course = Course()
    course.watch.first = None
    next(course.watched([(0.0, 0.0), (0.5, 0.1)], 5))
    assert course.watch.first.scores.equal(course.first) and course.state.step == 1
    assert float(course.watch.best["weight"][0, 0]) == 1.0  # the look after that step is the better one


def test_a_look_in_between_starts_the_count_again():
    course = Course(patience=2)
    for changes_told in [(0.5, -0.7), (0.6, -0.2), (0.7, -0.8)]:
        course.look(*changes_told)
    assert not course.watch.stopped
    assert course.kept() == (True, 2.0)  # the last look was exploited: back, though it never stopped


def test_without_exploitation_the_last_weights_are_kept():
    course = Course()
    for told in [(0.9, 0.1), (0.2, 0.1)]:
        course.look(*told)
    assert course.kept() == (False, 2.0)


def test_several_held_out_rewards_count_as_their_mean_and_missing_ones_not_at_all():
    course = Course(held_out=("one", "two"))
    assert course.look(0.5, -2.0, 1.2)["watch/held_out_change"] == pytest.approx(-0.4, abs=1e-6)
    assert course.look(0.5, -0.3, math.nan)["watch/held_out_change"] == pytest.approx(-0.3, abs=1e-6)
    figures = course.look(0.5, math.nan, math.nan)
    assert "watch/held_out_change" not in figures and figures["watch/reward_change"] == pytest.approx(0.5)


@pytest.mark.parametrize("given", [{"patience": 0}, {"held_out": ()}])
def test_without_patience_or_held_out_rewards_it_never_stops_and_holds_no_copy(given):
    course = Course(**given)
    for _ in range(5):
        course.look(1.0, *[-3.0] * len(course.watch.rewards[1:]))
    assert not course.watch.stopped and course.watch.best is None and course.kept() == (False, 5.0)


def test_without_an_average_the_weights_themselves_are_kept():
    course = Course(patience=1, ema_decay=0.0)
    for told in [(0.5, 0.0), (0.9, -0.9)]:
        course.look(*told)
    assert course.watch.stopped and course.kept() == (True, 1.0)


def test_it_goes_on_from_what_was_saved():
    whole, cut = Course(), Course()
    told = [(0.3, 0.4), (0.9, -0.3), (1.0, -0.4)]
    for c in told[:2]:
        whole.look(*c)
        cut.look(*c)
    file = io.BytesIO()
    torch.save(cut.watch.state_dict(), file)
    file.seek(0)
    fresh = Course()
    fresh.watch.load_state_dict(torch.load(file, weights_only=True))
    fresh.state.step = cut.state.step
    assert fresh.look(*told[2]) == whole.look(*told[2])
    assert fresh.watch.stopped and whole.watch.stopped and fresh.kept() == whole.kept()


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"every": 0}, {"pictures": 1}, {"tolerance": -1.0}, {"patience": -1}):
        with pytest.raises(TastemakerError, match="watch"):
            WatchConfig(**wrong)
