"""Batches, states and randomness: rows go in and out whole, noise is a pure function, forks never meet."""

import numpy as np
import pytest
import torch

from tastemaker.errors import TastemakerError
from tastemaker.generators.samplers import euler
from tastemaker.protocols import Condition, Draw, Plan, Prompt, State
from tastemaker.randomness import mix, noise, stream

PLAN = Plan(euler, (0.0, 0.5, 1.0))


def condition_of(count, **more):
    return Condition.of([f"prompt {k}" for k in range(count)], 2.0, **more)


def state_of(count, seed=0):
    zero = torch.zeros(count, dtype=torch.int64)
    condition = condition_of(
        count,
        targets=torch.arange(count * 2.0).reshape(count, 2),
        negative=condition_of(count, cache={"words": torch.arange(count)}),
        cache={"words": torch.arange(count) + 10},
    )
    x = torch.arange(count * 3.0).reshape(count, 3)
    memory = {"last": x + 1}
    return State(x, zero, torch.arange(count) + seed, zero, zero, zero.float(), condition, PLAN, memory)


def assert_same(a, b):
    for name in ("x", "step", "seeds", "branch", "forks", "log_weight"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.condition.prompts == b.condition.prompts and a.plan == b.plan
    assert torch.equal(a.condition.targets, b.condition.targets)
    assert torch.equal(a.condition.cache["words"], b.condition.cache["words"])
    assert torch.equal(a.condition.negative.cache["words"], b.condition.negative.cache["words"])
    assert torch.equal(a.memory["last"], b.memory["last"])


def test_taking_apart_and_putting_together_changes_nothing():
    state = state_of(5)
    assert_same(State.concatenate([state[:2], state[2], state[[3, 4]]]), state)
    mask = torch.tensor([True, False, True, False, False])
    assert_same(state[mask], State.concatenate([state[0], state[2]]))
    assert state[-1].condition.prompts == (Prompt("prompt 4"),) and len(state[[]]) == 0
    draw = Draw(torch.rand(4), torch.rand(4, 2))
    assert torch.equal(Draw.concatenate([draw[3], draw[:3]]).noise, draw.noise[[3, 0, 1, 2]])


def test_conditions_with_and_without_targets_or_negatives_join():
    """None means the null condition and no wish: joined with rows that have one, it must still mean that."""
    wished = condition_of(2, targets=torch.ones(2, 3), negative=Condition.of(["blurry", "grey"]))
    plain = condition_of(1)
    for parts in ([wished, plain], [plain, wished]):
        joined = Condition.concatenate(parts)
        at = 2 if parts[0] is wished else 0
        assert joined.targets.shape == (3, 3) and joined.targets[at].isnan().all()
        assert joined.targets.isnan().sum() == 3
        assert joined.negative.prompts[at] == Prompt("") and len(joined.negative) == 3
        assert {p.text for p in joined.negative.prompts} == {"", "blurry", "grey"}


def test_a_half_prepared_join_is_prepared_again():
    known = condition_of(1, cache={"words": torch.zeros(1)})
    for parts in ([known, condition_of(2)], [condition_of(2), known]):
        assert Condition.concatenate(parts).cache == {}
    assert Condition.concatenate([known, known]).cache["words"].shape == (2,)


def test_memory_of_other_kinds_does_not_join():
    state = state_of(2)
    other = State(**{**vars(state), "memory": {}})
    for parts in ([state, other], [other, state]):
        with pytest.raises(TastemakerError, match="memory|join"):
            State.concatenate(parts)


def test_noise_is_a_pure_function_of_seed_branch_step_and_purpose():
    def at(seed=3, branch=0, step=1, purpose="step"):
        return noise((2, 2), *(torch.tensor([k]) for k in (seed, branch, step)), purpose)

    assert torch.equal(at(), at()) and at().dtype == torch.float32
    others = [at(seed=4), at(branch=1), at(step=2), at(purpose="start"), at(seed=1, branch=3)]
    assert all(not torch.equal(at(), o) for o in others)
    batch = noise((2, 2), torch.tensor([9, 3]), torch.tensor([5, 0]), torch.tensor([0, 1]), "step")
    assert torch.equal(batch[1:], at())
    assert noise((2, 2), *[torch.zeros(0, dtype=torch.int64)] * 3, "step").shape == (0, 2, 2)
    many = noise((400,), torch.arange(100), torch.zeros(100, dtype=torch.int64), torch.zeros(100).long(), "step")
    assert abs(float(many.mean())) < 0.025 and float(many.std()) == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(many.numpy())[~np.eye(100, dtype=bool)]).mean() < 0.06  # 1 / sqrt(400) = 0.05


def test_mix_and_streams_tell_every_word_apart():
    found = {mix(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(found) == 8000 and all(0 <= h < 2**63 for h in found)
    assert mix(-1) != mix(1) and mix(1, 0) != mix(1)
    assert stream(1).random() == stream(1).random() != stream(2).random()


def test_fork_children_differ_and_child_0_goes_on_as_its_parent():
    state = state_of(3)
    forked = state.fork(4)
    assert torch.equal(forked[::4].branch, state.branch) and torch.equal(
        forked.seeds, state.seeds.repeat_interleave(4)
    )
    assert torch.equal(forked.x, state.x.repeat_interleave(4, 0))
    assert torch.equal(forked[::4].noise("step"), state.noise("step"))
    draws = forked.noise("step")
    assert len({tuple(row.tolist()) for row in draws}) == 12


def test_forking_again_never_shares_a_branch():
    state = state_of(2)
    twice = state.fork(3).fork(3).fork(2)  # at one step, the hard case
    lines = list(zip(twice.seeds.tolist(), twice.branch.tolist()))
    assert len(set(lines)) == len(lines) == 36
    alone = state[1].fork(3).fork(3).fork(2)
    assert torch.equal(alone.branch, twice[18:].branch)


def test_noise_may_take_another_shape():
    state = state_of(2)
    assert state.noise("flip", torch.zeros(2, 7)).shape == (2, 7)
    assert state.done.tolist() == [False, False]
