"""Verification's claims on the emoji world (Guo et al. 2025, arXiv 2501.13926): verify and reinforce step by step.

    python -m evidence.verification [--quick] [--parts judge,table_a,...] [--model RUN] [--cache FOLDER]

tiny-masked draws GenEval's six tasks of the world; the world's check says which pictures are right, with another
detector than the one whose labels judges and DPO learn from, and on prompts that none of them has seen but for the
18 single objects that there are. Three seeds of judges, policies and pictures; what has one seed is exploratory.

judge    the judges: fine-tuned ORM, PRM, PARM with its three tasks; how often they are right
table_a  the paper's Table A: zero-shot and fine-tuned ORM and PRM, PARM, DPO, iterative DPO, the stacks, iterative
         DPO guided by PARM; tiny-flow plain and best-of-N
table_b  reflection and the same search without it
curves   score over compute with the verifier's, N-curves with their peak
ablations   one seed: PARM's parts alone, PARM's choice of pairs, halving over compute, likeness of paths

A finished run writes its record under results/partial/, from which alone rows are made, and is not done again; one
that was cut goes on where it was left. Seeds run side by side where there is a GPU. results/verification.json holds
the rows of all parts that ever ran. `--model RUN` is about another masked-token generator of the world.
"""

from __future__ import annotations

from . import (
    verification_ablations,
    verification_curves,
    verification_judge,
    verification_reflection,
    verification_table,
)
from .parts import run_parts
from .verification_figure import draw_figure
from .verification_lab import MODEL, NAME, QUICK, Lab

PARTS = {
    "judge": verification_judge.rows,
    "table_a": verification_table.rows,
    "table_b": verification_reflection.rows,
    "curves": verification_curves.rows,
    "ablations": verification_ablations.rows,
}


if __name__ == "__main__":
    run_parts(NAME, __doc__, PARTS, Lab, QUICK, draw_figure, {"model": MODEL})
