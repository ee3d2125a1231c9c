"""How likely a drawn token is. Letters: B batch, N tokens, V codes."""

from __future__ import annotations

import torch
from torch import Tensor


def token_log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax at the tokens, (B, N, V), (B, N) -> (B, N) in nats, at least float32. A token below 0 counts as
    code 0."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return scores.gather(2, tokens.clamp_min(0)[..., None])[..., 0] - scores.logsumexp(-1)
