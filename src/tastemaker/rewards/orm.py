"""An outcome reward model behind an OpenAI-compatible endpoint: the log-odds of "yes, this is what was asked for".

    score = log P(yes) - log P(no) of the first answer token, the spellings of each added

The zero-shot verifier of "Can we generate images with CoT?" (Guo et al. 2025, arXiv 2501.13926) took P("yes") in
lower case only, and of a sampled answer; this reads the distribution itself. A tuned verifier is used alike.
"""

from __future__ import annotations

import math

from .endpoint import Endpoint
from .vqa import ORM, YesNo, odds


def load_orm(where: str) -> YesNo:
    """`http://host:8000/v1` or `http://host:8000/v1#model`: log-odds, above 0 where yes is the likelier answer."""
    return YesNo(Endpoint.of(where).named(), "orm", ORM, odds, (-math.inf, math.inf))
