"""Tiny trainings of every kind, as one process or as one of several that torchrun started.

usage: processes_worker.py OUT     in a folder with `model` and `reward.py`

OUT/NAME is the run with whole weights. As one of several also, for some, OUT/sharded/NAME, with weights in parts, and
resumed/NAME beside a run, the same cut after its second step and gone on with.
"""

import functools
import os
import shutil
import sys
from pathlib import Path

import torch

from tastemaker.cli.main import main
from tastemaker.ranks import on_first
from tastemaker.workflows import processes, train, tuning
from tastemaker.workflows.follow import follow

GROUPS = ["groups.per_prompt=2", "groups.updates=2", "pretraining_weight=0.5"]
SETTINGS = {
    "pretrain": ["size=16", "scale=2", "patch=4", "width=32", "depth=1", "compile=false", "optimiser.muon_scale=0"],
    "refl": [],
    "draft": ["last_steps=2"],
    "sft": ["pictures=12"],
    "reward-weighted": ["drawn_prompts=3", "per_prompt=3"],
    "raft": ["rounds=2", "drawn_prompts=5", "per_prompt=3"],
    "drl": ["integration_steps=4", "buffer=8", "epochs=1", "pretraining_weight=0.5", "adjoint_cut=2"],
    "flow-grpo": [*GROUPS, "trained_share=0.5"],
    "masked-grpo": [*GROUPS, "trained_share=0.5", "model=masked"],
    "nft": [*GROUPS, "times=1", "old_rise=0.2"],
    "awm": [*GROUPS, "times=1"],
}
SHARDED = ("pretrain", "refl", "draft", "drl", "nft")  # what the others do with a network these do too
CUT = {"two": ("pretrain", "drl"), "two/sharded": ("drl", "nft")}


def words(name):
    common = ["steps=3", "batch_size=4", "optimiser.learning_rate=0.0001", "optimiser.ema_decay=0.9"]
    if name != "pretrain":
        common += [
            "model=model",
            "reward=reward.py:redness",
            "watch.every=3",
            "watch.pictures=3",
            "watch.tolerance=99",
        ]
    return [*common, "optimiser.warmup_steps=0", *SETTINGS[name]]


def run(*arguments):
    code = main(["train", *map(str, arguments)])
    if code:
        sys.exit(code)


def cut(whole, part):
    """A run as it was after its second step."""
    shutil.copytree(whole, part)
    for file in part.glob("checkpoints/step-000003*"):
        file.unlink()


def all_of(names, out):
    for name in names:
        run(name, *words(name), "--out", out / name)
        if name in CUT.get(str(out), ()):
            part = out / "resumed" / name
            on_first(lambda name=name, part=part: cut(out / name, part))
            run(name, "--resume", part)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for room in (train, tuning):
        room.follow = functools.partial(follow, every_steps=2)
    folder = Path(sys.argv[1])
    all_of(SETTINGS, folder)
    if processes.started() > 1:
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        all_of(SHARDED, folder / "sharded")
