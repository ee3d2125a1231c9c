"""A tiny training run in a process of its own, for tests that kill it.

usage: training_process.py OUT|RESUME FOLDER [key=value ...]
"""

import random
import sys
import time
from dataclasses import dataclass, field

import torch
from torch import nn

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.records import StepRecord
from tastemaker.workflows.follow import follow
from tastemaker.workflows.runs import open_run, read_settings


@dataclass(frozen=True)
class Config:
    steps: int = 60
    seed: int = 3
    pause: float = 0.0
    every: int = 5
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(1e-2, ema_decay=0.9, accumulate=2))


def train(config, state):
    while state.step < config.steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1000 * config.seed + state.step))
        loss = (state.network(x) - x.sum(1, keepdim=True)).pow(2).mean() + 0.01 * random.random()
        figures = state.update(loss * (1 + 0.1 * torch.rand(())))
        time.sleep(config.pause)
        yield StepRecord(state.step, figures)


def main(way, folder, *overrides):
    torch.set_num_threads(1)
    resume = folder if way == "RESUME" else None
    config = read_settings(Config, None, overrides, resume)
    run = open_run(config, folder, resume, {"base": "abc"})
    torch.manual_seed(config.seed)
    random.seed(config.seed)
    state = begin(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)), config.optimiser)
    if resume:
        run.restore(state)
    follow(run, train(config, state), state, config.steps, every_steps=config.every)
    with state.ema_weights():
        torch.save({"network": state.network.state_dict(), "step": state.step}, run.folder / "final.pt")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
