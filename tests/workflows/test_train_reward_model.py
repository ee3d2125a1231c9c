"""Votes to a reward that loads: simulated raters, files of votes, a ratings table, resuming, BLIP, measuring."""

import itertools
import json

import numpy as np
import pytest
import torch
from small import tiny_clip

import tastemaker as tm
from tastemaker.cli.main import main
from tastemaker.data.images import content_hash, save_image
from tastemaker.data.votes import Votes, write_votes
from tastemaker.encoders.blip import BlipConfig
from tastemaker.encoders.wordpiece import WordPieces
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt, Vote
from tastemaker.report.metrics import read_metrics
from tastemaker.rewards import feature_scorer
from tastemaker.rewards.imagereward import ImageReward, ImageRewardNetwork
from tastemaker.weights import shipped
from tastemaker.workflows.judged import is_table, parts_of, read_judged
from tastemaker.workflows.reward_model import train_reward_model
from tastemaker.workflows.simulated_votes import agreement_of, noise_for, simulated_votes
from tastemaker.world.dataset import clean_world
from tastemaker.world.raters import Taste, ceiling

SHIPPED = pytest.mark.skipif(not shipped("detector-r").is_file(), reason="the shipped weights are not there")
QUICK = ["steps=6", "batch_size=12", "validate_every=3", "members=2", "width=32", "depth=1", "validation_share=0.3"]


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    path = tmp_path_factory.mktemp("towers") / "clip.safetensors"
    tiny_clip().write(path)
    return f"base=tiny-clip:{path}"


@pytest.fixture(scope="module")
def votes(tmp_path_factory):
    """Thirty prompts with four pictures each; the brighter one wins every vote."""
    folder = tmp_path_factory.mktemp("votes")
    pictures, answers = {}, []
    for k in range(30):
        prompt, names = clean_world(5, 16)[k][1], []
        for shade in np.random.default_rng(k).permutation(4):
            save_image(torch.full((3, 16, 16), 0.1 + 0.25 * shade + k / 1000), folder / f"{k}-{shade}.png")
            name = content_hash(folder / f"{k}-{shade}.png")
            pictures[name] = (folder / f"{k}-{shade}.png").relative_to(folder)
            names.append((name, shade))
        answers += [
            Vote(f"p{k}", prompt.text, a, b, "a" if x > y else "b", "anna")
            for (a, x), (b, y) in itertools.combinations(names, 2)
        ]
    made = Votes(tuple(answers), pictures=pictures, folder=folder)
    out = tmp_path_factory.mktemp("written")
    write_votes(made, out, "jsonl")
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    rows = ["file,prompt,generator,mos_quality,std_quality,mos_align"]
    for k in range(12):
        for i in range(4):
            save_image(
                torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(k * 4 + i)), folder / f"{k}{i}.png"
            )
            rows.append(f'{k}{i}.png,"prompt, number {k}",g{i},{i + k / 100},0.1,{3 - i}')
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_from_votes_to_a_reward_that_knows_them(tmp_path, votes, towers):
    words = [*QUICK, towers, "steps=150", "validate_every=30", "frozen_share=0", "optimiser.learning_rate=3e-3"]
    run = train_reward_model(None, words, tmp_path / "run", None, votes)
    found = json.loads((run.folder / "result.json").read_text())["preference"]["preference"]
    assert found["pair accuracy"]["value"] > 0.9 and found["pair accuracy"]["count"] > 5
    reward = tm.load_reward(f"preference:{run.folder}")
    images = torch.stack([torch.full((3, 16, 16), v) for v in (0.2, 0.8)]).requires_grad_()
    dark, light = reward.score(images, [Prompt("a photo of a cat")] * 2)
    (light - dark).backward()
    assert light > dark and images.grad.abs().sum() > 0
    assert reward.provenance.weight_hash and reward.spread(images, [Prompt("a cat")] * 2).shape == (2,)


def test_a_run_that_is_cut_goes_on_bit_equal(tmp_path, votes, towers, monkeypatch):
    whole = train_reward_model(None, [*QUICK, towers], tmp_path / "whole", None, votes)
    from tastemaker.workflows import reward_model

    def cut(run, records, state, *more):
        list(itertools.islice(records, 4))
        run.save(state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reward_model, "follow", cut)
        train_reward_model(None, [*QUICK, towers], tmp_path / "cut", None, votes)
    resumed = train_reward_model(None, (), None, tmp_path / "cut", votes)
    first, second = ((r.folder / "model.safetensors").read_bytes() for r in (whole, resumed))
    assert first == second
    rows = [read_metrics(r.folder / "metrics.jsonl") for r in (whole, resumed)]
    assert [row["loss"] for row in rows[0]][4:] == [row["loss"] for row in rows[1]]
    with pytest.raises(TastemakerError, match="weights.pairs"):
        others = read_judged(votes)
        monkeypatch.setattr(reward_model, "judgements", lambda *a: type(others)(others.pairs[:-6], others.pictures))
        train_reward_model(None, (), None, tmp_path / "cut", votes)


def test_parts_are_by_prompt_and_weights_are_even(votes):
    judged = read_judged(votes)
    parts = parts_of(judged, 0.3, 0.2, 0, True, True)
    texts = [{p.prompt.text for p in part} for part in parts.values()]
    assert all(not a & b for a, b in itertools.combinations(texts, 2)) and sum(map(len, parts.values())) == 180
    weights = [p.weight for p in parts["train"]]
    assert sum(weights) / len(weights) == pytest.approx(1)
    with pytest.raises(TastemakerError, match="leave nothing for validation"):
        parts_of(type(judged)(judged.pairs[:6], judged.pictures), 0.1, 0.0, 0, True, False)


