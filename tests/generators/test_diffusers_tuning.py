"""Tuning a diffusers folder with every method: an adapter or all weights, and what the run keeps."""

import json
from dataclasses import replace

import pytest
import torch

for package in ("diffusers", "transformers", "peft"):
    pytest.importorskip(package)

import tiny_diffusers  # noqa: E402

from tastemaker import TastemakerError, load_generator  # noqa: E402
from tastemaker.data.images import save_image  # noqa: E402
from tastemaker.generators import diffusers_load, diffusers_unet  # noqa: E402
from tastemaker.generators.diffusers_load import load  # noqa: E402
from tastemaker.workflows.refl import train_refl  # noqa: E402
from tastemaker.workflows.tune import train_draft, train_raft, train_reward_weighted, train_sft  # noqa: E402

REWARD = """
def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


redness.differentiable = True
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A tiny Stable Diffusion folder with a plan of two steps, a reward, prompts, pictures of one's own."""
    short = replace(diffusers_unet.SD, steps=2, guidance=1.5)
    monkeypatch.setitem(diffusers_load.KINDS, "StableDiffusionPipeline", short)
    tiny_diffusers.make("sd", tmp_path)
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "prompts.txt").write_text("a red cat\ntwo dogs\n")
    for k in range(3):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(k))
        save_image(image, tmp_path / f"own/{k}.png")
        (tmp_path / f"own/{k}.txt").write_text("a cat")
    return tmp_path


def words(home, *more):
    common = [f"model=diffusers:{home}/pipeline", f"reward={home}/reward.py:redness", f"prompts={home}/prompts.txt"]
    return [*common, "steps=2", "batch_size=2", "watch.pictures=2", "optimiser.learning_rate=0.01", *more]


COMMANDS = [
    (train_refl, ["reward_mean=0.01", "lora_rank=2", "gradient_checkpointing=true"]),
    (train_draft, ["reward_mean=0.01", "lora_rank=2", "last_steps=2", "gradient_checkpointing=true"]),
    (train_raft, ["drawn_prompts=2", "per_prompt=2", "rounds=1"]),
    (train_reward_weighted, ["drawn_prompts=2", "per_prompt=2"]),
    (train_sft, []),
]


def adapter_of(generator):
    return torch.cat([p.detach().flatten() for n, p in generator.network.named_parameters() if ".lora_" in n])


@pytest.mark.parametrize("command, more", COMMANDS, ids=lambda v: getattr(v, "__name__", None))
def test_an_adapter_is_tuned_and_kept_as_a_lora_file(home, command, more):
    run = command(None, words(home, *more), home / "run", data=home / "own")
    tuned = load(home / "pipeline", lora=run.folder)
    moved = [p.abs().max() for n, p in tuned.network.named_parameters() if ".lora_B" in n]
    assert moved and max(moved) > 0
    assert adapter_of(load_generator(str(run.folder))).equal(adapter_of(tuned))
    result = json.loads((run.folder / "result.json").read_text())
    assert set(result["tuned"]["rewards"]) == {"redness", "sharpness", "harmony"}


def test_all_weights_are_tuned_and_kept_as_a_pipeline(home):
    run = train_refl(None, words(home, "reward_mean=0.01", "lora_rank=0"), home / "run", data=home / "own")
    tuned, base = load(run.folder / "pipeline").network.state_dict(), load(home / "pipeline").network.state_dict()
    assert tuned.keys() == base.keys() and any(not torch.equal(tuned[k], base[k]) for k in base)
    whole = load_generator(str(run.folder)).network.state_dict()
    assert all(torch.equal(whole[k], tuned[k]) for k in tuned)


def test_an_adapter_without_its_pipeline_is_an_error(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    with pytest.raises(TastemakerError, match="expected a run whose config.yaml says model: diffusers:PATH"):
        load_generator(str(tmp_path))
