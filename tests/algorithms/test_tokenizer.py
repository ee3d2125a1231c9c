"""The tokenizer's losses by hand, and runs that learn, resume bit-equal and refuse what cannot be."""

import json
import math

import pytest
import torch

from tastemaker.algorithms import tokenizer
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.tokenizer import bit_entropy, commitment, distance, edge_distance, mean_entropy
from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.generators.vq import Tokenizer, TokenizerConfig, load_tokenizer
from tastemaker.workflows.tokens import train_tokenizer
from tastemaker.world.dataset import clean_world

TINY = ["size=16", "factor=4", "bits=6", "channels=8", "batch_size=4", "steps=6", "sample_every=6", "compile=false"]


def test_distances_by_hand():
    drawn, images = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    drawn[1, :, :, 2:] = 0.5
    assert distance(drawn, images).tolist() == [0.0, 0.25]
    torch.testing.assert_close(edge_distance(drawn, images), torch.tensor([0.0, 0.5 / 3]))


def test_commitment_and_entropy_of_bits():
    z = torch.tensor([1.0, -1.0, 3.0, 0.0]).reshape(2, 2, 1, 1)
    assert commitment(z).tolist() == [0.0, 2.5]
    undecided, decided = bit_entropy(torch.tensor([0.0, 50.0]).reshape(2, 1, 1, 1)).tolist()
    assert undecided == pytest.approx(math.log(2)) and decided == pytest.approx(0, abs=1e-6)
    p = torch.tensor(0.4).mul(4).sigmoid()
    by_hand = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(bit_entropy(torch.full((1, 1, 1, 1), 0.4))[0], by_hand)


def test_the_joint_entropy_sees_bits_that_say_the_same():
    """Two bits, each even by itself, that are always equal: half of the codes are used."""
    twins = torch.tensor([[9.0, 9.0], [-9.0, -9.0]]).reshape(2, 2, 1, 1)
    apart = torch.tensor([[9.0, 9.0], [-9.0, -9.0], [9.0, -9.0], [-9.0, 9.0]]).reshape(4, 2, 1, 1)
    assert float(mean_entropy(twins, 1)) == pytest.approx(math.log(2), abs=1e-5)
    assert float(mean_entropy(twins, 2)) == pytest.approx(math.log(2) / 2, abs=1e-5)
    assert float(mean_entropy(apart, 2)) == pytest.approx(math.log(2), abs=1e-5)


def test_losses_of_decided_latents_have_a_finite_gradient():
    z = torch.tensor([200.0, -200.0, 1.0, 0.0]).reshape(1, 4, 1, 1).requires_grad_()
    (bit_entropy(z).sum() - mean_entropy(z, 4) + commitment(z).sum()).backward()
    assert z.grad.isfinite().all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train_tokenizer(None, TINY, tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_leaves_a_tokenizer_sheets_and_figures(whole):
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert {"pixels", "edges", "commitment", "bit_entropy", "mean_entropy"} <= set(rows[0])
    assert [p.name for p in whole.samples.iterdir()] == ["step-000006.png"]
    assert load_tokenizer(whole.folder).config.bits == 6


def test_two_batches_are_learned():
    batches = Batches(clean_world(0, 16), 4)

    class Two:
        def from_step(self, step, workers=0):
            while True:
                yield batches.at(step % 2)
                step += 1

    network = Tokenizer.new(TokenizerConfig(16, 4, 6, 8), 0)
    config = tokenizer.Config(steps=60, batch_size=4, compile=False)
    state = begin(network, OptimiserConfig(learning_rate=3e-3))
    pixels = [r.values["pixels"] for r in tokenizer.train(network, Two(), config, state)]
    assert sum(pixels[-10:]) < 0.6 * sum(pixels[:10])


def test_a_cut_run_goes_on_bit_equal(whole, tmp_path, monkeypatch):
    true_train = tokenizer.train

    def cut(*arguments):
        for record in true_train(*arguments):
            yield record
            if record.step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            train_tokenizer(None, TINY, tmp_path / "cut")
    resumed = train_tokenizer(resume=tmp_path / "cut")
    ours, theirs = (load_tokenizer(run.folder).state_dict() for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "word, sentence", [("bits=40", "bits"), ("entropy_group=11", "entropy_group"), ("size=20", "size")]
)
def test_settings_that_cannot_be(word, sentence, tmp_path):
    with pytest.raises(TastemakerError, match=sentence):
        train_tokenizer(None, [*TINY, "factor=8", word], tmp_path / "run")
    assert not (tmp_path / "run").exists()
