"""`tastemaker train judge`: rows of a generator's own paths, of a file, resumed, and a judge that loads."""

import json
import math
from dataclasses import replace

import pytest
import torch
from small import tiny_clip, tiny_flow, tiny_masked
from test_commands import refused

import tastemaker as tm
from tastemaker.algorithms.judge import Config
from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.data.judgements import Judgement, read_judgements, write_judgements
from tastemaker.generators.unmasking import confidence, times_of
from tastemaker.protocols import Plan
from tastemaker.records import Prompt
from tastemaker.weights import shipped
from tastemaker.workflows.judge import judged_generator
from tastemaker.workflows.judge_rows import RECIPES, drawn_rows, judge_prompts, not_said, opposite, progress_of
from tastemaker.world.check import LABELS, WorldCheck, detector
from tastemaker.world.dataset import clean_world
from tastemaker.world.grammar import TASKS, evaluation_prompts

SHIPPED = pytest.mark.skipif(not shipped("detector-a").is_file(), reason="the shipped weights are not there")
QUICK = ["prompts=8", "per_prompt=2", "steps=4", "batch_size=8", "validate_every=2", "members=2", "width=32",
         "depth=1", "validation_share=0.25"]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    tiny_clip().write(folder / "clip.safetensors")
    tiny_masked().save(folder / "masked")
    tiny_flow().save(folder / "flow")
    return folder


@pytest.fixture(autouse=True)
def here(home, monkeypatch):
    monkeypatch.chdir(home)


def train(*words):
    return main(["train", "judge", "base=tiny-clip:clip.safetensors", *QUICK, *words])


@SHIPPED
@pytest.mark.parametrize("model", ["masked", "flow"])
def test_a_judge_of_own_paths_loads_as_a_verifier(model, home):
    more = "export=exported" if model == "masked" else "recipe=parm"
    assert train(f"model={model}", more, "--out", f"of-{model}") == 0
    result = json.loads((home / f"of-{model}" / "result.json").read_text())
    assert {"score_accuracy", "clear_accuracy", "potential_accuracy"} <= set(result["validation"])
    assert 0.5 <= result["validation"]["score_base_rate"] <= 1
    judge = tm.load_reward(f"judge:of-{model}")
    assert judge.score(torch.rand(2, 3, 16, 16), [Prompt("a photo of a cat")] * 2).shape == (2,)
    if model == "masked":
        rows = read_judgements(home / "exported" / "parm.json")
        assert {r.task for r in rows} == {"clear", "potential"} and len(rows[-1].turns) in (1, 2)
        assert {r.task for r in read_judgements(home / "exported" / "orm.json")} == {"score"}


def correct(images, prompts):
    """(B,) bool of (B, 3, H, W) uint8: the check whose labels judges learn from."""
    return WorldCheck(LABELS).score(images.float() / 255, prompts) > 0.5


@SHIPPED
@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_are_labelled_as_the_recipe_says(recipe):
    config = Config(recipe=recipe, prompts=4, per_prompt=3, rollouts=2, contrasts=False)
    prompts = judge_prompts(config)[0][:4]
    rows = drawn_rows(tiny_masked(), prompts, config, 8, 12)
    count = torch.bincount(rows.question, minlength=3).tolist()
    assert count == {"orm": [12, 0, 0], "prm": [0, 0, 12]}.get(recipe, [12, 24, 12])
    if recipe.startswith("parm"):
        assert rows.answer[rows.question == 1].float().mean() == 0.5
        ends, later = rows.take((rows.question == 0).nonzero()[:, 0]), rows.take((rows.question == 2).nonzero()[:, 0])
        assert torch.equal(ends.answer, correct(ends.images, ends.prompts))
        by_prompt = {p.text: [] for p in ends.prompts}
        for p, a in zip(ends.prompts, ends.answer.tolist()):
            by_prompt[p.text].append(a)
        for p, a in zip(later.prompts, later.answer.tolist()):
            assert a in by_prompt[p.text]
        wrong = ends.take((~ends.answer).nonzero()[:, 0])
        assert (wrong.words.max(1).values == 1).all() and (wrong.places.max(1).values == 1).all()


@SHIPPED
def test_a_judge_learns_from_the_paths_that_will_be_searched():
    assert judged_generator(Config(model="masked", sampling_steps=4, schedule="linear")).plan.times[1:3] == (
        0.25,
        0.5,
    )
    assert judged_generator(Config(model="flow", sampling_steps=4)).plan.steps == 4


def test_how_far_a_path_is_goes_by_the_tokens_that_are_known():
    masked, flow = tiny_masked(), object()
    for steps in (8, 12, 18, 50):
        cosine, linear = (Plan(confidence, times_of(name, steps)) for name in ("cosine", "linear"))
        for k in range(steps + 1):
            assert progress_of(masked, cosine, k) == round(k / steps, 4)
            assert progress_of(flow, linear, k) == round(k / steps, 4)
            known = 1 - math.cos(math.pi / 2 * progress_of(masked, linear, k))
            assert known == pytest.approx(k / steps, abs=1e-4)


