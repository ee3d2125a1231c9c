"""Verifiers whose answers are known, and what the tests of the searches share."""

import torch

from tastemaker.protocols import Prompt
from tastemaker.records import Ledger, Provenance

PROMPTS = [Prompt(f"a photo of a {name}") for name in ("cat", "dog", "key")]
SEEDS = [11, 12, 13]


def redness(images):
    """(B,) from the picture alone, with a spread that does not depend on the generator."""
    return images[:, 0].mean((1, 2)) * 10


def chance(images, salt=0):
    """(B,) in [0, 1): a number of the picture that has next to nothing to do with what is shown."""
    return images.double().mean((1, 2, 3)).mul(997 + 101 * salt).frac().float()


class Judge:
    """A verifier that calls a preview clear from `clear_from` on, and sees potential as `potential` says."""

    name, differentiable, range, provenance = "judge", False, (-10.0, 10.0), Provenance("judge")

    def __init__(self, clear_from=0.3, potential=None):
        self.clear_from, self.seen = clear_from, []
        self.see = potential or (lambda images: chance(images, 1))

    def score(self, images, prompts):
        return redness(images)

    def clear(self, images, prompts, progress):
        return (progress >= self.clear_from).float()

    def potential(self, images, prompts, progress):
        self.seen.append((len(images), float(progress[0])))
        return self.see(images)


class Scorer:
    """A plain reward."""

    name, differentiable, range, provenance = "scorer", False, (0.0, 1.0), Provenance("scorer")

    def __init__(self, score=None):
        self.score = (lambda images, prompts: score(images)) if score else lambda images, prompts: redness(images)


def drained(search, generator, verifier, config, plan=None, guidance=1.0, prompts=PROMPTS, seeds=SEEDS):
    """(list of Selected, ledger) of a whole search."""
    ledger = Ledger()
    return list(search(generator, verifier, prompts, seeds, config, ledger, plan, guidance)), ledger


def joined(found, field):
    return torch.cat([getattr(f, field) for f in found])
