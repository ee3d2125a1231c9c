"""Muon: momentum whose every matrix is replaced by the nearest orthogonal one before it is applied.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): with G the Nesterov momentum of a matrix and
G = U S V^T, the step is W <- W - lr sqrt(max(1, rows / columns)) U V^T; five Newton-Schulz iterations of the odd
polynomial with coefficients (3.4445, -4.7750, 2.0315) bring every singular value near 1, between 0.7 and 1.2. All
directions of a layer then learn at one speed. Made for hidden matrices; embeddings, first and last layers, biases and
norms stay with AdamW. A convolution is the matrix of its output channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """(K, R, C) -> (K, R, C): singular values of each brought near 1, in float32."""
    x = matrices.float()
    x = x.mT if x.shape[1] > x.shape[2] else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = 3.4445 * x + torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315) @ x
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


class Muon(torch.optim.AdamW):
    """AdamW, but for the parameter groups that hold `momentum`: those are stepped by Muon, without decay."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for values in state["state"].values():
            values.setdefault("step", torch.tensor(0.0))  # AdamW looks for it in every state that it takes over
        super().__setstate__(state)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            if "momentum" in group:
                self._step_matrices(group)
        super().step()  # skips what has no gradient any more
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None:
                alike.setdefault(p.flatten(1).shape, []).append(p)
        for (rows, columns), weights in alike.items():
            stepped = orthogonalise(torch.stack([self._nesterov(p, group["momentum"]) for p in weights]))
            for p, change in zip(weights, stepped):
                p.add_(change.reshape(p.shape), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)
                p.grad = None

    def _nesterov(self, p: Tensor, momentum: float) -> Tensor:
        """(R, C)"""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum).flatten(1)
