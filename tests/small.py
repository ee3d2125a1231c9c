"""Tiny fresh models with weights everywhere (new ones end in zeros), shared by the tests of several rooms."""

import torch

from tastemaker.encoders.tiny_clip import TinyClip, TowerConfig
from tastemaker.encoders.words import Vocabulary
from tastemaker.generators.networks import NetworkConfig
from tastemaker.generators.tiny_flow import TinyFlow
from tastemaker.generators.tiny_masked import TinyMasked
from tastemaker.generators.token_network import TokenNetworkConfig
from tastemaker.generators.vq import Tokenizer, TokenizerConfig
from tastemaker.world.grammar import prompt_of, spec_of, swapped, vocabulary
from tastemaker.world.scenes import compose, draw


def shaken(network, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return network.eval()


def tiny_flow(size=16, seed=0, scale=0.05, enlarge=1):
    config = NetworkConfig(size=size, patch=8, width=32, depth=1, heads=1, channels=8, scale=enlarge)
    generator = TinyFlow.new(config, Vocabulary(vocabulary(), 12), seed)
    shaken(generator.network, seed, scale)
    return generator


def tiny_clip(size=16, seed=0):
    config = TowerConfig(size=size, width=32, depth=1, text_depth=1, heads=1, features=8)
    clip = TinyClip.new(config, Vocabulary(vocabulary(), 12), seed)
    shaken(clip.network, seed, 0.05).requires_grad_(False)
    return clip


def kept_bytes(work):
    """What the graph of `work()` holds for the backward pass, each storage once."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = work()
    assert held.requires_grad
    return sum(sizes.values())


def tiny_tokenizer(size=16, seed=0):
    config = TokenizerConfig(size=size, factor=4, bits=6, channels=8)
    tokenizer = Tokenizer.new(config, seed)
    return shaken(tokenizer, seed, 0.05)


def tiny_masked(size=16, seed=0, scale=0.05):
    """16 tokens of 64 codes."""
    config = TokenNetworkConfig(side=size // 4, bits=6, width=32, depth=1, heads=1)
    generator = TinyMasked.new(config, tiny_tokenizer(size, seed), Vocabulary(vocabulary(), 12), seed)
    shaken(generator.network, seed, scale)
    return generator


def scene_and_swapped(seed):
    """A clean scene of a prompt and one with a fact changed, (2, 3, 64, 64), and the prompt twice."""
    spec = spec_of(1_000_000 + seed)
    pair = [torch.from_numpy(draw(compose(s, seed))) for s in (spec, swapped(spec, seed))]
    return torch.stack(pair).permute(0, 3, 1, 2), [prompt_of(spec)] * 2
