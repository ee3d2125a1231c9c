"""A tiny generator that is told sharpness and harmony, with bins of scores that its own pictures can have."""

import torch
from small import shaken, tiny_flow

from tastemaker.data.bins import described, make_bins
from tastemaker.generators.tiny_miro import TinyMiro
from tastemaker.generators.told import Scale
from tastemaker.records import Provenance
from tastemaker.rewards.table import load_rewards
from tastemaker.sampling import sample, score
from tastemaker.world.grammar import evaluation_prompts

NAMES = ("sharpness", "harmony")


def write(folder, names=NAMES, version=None):
    """names: of the rewards, whose bins say sharpness and harmony made them; version: another than theirs."""
    flow, judges = tiny_flow(), load_rewards(list(NAMES))
    prompts = evaluation_prompts(4)
    scores = score(judges, sample(flow, prompts, range(len(prompts))), prompts)
    made = [Provenance(j.provenance.model, version) if version else j.provenance for j in judges]
    bins = [make_bins(n, p, column, bins=6) for n, p, column in zip(names, made, scores.T)]
    levels = torch.stack([b.level_of(column) for b, column in zip(bins, scores.T)], 1)
    generator = TinyMiro.begun(flow, Scale(tuple(names), 6, tuple(described(bins)), levels))
    shaken(generator.network, 5, 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    generator.save(folder)
    return folder
