"""Adapters and gradient checkpointing of networks of our own: what is trained, what is kept, and the same numbers."""

import copy
import math

import pytest
import torch
from small import kept_bytes, shaken, tiny_flow
from torch import nn

from tastemaker.errors import MissingExtra, TastemakerError
from tastemaker.generators import lora
from tastemaker.generators.checkpointing import checkpoint_tiny_flow
from tastemaker.generators.diffusers_lora import adapters
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler
from tastemaker.generators.tiny_flow import load_tiny_flow
from tastemaker.protocols import Condition, Plan
from tastemaker.sampling import sample

PROMPTS = ["a photo of a cat", "a photo of two dogs"]


def small_flow(enlarge=1):
    generator = tiny_flow(enlarge=enlarge)
    generator.plan = Plan(euler, uniform_times(2))
    return generator


def adapted(rank=2, **more):
    pytest.importorskip("peft")
    generator = small_flow()
    lora.add(generator.network, rank, **more)
    return generator


def stir(network):
    """Give every trained weight another value."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=generator))


def draw(generator):
    return sample(generator, PROMPTS, [1, 2])


def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained():
    generator = adapted()
    assert draw(generator).equal(draw(small_flow()))
    trained = {n: p for n, p in generator.network.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 4 and all(".lora_" in name for name in trained)  # four linear layers of one block
    stir(generator.network)
    assert (draw(generator) - draw(small_flow())).abs().max() > 1e-3


def test_the_adapter_follows_its_seed_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    first, second, other = (adapted(seed=s).network.state_dict() for s in (1, 1, 2))
    assert before.equal(torch.get_rng_state())
    name = next(n for n in first if ".lora_A" in n)
    assert first[name].equal(second[name]) and not first[name].equal(other[name])


@pytest.mark.parametrize("alpha", [None, 5.0])
def test_merged_it_draws_the_same_and_is_saved_as_any_other(tmp_path, alpha):
    generator = adapted(alpha=alpha)
    stir(generator.network)
    before = draw(generator)
    lora.merge(generator.network)
    torch.testing.assert_close(draw(generator), before, rtol=1e-4, atol=1e-5)
    assert not adapters(generator.network)
    assert generator.network.state_dict().keys() == small_flow().network.state_dict().keys()
    generator.save(tmp_path / "run")
    loaded = load_tiny_flow(tmp_path / "run")
    loaded.plan = generator.plan
    assert draw(loaded).equal(draw(generator))
    lora.merge(generator.network)  # nothing is left to do


def test_the_reference_is_a_frozen_copy():
    generator = adapted()
    stir(generator.network)
    before, reference = draw(generator), generator.reference()
    stir(generator.network)
    assert draw(reference).equal(before) and not draw(generator).equal(before)


def test_bad_ranks_and_networks_are_refused(monkeypatch):
    pytest.importorskip("peft")
    with pytest.raises(TastemakerError, match="LoRA rank of 1 or more"):
        lora.add(small_flow().network, 0)
    with pytest.raises(TastemakerError, match="a network with blocks"):
        lora.add(nn.Linear(2, 2), 2)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtra, match="peft"):
        lora.add(small_flow().network, 2)


# checkpointing


def preview(generator):
    condition = Condition.of(PROMPTS)
    return generator.preview(generator.start(condition, torch.arange(2)), grad=True)


@pytest.mark.parametrize("enlarge, with_adapter", [(1, False), (2, False), (1, True)])
def test_checkpointing_keeps_less_and_gives_the_same_pictures_and_gradients(enlarge, with_adapter):
    found = []
    for saving in (False, True):
        generator = small_flow(enlarge)
        if with_adapter:
            pytest.importorskip("peft")
            lora.add(generator.network, 2)
            stir(generator.network)
        if saving:
            checkpoint_tiny_flow(generator)
        pictures = preview(generator)
        pictures.pow(2).sum().backward()
        gradients = [p.grad for p in generator.network.parameters() if p.requires_grad]
        found.append((pictures.detach(), gradients, kept_bytes(lambda g=generator: preview(g))))
    (pictures, gradients, size), (again, same, less) = found
    assert pictures.equal(again) and less < 0.8 * size
    for ours, theirs in zip(gradients, same):
        torch.testing.assert_close(ours, theirs)


def test_a_checkpointed_network_can_be_copied():
    generator = small_flow()
    checkpoint_tiny_flow(generator)
    copied = copy.deepcopy(generator.network)
    before = draw(generator)
    shaken(copied, 5, 0.5)  # the copy's blocks are its own
    assert draw(generator).equal(before)
    generator.network = copied
    changed = draw(generator)
    assert not changed.equal(before) and math.isfinite(float(changed.sum()))
