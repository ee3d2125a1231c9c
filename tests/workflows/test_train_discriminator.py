"""`train discriminator` with tiny numbers: the file, its reward in DRL, splits, going on, and bad input."""

import json

import pytest
import torch
from safetensors.torch import load_file
from small import tiny_clip, tiny_flow

from tastemaker.algorithms.discriminator import Config
from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.errors import TastemakerError
from tastemaker.evaluation.held_out import require_held_out, trained_spaces
from tastemaker.records import Prompt
from tastemaker.report.metrics import read_metrics
from tastemaker.rewards.discriminator import load_discriminator, told_by
from tastemaker.rewards.table import load_reward
from tastemaker.workflows import discriminator as workflow
from tastemaker.workflows.real_pictures import choose, real_pictures
from tastemaker.world.dataset import clean_world

SMALL = ["pictures=40", "steps=20", "batch_size=8", "validate_every=5", "width=8", "sample_steps=2"]
SPACE = ["model=model", "encoder=tiny-clip:clip.safetensors", "condition=tiny-clip:clip.safetensors"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder to work in with a tiny model and towers of its own."""
    monkeypatch.chdir(tmp_path)
    tiny_flow().save(tmp_path / "model")
    tiny_clip().write(tmp_path / "clip.safetensors")
    return tmp_path


def train(*words, out="run"):
    return main(["train", "discriminator", *SPACE, *SMALL, *words, "--out", str(out)])


def test_a_run_is_a_reward_that_says_what_it_looks_through(home, capsys):
    assert train() == 0
    assert "E_fake[exp(logit)] = " in capsys.readouterr().out
    reward = load_reward("discriminator:run")
    clip = tiny_clip()
    digest = load_discriminator("run").encoder.provenance.weight_hash
    assert reward.differentiable and digest in reward.provenance.weight_hash
    assert reward.provenance.preprocessing == clip.provenance.preprocessing and "tiny-clip" in reward.provenance.model
    images = torch.rand(3, 3, 16, 16, requires_grad=True)
    prompts = [Prompt("a photo of a cat")] * 3
    scores = reward.score(images, prompts)
    assert scores.shape == (3,)
    torch.testing.assert_close(reward.score(images[1:2], prompts[1:2]), scores[1:2])
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert gradient.abs().sum() > 0
    found = json.loads((home / "run" / "result.json").read_text())["held_out"]["figures"]
    assert {"cross-entropy", "accuracy (not chosen by)"} <= set(found)
    assert all(f["low"] <= f["value"] <= f["high"] for f in found.values())


def test_its_training_space_is_not_held_out_and_another_is(home):
    assert train() == 0
    reward = load_reward("discriminator:run")
    with pytest.raises(TastemakerError, match="not held out"):
        require_held_out(reward.encoder, [reward])
    other = tiny_clip(seed=5)
    other.write(home / "other.safetensors")
    from tastemaker.encoders.table import load_encoder

    require_held_out(load_encoder("tiny-clip:other.safetensors"), [reward])
    assert len(trained_spaces(reward)) == 2  # its own file, and the encoder's


def test_parts_share_no_picture_and_pairs_share_their_prompt(home):
    """The same real picture twice lies on one side, and every fake has a seed of its own."""
    generator, encoder = tiny_flow(), tiny_clip()
    config = Config(pictures=60, validation_share=0.3, test_share=0.3, sample_steps=2, encoder="tiny-clip")

    class Twice:
        """30 pictures, each of them twice."""

        def __len__(self):
            return 60

        def __getitem__(self, index):
            return clean_world(3, 16)[index % 30]

    told = told_by("tiny-clip:clip.safetensors")
    bench = workflow.Bench(generator, encoder, told, choose(Twice(), config), config)
    pairs, parts = workflow.looked_at(bench, lambda name, make: make())
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(60))
    sides = {}
    for name, rows in parts.items():
        for k in rows.tolist():
            sides.setdefault(bench.chosen.rows[k] % 30, set()).add(name)
    assert len(sides) == 30 and all(len(names) == 1 for names in sides.values())
    assert len(torch.unique(pairs.fake, dim=0)) == 60
    k = int(parts["test"][0])
    prompt = bench.chosen.prompts([k])
    torch.testing.assert_close(pairs.told[k], told.read(prompt)[0])
    image = workflow.fakes(bench, prompt, [k])
    torch.testing.assert_close(pairs.fake[k], encoder.features(image)[0])
    assert torch.equal((image * 255).round() / 255, image) and image.min() >= 0 and image.max() <= 1


def test_going_on_is_bit_equal_and_the_pictures_are_drawn_once(home, monkeypatch):
    assert train() == 0
    true_train = workflow.discriminator.train

    def cut(*arguments):
        for record in true_train(*arguments):
            yield record
            if record.step == 7:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workflow.discriminator, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            workflow.train_discriminator(None, [*SPACE, *SMALL], home / "cut")
    monkeypatch.setattr(workflow, "fakes", lambda *_: pytest.fail("drawn again"))
    workflow.train_discriminator(resume=home / "cut")
    ours, theirs = (load_file(home / name / "model.safetensors") for name in ("cut", "run"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    rows = [[{**r, "seconds": 0} for r in read_metrics(home / n / "metrics.jsonl")] for n in ("cut", "run")]
    assert rows[0] == rows[1]


def test_r1_runs_and_shortens_the_gradient(home):
    """With a large weight the logit is flatter in the pictures than without."""
    slopes = {}
    for name, words in {"without": ["r1=0"], "with": ["r1=100", "r1_pictures=8"]}.items():
        more = ["optimiser.learning_rate=0.01", "patience=100", "validate_every=20"]
        assert train(*words, *more, out=name) == 0
        images = torch.stack([clean_world(9, 16)[k][0] for k in range(8)]).requires_grad_()
        reward = load_reward(f"discriminator:{name}")
        scores = reward.score(images, [clean_world(9, 16)[k][1] for k in range(8)])
        slopes[name] = float(torch.autograd.grad(scores.sum(), images)[0].norm())
    assert 0 < slopes["with"] < slopes["without"] / 2
    assert all(row["r1"] >= 0 for row in read_metrics(home / "with" / "metrics.jsonl"))


def test_drl_trains_with_it(home):
    assert train() == 0
    words = ["train", "drl", "model=model", "reward=discriminator:run", "steps=2", "integration_steps=3", "buffer=2"]
    more = ["batch_size=2", "watch.pictures=3", "watch.held_out=sharpness", "epochs=1", "--out", "tuned"]
    assert main([*words, *more]) == 0
    assert (home / "tuned" / "model.safetensors").is_file()


def test_a_folder_of_pictures_without_captions(home, capsys):
    for k in range(24):
        save_image(clean_world(1, 20)[k][0], home / "photos" / f"{k}.png")
    (home / "asked.txt").write_text("a photo of a cat\na photo of two dogs\n")
    assert train("--data", "photos", out="none") == 2
    assert "prompts=FILE" in capsys.readouterr().err
    assert train("prompts=asked.txt", "--data", "photos", out="told") == 2
    assert "condition=none" in capsys.readouterr().err
    more = ["prompts=asked.txt", "condition=none", "real_through_decoder=true"]
    assert train(*more, "--data", "photos") == 0
    reward = load_reward("discriminator:run")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(reward.score(images, [Prompt("anything")] * 2), reward.score(images, [Prompt("")] * 2))


def test_subfolders_are_classes(home):
    for k in range(12):
        save_image(clean_world(1, 20)[k][0], home / "photos" / ("ab"[k % 2]) / f"{k}.png")
    generator = tiny_flow()
    found = real_pictures(home / "photos", generator, Config())
    assert found.classes == ("a", "b") and [found.prompt(k).label for k in (0, 11)] == [0, 1]
    told = told_by("class", 2)
    assert told.read([found.prompt(0), found.prompt(11)]).tolist() == [0, 1]
    with pytest.raises(TastemakerError, match="class of every picture"):
        told.read([Prompt("")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder=tiny-clop"], "unknown feature space 'tiny-clop'; nearest known: tiny-clip"),
        (["condition=class"], "needs a generator of classes"),
        (["condition=tiny-clop"], "unknown reader of prompts"),
        (["pictures=8"], "leave fewer than two"),
    ],
)
def test_bad_settings(home, capsys, words, said):
    assert train(*words) == 2
    assert said in capsys.readouterr().err


def test_a_changed_encoder_is_refused(home):
    assert train() == 0
    tiny_clip(seed=5).write(home / "clip.safetensors")
    with pytest.raises(TastemakerError, match="expected the same"):
        load_discriminator("run")
    with pytest.raises(TastemakerError, match="of kind 'tiny-flow', expected 'discriminator'"):
        load_discriminator("model")


def test_looks_are_written_with_the_head_and_kept(home):
    assert train("looks=2", "look_noise=0.1", "r1=1e-3", "r1_pictures=2", "steps=4") == 0
    reward = load_discriminator("run")
    assert (reward.looks.count, reward.looks.noise) == (2, 0.1)
    images, prompts = torch.rand(2, 3, 16, 16), [Prompt("a photo of a cat")] * 2
    seen = [
        reward.network(reward.encoder.features(c), reward.told.read(prompts)) for c in reward.looks.copies(images)
    ]
    torch.testing.assert_close(reward.score(images, prompts), (seen[0] + seen[1]) / 2)
