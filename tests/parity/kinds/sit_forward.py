"""SiT's network and its own guidance, of the first three channels only."""

import pathlib
from collections.abc import Iterator

import torch
from class_flows import asked, generator_of, read
from comparison import Comparison, close, equal

from tastemaker.generators.sit import FIRST_THREE, SIT, read_network

OUT = {"atol": 2e-5}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config, inputs, expected = read(folder)
    network, _ = read_network(folder)
    yield equal("sizes", (network.config.size, network.config.heads), (config["input_size"], config["num_heads"]))
    x, t, y = (torch.from_numpy(inputs[k]) for k in ("x", "t", "y"))
    generator = generator_of(network, x.shape[1:], SIT, rule=FIRST_THREE)
    with torch.no_grad():
        out = generator.velocity(x, t, asked(y, null=config["null_label"]))
        yield close("out", out, expected["out"], **OUT)
        raw = expected["out_raw_all_channels"]
        yield close("out_raw_all_channels", network(x, t, y)[: len(raw)], raw, **OUT)
        for name, scale in (("cfg_out", config["cfg_scale"]), ("cfg_out_scale1", 1.0)):
            yield from guided(generator, inputs, expected[name], name, scale)


def guided(generator, inputs, expected, name: str, scale: float) -> Iterator[Comparison]:
    """The first half is the guided answer; in the second, channels beyond the third are the null class's own."""
    half = len(inputs["cfg_x"]) // 2
    x, t, y = (torch.from_numpy(inputs[k])[:half] for k in ("cfg_x", "cfg_t", "cfg_y"))
    ours = generator.guided_velocity(asked(y, scale))(x, t)
    yield close(name, ours, expected[:half], **OUT)
    yield close(f"{name}, second half", ours[:, :3], expected[half:, :3], **OUT)
    null = generator.velocity(x, t, asked(y).null())
    yield close(f"{name}, null class", null[:, 3:], expected[half:, 3:], **OUT)
