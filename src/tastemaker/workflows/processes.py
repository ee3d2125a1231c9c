"""Training in several processes, started by `torchrun` or `accelerate launch`; see docs/scale.md.

Accelerate finds this process's place and device. Weights are copies, or, where Accelerate was told to use FSDP
(`accelerate launch --use_fsdp`, or ACCELERATE_USE_FSDP=true before torchrun), parts of each lie in every process:
torch's fully_shard, which is FSDP2. Networks are called through their forward alone, so nothing else has to know.
"""

from __future__ import annotations

import atexit
import copy
import os
import sys
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from ..errors import TastemakerError
from ..ranks import first, rank, sharded, whole, world

M = TypeVar("M", bound=nn.Module)


def started() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wants_shards() -> bool:
    return started() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def join() -> None:
    """Take this process's place among those that were started; nothing where it is alone. Only the first one goes on
    to write to standard output."""
    if started() == 1 or dist.is_initialized():
        return
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    atexit.register(dist.destroy_process_group)
    if rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process lives)


def require_joined() -> None:
    """Raise TastemakerError for a command that would do all its work in every process over again."""
    if world() != started():
        raise TastemakerError(
            f"this command runs in one process, and {started()} were started; call it without torchrun and without "
            "accelerate launch"
        )


def spread(network: M) -> M | None:
    """Shard the network over the processes in place, block by block, where that was asked for.

    Returns an empty copy, to be filled by `assembled` when the training is over; None where nothing is sharded.
    """
    weights = list(network.parameters())
    if not wants_shards() or not weights or sharded(weights[0]):
        return None
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, empty = init_device_mesh(weights[0].device.type, (world(),)), empty_copy(network)
    for block in blocks_of(network):
        fully_shard(block, mesh=mesh)
    # The root too gives its parts back after each forward: weights that are exchanged in between, such as averaged
    # ones, would else not be seen.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    return empty


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists of modules: what is gathered, used and given back together."""
    found: list[nn.Module] = []
    for child in network.children():
        found += [m for m in child if any(True for _ in m.parameters())] if isinstance(child, nn.ModuleList) else []
        found += [] if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found


def empty_copy(network: M) -> M:
    """The same modules with weights that take no memory; buffers are copied."""
    memo = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in network.parameters()
    }
    return copy.deepcopy(network, memo)


def assembled(network: M, empty: M | None) -> M:
    """The network whole again in the first process, in its host's memory; as it is in the others, all of which have
    to call this too, and where it was not sharded."""
    if empty is None:
        return network
    weights = {}
    for name, value in network.state_dict().items():
        together = whole(value.detach())
        if first():
            weights[name] = together.cpu()
    if not first():
        return network
    empty.load_state_dict(weights, assign=True)
    return empty.cpu()
