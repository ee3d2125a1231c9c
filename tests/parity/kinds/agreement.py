"""Agreement, rank correlations and Bradley-Terry strengths beside krippendorff, statsmodels, scipy and choix."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
from comparison import Comparison, close, equal

from tastemaker import correlation
from tastemaker.annotate import agreement as ag
from tastemaker.annotate import strengths as st
from tastemaker.errors import TastemakerError

EXACT, STRENGTHS, PROBABILITIES = 1e-10, 1e-6, 1e-7
ABOUT_THE_DATA = {"stationarity_max_abs", "max_abs_ilsr_vs_mm", "max_abs_ilsr_vs_newton"}
CORRELATIONS = {
    "kendall_tau_b": correlation.kendall,
    "kendall_tau_c": correlation.kendall_c,
    "kendall_p": correlation.kendall_p,
    "spearman": correlation.spearman,
    "pearson": correlation.pearson,
}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    inputs, expected = (json.loads((folder / f"{name}.json").read_text()) for name in ("inputs", "expected"))
    for name, figures in expected["krippendorff"].items():
        if name == "edge_official_behaviour":
            yield from compare_undefined(figures)
        else:
            yield from compare_alpha(name, table(inputs["krippendorff"][name]), figures)
    for level, value in expected["krippendorff_value_counts"].items():
        ours = ag.krippendorff_of_counts(inputs["krippendorff_value_counts"], level)
        yield close(f"krippendorff_value_counts/{level}", ours, value, atol=EXACT)
    yield from compare_kappas(inputs, expected)
    for name, figures in expected["rank_correlations"].items():
        yield from compare_correlations(name, inputs["rank_pairs"][name], figures)
    for name, figures in expected["bradley_terry"].items():
        yield from compare_strengths(f"bradley_terry/{name}", inputs["bradley_terry"][name], figures)


def table(rows) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in row] for row in rows], np.float64)


def compare_alpha(name, ratings, figures) -> Iterator[Comparison]:
    for level, value in figures.items():
        yield close(f"krippendorff/{name}/{level}", ag.krippendorff(ratings, level), value, atol=EXACT)


def compare_undefined(cases) -> Iterator[Comparison]:
    """The package raises; ours gives NaN for every level."""
    for name, case in cases.items():
        raised = str(case["result"]).startswith("ValueError")
        ours = [bool(np.isnan(ag.krippendorff(table(case["data"]), level))) for level in ag.LEVELS]
        yield equal(f"krippendorff/{name} is undefined", ours, [raised] * len(ours))


def compare_kappas(inputs, expected) -> Iterator[Comparison]:
    for name, figures in expected["fleiss"].items():
        counts = inputs["fleiss_counts"][name]
        yield close(f"fleiss/{name}", ag.fleiss(counts), figures["fleiss"], atol=EXACT)
        yield close(f"randolph/{name}", ag.randolph(counts), figures["randolph"], atol=EXACT)
        ratings = np.array(inputs["fleiss_ratings"][name])
        again = (ratings[:, :, None] == np.arange(len(counts[0]))).sum(1)
        yield close(f"fleiss/{name} from ratings", ag.fleiss(again), figures["fleiss"], atol=EXACT)
    for name, value in expected["cohen"].items():
        weights = None if name == "unweighted" else name
        counts = np.array(inputs["cohen_confusion"])
        yield close(f"cohen/{name}", ag.cohen_of_counts(counts, weights), value, atol=EXACT)
        x, y = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.reshape(-1), axis=1)
        yield close(f"cohen/{name} from ratings", ag.cohen(x, y, weights), value, atol=EXACT)


def compare_correlations(name, rows, figures) -> Iterator[Comparison]:
    for figure, value in figures.items():
        ours = CORRELATIONS[figure](rows["x"], rows["y"])
        yield close(f"rank/{name}/{figure}", ours, np.nan if value is None else value, atol=EXACT)


def compare_strengths(what, votes, figures) -> Iterator[Comparison]:
    wins = np.array(votes["win_matrix"])
    if "votes" in votes:
        yield close(f"{what} wins", wins_of(votes), wins)
    if "strengths_mean_zero" not in figures:
        yield equal(f"{what} has no finite maximum", refused(wins), True)
        return
    ours = st.bradley_terry(wins)
    yield from compare_fit(what, wins, ours, figures)
    for name, value in figures.items():
        if name.startswith("ilsr_alpha_"):
            alpha = float(name.removeprefix("ilsr_alpha_").replace("_", ".", 1))
            yield close(f"{what}/{name}", st.bradley_terry(wins, gamma=alpha * len(wins)), value, atol=STRENGTHS)
        elif name.startswith("l2_penalised_on_doubled_votes_alpha_"):
            alpha = float(name.removeprefix("l2_penalised_on_doubled_votes_alpha_").replace("_", ".", 1))
            yield close(f"{what}/{name}", st.bradley_terry(2 * wins, l2=2 * alpha), value, atol=1e-5)


def compare_fit(what, wins, ours, figures) -> Iterator[Comparison]:
    made = {
        "strengths_mean_zero": (ours, STRENGTHS),
        "mm_pairwise_mean_zero": (ours, STRENGTHS),
        "win_probability_matrix": (st.win_probability(ours), PROBABILITIES),
        "log_likelihood": (st.log_likelihood(wins, ours), STRENGTHS),
        "elo_scale_400_over_ln10": (st.elo(ours), STRENGTHS * st.ELO),
    }
    regularised = ("ilsr_alpha_", "l2_penalised_")
    for name, value in figures.items():
        if name in made:
            yield close(f"{what}/{name}", made[name][0], value, atol=made[name][1])
        elif name not in ABOUT_THE_DATA and not name.startswith(regularised):
            yield Comparison(f"{what}/{name}: no check for this figure", np.inf, np.inf, "known", False)


def wins_of(votes) -> np.ndarray:
    outcome = {"left": 1.0, "right": 0.0, "tie": 0.5}
    first, second, said = (np.array(column) for column in zip(*votes["votes"]))
    one = np.zeros(len(said), np.int64)
    items = tuple(range(votes["n_items"]))
    made = st.Comparisons(items, first, second, np.array([outcome[s] for s in said]), one, one)
    wins, ties = st.counts_of(made)
    return wins + ties / 2


def refused(wins) -> bool:
    try:
        st.bradley_terry(wins)
    except TastemakerError:
        return True
    return False
