"""VQAScore (Lin et al. 2024, arXiv 2404.01291) by any vision-language model behind an OpenAI-compatible endpoint.

    score = P("yes") of the first answer token to: does this figure show the prompt?

The probability is over the full vocabulary, with all spellings of "yes" added. The model decides how it looks at the
picture, which is sent as it is. The paper's model was CLIP-FlanT5-XXL; scores of two models are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..records import Prompt, Provenance
from .endpoint import Endpoint
from .orm import EndpointVerifier

VQA = 'Does this figure show "{}"? Please answer yes or no.'


class Vqa:
    """Not differentiable. A picture without an answer is NaN, and a warning says why; `unanswered` counts reasons."""

    name, differentiable, range = "vqa", False, (0.0, 1.0)

    def __init__(self, endpoint: Endpoint):
        self.asker = EndpointVerifier(endpoint, self.name)
        self.provenance = Provenance(f"vqa: {endpoint.model}", preprocessing=f"PNG; {VQA}")
        self.unanswered = self.asker.unanswered

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,)."""
        return self.asker.asked(images, [((VQA.format(p.text), ""),) for p in prompts]).yes.exp()


def load_vqa(where: str) -> Vqa:
    """`http://host:8000/v1` or `http://host:8000/v1#model`: P(yes), in [0, 1]."""
    return Vqa(Endpoint.of(where).named())
