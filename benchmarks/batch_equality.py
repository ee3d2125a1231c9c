"""Image k alone and in a batch of 32: python -m benchmarks.batch_equality

Row written: batch_difference, the largest absolute difference over all pixels of all 32 pictures, in [0, 1].
"""

from __future__ import annotations

import torch

from benchmarks.models import tiny_flow
from benchmarks.rows import write
from tastemaker.sampling import sample
from tastemaker.world.grammar import evaluation_prompts

COUNT = 32


def main() -> None:
    torch.set_num_threads(1)
    generator, prompts = tiny_flow(), evaluation_prompts(6)[:COUNT]
    together = sample(generator, prompts, range(COUNT))
    alone = torch.cat([sample(generator, [p], [k]) for k, p in enumerate(prompts)])
    apart = float((together - alone).abs().max())
    write(
        name="batch_difference",
        ours=apart,
        other=1e-5,
        other_is="the largest difference allowed",
        ratio=apart / 1e-5,
        target="<= 1e-5",
        unit="of [0, 1]",
        command="python -m benchmarks.batch_equality",
    )


if __name__ == "__main__":
    main()
