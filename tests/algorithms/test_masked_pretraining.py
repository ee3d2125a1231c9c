"""`train masked`: the loss falls, a cut run goes on bit-equal, what it leaves can be drawn from, bad input."""

import json
import math

import pytest
import torch
from small import tiny_masked, tiny_tokenizer

from tastemaker.algorithms import masked
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.generators.tiny_masked import load_tiny_masked
from tastemaker.generators.vq import save_tokenizer
from tastemaker.sampling import sample
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.tokens import tokenizer_of, train_masked
from tastemaker.world.dataset import clean_world

TINY = [
    "width=32",
    "depth=1",
    "batch_size=4",
    "steps=6",
    "compile=false",
    "sample_every=6",
    "optimiser.warmup_steps=2",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    save_tokenizer(tiny_tokenizer(), folder / "tokenizer" / "model.safetensors", {})
    return folder


@pytest.fixture(scope="module")
def whole(home):
    return train_masked(None, [*TINY, f"tokenizer={home}/tokenizer"], home / "whole")


def test_two_batches_are_learned_from_no_knowledge_of_the_codes_on():
    generator, batches = tiny_masked(scale=0.0), Batches(clean_world(0, 16), 8)

    class Two:
        def from_step(self, step, workers=0):
            while True:
                yield batches.at(step % 2)
                step += 1

    config = masked.Config(steps=60, batch_size=8, compile=False, caption_dropout=0.0)
    state = begin(generator.network, OptimiserConfig(learning_rate=3e-3, ema_decay=0.9))
    losses = [r.values["loss"] for r in masked.train(generator, Two(), config, state)]
    assert losses[0] == pytest.approx(math.log(64), abs=1e-4)  # all codes alike: the head begins at 0
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_run_leaves_a_generator_and_samples(whole, home):
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert [p.name for p in whole.samples.iterdir()] == ["step-000006.png"]
    made = load_generator(str(whole.folder))
    assert made.recipe["steps"] == 6 and load_generator(f"tiny-masked:{whole.folder}").vocabulary.words
    assert sample(made, ["a photo of a cat"], [0]).shape == (1, 3, 16, 16)
    ours, theirs = tokenizer_of(str(whole.folder)).state_dict(), tiny_tokenizer().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)  # frozen, and it travels along


def test_a_cut_run_goes_on_bit_equal(whole, home, monkeypatch):
    true_train = masked.train

    def cut(*arguments):
        for record in true_train(*arguments):
            yield record
            if record.step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(masked, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            train_masked(None, [*TINY, f"tokenizer={home}/tokenizer"], home / "cut")
    resumed = train_masked(resume=home / "cut")
    ours, theirs = (load_tiny_masked(run.folder).network.state_dict() for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_tokenizer_does_not_resume(whole, home):
    save_tokenizer(tiny_tokenizer(seed=1), home / "tokenizer-1" / "model.safetensors", {})
    with pytest.raises(TastemakerError, match="cannot resume"):
        train_masked(None, [f"tokenizer={home}/tokenizer-1"], None, whole.folder)


@pytest.mark.parametrize("word, sentence", [("width=40", "multiple of 32"), ("caption_dropout=2", "caption_dropout")])
def test_settings_that_cannot_be(word, sentence, home):
    with pytest.raises(TastemakerError, match=sentence):
        train_masked(None, [*TINY, f"tokenizer={home}/tokenizer", word], home / "run")


def test_a_tokenizer_that_is_not_there_is_named(home):
    with pytest.raises(TastemakerError, match="no weights at"):
        train_masked(None, [*TINY, "tokenizer=lost"], home / "run")
    assert not (home / "run").exists()
