"""`tastemaker train miro`: scored pictures, their bins, and a tiny generator that is told the levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..algorithms import miro
from ..algorithms.miro import Config, Labelled
from ..algorithms.optimise import begin
from ..algorithms.watching import Look
from ..data import bins as binning
from ..data.batches import Batches
from ..data.bins import Bins, described, from_description, levels_of, make_bins, occupancy, require_same
from ..data.scored_set import ScoredSet
from ..devices import best_device
from ..encoders.words import Vocabulary
from ..errors import TastemakerError, UnknownName
from ..generators.networks import NetworkConfig
from ..generators.tiny_flow import TinyFlow
from ..generators.tiny_miro import TinyMiro, load_tiny_miro
from ..generators.told import Scale
from ..protocols import Reward
from ..ranks import first, on_first, own
from ..records import Prompt
from ..rewards.table import load_rewards
from ..sampling import sample, score
from ..world.dataset import noisy_world
from ..world.grammar import evaluation_prompts, vocabulary
from .files import write_text
from .follow import follow
from .load import load_generator
from .processes import assembled, join, spread
from .runs import Run, open_run, read_settings
from .scored import ShardSource, Source, WorldSource, kept_set
from .sinks import open_sinks, sink_names
from .train import known_words, run_recipe, sampled
from .tuning import beginning, comparison, picture_side

SEEN = 4096  # training pictures whose levels a model keeps
JUDGED = 8  # prompts of each task for the result


def train_miro(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Train with rewards as conditions on the noisy world, or on one's own scored shards."""
    join()
    config = read_settings(Config, config_path, overrides, resume)
    sink_names(track)
    own(range(config.batch_size))  # raises where processes cannot share it
    judges = [] if data is not None else load_rewards(reward_names(config.rewards))
    names = [r.name for r in judges] or reward_names(config.rewards)
    told = chosen(names, config.condition_on)
    base = None if config.model == "none" else beginning_of(config.model)
    source = source_of(config, data, judges, names, config.size if base is None else picture_side(base))
    weights = {} if base is None else beginning(base)
    run = open_run(config, out, resume, weights)
    scored = kept_set(Path(config.cache) if config.cache else run.folder / "pictures", source)
    bins = bins_for(base, scored, config)
    levels = levels_of(bins, scored.scores)  # (V, N, R)
    table = occupancy(bins)
    print(table)
    on_first(lambda: write_text(run.folder / "bins.txt", table + "\n"))
    generator = generator_for(base, bins, levels, told, scored, config, data is None)
    generator.parts.to(best_device())
    learns = any(p.requires_grad for p in generator.decoder.parameters())
    empty, empty_decoder = spread(generator.network), spread(generator.decoder) if learns else None
    state = begin(generator.parts, config.optimiser, generator.hidden)
    run.restore(state)
    records = miro.train(generator, labelled(scored, levels, told, config), config, state)
    prompts = grid_prompts(scored, generator, data is None)
    follow(
        run,
        sampled(records, generator, state, run, prompts, config),
        state,
        config.steps,
        open_sinks(track, run, state.step),
    )
    with state.ema_weights():
        generator.recipe = run_recipe(run, state)
        generator.network = assembled(generator.network, empty).cpu()
        generator.decoder = assembled(generator.decoder, empty_decoder).cpu()
        on_first(lambda: generator.save(run.folder))
    if judges and told:
        run.write_result(asked_and_not(load_tiny_miro(run.folder), judges) if first() else {})
    return run


def reward_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise TastemakerError("expected the names of one reward or more in `rewards`, such as preference,alignment")
    return names


def chosen(names: Sequence[str], wanted: str) -> list[str]:
    """Which rewards the network is told, in their order. Raises UnknownName for one that is not scored."""
    if wanted in ("all", "none"):
        return list(names) if wanted == "all" else []
    asked = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in asked:
        if name not in names:
            raise UnknownName("reward", name, names, "condition_on names some of `rewards`, or is all or none")
    return [name for name in names if name in asked]


def beginning_of(model: str) -> TinyFlow:
    """Raises TastemakerError for a generator that has no place for reward tokens."""
    generator = load_generator(model)
    if not isinstance(generator, TinyFlow):
        raise TastemakerError(
            f"'{model}' is a {type(generator).__name__}, which takes no reward tokens; begin from tiny-flow, a run "
            "of train pretrain or train miro, or from nothing with model=none"
        )
    return generator


def source_of(config: Config, data: Path | None, judges: Sequence[Reward], names: Sequence[str], size: int) -> Source:
    if data is None:
        world = noisy_world(config.world_seed, size)
        return WorldSource(world, config.pictures, config.synthetic > 0, judges)
    fields = ["caption", *([config.synthetic_field] if config.synthetic else [])]
    path = Path(data)
    folder = Path(config.scores) if config.scores else path if path.is_dir() else path.parent
    source = ShardSource(path, folder, names, fields, size)
    if source.left_out:
        print(f"left out {source.left_out} pictures without a caption or with an error; the shards' scores say why")
    return source


