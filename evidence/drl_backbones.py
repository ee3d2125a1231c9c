"""drl.py, fifth part, one seed: the same recipe on four small generators in the manners of SiT, JiT, REPA and RAE.

Each is pretrained from nothing on clean drawings with true captions, so that it has seen what it is compared with,
and then follows a discriminator of its own pictures, at lambda = 1: they are trained so briefly that it tells nearly
all of them from clean drawings, and ten times that logit led REPA's pictures away in the space held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from tastemaker.algorithms import pretrain
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.data.batches import Batches
from tastemaker.devices import best_device, place
from tastemaker.generators.networks import TinyFlowNetwork
from tastemaker.records import Interval
from tastemaker.world.dataset import clean_world

from . import drl_bases as bases
from . import drl_training as training
from .drl_distance import Reference, log_ratio, ratio_interval
from .drl_lab import COMMAND, Lab, figure, through, unguided
from .drl_pictures import HELD_OUT, TRAINED, WORLD, Drawn, clean_drawings, drawn
from .rows import row
from .simulated_pool import stored

FROM_NOTHING = OptimiserConfig(2e-3, warmup_steps=40, ema_decay=0.99, muon_scale=5.0)
STRENGTH, R1 = 1.0, 1e-5
DECODING = OptimiserConfig(learning_rate=2e-3, warmup_steps=20)


def seeded(make: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def on_pictures(kind: type[bases.OnShippedDecoder]) -> Any:
    known = bases.words()
    network = seeded(lambda: TinyFlowNetwork(bases.SHAPE, len(known), known.length))
    return place(kind(network, known))  # type: ignore[arg-type]


def aligned() -> Any:
    known, states = bases.words(), 160
    network = seeded(lambda: bases.AlignedNetwork(bases.SHAPE, len(known), known.length, states))
    return place(bases.Aligned(network, known))


def latent(lab: Lab, steps: int) -> Any:
    """With its decoder, trained here the first time."""
    known, codec = bases.words(), seeded(bases.LatentCodec).to(best_device())
    codec.load_state_dict(stored(lab.cache / "base-rae-codec", lambda: decoder(codec, steps)))
    codec.decoder.requires_grad_(False)
    shape = (bases.LATENTS, 8, bases.LATENT_WIDTH, bases.LATENT_DEPTH, len(known), known.length)
    return place(bases.Latent(seeded(lambda: bases.LatentNetwork(*shape)), known, codec))


def decoder(codec: bases.LatentCodec, steps: int) -> dict[str, torch.Tensor]:
    """Mean absolute difference to clean drawings, from latents that are roughened a little."""
    data = Batches(clean_world(WORLD + 4), 32, 0).from_step(0)
    codec.standardise(next(data)[0].to(best_device()))
    state = begin(codec.decoder, replace(DECODING, cosine_steps=steps))
    for k, (images, _) in zip(range(steps), data):
        images = images.to(best_device())
        x1 = codec.encode(images)
        rough = x1 + 0.1 * torch.randn(x1.shape, generator=torch.Generator().manual_seed(k)).to(x1)
        state.update((codec.decode(rough) - images).abs().mean())
    return codec.state_dict()


def makers(lab: Lab) -> dict[str, Callable[[], Any]]:
    return {
        "sit": partial(on_pictures, bases.Velocity),
        "jit": partial(on_pictures, bases.OnShippedDecoder),
        "repa": aligned,
        "rae": partial(latent, lab, lab.scale.pretraining // 2),
    }


def pretrained(lab: Lab, name: str) -> Any:
    """A base with its weights, from nothing the first time, and taken up again where it was left."""
    made = makers(lab)[name]()
    unguided(made)
    steps = lab.scale.pretraining
    config = pretrain.Config(
        steps=steps, batch_size=32, compile=False, optimiser=replace(FROM_NOTHING, cosine_steps=steps)
    )
    data = Batches(clean_world(WORLD + 4), config.batch_size, 0)
    inside = [each.removeprefix("network.") for each in made.hidden]
    folder = lab.cache / f"base-{name}"
    training.carried_out(lambda state, _: pretrain.train(made, data, config, state), made, config, folder, inside)
    return made


def improved(lab: Lab, name: str) -> dict[str, Any]:
    """The record of a base, of the same after DRL, and of the floor: clean drawings as its decoder shows them."""

    def compared() -> dict[str, Any]:
        made = pretrained(lab, name)
        base = drawn(lab.cache / f"drawn-base-{name}", lambda: made, lab.prompts, scored=False)
        folder, pairs = lab.cache / f"discriminator-{name}", lab.cache / f"pairs-{name}"
        weights = sum(p.numel() for p in made.network.parameters())
        lab.drl(f"drl-{name}", lambda: lab.discriminator_of(made, R1, 0, folder, pairs), STRENGTH,
                start=lambda: made, steps=2 * lab.scale.short)  # fmt: skip
        after = lambda: training.tuned(made, lab.cache / f"drl-{name}")  # noqa: E731
        tuned = drawn(lab.cache / f"drawn-drl-{name}", after, lab.prompts, scored=False)
        references = {space: Reference.of(drawings(lab, name), space) for space in (HELD_OUT, TRAINED)}
        sides = {side: {space: one.features[space].numpy() for space in references}
                 for side, one in (("base", base), ("tuned", tuned))}  # fmt: skip
        sides["floor"] = {space: reference.floor for space, reference in references.items()}
        return {"weights": weights, **{side: lab.in_spaces(one, references) for side, one in sides.items()}}

    return lab.once(f"base-{name}", compared)


def drawings(lab: Lab, name: str) -> Drawn:
    if name != "rae":
        return lab.clean
    made = pretrained(lab, name)
    return clean_drawings(lab.cache / f"drawn-clean-{name}", lab.count, through(made))


def ratio(lab: Lab, made: dict[str, Any], space: str) -> dict[str, Any]:
    floor, base, tuned = (figure(made[side], space, "distance") for side in ("floor", "base", "tuned"))
    frechet = {"floor": floor[0], "base": base[0], "tuned": tuned[0]}
    return {"ratio": ratio_interval(log_ratio(base, [tuned], floor), lab.count), "frechet": frechet}


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = {name: improved(lab, name) for name in makers(lab)}
    beside = {name: {space: ratio(lab, one, space) for space in (HELD_OUT, TRAINED)} for name, one in found.items()}
    ratios = [one[HELD_OUT]["ratio"] for one in beside.values()]
    count, sure, possible = (
        sum(value > 1 for value in side) for side in zip(*((r.value, r.low, r.high) for r in ratios))
    )
    value = Interval(count, sure, possible, len(found))
    return [row("backbones_improved", value, [count], (0,), COMMAND, 3, beside, 4, "of four")]
