"""How the shipped detectors were trained: python -m tastemaker.world.train_detectors NAME --out FILE

Scenes of the clean and the degraded kinds in equal parts, each picture with its objects' true places; never a picture
made by a generator. AdamW, one cosine, averaged weights.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..randomness import mix, stream
from .degrade import KINDS
from .detector import Detector, DetectorConfig, detection_loss, new_detector, targets_of
from .grammar import spec_of
from .scenes import compose, draw

RECIPES = {  # name: network, seed of its weights and of its scenes
    "detector-a": (DetectorConfig("convolutions", 64, 6), 101),
    "detector-b": (DetectorConfig("convolutions", 80, 5), 202),
    "detector-r": (DetectorConfig("patches", 96, 5), 303),
}


@dataclass(frozen=True)
class Scenes:
    """(picture (3, 64, 64), targets (5, G, G)) number k of a seed."""

    seed: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        seed = mix(self.seed, index)
        scene, rng = compose(spec_of(seed), seed), stream(seed, purpose="spoil")
        picture = draw(scene)
        if rng.random() < 0.5:
            picture = KINDS[int(rng.integers(len(KINDS)))](picture, rng)
        image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        return image, targets_of([scene])[0]


def train(name: str, steps: int, batch: int, device: str, workers: int) -> Detector:
    config, seed = RECIPES[name]
    detector = new_detector(config, name, seed)
    network = detector.network.to(device)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(Scenes(seed, steps * batch), batch, num_workers=workers)  # type: ignore[arg-type]
    began = time.monotonic()
    for step, (images, targets) in enumerate(loader):
        rate = 2e-3 * min(1, (step + 1) / 200) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = detection_loss(network(images.to(device)), targets.to(device)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(network)
        if step % 200 == 0:
            print(f"{name} step {step} loss {float(loss.detach()):.4f} {time.monotonic() - began:.0f} s", flush=True)
    network.load_state_dict(average.module.state_dict())
    recipe = {
        "steps": steps,
        "batch": batch,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "device": device,
    }
    return Detector(network.cpu().eval(), name, recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    said = parser.parse_args()
    train(said.name, said.steps, said.batch, said.device, said.workers).write(said.out)


if __name__ == "__main__":
    main()
