"""Networks are found wherever a generator or a reward keeps them."""

from types import SimpleNamespace

import torch
from torch import nn

import tastemaker as tm
from tastemaker.devices import best_device, place


def test_networks_move_behind_attributes_lists_and_mappings():
    one, two, three = (nn.Linear(1, 1) for _ in range(3))
    thing = SimpleNamespace(codec=SimpleNamespace(decoder=one), members=[two], by_name={"a": three})
    thing.itself = thing  # a circle ends
    assert place(thing, torch.device("meta")) is thing
    assert {n.weight.device.type for n in (one, two, three)} == {"meta"}


def test_what_is_loaded_by_name_lies_on_the_best_device():
    generator, reward = tm.load_generator("tiny-flow"), tm.load_reward("preference")
    for network in (generator.network, generator.codec.decoder, reward.scorers[0].network):
        assert next(network.parameters()).device.type == best_device().type
