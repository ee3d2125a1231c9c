"""`tastemaker train refl`: a generator, a reward and captioned pictures meet in a run folder."""

from __future__ import annotations

from collections.abc import Sequence

from ..algorithms import refl
from ..data.batches import Batches
from .runs import Run, open_run
from .tuning import Bench, beginning, carry_out, pictures, prepared, standardised


def train_refl(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Tune a generator with a reward's gradient; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(refl.Config, config_path, overrides, resume, track)
    refl.require_gradient(bench.reward)
    config = standardised(config, bench, config.guidance)
    run = open_run(config, out, resume, beginning(bench.generator))
    return tune(bench, pictures(bench.generator, config, data), config, run, track)


def tune(bench: Bench, batches: Batches | None, config: refl.Config, run: Run, track: str = "") -> Run:
    """Run or resume ReFL; the averaged weights end up in the generator and in the run's folder."""
    return carry_out(
        lambda state: refl.train(bench.generator, bench.reward, bench.prompts, batches, config, state),
        bench,
        config,
        run,
        track,
    )
