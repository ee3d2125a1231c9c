"""What the evidence computes from records: jackknifed ratios, speed-ups, best-of-n, and rows that outlive a part."""

import json
import sys
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from evidence import drl_distance, drl_lab, miro_curves, miro_lab, miro_selection, parts, rows
from tastemaker.records import Interval

G = drl_distance.GROUPS


def test_a_jackknifed_mean_has_the_standard_error_of_its_groups():
    values = torch.randn(G * 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    texts = [f"prompt {k % G}" for k in range(len(values))]
    sets = drl_distance.left_out(texts)
    assert len(sets) == G + 1 and sorted(np.concatenate(sets[1:]).tolist()) == sorted([*range(len(values))] * (G - 1))
    found = drl_distance.interval(np.array([values[rows].mean() for rows in sets]), len(values))
    groups = values.reshape(7, G).mean(0)
    half = drl_distance.T_95 * groups.std(ddof=1) / np.sqrt(G)
    assert found.value == pytest.approx(values.mean()) and found.count == len(values)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_a_ratio_is_one_of_what_lies_above_the_floor():
    base, floor = np.full(G + 1, 3.0), np.full(G + 1, 1.0)
    logs = drl_distance.log_ratio(base, [np.full(G + 1, 1.5), np.full(G + 1, 2.5)], floor)
    found = drl_distance.ratio_interval(logs, 9)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert np.isfinite(drl_distance.log_ratio(base, [floor], floor)).all()


def test_the_figures_of_a_set_are_those_of_each_of_its_parts():
    draw = np.random.default_rng(0)
    real, floor, own = (draw.normal(size=(n, 3)) for n in (64, 32, 32))
    mean, factor = drl_distance.mean_and_factor(real)
    reference = drl_distance.Reference(real, floor, mean, factor)
    sets = drl_distance.left_out([str(k) for k in range(32)])
    found = drl_distance.figures_of(own, reference, sets)
    assert found["distance"][3] == pytest.approx(reference.distance(own[sets[3]]))
    assert len(found["coverage"]) == G + 1 and 0 < found["coverage"][0] <= 1


@pytest.mark.parametrize(
    "lab, record",
    [
        (lambda folder: drl_lab.Lab(folder, folder, drl_lab.QUICK), {"value": 1}),
        (lambda folder: miro_lab.Lab(folder, folder, miro_lab.QUICK), {"scores": torch.ones(2)}),
    ],
)
def test_a_record_is_made_once_and_again_for_another_scale(lab, record, tmp_path):
    made, lab = [], lab(tmp_path)

    def make():
        made.append(1)
        return record

    first, again = lab.once("x", make), lab.once("x", make)
    assert len(made) == 1 and first.keys() == again.keys() >= record.keys()
    replace(lab, scale=replace(lab.scale, seeds=(0, 1))).once("x", make)
    assert len(made) == 1  # which seeds there are says nothing of one run
    replace(lab, scale=replace(lab.scale, batch_size=3)).once("x", make)
    assert len(made) == 2


def test_a_speedup_is_read_off_between_two_looks():
    steps, end = np.array([10.0, 20.0, 40.0, 80.0]), 3.0
    assert miro_curves.speedup(steps, end, np.array([0.0, 2.0, 4.0, 5.0])) == pytest.approx(80 / 30)
    assert miro_curves.speedup(steps, end, np.array([3.0, 4.0, 5.0, 6.0])) == 8  # not known better than a look
    assert miro_curves.speedup(steps, end, np.array([0.0, 1.0, 1.5, 2.0])) == 0
    assert miro_curves.speedup(steps, end, np.array([5.0, 1.0, 2.0, 4.0])) == pytest.approx(80 / 60)  # noise is sharp


def test_the_best_of_k_counts_every_choice():
    scores = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    for k in (1, 3, 6):
        chosen = [[float(row[list(c)].max()) for c in combinations(range(6), k)] for row in scores]
        assert miro_selection.best_of(scores, k) == pytest.approx(np.mean(chosen, 1), abs=1e-6)


@dataclass(frozen=True)
class Scale:
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Lab:
    cache: Path
    partial: Path
    scale: Scale = Scale()


def test_a_part_that_runs_later_keeps_the_rows_of_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parts, "RESULTS", tmp_path)

    def part(claim):
        value = Interval(1.0, 0.0, 2.0, 3)
        return lambda lab: [rows.row(claim, value, [1.0], lab.scale.seeds, "python -m evidence.x")]

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["x", "--cache", str(tmp_path / "cache"), *words])
        parts.run_parts("x", "about", {"a": part("one"), "b": part("two")}, Lab, Scale((0,)), lambda rows, path: None)
        return {one["claim"]: one["seeds"] for one in json.loads((tmp_path / "x.json").read_text())}

    assert run("--parts", "a") == {"one": [0, 1, 2]}
    assert run("--parts", "b", "--seeds", "1") == {"one": [0, 1, 2], "two": [1]}
    assert run("--quick") == {"one": [0, 1, 2], "two": [1]}  # which claims nothing, and lies in the cache
    assert json.loads((tmp_path / "cache" / "quick" / "x.json").read_text())[0]["seeds"] == [0]
    with pytest.raises(SystemExit):
        run("--parts", "c")
    assert "expected parts among a, b, got c" in capsys.readouterr().err
