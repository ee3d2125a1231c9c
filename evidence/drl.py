"""DRL's claims on the emoji world (Beltran-Velez et al. 2026, arXiv 2606.19162): the reward was in the data.

    python -m evidence.drl [--quick] [--parts gain,ablations,fronts,methods,backbones,signal] [--cache FOLDER]

A discriminator in EfficientNet-lite0's space learns to tell clean drawings, as tiny-flow's frozen decoder can show
them, from tiny-flow's own pictures, and tiny-flow follows its logit by adjoint matching. What is claimed has three
seeds of both trainings (`gain`); the other parts have one and are exploratory:

gain       Frechet distance above its floor in the discriminator's space and in one that it never saw (tiny-clip's),
           coverage, and rewards that were not trained on, at the paper's presets
ablations  other values of lambda and R1; an encoder that learned from nothing; flow matching on the tuned model's own
           pictures; the matching loss before and after
fronts     a preference after DRL beside the same preference alone
methods    Flow-GRPO, DiffusionNFT and AWM after the same discriminator with as many operations
backbones  small generators in the manners of SiT, JiT, REPA and RAE
signal     how much of what a few trajectories teach others would teach too, without and with copies of a picture

Guidance is off everywhere. A finished run writes its row under results/partial/ and is not done again; one that was
cut goes on where it was left. Parts keep their rows in the cache, and results/drl.json holds those of all parts that
are there. `backbones` may run beside the others; `ablations`, `fronts` and `methods` begin with what `gain` made.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tastemaker.allocator import keep_freed_memory
from tastemaker.workflows.files import write_json

from . import drl_ablations, drl_backbones, drl_fronts, drl_gain, drl_methods, drl_signal
from .drl_figure import draw_figure
from .drl_lab import NAME, QUICK, Lab
from .rows import write_rows

RESULTS = Path(__file__).parent / "results"
PARTS = {
    "gain": drl_gain.rows,
    "ablations": drl_ablations.rows,
    "fronts": drl_fronts.rows,
    "methods": drl_methods.rows,
    "backbones": drl_backbones.rows,
    "signal": drl_signal.rows,
}


def lab_of(quick: bool, cache: Path) -> Lab:
    if quick:
        return Lab(cache / "quick", cache / "quick" / "partial", QUICK)
    return Lab(cache, RESULTS / "partial")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="one seed, a few steps of each run; nothing is claimed")
    words.add_argument("--parts", default=",".join(PARTS), help="which, with commas; all by default")
    words.add_argument("--cache", type=Path, default=Path("runs/drl"), help="where pictures and runs are kept")
    given = words.parse_args()
    unknown = set(given.parts.split(",")) - set(PARTS)
    if unknown:
        words.error(f"expected parts among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    keep_freed_memory()
    lab = lab_of(given.quick, given.cache)
    for folder in (lab.cache, lab.partial):
        folder.mkdir(parents=True, exist_ok=True)
    for part in given.parts.split(","):
        write_rows(lab.cache / f"{NAME}-{part}.json", PARTS[part](lab))
    made = [lab.cache / f"{NAME}-{part}.json" for part in PARTS]
    rows = [one for file in made if file.is_file() for one in json.loads(file.read_text())]
    out = lab.cache if given.quick else RESULTS
    write_json(out / f"{NAME}.json", rows)
    draw_figure(rows, out / f"{NAME}.png")
    print(f"wrote {out / NAME}.json and .png")


if __name__ == "__main__":
    main()
