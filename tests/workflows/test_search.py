"""`tastemaker search ...` from end to end: folders, ledgers, strips, pairs for DPO, bad input in a sentence."""

import json

import pytest
import torch
from small import tiny_flow, tiny_masked
from test_commands import refused

from tastemaker.cli.main import main
from tastemaker.data.chosen import read_chosen
from tastemaker.data.images import load_image
from tastemaker.records import Prompt
from tastemaker.workflows.sample import plan_of
from tastemaker.workflows.search import METHODS, paths_for, stochastic
from tastemaker.workflows.search_report import kept_diversity

REWARD = """
def red(images, prompts):
    return images[:, 0].mean((1, 2)) * 10


def green(images, prompts):
    return images[:, 1].mean((1, 2)) * 10


def none(images, prompts):
    return images.mean((1, 2, 3)) * float("nan")


class Judge:
    name, differentiable, range = "judge", False, (-10.0, 10.0)

    def score(self, images, prompts):
        return red(images, prompts)

    def clear(self, images, prompts, progress):
        return (progress > 0.3).float()

    def potential(self, images, prompts, progress):
        return (images[:, 0].mean((1, 2)) * 997) % 1

    def critique(self, images, prompts):
        return ["there is no " + p.text.split()[-1] for p in prompts]

    def faults(self, images, prompts):
        return images.new_full((len(images), 2, 2), 0.9)


judge = Judge()
"""
QUICK = {
    "prm": ["n=3"],
    "parm": ["n=4"],
    "reflect": ["n=2", "rounds=2", "accept=100"],
    "particles": ["n=3", "strength=5", "least_share=1"],
    "halving": ["n=4"],
    "threshold": ["n=3", "accept=100", "least=0.4"],
    "noise": ["n=2", "rounds=2"],
    "draft": ["n=4", "draft_steps=2", "keep=2"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    tiny_flow().save(folder / "flow")
    tiny_masked().save(folder / "masked")
    (folder / "reward.py").write_text(REWARD)
    return folder


@pytest.fixture(autouse=True)
def here(home, monkeypatch):
    monkeypatch.chdir(home)


def search(method, model, out, *words):
    given = ["--prompt", "a photo of a cat", "--seed", "0..1", "--steps", "5", "--reward", "reward.py:judge"]
    assert main(["search", method, model, *given, *words, "--out", out]) == 0
    return json.loads(open(f"{out}/ledger.json").read())


def rows_of(out):
    return [json.loads(line) for line in open(f"{out}/pictures.jsonl")]


PAIRS = [(m, k) for m in QUICK for k in ("flow", "masked")]


@pytest.mark.parametrize("method, model", [p for p in PAIRS if p not in (("reflect", "flow"), ("noise", "masked"))])
def test_every_search_writes_its_folder(method, model, home, capsys):
    out = f"{method}-{model}"
    ledger = search(method, model, out, *QUICK[method])
    rows = rows_of(out)
    assert len(rows) == 2 and [r["seed"] for r in rows] == [0, 1]
    for row in rows:
        kept = row["scores"][row["chosen"]]
        assert kept == max(s for s in row["scores"] if s is not None)
        assert kept == pytest.approx(float(load_image(home / out / row["file"])[0].mean()) * 10, abs=0.06)
    assert ledger["evaluations_after_pruning"] == 0 and ledger["network_evaluations"] > 0
    assert set(ledger["flops_by_part"]) == {"generator", "decoder", "verifier"}
    page = (home / out / "report.html").read_text()
    assert "cut off" in page and (home / out / "strips" / "000001.png").stat().st_size > 500
    said = capsys.readouterr()
    assert said.out.strip().splitlines()[-1] == f"{out}/report.html" and "100%" in said.err
    assert set(METHODS) == {*QUICK, "best-of-n", "calibrate"}


def test_pairs_of_a_search_are_read_by_dpo(home, capsys):
    out = "exported"
    search("halving", "masked", out, "n=4", "keep=0.75", "--export-pairs", "pairs/all.jsonl")
    pairs = read_chosen(home / "pairs" / "all.jsonl")
    assert len(pairs) == 2 and "wrote 2 pairs" in capsys.readouterr().out
    for pair, row in zip(pairs, rows_of(out)):
        scores = [s for s in row["scores"] if s is not None]
        chosen, rejected = (float(load_image(p)[0].mean()) * 10 for p in (pair.image_a, pair.image_b))
        assert chosen == pytest.approx(max(scores), abs=0.06) and rejected == pytest.approx(min(scores), abs=0.06)
    tuned = ["train", "dpo", "model=masked", "rounds=1", "steps=1", "batch_size=2", "draws=1", "watch.every=9",
             "watch.pictures=2", "reward=reward.py:red", "watch.held_out=sharpness",
             "--data", "pairs/all.jsonl", "--out", "tuned"]  # fmt: skip
    assert main(tuned) == 0


def test_a_judge_who_does_not_choose_reports(home):
    words = ["--report-by", "reward.py:green", "n=4", "keep=3", "draft_steps=4"]
    search("draft", "flow", "by-green", *words)
    result = json.loads((home / "by-green" / "result.json").read_text())
    assert result["report_by"] == "green" and 0 < result["report"]["value"] < 10 and "n_curve" not in result
    assert result["diversity_of_the_kept"] > 0
    given = ["--prompt", "a photo of a cat", "--seed", "0..1", "--reward", "reward.py:red", "--n", "4"]
    more = ["--report-by", "reward.py:green", "--export-pairs", "whole.jsonl", "--out", "whole"]
    assert main(["search", "best-of-n", "masked", *given, *more]) == 0
    assert len(read_chosen(home / "whole.jsonl")) == 2
    result = json.loads((home / "whole" / "result.json").read_text())
    assert list(result["n_curve"]) == ["1", "2", "4"] and result["peak"]["n"] in (1, 2, 4)
    assert "report by n = 2" in (home / "whole" / "report.html").read_text()


def test_calibration(home, capsys):
    given = ["--prompt", "a photo of a cat", "--steps", "4", "--reward", "reward.py:red"]
    assert main(["search", "calibrate", "masked", *given, "n=4", "--out", "found"]) == 0
    said = json.loads((home / "found" / "calibration.json").read_text())
    assert len(said["correlation"]) == len(said["distance"]) == 4 and said["correlation"][-1] == pytest.approx(1)
    assert said["ledger"]["network_evaluations"] == 2 * 4 * 4 * 4  # guided, four seeds of four paths in four steps
    assert "of the steps: rank correlation" in capsys.readouterr().out


def test_a_plain_reward_is_made_to_judge_previews(capsys):
    ledger = search("parm", "flow", "plain", "--reward", "reward.py:red", "n=3")
    assert "judges no previews" in capsys.readouterr().out and ledger["paths"] == 6


def test_a_budget_sets_the_number_of_paths(home, capsys):
    ledger = search("halving", "masked", "cheap", "--budget", "25", "n=100", "--guidance", "1")
    assert ledger["paths"] == 2 * 5  # 25 evaluations are five paths of five steps
    given = ["--prompt", "a photo of a cat", "--reward", "reward.py:red", "--steps", "5", "--guidance", "1"]
    said = refused(capsys, "search", "parm", "masked", *given, "--budget", "4", "--out", "x")
    assert said.startswith("a budget of 4 network evaluations is too small for one path, which takes 5")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["parm", "masked", "--reward", "reward.py:none"], "gave no score for any candidate: nothing was selected"),
        (["parm", "masked", "n=0"], "n and every of at least 1"),
        (["parm", "masked", "horizon=3"], "unknown configuration key 'horizon'"),
        (["reflect", "flow", "--reward", "reward.py:judge"], "way=remask needs a masked-token generator"),
        (["reflect", "masked", "--reward", "reward.py:red"], "has no `faults`"),
        (["noise", "masked"], "there is no noise to search"),
        (["halving", "masked", "rungs=[0.9,0.1]"], "rungs that rise"),
        (["particles", "flow", "potential=luck"], "unknown potential 'luck'"),
        (["draft", "flow", "--steps", "3", "draft_steps=9"], "from 1 to 3 steps"),
        (["parm", "masked", "--export-pairs", "pairs.csv"], "expected --export-pairs FILE.jsonl"),
        (["draft", "masked", "keep=1", "draft_steps=2", "--export-pairs", "p.jsonl"], "no prompt has two finished"),
        (["parm", "masked", "--reward", "reward.py:red", "--report-by", "reward.py:red"], "report by another judge"),
        (["parm", "masked", "--prompt", "a photo of a zebra"], "unknown prompt word 'zebra'"),
        (["parm", "masked", "--schedule", "spiral"], "unknown schedule 'spiral'"),
        (["parm", "flow", "--schedule", "linear"], "the schedule 'linear' is for masked tokens"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, home, capsys):
    given = [] if "--prompt" in words else ["--prompt", "a photo of a cat"]
    given += [] if "--reward" in words else ["--reward", "reward.py:red"]
    given += [] if "--steps" in words else ["--steps", "4"]
    assert sentence in refused(capsys, "search", *words, *given, "--seed", "0", "--out", "refused")
    assert not (home / "refused" / "pictures.jsonl").exists()


def test_a_schedule_says_how_many_tokens_are_known():
    masked = tiny_masked()
    assert plan_of(masked, 4, "linear").times == (0, 0.25, 0.5, 0.75, 1)
    assert plan_of(masked, None, "linear").steps == masked.plan.steps
    assert plan_of(masked, 4) == masked.native_plan(4)
    assert plan_of(masked, 4, "cosine") == masked.native_plan(4)
    assert search("parm", "masked", "linear", "n=2", "--schedule", "linear")["paths"] == 4
    search("parm", "masked", "cosine", "n=2")
    one, other = (load_image(f"{name}/000000.png") for name in ("linear", "cosine"))
    assert not torch.equal(one, other)


def test_only_deterministic_plans_are_changed():
    flow, masked = tiny_flow(), tiny_masked()
    assert stochastic(masked.plan) == masked.plan and stochastic(flow.plan).sampler.__name__ == "sde"
    assert stochastic(stochastic(flow.plan)) == stochastic(flow.plan)
    cat = Prompt("a photo of a cat")
    assert paths_for(masked, cat, masked.plan, 1.0, 100) == 100 // 12


def test_diversity_needs_two_pictures_of_a_prompt():
    class Kept:
        images, prompts = [torch.rand(3, 16, 16)], [Prompt("a")]

    assert kept_diversity(Kept) is None
