"""Generators of classes where a training begins: their prompts, gradient checkpointing, a run without code."""

import json

import pytest
import torch
from small import kept_bytes
from tiny_releases import CLASSES, write

from tastemaker.algorithms import drl
from tastemaker.cli.main import main
from tastemaker.protocols import Condition
from tastemaker.sampling import sample
from tastemaker.workflows.configs import read_config
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.rl import train_drl
from tastemaker.workflows.tuning import load_tunable, opened

REWARD = """
def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


redness.differentiable = True
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a checkpoint of classes and a reward of one's own."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "classes", "rae")
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def refused(capsys, *given):
    assert main(list(given)) == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


def words(*more):
    common = ["model=rae:classes", "reward=reward.py:redness", "steps=2", "batch_size=2", "buffer=2", "epochs=1"]
    return [*common, "integration_steps=3", "watch.every=2", "watch.pictures=3", *more]


def test_a_generator_of_classes_is_tuned_on_all_its_classes_without_code(home):
    run = train_drl(None, words("gradient_checkpointing=true"), home / "tuned")
    asked = {p.text: p.label for p in opened(read_config(drl.Config, None, words())).prompts}
    assert asked == {str(k): k for k in range(CLASSES)}
    assert json.loads((run.folder / "result.json").read_text())["steps"] == 2
    images = [sample(load_generator(n), ["3"], [0]) for n in ("rae:classes", "tuned", "interpolate:0:tuned")]
    assert not images[0].equal(images[1]) and images[0].equal(images[2])


@pytest.mark.parametrize("kind", ["jit", "rae", "sit"])
def test_checkpointing_keeps_less_of_a_released_network(home, kind):
    if kind == "sit":
        pytest.importorskip("diffusers")
    folder = home / "classes" if kind == "rae" else write(home / kind, kind)
    found = []
    for saving in (False, True):
        generator = load_tunable(f"{kind}:{folder}", gradient_checkpointing=saving)
        x = torch.randn(2, *generator.shape, generator=torch.Generator().manual_seed(0), requires_grad=True)

        def pictures(generator=generator, x=x):
            v = generator.velocity(x, torch.tensor([0.3, 0.6]), Condition.of(["1", "2"]))
            return generator.codec.decode(x + v)

        gradient = torch.autograd.grad(pictures().pow(2).sum(), [x, *trained(generator)], allow_unused=True)
        found.append((gradient, kept_bytes(pictures)))
    for one, other in zip(found[0][0], found[1][0]):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    assert found[1][1] < 0.8 * found[0][1]


def trained(generator):
    return [p for p in generator.network.parameters() if p.requires_grad]


def test_prompts_without_a_class_are_refused_before_the_training_begins(home, capsys):
    (home / "words.txt").write_text("a photo of a cat\n")
    said = refused(capsys, "train", "drl", *words("prompts=words.txt"), "--out", "tuned")
    assert "'a photo of a cat' names none by number" in said and "give prompts with a `label`" in said
    (home / "far.jsonl").write_text(json.dumps({"prompt": "a bird", "label": CLASSES}) + "\n")
    assert "expected a class from 0 to 4, got 5" in refused(
        capsys, "train", "awm", "model=rae:classes", "prompts=far.jsonl", "reward=sharpness", "--out", "tuned"
    )
    assert not (home / "tuned").exists()
