"""Strengths beside scipy's optimiser, closed forms, and simulated votes whose truth is known."""

import numpy as np
import pytest
import scipy.optimize

from tastemaker.annotate import strengths as st
from tastemaker.errors import TastemakerError
from tastemaker.records import Ranking, Vote


def simulate(truth, count, v=0.0, seed=0, people=8, prompts=20):
    """Comparisons by Davidson's model, v = 0 Bradley-Terry."""
    rng = np.random.default_rng(seed)
    i, j = (np.array(x) for x in zip(*(rng.choice(len(truth), 2, replace=False) for _ in range(count))))
    weights = np.stack([np.exp(truth[i]), np.exp(truth[j]), v * np.exp((truth[i] + truth[j]) / 2)])
    drawn = (rng.random(count) * weights.sum(0) > np.cumsum(weights, 0)).sum(0)
    outcome = np.array([1.0, 0.0, 0.5])[drawn]
    where = rng.integers(0, prompts, count), rng.integers(0, people, count)
    return st.Comparisons(tuple(range(len(truth))), i, j, outcome, *where)


def test_two_items_have_the_closed_form():
    strengths = st.bradley_terry(np.array([[0, 30.0], [10, 0]]))
    assert strengths == pytest.approx([np.log(3) / 2, -np.log(3) / 2], abs=1e-9)
    assert st.win_probability(strengths)[0, 1] == pytest.approx(0.75)
    assert st.elo(strengths)[0] - st.elo(strengths)[1] == pytest.approx(400 * np.log10(3))


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_bradley_terry_is_the_optimisers(l2):
    votes = simulate(np.array([1.0, 0.3, 0.0, -0.5, -0.8]), 200, v=0.3)
    wins, ties = st.counts_of(votes)
    wins = wins + ties / 2

    def loss(s):
        return -st.log_likelihood(wins, s) + l2 / 2 * s @ s

    theirs = scipy.optimize.minimize(loss, np.zeros(5), tol=1e-12).x
    assert st.bradley_terry(wins, l2) == pytest.approx(theirs - theirs.mean(), abs=1e-4)


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_davidson_is_the_optimisers(l2):
    votes = simulate(np.array([1.0, 0.3, 0.0, -0.5, -0.8]), 300, v=0.7, seed=1)
    wins, ties = st.counts_of(votes)

    def loss(x):
        s, v = x[:5], np.exp(x[5])
        size = np.exp(s)[:, None] + np.exp(s) + v * np.exp((s[:, None] + s) / 2)
        win, tie = np.log(np.exp(s)[:, None] / size), np.log(v * np.exp((s[:, None] + s) / 2) / size)
        return -(wins * win).sum() - (ties * tie).sum() / 2 + l2 / 2 * s @ s

    theirs = scipy.optimize.minimize(loss, np.zeros(6), tol=1e-12).x
    strengths, v = st.davidson(wins, ties, l2)
    assert strengths == pytest.approx(theirs[:5] - theirs[:5].mean(), abs=1e-4)
    assert v == pytest.approx(np.exp(theirs[5]), rel=1e-4)


def test_davidson_without_ties_is_bradley_terry():
    wins, ties = st.counts_of(simulate(np.array([0.5, 0.0, -0.5]), 100))
    strengths, v = st.davidson(wins, ties)
    assert v == 0 and strengths == pytest.approx(st.bradley_terry(wins))


def test_equal_items_tie_as_often_as_v_says():
    wins, ties = np.array([[0, 30.0], [30, 0]]), np.array([[0, 40.0], [40, 0]])
    strengths, v = st.davidson(wins, ties)
    assert strengths == pytest.approx([0, 0], abs=1e-9) and v / (2 + v) == pytest.approx(0.4)


