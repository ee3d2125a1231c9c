"""DRL's claims on the emoji world (Beltran-Velez et al. 2026, arXiv 2606.19162): the reward was in the data.

    python -m evidence.drl [--quick] [--parts gain,ablations,fronts,methods,backbones,signal] [--cache FOLDER]

A discriminator in EfficientNet-lite0's space learns to tell clean drawings, as tiny-flow's frozen decoder can show
them, from tiny-flow's own pictures, and tiny-flow follows its logit by adjoint matching. What is claimed has three
seeds of both trainings (`gain`); the other parts have one and are exploratory:

gain       Frechet distance above its floor in the discriminator's space and in one that it never saw (tiny-clip's),
           coverage, and rewards that were not trained on, at the paper's preset `default`
ablations  other values of lambda and R1; an encoder that learned from nothing; flow matching on the tuned model's own
           pictures; the matching loss before and after
fronts     a preference after DRL beside the same preference alone
methods    Flow-GRPO, DiffusionNFT and AWM after the same discriminator with as many operations
backbones  small generators in the manners of SiT, JiT, REPA and RAE
signal     how much of what a few trajectories teach others would teach too, without and with copies of a picture

Guidance is off everywhere. A finished run writes its record under results/partial/, from which alone rows are made,
and is not done again while the scale stays the same; one that was cut goes on where it was left. results/drl.json
holds the rows of all parts that ever ran. `backbones` may run beside the others; `ablations`, `fronts` and `methods`
begin with what `gain` made.
"""

from __future__ import annotations

from . import drl_ablations, drl_backbones, drl_fronts, drl_gain, drl_methods, drl_signal
from .drl_figure import draw_figure
from .drl_lab import NAME, QUICK, Lab
from .parts import run_parts

PARTS = {
    "gain": drl_gain.rows,
    "ablations": drl_ablations.rows,
    "fronts": drl_fronts.rows,
    "methods": drl_methods.rows,
    "backbones": drl_backbones.rows,
    "signal": drl_signal.rows,
}


if __name__ == "__main__":
    run_parts(NAME, __doc__, PARTS, Lab, QUICK, draw_figure)