def bins_for(base: TinyFlow | None, scored: ScoredSet, config: Config) -> list[Bins]:
    """Of the model that is begun from where it has some, which its levels keep their meaning by; else made of all
    scores there are. Raises TastemakerError where those of the model are of other rewards or versions."""
    if not isinstance(base, TinyMiro):
        rule = getattr(binning, config.bin_rule)
        require_scores(scored)
        columns = zip(scored.rewards.items(), scored.scores.flatten(0, 1).T)  # R of (V N,)
        return [make_bins(name, version, column, rule, config.bins) for (name, version), column in columns]
    kept = from_description(base.scale.described, config.model)
    require_same(kept, scored.rewards)
    if [one.reward for one in kept] != list(scored.rewards):
        raise TastemakerError(
            f"'{config.model}' was trained with {', '.join(base.rewards)}; give rewards={','.join(base.rewards)}, or "
            "begin from a generator without rewards"
        )
    return kept


def require_scores(scored: ScoredSet) -> None:
    """Raise TastemakerError for a reward that gave no picture a score."""
    for name, column in zip(scored.rewards, scored.scores.flatten(0, 1).T):
        if column.isnan().all():
            raise TastemakerError(f"reward '{name}' has no score of any picture: leave it out of `rewards`")


def generator_for(
    base: TinyFlow | None,
    bins: Sequence[Bins],
    levels: Tensor,
    told: Sequence[str],
    scored: ScoredSet,
    config: Config,
    world: bool,
) -> TinyFlow:
    """What is trained: with reward tokens where rewards are told, else a plain tiny-flow."""
    if isinstance(base, TinyMiro):
        if list(told) != list(base.rewards):
            raise TastemakerError(f"'{config.model}' is told {', '.join(base.rewards)}; give condition_on=all")
        base.guidance = config.guidance
        return thawed(base)
    flow = fresh(config, scored, world) if base is None else thawed(base)
    if not told:
        return flow
    columns = [k for k, one in enumerate(bins) if one.reward in told]
    generator = TinyMiro.begun(flow, scale_of([bins[k] for k in columns], levels[..., columns]), config.seed)
    generator.guidance = config.guidance
    return generator


def thawed(flow: TinyFlow) -> TinyFlow:
    """Its network learns; its decoder, which has learned, stays."""
    flow.network.requires_grad_(True)
    return flow


def fresh(config: Config, scored: ScoredSet, world: bool) -> TinyFlow:
    """From nothing. The same whatever is told, but for what is told."""
    shape = NetworkConfig(
        config.size // config.scale, config.patch, config.width, config.depth, config.width // 32, scale=config.scale
    )
    captions = (text for kind in scored.captions for text in kind)
    words = vocabulary() if world else Vocabulary.of(captions, config.words).words
    return TinyFlow.new(shape, Vocabulary(words, config.words), config.seed)


def scale_of(bins: Sequence[Bins], levels: Tensor) -> Scale:
    """levels (V, N, R): an even choice of the pictures is kept, with their own captions."""
    rows = torch.linspace(0, levels.shape[1] - 1, min(SEEN, levels.shape[1])).long()
    names = tuple(one.reward for one in bins)
    return Scale(names, len(bins[0]), tuple(described(bins)), levels[0, rows].clone())


def labelled(scored: ScoredSet, levels: Tensor, told: Sequence[str], config: Config) -> Labelled:
    """Filtered and weighed by all rewards; the levels of those that are told."""
    if config.keep_share < 1:
        rows = miro.filtered_rows(levels, config.keep_share)
        scored, levels = scored.take(rows), levels[:, rows]
    columns = [k for k, name in enumerate(scored.rewards) if name in told]
    batches = Batches(scored, config.batch_size, config.seed)
    return Labelled(
        batches, scored.captions, levels[..., columns], miro.loss_weights(levels, config.weight_temperature)
    )


def grid_prompts(scored: ScoredSet, generator: TinyFlow, world: bool) -> list[Prompt]:
    if world:
        return evaluation_prompts(4)
    captions = scored.captions[0]
    return [Prompt(known_words(captions[k * len(captions) // 12], generator.vocabulary)) for k in range(12)]


def asked_and_not(generator: TinyMiro, judges: Sequence[Reward]) -> dict[str, Any]:
    """Every reward on the same prompts and seeds with the generator's own targets, and with nothing asked, both
    guided: paired differences, as result.json has them."""
    prompts = evaluation_prompts(JUDGED, seed=1)

    def look(made: TinyMiro) -> Look:
        return Look(score(judges, sample(made, prompts, range(len(prompts))), prompts), {})

    plain, told = look(generator.unasked()), look(generator)
    asked = ", ".join(f"{n} {v:.2f}" for n, v in zip(generator.rewards, generator.positive.tolist()))
    summary = f"{len(prompts)} pictures with nothing asked (Base) and with these targets (Tuned): {asked}."
    return {"summary": summary, **comparison(plain, told, judges, [p.text for p in prompts])}