def test_many_votes_find_the_truth():
    truth = np.array([1.2, 0.4, 0.0, -0.6, -1.0])
    strengths, v = st.davidson(*st.counts_of(simulate(truth, 40_000, v=0.5)))
    assert strengths == pytest.approx(truth - truth.mean(), abs=0.05) and v == pytest.approx(0.5, abs=0.03)


def test_what_has_no_finite_maximum_is_refused_and_a_penalty_mends_it():
    unbeaten = np.array([[0, 3.0, 4], [0, 0, 2], [0, 1, 0]])
    with pytest.raises(TastemakerError, match="no finite maximum.*lost to.*l2"):
        st.bradley_terry(unbeaten)
    assert np.argmax(st.bradley_terry(unbeaten, l2=0.1)) == 0
    apart = np.zeros((4, 4))
    apart[0, 1] = apart[1, 0] = apart[2, 3] = apart[3, 2] = 1
    with pytest.raises(TastemakerError, match=r"item\(s\) \[2, 3\]"):
        st.bradley_terry(apart)
    with pytest.raises(TastemakerError, match="every comparison is a tie"):
        st.davidson(np.zeros((2, 2)), np.array([[0, 3.0], [3, 0]]))
    with pytest.raises(TastemakerError, match="counts"):
        st.bradley_terry(np.ones((2, 3)))


def test_the_intervals_cover_the_truth():
    truth, inside = np.array([0.8, 0.0, -0.8]), []
    for seed in range(40):
        found = st.strengths(simulate(truth, 300, v=0.4, seed=seed), resamples=100, seed=seed)
        inside += [i.low <= t <= i.high for i, t in zip(found.strengths, truth)]
        inside.append(found.ties.low <= 0.4 <= found.ties.high)
    assert np.mean(inside) > 0.9


def test_resampling_people_widens_where_people_differ():
    """Half of the people hold the opposite taste: votes within a person agree, so people are what varies."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(10), 60)
    outcome = (rng.random(600) < np.where(people % 2, 0.9, 0.25)).astype(float)
    ones = np.zeros(600, np.int64)
    votes = st.Comparisons(("a", "b"), ones, ones + 1, outcome, np.arange(600) % 30, people)
    by_prompt, by_person = (
        st.strengths(votes, resamples=200, over=(kind,)).strengths[0] for kind in ("prompts", "annotators")
    )
    assert by_person.high - by_person.low > 2 * (by_prompt.high - by_prompt.low)
    with pytest.raises(TastemakerError, match="prompts or annotators"):
        st.strengths(votes, resamples=2, over=("days",))


def test_few_votes_are_refused_rather_than_guessed():
    votes = simulate(np.array([2.0, 0, 0, -2]), 24, seed=4, people=3, prompts=3)
    with pytest.raises(TastemakerError, match="l2"):
        st.strengths(votes, resamples=100)
    assert len(st.strengths(votes, l2=0.2, resamples=50).strengths) == 4


def test_answers_become_comparisons_of_what_made_the_pictures():
    answers = [
        Vote("p0", "a cat", "x1", "y1", "a", "u"),
        Vote("p0", "a cat", "y1", "x1", "both_bad", "w"),
        Vote("p1", "a dog", "x2", "y2", "skip", "u"),
        Vote("p1", "a dog", "x2", "x3", "a", "u"),  # one item against itself
        Ranking("p1", "a dog", ("x2", "y2", "z9"), (2, 1, 1), "w"),
    ]
    made = st.comparisons_of(answers, lambda picture: None if picture[0] == "z" else picture[0])
    assert made.items == ("x", "y")
    assert made.outcome.tolist() == [1, 0.5, 0] and made.first.tolist() == [0, 1, 0]
    assert made.prompts.tolist() == [0, 0, 1] and made.annotators.tolist() == [0, 1, 1]
    wins, ties = st.counts_of(made)
    assert wins.tolist() == [[0, 1], [1, 0]] and ties.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(TastemakerError, match="no comparison"):
        st.comparisons_of(answers[2:3])
