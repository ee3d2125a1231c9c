"""What the shipped models can do: python -m benchmarks.shipped [--models NAME,NAME] [--pictures 1200]

tiny-flow: GenEval-world by task, Fréchet and kernel distances to clean scenes in both feature spaces, and the same
distances between two sets of clean scenes of that size. tiny-clip: retrieval among clean scenes, and telling a true
caption from one with a single fact changed. tiny-miro: its rewards and GenEval-world with its own targets and with
nothing asked, less those of tiny-flow guided by 2, which is its own, and by 3, which is tiny-miro's; one picture of a
prompt, about a quarter of the pictures. Writes benchmarks/shipped.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import tastemaker as tm
from tastemaker.encoders.protocol import extract
from tastemaker.encoders.tiny_clip import load_tiny_clip
from tastemaker.evaluation.geneval import compare, geneval
from tastemaker.evaluation.intervals import paired_difference, wilson
from tastemaker.rewards.table import load_rewards
from tastemaker.workflows.evaluate import geneval_figures, set_distances
from tastemaker.workflows.load import load_encoder
from tastemaker.world.check import WorldCheck
from tastemaker.world.dataset import clean_world
from tastemaker.world.grammar import evaluation_prompts, prompt_of, swapped
from tastemaker.world.scenes import compose, draw

SPACES = ("tiny-clip", "efficientnet-lite0")
AMONG = 100  # captions that a picture is told from


def scenes(prompts, offset: int) -> Tensor:
    """Clean drawings of the prompts' specs, (B, 3, 64, 64)."""
    drawn = [torch.from_numpy(draw(compose(p.spec, offset + k))) for k, p in enumerate(prompts)]
    return torch.stack(drawn).permute(0, 3, 1, 2)


def flow(pictures: int) -> dict:
    generator = tm.load_generator("tiny-flow")
    rows = evaluation_prompts(100)
    wanted = [rows[k % len(rows)] for k in range(pictures)]
    began = time.perf_counter()
    images = tm.sample(generator, wanted, range(pictures))
    seconds = time.perf_counter() - began
    real, other = scenes(wanted, 5_000_000), scenes(wanted, 9_000_000)
    found = {
        "geneval": geneval_figures(geneval(wanted, WorldCheck().score(images, wanted))),
        "geneval_of_clean_scenes": geneval_figures(geneval(wanted, WorldCheck().score(real, wanted))),
        "pictures": pictures,
        "sampling_seconds": round(seconds, 1),
        "sampling_steps": generator.plan.steps,
        "recipe": generator.recipe,
    }
    for space in SPACES:
        encoder = load_encoder(space)
        a, b, c = (extract(encoder, part.split(64)) for part in (images, real, other))
        found[space] = set_distances(b, a, space)
        found[f"{space}, two sets of clean scenes"] = set_distances(b, c, space)
    return found


def distinct(offset: int) -> tuple[Tensor, list]:
    """AMONG clean scenes whose captions all differ."""
    world, seen, k = clean_world(77), {}, offset
    while len(seen) < AMONG:
        picture, caption = world[k]
        seen.setdefault(caption.text, (picture, caption))
        k += 1
    return torch.stack([p for p, _ in seen.values()]), [c for _, c in seen.values()]


def miro(pictures: int) -> dict:
    told, flow = tm.load_generator("tiny-miro"), tm.load_generator("tiny-flow")
    judges = load_rewards(told.rewards)
    wanted = evaluation_prompts(max(2, pictures // 24), seed=1)
    texts = [p.text for p in wanted]

    def seen(generator, guidance: float) -> tuple[Tensor, Tensor]:
        generator.guidance = guidance
        images = tm.sample(generator, wanted, range(len(wanted)))
        return tm.score(judges, images, wanted), WorldCheck().score(images, wanted)

    sides = {"own targets": (told, told.guidance), "nothing asked": (told.unasked(), told.guidance)}
    sides |= {f"tiny-flow, guidance {g}": (flow, g) for g in (flow.guidance, told.guidance)}
    figures = {name: seen(*side) for name, side in sides.items()}
    found: dict = {"pictures": len(wanted), "recipe": told.recipe, "targets": told.positive.tolist()}
    for name, (scores, right) in figures.items():
        means = dict(zip(told.rewards, scores.mean(0).tolist()))
        found[name] = {"means": means, "geneval": geneval_figures(geneval(wanted, right))}
    ours, right = figures["own targets"]
    for name in list(sides)[1:]:
        theirs, wrong = figures[name]
        deltas = {r: asdict(paired_difference(a, b, texts)) for r, a, b in zip(told.rewards, ours.T, theirs.T)}
        found[f"own targets less {name}"] = deltas | {"geneval": asdict(compare(wanted, right, wrong).overall)}
    return found


@torch.no_grad()
def clip(groups: int = 10) -> dict:
    """Retrieval within groups of AMONG scenes."""
    model, hits = load_tiny_clip(), torch.zeros(3, dtype=torch.int64)
    for g in range(groups):
        images, captions = distinct(g * 10_000)
        vectors, words = model.image_vectors(images), model.text_vectors(captions)
        wrong = model.text_vectors([prompt_of(swapped(c.spec, k)) for k, c in enumerate(captions)])
        similarity, own = vectors @ words.T, torch.arange(AMONG)
        told = similarity.diagonal() > (vectors * wrong).sum(1)
        hits += torch.stack([(similarity.argmax(1) == own).sum(), (similarity.argmax(0) == own).sum(), told.sum()])
    names = f"image_to_text_of_{AMONG}", f"text_to_image_of_{AMONG}", "true_caption_over_one_fact_changed"
    return {name: asdict(wilson(int(h), groups * AMONG)) for name, h in zip(names, hits)} | {"recipe": model.recipe}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tiny-clip,tiny-flow,tiny-miro")
    parser.add_argument("--pictures", type=int, default=1200)
    said = parser.parse_args()
    parts = {"tiny-clip": clip, "tiny-flow": partial(flow, said.pictures), "tiny-miro": partial(miro, said.pictures)}
    found = {name: parts[name]() for name in said.models.split(",")}
    file = Path(__file__).with_name("shipped.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
