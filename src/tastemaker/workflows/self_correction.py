"""`tastemaker train self-correction`: groups of a file, or of the world, meet a generator in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..algorithms import self_correction
from ..data.batches import Batches
from ..data.corrections import CorrectionPictures, read_corrections
from ..errors import TastemakerError
from ..world.corrections import WorldCorrections
from .runs import Run, open_run
from .sample import check_words
from .tuning import beginning, carry_out, picture_side, pictures, prepared, speaks_of_the_world


def train_self_correction(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Self-correction; data: a file of groups, else scenes of the embedded world with one fact wrong."""
    config, bench = prepared(self_correction.Config, config_path, overrides, resume, track)
    generator = bench.generator
    require_tokens(generator, config.model)
    groups = Batches(dataset_of(data, generator, config), config.batch_size, config.seed)
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, None)
    return carry_out(
        lambda state: self_correction.train(generator, groups, batches, config, state), bench, config, run, track
    )


def require_tokens(generator: Any, name: str) -> None:
    """Raise TastemakerError for a generator without tokens."""
    if not hasattr(generator, "logits"):
        raise TastemakerError(f"self-correction tunes masked-token generators, and '{name}' is none; use `train dpo`")


def dataset_of(data: str | Path | None, generator: Any, config: self_correction.Config) -> Any:
    """Raises TastemakerError where nothing is given and the generator does not speak of the world, and for prompts
    that it cannot read."""
    if data is not None:
        found = read_corrections(data)
        check_words(generator, [one.prompt for one in found])
        return CorrectionPictures(tuple(found), picture_side(generator))
    if not speaks_of_the_world(generator):
        raise TastemakerError(
            f"'{config.model}' does not speak of the embedded world: give groups with --data FILE.jsonl, such as "
            "`tastemaker search reflect --export-groups FILE.jsonl` writes"
        )
    return WorldCorrections(config.seed, picture_side(generator))
