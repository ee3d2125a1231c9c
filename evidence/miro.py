"""MIRO's claims on the emoji world (Dufour et al. 2025, arXiv 2510.25897): train once with all rewards as conditions.

    python -m evidence.miro [--quick] [--parts curves,selection,targets,tuned] [--cache FOLDER]

A small tiny-flow learns from nothing on the noisy world, told the levels of four rewards or none of them. MIRO and
the baseline have three seeds; runs told one reward, filtered, weighted or with synthetic captions, and the parts
`targets` and `tuned`, have one and are exploratory. What no run is told: the world's own check, what simulated raters
think, and diversity in EfficientNet-lite0's space.

curves     rewards over training, the steps to the baseline's end, the end itself beside one reward alone and the
           baseline; GenEval's tasks by the world's check; diversity
others     hard filtering and a reward-weighted loss beside the baseline; MIRO and the baseline with half synthetic
           captions
selection  best-of-N of MIRO and the baseline
targets    each reward's target from 0 to 1; a front of targets
tuned      the baseline tuned on one reward by ReFL, and by DPO, all with equal compute

What a finished run drew is judged and kept under results/partial/; it is not trained again while the scale stays
the same and nothing needs its weights. One that was cut goes on where it was left. results/miro.json holds the rows
of all parts that ever ran.
"""

from __future__ import annotations

from . import miro_curves, miro_selection, miro_targets, miro_tuned
from .miro_figure import draw_figure
from .miro_lab import QUICK, Lab
from .parts import run_parts

NAME = "miro"
PARTS = {
    "curves": miro_curves.rows,
    "others": miro_curves.other_rows,
    "selection": miro_selection.rows,
    "targets": miro_targets.rows,
    "tuned": miro_tuned.rows,
}


if __name__ == "__main__":
    run_parts(NAME, __doc__, PARTS, Lab, QUICK, draw_figure)
