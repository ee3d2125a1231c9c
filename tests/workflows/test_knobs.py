"""Interpolation and guidance by a reward at the command line."""

import pytest
import torch
import yaml
from small import tiny_flow

from tastemaker.cli.main import main
from tastemaker.data.images import load_image

REWARD = """
def redness(images, prompts):
    return 40 * (images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3)))


def count(images, prompts):
    return (images > 0.5).float().mean((1, 2, 3))


redness.differentiable = True
"""
DRAW = ["--prompt", "a photo of a cat", "--seed", "0..1"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a base, a run that tuned it, and rewards of one's own."""
    monkeypatch.chdir(tmp_path)
    tiny_flow(seed=0).save(tmp_path / "base")
    tiny_flow(seed=1).save(tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"model": "base"}))
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def drawn(folder):
    return torch.stack([load_image(folder / f"{k:06d}.png") for k in range(2)])


def refused(capsys, *given):
    assert main(list(given)) == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


def test_any_command_can_name_an_interpolation(home):
    for name in ("base", "run", "interpolate:0:run", "interpolate:0.5:run", "interpolate:1:run"):
        assert main(["sample", name, *DRAW, "--out", f"out/{name}"]) == 0
    base, tuned, *between = (
        drawn(home / "out" / n) for n in ("base", "run", *(f"interpolate:{w}:run" for w in ("0", "0.5", "1")))
    )
    assert between[0].equal(base) and between[2].equal(tuned)
    assert not between[1].equal(base) and not between[1].equal(tuned)
    assert (
        main(["search", "best-of-n", "interpolate:0.5:run", *DRAW, "--reward", "sharpness", "--n", "2", "--out", "b"])
        == 0
    )


@pytest.mark.parametrize(
    "name", ["interpolate:half:run", "interpolate:0.5:base", "interpolate:0.5:", "interpolate:nan:run"]
)
def test_what_is_no_interpolation_is_said(home, capsys, name):
    assert "expected interpolate:W:RUN" in refused(capsys, "sample", name, *DRAW, "--out", "out")
    assert not (home / "out").exists()


def test_an_interpolation_is_not_trained(home, capsys):
    given = ["model=interpolate:0.5:run", "reward=reward.py:redness", "--out", "tuned"]
    assert "has the weights of two generators" in refused(capsys, "train", "drl", *given)


def test_pictures_are_steered_by_a_reward(home, capsys):
    by = ["--guided-by", "reward.py:redness", "--guided-scale", "2", "--guided-after", "0"]
    assert main(["sample", "base", *DRAW, "--out", "plain"]) == 0
    assert main(["sample", "base", *DRAW, *by, "--out", "steered"]) == 0
    redness = [
        p[:, 0].mean((1, 2)) - p[:, 1:].mean((1, 2, 3)) for p in map(drawn, (home / "plain", home / "steered"))
    ]
    assert (redness[1] > redness[0]).all()
    for more, sentence in (
        (["--guided-by", "reward.py:count"], "'count' has none"),
        (["--guided-by", "sharpness,harmony"], "expected one reward to steer by"),
        (["--guided-by", "sharpness", "--guided-after", "2"], "a first time of the guidance from 0 to 1"),
    ):
        assert sentence in refused(capsys, "sample", "base", *DRAW, *more, "--out", "none")
    assert not (home / "none").exists()
