"""`tastemaker train dpo`: pairs of one's own, or a generator and a reward that make them, meet in a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..algorithms import dpo
from ..algorithms.kept import Kept
from ..algorithms.optimise import TrainingState
from ..data.batches import Batches
from ..data.chosen import FIELDS, ChosenPictures, read_chosen
from ..data.pairs import Pair, pairs_of, without_ties
from ..data.votes import read_votes
from ..errors import TastemakerError
from ..records import StepRecord
from .rl import reference_of
from .runs import Run, open_run
from .sample import check_words
from .tuning import beginning, carry_out, picture_side, pictures, prepared


def train_dpo(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """DPO; data: a file of chosen and rejected pictures, or votes; else pairs of the generator's own, in rounds."""
    config, bench = prepared(dpo.Config, config_path, overrides, resume, track)
    generator, base, kept = bench.generator, reference_of(bench.generator), Kept()
    given = None if data is None else given_pairs(Path(data), generator, config)
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, None)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        if given is not None:
            return dpo.train(generator, base, given, batches, config, state)
        return dpo.train_rounds(generator, base, bench.reward, bench.prompts, batches, config, state, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def given_pairs(path: Path, generator, config: dpo.Config) -> Batches:
    """Batches of the pairs in a file. Raises TastemakerError for several rounds, which need pairs drawn anew, and
    UnknownName for words that the generator does not know."""
    if config.rounds > 1:
        raise TastemakerError("rounds draw their own pairs: give rounds=1 with --data, or leave --data out")
    pairs = read_preferences(path)
    check_words(generator, [pair.prompt for pair in pairs])
    return Batches(ChosenPictures(tuple(pairs), picture_side(generator)), config.batch_size, config.seed)


def read_preferences(path: Path) -> list[Pair]:
    """Pairs of a DPO file (data/chosen.py), or of votes in any format of docs/votes.md, without ties."""
    if path.suffix == ".jsonl" and path.is_file():
        with path.open(encoding="utf-8") as file:
            line = file.readline()
        if all(f'"{name}"' in line for name in FIELDS):
            return read_chosen(path)
    pairs = without_ties(pairs_of(read_votes(path)))
    if not pairs:
        raise TastemakerError(f"{path} holds no pair in which one picture is better")
    return pairs
