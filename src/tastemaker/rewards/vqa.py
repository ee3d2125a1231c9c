"""VQAScore (Lin et al. 2024, arXiv 2404.01291) by any vision-language model behind an OpenAI-compatible endpoint.

    score = P("yes") of the first answer token to: does this figure show the prompt?

The probability is over the full vocabulary, with all spellings of "yes" added. The model decides how it looks at the
picture, which is sent as it is. The paper's model was CLIP-FlanT5-XXL; scores of two models are not comparable.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..records import Prompt, Provenance
from .endpoint import Endpoint
from .yes_no import answers

VQA = 'Does this figure show "{}"? Please answer yes or no.'


class YesNo:
    """Not differentiable. A picture without an answer is NaN, and a warning says why.

    form: makes the score of the log-probabilities of yes and no.
    """

    differentiable = False

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        question: str,
        form: Callable[[float, float], float],
        limits: tuple[float, float],
    ):
        self.endpoint, self.name, self.question, self.form, self.range = endpoint, name, question, form, limits
        self.provenance = Provenance(f"{name}: {endpoint.model}", preprocessing=f"PNG; {question}")

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,)."""
        sound = images.isfinite().flatten(1).all(1)
        asked = [i for i in range(len(images)) if sound[i]]
        found = self.endpoint.first_tokens(images[asked], [self.question.format(prompts[i].text) for i in asked])
        values = torch.full((len(images),), math.nan)
        for i, listed in zip(asked, found):
            if not isinstance(listed, str):
                values[i] = self.form(*answers(listed))
        self.warn(found)
        return values

    def warn(self, found: Sequence[dict[str, float] | str]) -> None:
        reasons = [f if isinstance(f, str) else "the answer was neither yes nor no" for f in found
                   if isinstance(f, str) or math.isnan(answers(f)[0])]  # fmt: skip
        if reasons:
            text = f"'{self.name}' got no answer for {len(reasons)} of {len(found)} pictures; the first: {reasons[0]}"
            warnings.warn(text, stacklevel=3)


def probability(yes: float, no: float) -> float:
    return math.exp(yes)


def odds(yes: float, no: float) -> float:
    return yes - no


def load_vqa(where: str) -> YesNo:
    """`http://host:8000/v1` or `http://host:8000/v1#model`: P(yes), in [0, 1]."""
    return YesNo(Endpoint.of(where).named(), "vqa", VQA, probability, (0.0, 1.0))
