"""Several processes that train one generator: what each takes of a batch, and how they agree (docs/scale.md).

Every process runs the same loop on an equal part of the rows; all have equally many, so the mean of the processes'
means is the mean over all rows, also where a mask leaves some out. A process that is alone takes everything, and the
functions here then do nothing. Letters: W processes, B rows of all of them together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import TastemakerError

Rows = TypeVar("Rows", Tensor, list[Any], list[int], range)


def world() -> int:
    """W."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def beside() -> int:
    """How many of them are on this machine and share its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world() > 1 else 1


def rank() -> int:
    """This process's place, from 0."""
    return dist.get_rank() if world() > 1 else 0


def first() -> bool:
    """Whether this process writes what is written once."""
    return rank() == 0


def own(rows: Rows) -> Rows:
    """This process's part of the rows of all, B / W of them side by side. Raises TastemakerError where B / W is not
    whole: processes with fewer rows would count too much."""
    each, left = divmod(len(rows), world())
    if left:
        raise TastemakerError(
            f"expected a number of rows that {world()} processes can share evenly, got {len(rows)}; change "
            "batch_size or the number of processes"
        )
    return rows[rank() * each : (rank() + 1) * each]


def part(count: int) -> list[int]:
    """Which of `count` pictures this process draws or judges. All take equally many, since each must call a sharded
    network as often as the others; the last ones take the last picture again, and `gather` drops it."""
    each = -(-count // world())
    return [min(k, count - 1) for k in range(rank() * each, (rank() + 1) * each)]


def gather(rows: Tensor, count: int | None = None) -> Tensor:
    """What all processes have, in their order, or the first `count` rows of it: (B / W, ...) -> (B, ...). Outside of
    the graph where there are several processes."""
    if world() == 1:
        return rows[:count]
    sent = rows.detach().to(_wire()).contiguous()
    found = [torch.empty_like(sent) for _ in range(world())]
    dist.all_gather(found, sent)
    return torch.cat(found).to(rows.device)[:count]


def mean(figures: Mapping[str, float]) -> dict[str, float]:
    """The mean of every figure over the processes, all of which have the same names."""
    if world() == 1:
        return dict(figures)
    values = gather(torch.tensor([list(figures.values())], dtype=torch.float64)).mean(0)
    return dict(zip(figures, values.tolist()))


def average_gradients(weights: Iterable[Tensor]) -> None:
    """The mean over the processes in place of each gradient; those of sharded weights came back averaged."""
    if world() == 1:
        return
    gradients = []
    for p in weights:
        if p.grad is not None and not sharded(p):
            p.grad = p.grad.contiguous()
            gradients.append(p.grad)
    for sent in [dist.all_reduce(g, async_op=True) for g in gradients]:
        sent.wait()  # type: ignore[union-attr]
    for g in gradients:
        g /= world()


def any_of(*flags: bool) -> list[bool]:
    """Of each flag whether it holds in any process."""
    return gather(torch.tensor([flags], dtype=torch.uint8)).amax(0).bool().tolist()


def on_first(action: Callable[[], object]) -> None:
    """Carry it out in the first process alone, while the others wait. Where it raises, all stop."""
    error = None
    if first():
        try:
            action()
        except Exception as raised:
            error = raised
    if error is not None and world() == 1:
        raise error
    if any_of(error is not None)[0]:
        raise error or TastemakerError("the first process could not go on; its message says why")


# sharded tensors: a part of each in every process


def sharded(value: Any) -> bool:
    return hasattr(value, "to_local")


def local(value: Any) -> Any:
    """The part of a sharded tensor that this process holds, in the same memory; anything else as it is."""
    return value.to_local() if sharded(value) else value


def whole(value: Any) -> Any:
    """A sharded tensor put together in every process; anything else as it is."""
    return value.full_tensor() if sharded(value) else value


def laid_out(part: Tensor, like: Tensor) -> Tensor:
    """A tensor that is sharded as `like` is, or not at all, and whose values here are `part`."""
    made = torch.zeros_like(like.detach())
    local(made).copy_(part)
    return made


def _wire() -> torch.device:
    """Where tensors have to lie to be sent."""
    return torch.device("cuda" if "nccl" in str(dist.get_backend()) else "cpu")
