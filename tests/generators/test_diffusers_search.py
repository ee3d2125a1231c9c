"""PARM and steered particles on diffusers folders: the account holds there too, and a cut path costs nothing more."""

import pytest
import torch

for package in ("diffusers", "transformers"):
    pytest.importorskip(package)

import tiny_diffusers  # noqa: E402

from tastemaker.generators.diffusers_load import load  # noqa: E402
from tastemaker.records import Ledger, Provenance  # noqa: E402
from tastemaker.search import parm, particles  # noqa: E402
from tastemaker.workflows.search import stochastic  # noqa: E402

PROMPTS = ["a red cat on the mat", "two dogs"]


class Judge:
    name, differentiable, range, provenance = "judge", False, (0.0, 1.0), Provenance("judge")

    def score(self, images, prompts):
        return images[:, 0].mean((1, 2))

    def clear(self, images, prompts, progress):
        return (progress > 0.4).float()

    def potential(self, images, prompts, progress):
        return images.mean((1, 2, 3)).mul(997).frac()


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_a_diffusers_folder_is_searched(kind, tmp_path):
    generator = load(tiny_diffusers.make(kind, tmp_path), size=16, sequence_length=32)
    plan = stochastic(generator.native_plan(4))
    for search, config in ((parm.search, parm.Config(4)), (particles.search, particles.Config(3, least_share=1))):
        ledger = Ledger()
        found = list(search(generator, Judge(), PROMPTS, [1, 2], config, ledger, plan, 2.0))
        scores = torch.cat([f.scores for f in found])
        chosen = torch.cat([f.chosen for f in found])
        assert (chosen >= 0).all() and ledger.evaluations_after_pruning == 0
        kept = torch.cat([f.images for f in found])
        torch.testing.assert_close(Judge().score(kept, PROMPTS), scores.gather(1, chosen[:, None])[:, 0])
        assert min(ledger.flops_by_part[part] for part in ("generator", "decoder")) > 0
