"""Pretraining: the loss falls, captions drop at their rate, and a resumed run is bit-equal."""

import json

import pytest
import torch
from small import tiny_flow

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.pretrain import Config, caption_drop, draw_seeds, flow_matching, train
from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.generators.tiny_flow import load_tiny_flow
from tastemaker.workflows.train import train_pretrain
from tastemaker.world.dataset import clean_world

TINY = ["width=32", "depth=1", "size=16", "batch_size=4", "steps=6", "compile=false", "sample_every=6"]
TINY += ["optimiser.warmup_steps=2"]


class TwoBatches:
    """The same two batches for ever."""

    def __init__(self):
        batches = Batches(clean_world(0, 16), 8)
        self.held = [batches.at(k) for k in range(2)]

    def from_step(self, step, workers=0):
        while True:
            yield self.held[step % 2]
            step += 1


def test_the_objective_is_the_generators_loss_on_its_draw():
    generator, (images, captions) = tiny_flow(), Batches(clean_world(0, 16), 4).at(0)
    condition, seeds = generator.caption_condition(captions), draw_seeds(1, 2, 4)
    found = flow_matching(generator, images, condition, seeds)
    x1 = images * 2 - 1
    assert found.shape == (4,)
    torch.testing.assert_close(found, generator.loss(x1, condition, generator.draw(x1, seeds)))
    draw = generator.draw(x1, seeds)
    t = draw.time.reshape(-1, 1, 1, 1)
    x = t * x1 + (1 - t) * draw.noise
    with torch.no_grad():
        predicted = generator.network(x, draw.time, condition.cache["words"])
    by_hand = ((predicted - x) / (1 - t).clamp_min(0.05) - (x1 - draw.noise)).pow(2).mean((1, 2, 3))
    torch.testing.assert_close(found.detach(), by_hand)


def test_two_batches_are_learned():
    generator = tiny_flow(scale=0.02)
    config = Config(steps=60, compile=False, caption_dropout=0.0)
    state = begin(generator.network, OptimiserConfig(learning_rate=3e-3, ema_decay=0.9))
    records = list(train(generator, TwoBatches(), config, state))
    losses = [r.values["loss"] for r in records]
    assert [r.step for r in records] == list(range(1, 61))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_captions_drop_at_their_rate_and_by_step():
    drops = torch.cat([caption_drop(0, step, 50, 0.3) for step in range(100)])
    assert float(drops.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(caption_drop(0, 7, 50, 0.3), caption_drop(0, 7, 50, 0.3))
    assert not torch.equal(caption_drop(0, 7, 50, 0.3), caption_drop(0, 8, 50, 0.3))
    assert not caption_drop(0, 1, 9, 0.0).any() and caption_drop(0, 1, 9, 1.0).all()


def test_seeds_of_draws_never_repeat():
    seen = torch.cat([draw_seeds(0, step, 64) for step in range(50)] + [draw_seeds(1, 0, 64)])
    assert len(set(seen.tolist())) == len(seen) and seen.min() >= 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train_pretrain(None, TINY, tmp_path_factory.mktemp("runs") / "whole")


def weights_of(run):
    return load_tiny_flow(run.folder).network.state_dict()


def test_a_run_leaves_a_model_samples_and_a_line_a_step(whole):
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6] and all(r["loss"] > 0 for r in rows)
    assert [p.name for p in whole.samples.iterdir()] == ["step-000006.png"]
    made = load_tiny_flow(whole.folder)
    assert made.recipe["steps"] == 6 and made.recipe["config"]["width"] == 32


def test_stopped_by_a_signal_and_resumed_it_is_the_run_that_was_not(whole, tmp_path, monkeypatch):
    """Killed before its first checkpoint, stopped at step 3, and again at step 4."""
    from tastemaker.algorithms import pretrain

    true_train = pretrain.train

    def stopping(at, error):
        def run(generator, batches, config, state):
            for record in true_train(generator, batches, config, state):
                if record.step == at:
                    error(record)
                yield record

        return run

    def kill(record):
        raise MemoryError

    def stop(record):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "cut"
    for k, (at, how, error) in enumerate(
        [(2, kill, MemoryError), (3, stop, KeyboardInterrupt), (4, stop, KeyboardInterrupt)]
    ):
        monkeypatch.setattr(pretrain, "train", stopping(at, how))
        with pytest.raises(error):
            train_pretrain(None, TINY if k == 0 else [], folder if k == 0 else None, folder if k else None)
        assert not (folder / "model.safetensors").exists()
    monkeypatch.setattr(pretrain, "train", true_train)
    resumed = train_pretrain(resume=folder)
    for (name, ours), theirs in zip(weights_of(resumed).items(), weights_of(whole).values()):
        assert torch.equal(ours, theirs), name

    def losses(run):
        return [json.loads(line)["loss"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]

    assert losses(resumed) == losses(whole)


def test_other_settings_do_not_resume(whole):
    with pytest.raises(TastemakerError, match="cannot resume .* bit-equal, these differ"):
        train_pretrain(None, ["seed=9"], None, whole.folder)


@pytest.mark.parametrize(
    "word, sentence",
    [
        ("width=40", "width.*multiple of 32"),
        ("width=0", "width.*multiple of 32"),
        ("size=20", "size.*multiple of"),
        ("batch_size=0", "batch_size of at least 1"),
        ("caption_dropout=1.5", "caption_dropout"),
        ("steps=0", "steps"),
        ("wdith=32", "unknown configuration key 'wdith'; nearest known: width"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(word, sentence, tmp_path):
    with pytest.raises(TastemakerError, match=sentence):
        train_pretrain(None, [*TINY, word], tmp_path / "run")
    assert not (tmp_path / "run").exists()