def test_contrasts_have_the_other_answer_and_say_nothing_that_is_kept_apart():
    pictures, prompts = zip(*(clean_world(3)[k] for k in range(36)))
    images = (torch.stack(pictures) * 255).byte()
    seen, shifted = detector(LABELS).detect(images.float() / 255), prompts[1:] + prompts[:1]
    first = {}
    for asked in (prompts, shifted):
        answers = correct(images, asked)
        found = [opposite([s], p, bool(a), (), k) for k, (s, p, a) in enumerate(zip(seen, asked, answers))]
        own = [k for k, other in enumerate(found) if other]
        assert len(own) >= 34
        assert torch.equal(correct(images[own], [found[k] for k in own]), ~answers[own])
        first = first or {k: found[k].text for k in own if answers[k]}
    for k, text in first.items():  # one fact is another; where that prompt is kept apart, it is a third
        changed = set(text.split()) ^ set(prompts[k].text.split())
        assert len(changed) <= 4 and len(text.split()) >= len(prompts[k].text.split()) - 1
        other = opposite([seen[k]], prompts[k], True, {text}, k)
        assert other is None or other.text != text
    blank = opposite([{}], prompts[0], False, (), 0)
    assert blank is None  # nothing is right of a picture of nothing


@SHIPPED
def test_rows_of_contrasts_are_labelled_anew():
    clean = clean_world(3)
    generator, config = tiny_masked(), Config(recipe="parm++", prompts=4, per_prompt=3)
    pictures = torch.stack([clean[k][0] for k in range(12)])
    generator.preview = lambda state: pictures[: len(state)]
    prompts = [clean[k][1] for k in range(0, 12, 3)]
    plain = drawn_rows(generator, prompts, replace(config, contrasts=False), 8, 12)
    rows = drawn_rows(generator, prompts, config, 8, 12, not_said(judge_prompts(config)[1]))
    ends, before = (r.take((r.question == 0).nonzero()[:, 0]) for r in (rows, plain))
    assert len(ends) > len(before) and torch.equal(ends.answer, correct(ends.images, ends.prompts))
    assert (rows.question == 2).sum() == len(ends) and (rows.question == 1).sum() == (plain.question == 1).sum()
    wrong = ends.take((~ends.answer).nonzero()[:, 0])
    assert (wrong.words.max(1).values == 1).all() and (wrong.places.max(1).values == 1).all()
    assert not (ends.words[ends.answer] == 1).any()


def test_prompts_are_not_those_of_the_evaluation():
    train, last = judge_prompts(Config(prompts=180))
    kept = {p.text for p in evaluation_prompts(30) if p.spec["tag"] != "single_object"}
    assert not_said(last) == kept | {p.text for p in last}
    assert len(train) + len(last) == 180 and not kept & {p.text for p in [*train, *last]}
    for part in (train, last):  # a judge that never met a number cannot count
        assert {p.spec["tag"] for p in part} == set(TASKS)


@SHIPPED
def test_the_check_labels_clean_scenes_right_and_swapped_ones_wrong():
    pictures, prompts = zip(*(clean_world(3)[k] for k in range(24)))
    images = (torch.stack(pictures) * 255).byte()
    assert correct(images, prompts).float().mean() > 0.9
    assert correct(images, prompts[1:] + prompts[:1]).float().mean() < 0.3


@SHIPPED
def test_a_cut_run_goes_on_bit_for_bit(home):
    assert train("model=masked", "--out", "whole") == 0
    assert train("model=masked", "steps=2", "optimiser.cosine_steps=1500", "--out", "cut") == 0
    text = (home / "cut" / "config.yaml").read_text()
    (home / "cut" / "config.yaml").write_text(text.replace("steps: 2\n", "steps: 4\n", 1))
    assert main(["train", "judge", "--resume", "cut"]) == 0
    files = [(home / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    one, other = (tm.load_reward(f"judge:{name}") for name in ("whole", "cut"))
    images, prompts = torch.rand(2, 3, 16, 16), [Prompt("a photo of a cat")] * 2
    assert torch.equal(one.score(images, prompts), other.score(images, prompts)) and len(files[0]) > 1000


def test_a_file_of_yes_and_no_trains_too(home, capsys):
    rows = []
    for k in range(24):
        image = home / "given" / f"{k}.png"
        save_image(torch.full((3, 16, 16), 0.9 if k % 2 else 0.1), image)
        prompt = Prompt(f"a photo of a {('cat', 'dog', 'key', 'car', 'cup', 'fish')[k % 6]}")
        rows.append(Judgement(image, prompt, "score", (("Is it?", "Yes" if k % 2 else "No"),)))
    write_judgements(rows, home / "given" / "orm.json")
    assert train("recipe=orm", "validation_share=0.4", "--data", "given/orm.json", "--out", "of-file") == 0
    result = json.loads((home / "of-file" / "result.json").read_text())
    assert set(result["validation"]) == {"validation_loss", "score_accuracy", "score_base_rate"}
    given = ["base=tiny-clip:clip.safetensors", "recipe=prm", "--data", "given/orm.json", "--out", "none"]
    said = refused(capsys, "train", "judge", *given)
    assert "holds 0 rows for recipe=prm" in said


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["base=gpt", "--out", "x"], "expected base=tiny-clip[:PATH] or base=vlm:FOLDER"),
        (["base=vlm:none", "--out", "x"], "with base=vlm give recipe=parm"),
        (["recipe=vote", "--out", "x"], "unknown recipe 'vote'"),
        (["base=vlm:none", "recipe=parm", "--out", "x"], "expected config.json"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, capsys):
    assert sentence in refused(capsys, "train", "judge", *words)
