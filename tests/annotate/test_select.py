"""vote-k beside its definition, neighbours beside a full sort, and what active selection prefers."""

import numpy as np
import pytest

from tastemaker.annotate import active
from tastemaker.annotate import select as sel
from tastemaker.errors import TastemakerError


def by_definition(graph, count, rho=10):
    """Equations 1 and 2 of Su et al. 2022, scored afresh at every step."""
    selected = []
    for _ in range(count):
        scores = np.full(len(graph), -1.0)
        for u in range(len(graph)):
            if u in selected:
                continue
            voters = [v for v in range(len(graph)) if v not in selected and u in graph[v]]
            scores[u] = sum(float(rho) ** -len(set(selected) & set(graph[v].tolist())) for v in voters)
        best = scores.max()
        selected.append(int(np.flatnonzero(scores >= best - 1e-9)[0]))
    return selected


@pytest.mark.parametrize("n, k, rho", [(12, 3, 10), (30, 6, 10), (30, 29, 2), (25, 1, 3)])
def test_the_picks_are_those_of_the_definition(n, k, rho):
    for seed in range(8):
        graph = sel.neighbours(np.random.default_rng(seed).normal(size=(n, 4)), k)
        assert sel.vote_k(graph, min(n, 10), rho).tolist() == by_definition(graph, min(n, 10), rho)


def test_all_can_be_picked_once_each():
    graph = sel.neighbours(np.random.default_rng(0).normal(size=(40, 3)), 5)
    assert sorted(sel.vote_k(graph, 40).tolist()) == list(range(40))


def test_neighbours_are_the_most_similar_by_cosine_across_blocks(monkeypatch):
    monkeypatch.setattr(sel, "ROWS", 7)
    monkeypatch.setattr(sel, "COLUMNS", 11)
    x = np.random.default_rng(0).normal(size=(60, 8)) * np.random.default_rng(1).uniform(0.1, 10, (60, 1))
    graph = sel.neighbours(x, 9)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    assert [set(row) for row in graph.tolist()] == [set(row) for row in np.argsort(-near, 1)[:, :9].tolist()]


def clusters(sizes, seed=0, width=16):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), width)) * 3
    of = np.repeat(np.arange(len(sizes)), sizes)
    return centres[of] + rng.normal(size=(len(of), width)) * 0.3, of


def test_every_cluster_is_chosen_before_one_is_chosen_twice():
    x, of = clusters([40, 40, 40, 40, 40])
    picks = sel.select_prompts(x, 5, k=20)
    assert sorted(of[picks]) == [0, 1, 2, 3, 4]


def test_groups_give_their_part_and_no_prompt_comes_twice():
    x, _ = clusters([100] * 5)
    seen = []
    picks = sel.select_prompts(x, 47, k=10, group=120, progress=lambda done, n: seen.append((done, n)))
    assert len(set(picks.tolist())) == len(picks) == 47
    assert seen[-1] == (500, 500) and len(seen) == 5
    again = sel.select_prompts(x, 47, k=10, group=120)
    assert np.array_equal(picks, again) and not np.array_equal(
        picks, sel.select_prompts(x, 47, k=10, group=120, seed=1)
    )


def test_a_memory_map_is_read_like_an_array(tmp_path):
    x, _ = clusters([30, 30])
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(sel.select_prompts(stored, 6, k=5), sel.select_prompts(x.astype(np.float32), 6, k=5))


def test_fewer_prompts_than_neighbours_are_no_error():
    assert len(sel.select_prompts(np.eye(4), 2)) == 2
    assert sel.select_prompts(np.ones((1, 3)), 1).tolist() == [0]


@pytest.mark.parametrize(
    "x, count, more, message",
    [
        (np.eye(4), 5, {}, "count from 1 to 4"),
        (np.ones(4), 1, {}, "shape"),
        (np.zeros((3, 2)), 1, {}, "prompt 0 is zero"),
        (np.array([[1, 0], [np.nan, 1]]), 1, {}, "prompt 1 is zero or not finite"),
        (np.eye(4), 1, {"k": 0}, "k of at least 1"),
        (np.eye(4), 1, {"rho": 1}, "rho"),
    ],
)
def test_what_cannot_be_is_refused(x, count, more, message):
    with pytest.raises(TastemakerError, match=message):
        sel.select_prompts(x, count, **more)


# the next pair

AGREED, UNDECIDED, DISPUTED = [4.0, 4.0, 4.0], [0.0, 0.0, 0.0], [4.0, -4.0, 0.0]


def test_information_prefers_what_models_dispute_and_closeness_also_what_all_call_even():
    margins = np.array([AGREED, UNDECIDED, DISPUTED]).T
    information, closeness = active.information(margins), active.closeness(margins)
    assert np.argmax(information) == 2 and information[1] == pytest.approx(0, abs=1e-12)
    assert closeness[1] == pytest.approx(np.log(2)) == closeness[2] and closeness[0] < 0.1
    assert active.spread(margins).tolist() == pytest.approx(
        [0, 0, np.std([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4)), 0.5])]
    )


def test_far_margins_are_sure_and_not_infinite():
    assert np.array_equal(active.closeness([[1e4, -1e4]]), [0, 0])
    assert np.isfinite(active.information([[1e4, 3], [-1e4, 3]])).all()


def test_one_model_has_closeness_alone():
    assert active.closeness([0.0, 1.0]).shape == (2,)
    with pytest.raises(TastemakerError, match="ensemble of at least 2"):
        active.information([0.0, 1.0])
    with pytest.raises(TastemakerError, match="without NaN"):
        active.spread([[0.0, np.nan]])


def test_the_next_pairs_are_the_highest_of_different_prompts_not_yet_asked():
    priority = [0.9, 0.8, 0.7, 0.6, np.nan, 0.5]
    prompts = ["x", "x", "y", "y", "z", "z"]
    assert active.next_pairs(priority, 3, prompts) == [0, 2, 5]
    assert active.next_pairs(priority, 3) == [0, 1, 2]
    asked = [True, False, False, False, False, False]
    assert active.next_pairs(priority, 2, prompts, asked=asked) == [1, 2]
    assert active.next_pairs(priority, 9, prompts, per_prompt=2) == [0, 1, 2, 3, 5]
    with pytest.raises(TastemakerError, match="6 prompts"):
        active.next_pairs(priority, 1, ["x"])
