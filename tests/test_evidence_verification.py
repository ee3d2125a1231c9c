"""evidence/verification.py on models that have learned nothing: its prompts, records, rows and figures by hand."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import tiny_clip

sys.path.insert(0, str(Path(__file__).parents[1]))

from evidence import (
    verification_curves,
    verification_figure,
    verification_lab,
    verification_reflection,
    verification_search,
    verification_table,
)
from evidence.rows import row, write_rows
from evidence.verification_training import corrected, judge_of, policy, trained_how
from tastemaker.records import Interval
from tastemaker.rewards.table import load_rewards
from tastemaker.rewards.tiny_judge import JudgeConfig, TinyJudge
from tastemaker.weights import shipped
from tastemaker.world.grammar import TASKS

pytestmark = pytest.mark.skipif(not shipped("detector-b").is_file(), reason="the shipped weights are not there")
TINY = replace(verification_lab.QUICK, paired=4, per_prompt=2, dpo_steps=2, dpo_batch=2)


@pytest.fixture
def lab(tmp_path):
    """Its judge is never trained, and pairs are told apart by tiny-clip: nothing that it draws is right."""
    verification_lab.fresh().save(tmp_path / "masked")
    (tmp_path / "partial").mkdir()
    lab = verification_lab.Lab(tmp_path, tmp_path / "partial", TINY, str(tmp_path / "masked"))
    lab.__dict__["labels"] = load_rewards(["alignment"])[0]
    for name in ("orm", "parm"):
        folder = lab.made / f"judge-{name}-0"
        folder.mkdir(parents=True)
        TinyJudge.new(tiny_clip(), JudgeConfig(32, 1), seed=1).write(folder / "model.safetensors")
        (folder / "result.json").write_text("{}")
    return lab


def test_nobody_learns_from_an_evaluated_prompt(lab):
    lab = replace(lab, scale=verification_lab.Scale())
    evaluated = {p.text for p in lab.prompts if p.spec["tag"] != "single_object"}
    assert len(evaluated) == 5 * lab.scale.per_task
    for part in lab.training_prompts(3, lab.scale.judged):
        assert {p.spec["tag"] for p in part} == set(TASKS) and not evaluated & {p.text for p in part}


def test_a_record_is_made_once_and_again_for_other_weights(lab):
    made = []

    def make():
        made.append(1)
        return {"right": {"kept": [len(made)]}}

    assert lab.once("x-0", make)["right"] == lab.once("x-0", make)["right"] == {"kept": [1]}
    lab.__dict__["weights"] = "others"
    assert lab.once("x-0", make)["right"] == {"kept": [2]}
    assert replace(lab, scale=replace(TINY, dpo_steps=3)).once("x-0", make)["right"] == {"kept": [3]}


def test_a_search_is_recorded_with_its_cost(lab, monkeypatch):
    monkeypatch.setattr(verification_search, "checked", lambda images, prompts: torch.arange(len(images)) % 2)
    found = verification_search.parm_of(lab, "base", 0)
    assert found["right"]["kept"] == [k % 2 for k in range(len(lab.prompts))]
    assert found["ledger"]["paths"] == 2 * len(lab.prompts) and found["ledger"]["evaluations_after_pruning"] == 0
    cost = verification_search.cost_of([found], len(lab.prompts))
    assert cost["paths"] == 2 and sum(cost["gflops"].values()) > 0
    whole = verification_search.best_of(lab, 2, 0)
    assert whole["ledger"]["network_evaluations"] >= found["ledger"]["network_evaluations"]
    pool = verification_search.pool(lab, "base", 0)
    assert set(pool["right"]) == {"plain", "orm_zero_shot", "orm", "parm"}
    assert pool["curves"]["any"]["2"] == [1.0] * len(lab.prompts)  # of two neighbours one is right


def test_what_is_not_asked_costs_nothing(lab):
    judge = judge_of(lab, "parm", 0)
    images, progress = torch.rand(3, 3, 64, 64), torch.full((3,), 0.5)
    part = verification_search.Without(judge, "clear")
    assert part.clear(images, lab.prompts[:3], progress).tolist() == [1, 1, 1] and part.computed == 0
    assert torch.equal(part.score(images, lab.prompts[:3]), judge.score(images, lab.prompts[:3]))
    assert part.computed == 3
    clarity = verification_search.Answer(judge, "clear").score(images, lab.prompts[:3])
    assert torch.equal(clarity, judge.clear(images, lab.prompts[:3], progress))


def test_a_policy_is_trained_once_from_the_stage_before(lab):
    base, tuned = lab.generator(), policy(lab, "dpo", 0)
    before, after = (dict(g.network.named_parameters()) for g in (base, tuned))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    again = policy(lab, "dpo", 0)
    assert all(torch.equal(p, after[name]) for name, p in again.network.named_parameters())
    assert trained_how(lab, "dpo", 0)["rounds"][0]["pairs"] >= 1
    further = policy(lab, "it_dpo_guided", 0)  # trains it_dpo first
    assert len(trained_how(lab, "it_dpo_guided", 0)["rounds"]) == 2
    assert any(not torch.equal(p, after[name]) for name, p in further.network.named_parameters())


def test_reflection_is_of_a_generator_that_was_tuned_for_it(lab):
    found = verification_reflection.reflected(lab, "correct", 2, 0)
    assert {len(found[name]) for name in ("redrawn", "taken")} == {len(lab.prompts)}
    assert set(found["right"]) == {"with", "without"} and found["ledger"]["paths"] >= 2 * len(lab.prompts)
    base, tuned = (dict(g.network.named_parameters()) for g in (lab.generator(), corrected(lab, 0)))
    assert any(not torch.equal(base[name], tuned[name]) for name in base)


def test_candidates_by_hand():
    check = torch.tensor([[0, 1, 1], [0, 0, 0]])
    found = verification_search.chosen_of(check, {"a": torch.tensor([[3.0, 2, 1], [1, 1, 1]])})
    assert found["right"] == {"plain": [0.6667, 0.0], "a": [0, 0]} and found["rank_accuracy"]["a"] == 0
    assert found["curves"]["a"]["2"] == [round(1 / 3, 4), 0.0] and found["curves"]["any"]["2"] == [1.0, 0.0]
    best = verification_search.chosen_of(check, {"a": torch.tensor([[1.0, 1, 2], [1, 1, 1]])})
    assert best["right"]["a"] == [1, 0] and best["rank_accuracy"]["a"] == 0.75


def test_the_cost_of_a_score_by_hand():
    assert verification_curves.needed([1, 4, 16], [0.1, 0.3, 0.5], 0.4) == pytest.approx(8)
    assert verification_curves.needed([1, 4], [0.5, 0.4], 0.4) == 1
    assert math.isinf(verification_curves.needed([1, 4], [0.1, 0.2], 0.4))


def test_table_a_has_the_rows_that_are_claimed(lab, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)

    def made(lab, *words):
        names = ("plain", "kept", "orm_zero_shot", "orm")
        ledger = {"seconds_by_part": {}, "flops_by_part": {}, "paths": 2, "pruned": 1, "network_evaluations": 8}
        bits = {n: rng.integers(0, 2, len(lab.prompts)).tolist() for n in names}
        bits["plain"] = [0.5 if words[0] == "dpo" else 0.25] * len(lab.prompts)
        said = {"ledger": {**ledger, "verifier_calls": 2}, "training": {}, "rank_accuracy": {}}
        return {"right": bits, **said}

    for name in ("pool", "parm_of", "step_by_step"):
        monkeypatch.setattr(verification_table, name, made)
    rows = {r["claim"]: r for r in verification_table.rows(lab)}
    tuned = ("dpo", "it_dpo", "it_dpo_parm", "it_dpo_guided", "it_dpo_guided_parm")
    names = ("orm_zero_shot", "orm", "prm_zero_shot", "prm", "parm", *tuned)
    assert {"base", *names, *(f"{name}_minus_base" for name in names)} <= set(rows)
    stack = rows["it_dpo_parm_minus_best_single"]
    singles = [rows[name]["value"] for name in ("it_dpo", "parm")]
    assert stack["value"] == pytest.approx(rows["it_dpo_parm"]["value"] - max(singles))
    assert rows["parm_minus_base"]["target"] == 0.14 and rows["parm_minus_base"]["paper"] == 0.14
    assert set(rows["base"]["beside"]["tasks"]) == set(TASKS)
    assert rows["base"]["value"] == 0.25 and rows["dpo"]["value"] == 0.5
    assert rows["dpo_minus_base"]["value"] == rows["dpo_minus_base"]["low"] == 0.25
    verification_figure.draw_figure(list(rows.values()), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").is_file()


def test_an_infinite_figure_is_written_and_read_again(tmp_path, capsys):
    found = row("ratio", Interval(math.inf, 0.5, math.inf, 3), [], (0,), "none")
    write_rows(tmp_path / "rows.json", [found])
    again = json.loads((tmp_path / "rows.json").read_text())
    assert again[0]["value"] is None
    write_rows(tmp_path / "rows.json", again)
    assert capsys.readouterr().out.splitlines()[-1] == "ratio: inf (0.5000, inf)"