def test_a_ratings_table_is_told_from_votes(table, votes):
    assert is_table(table) and is_table(table / "ratings.csv") and not is_table(votes)
    quality, alignment = (read_judged(table, scale) for scale in ("quality", "alignment"))
    assert len(quality.pairs) == 12 * 6 and quality.digest != alignment.digest
    assert all(q.preference == 1 - a.preference for q, a in zip(quality.pairs, alignment.pairs))
    assert sum(p.preference == 0.5 for p in read_judged(table, "quality", margin=1.5).pairs) == 12 * 3
    with pytest.raises(TastemakerError, match="mos_quality, mos_align; say which with scale=NAME"):
        read_judged(table)


class Pixels:
    """Encoders of a few numbers."""

    digest = "pixels"

    class stages:
        dim = 3

    class low:
        dim = 3

    class words:
        dim = 1

    def pictures(self, images):
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)

    def prompts(self, prompts):
        return torch.tensor([[float(len(p.text))] for p in prompts])


def test_frozen_features_are_read_once_and_kept(tmp_path, table, monkeypatch):
    read = []
    monkeypatch.setattr(feature_scorer, "PackagedEncoders", Pixels)
    monkeypatch.setattr(
        Pixels, "pictures", lambda self, x, real=Pixels.pictures: read.append(len(x)) or real(self, x)
    )
    words = ["base=features", "scale=quality", *QUICK, "test_share=0.2"]
    run = train_reward_model(None, words, tmp_path / "run", None, table)
    trained = len(read)
    assert (run.folder / "checkpoints" / "features.safetensors").is_file() and trained >= 48
    again = train_reward_model(None, (), None, run.folder, table)
    assert len(read) - trained < 30  # the test pictures, which are scored from pixels
    assert tm.load_reward(f"preference:{again.folder}").score(
        torch.rand(2, 3, 8, 8), [Prompt("any words")] * 2
    ).shape == (2,)


@SHIPPED
def test_simulated_raters_agree_as_often_as_asked_and_have_a_ceiling():
    judged = simulated_votes(12, agreement=0.7, seed=3)
    assert len(judged.pairs) == 12 * 15 and judged.pictures("0-3").shape == (3, 64, 64)
    best = judged.ceiling(judged.pairs)
    assert 0.7 < best < 0.95
    again = simulated_votes(12, agreement=0.7, seed=3)
    assert judged.digest == again.digest != simulated_votes(12, agreement=0.7, seed=4).digest
    surer = simulated_votes(12, agreement=0.95, seed=3)
    assert surer.ceiling(surer.pairs) > best
    assert {p.preference for p in judged.pairs} == {0.0, 1.0}


def test_noise_for_an_agreement():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    for ties in (0.0, 0.5):
        taste = Taste(noise=noise_for(a, b, Taste(ties=ties), 0.65), ties=ties)
        assert agreement_of(a, b, taste) == pytest.approx(0.65, abs=1e-6)
    assert 0.65 < ceiling(a, b, taste) < 0.85
    even = torch.zeros(5, dtype=torch.float64)
    assert agreement_of(even, even, Taste()) == pytest.approx(0.5)


def test_the_architecture_of_imagereward_trains_through_the_same_loop(tmp_path, table):
    numbers = {p: i for i, p in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "prompt", "number", ","])}
    config = BlipConfig(
        size=32, patch=16, width=16, depth=2, heads=2, hidden=32, words=9, positions=40, text_width=16, text_depth=2,
        text_heads=2, text_hidden=32, shared=4,
    )  # fmt: skip
    torch.manual_seed(0)
    inner = ImageRewardNetwork(config)
    base = tmp_path / "base"
    base.mkdir()
    ImageReward(inner, WordPieces(numbers)).write(base / "ImageReward.safetensors")
    (base / "vocab.txt").write_text("\n".join(numbers) + "\n")
    words = [f"base=imagereward:{base}", "scale=quality", *QUICK, "test_share=0.2", "members=1", "frozen_share=0.5"]
    run = train_reward_model(None, words, tmp_path / "run", None, table)
    reward = tm.load_reward(f"preference:{run.folder}")
    trained = reward.scorers[0].network.inner.blip
    before = inner.state_dict()
    moved = [n for n, v in trained.state_dict().items() if not torch.equal(v, before[f"blip.{n}"])]
    assert moved and all(".0." not in n for n in moved if "blocks" in n or "layer." in n)  # half of each tower stayed
    images = torch.rand(2, 3, 48, 40, requires_grad=True)
    reward.score(images, [Prompt("prompt number one")] * 2).sum().backward()
    assert images.grad.abs().sum() > 0
    again = train_reward_model(None, words, tmp_path / "again", None, table)
    assert (again.folder / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_the_commands(tmp_path, votes, towers, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "reward-model", *QUICK, towers, "--data", str(votes), "--out", "run"]) == 0
    assert "report.html" in capsys.readouterr().out
    words = ["evaluate", "preference", "preference:run,sharpness", "--data", str(votes), "--out", "measured"]
    assert main(words) == 0
    result = json.loads((tmp_path / "measured" / "result.json").read_text())
    assert {"preference:run", "sharpness"} <= set(result)
    assert result["preference:run"]["preference"]["pair accuracy"]["count"] == 180
    assert "pair accuracy" in (tmp_path / "measured" / "report.html").read_text()
    assert main(["train", "reward-model", "base=tiny-clop", "--out", "bad"]) == 2
    assert "nearest known: tiny-clip" in capsys.readouterr().err and not (tmp_path / "bad").exists()
    assert main(["train", "reward-model", "--data", "gone", "--out", "bad"]) == 2
    assert main(["evaluate", "preference", "preference:nowhere", "--data", str(votes), "--out", "bad"]) == 2
    assert "no weights at nowhere" in capsys.readouterr().err and not (tmp_path / "bad").exists()
