"""What every command that tunes a generator does alike: load it, watch it, run or resume the training, and write what
came out. The algorithms themselves are handed over as functions that yield records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..algorithms.optimise import TrainingState, begin
from ..algorithms.tuning import TuningConfig
from ..algorithms.watching import Look, Watch, watched
from ..data.batches import Batches
from ..data.grid import save_grid
from ..data.prompts import read_prompts
from ..devices import place
from ..errors import TastemakerError
from ..evaluation import drift
from ..evaluation.intervals import bootstrap_mean, paired_difference
from ..generators import lora
from ..generators.checkpointing import checkpoint_class_flow, checkpoint_tiny_flow, checkpoint_tokens
from ..generators.class_flow import ClassFlow
from ..generators.diffusers_common import PipelineFolder
from ..generators.diffusers_lora import adapters
from ..generators.interpolation import Interpolated
from ..generators.tiny_flow import TinyFlow
from ..generators.tiny_masked import TinyMasked
from ..protocols import Reward
from ..ranks import any_of, first, gather, on_first, own, part
from ..records import Prompt, StepRecord
from ..rewards.table import load_rewards
from ..sampling import sample, score
from ..world.dataset import noisy_world
from ..world.grammar import evaluated_prompts, evaluation_prompts, prompt_of, spec_of
from .checkpoints import Resumable
from .files import write_whole
from .follow import follow
from .load import load_generator
from .processes import assembled, join, spread
from .runs import Run, read_settings
from .sample import check_words, one_reward, zscore_scale
from .sinks import open_sinks, sink_names
from .train import read_captioned
from .versions import weight_hash

DIFFUSERS_RANK = 16
SHOWN = 16  # pictures of a sheet of samples

C = TypeVar("C", bound=TuningConfig)
Train = Callable[[TrainingState], Iterator[StepRecord]]


def load_tunable(model: str, lora_rank: int | None = None, gradient_checkpointing: bool = False) -> Any:
    """The generator with weights that may move: all of a tiny one or an adapter in its blocks, an adapter or all of a
    diffusers pipeline. lora_rank None: 16 for diffusers, none for others; 0: none.

    Raises TastemakerError where a generator takes no adapter or is an interpolation, MissingExtra without peft.
    """
    if model.startswith("diffusers:"):
        from ..generators.diffusers_load import load

        rank = DIFFUSERS_RANK if lora_rank is None else lora_rank
        folder = model.partition(":")[2]
        return place(load(folder, lora_rank=rank or None, gradient_checkpointing=gradient_checkpointing))
    generator = load_generator(model)
    if isinstance(generator.network, Interpolated):
        raise TastemakerError(f"'{model}' has the weights of two generators; tune one of them, or sample from it")
    if lora_rank:
        lora.add(generator.network, lora_rank)
    if gradient_checkpointing and isinstance(generator, TinyFlow):
        checkpoint_tiny_flow(generator)
    if gradient_checkpointing and isinstance(generator, ClassFlow):
        checkpoint_class_flow(generator)
    if gradient_checkpointing and isinstance(generator, TinyMasked):
        checkpoint_tokens(generator)
    return place(generator)  # with its adapter


@dataclass(frozen=True)
class Bench:
    """What a training works with."""

    generator: Any
    reward: Reward
    prompts: Sequence[Prompt]
    held_out: Sequence[Reward]  # looked at, not trained on


def prepared(
    kind: type[C], config_path: str | Path | None, overrides: Sequence[str], resume: str | Path | None, track: str
) -> tuple[C, Bench]:
    """The checked settings of a command and all that they name, before anything is written. Of several processes each
    takes its place."""
    join()
    config = read_settings(kind, config_path, overrides, resume)
    sink_names(track)
    own(range(config.batch_size))  # raises where processes cannot share it
    return config, opened(config)


def opened(config: TuningConfig) -> Bench:
    """Generator, reward, training prompts and held-out rewards of a configuration."""
    generator = load_tunable(config.model, config.lora_rank, config.gradient_checkpointing)
    prompts = read_prompts(config.prompts) if config.prompts else own_prompts(generator, config.seed)
    check_words(generator, prompts)
    reward = one_reward(load_rewards(config.reward), generator, prompts)
    return Bench(generator, reward, prompts, held_out_rewards(config, reward))


def held_out_rewards(config: TuningConfig, reward: Reward) -> list[Reward]:
    """Those that the configuration names, but for what is trained on."""
    names = [n.strip() for n in config.watch.held_out.split(",") if n.strip()]
    trained = {reward.name, *config.reward.split(","), *reward.name.split("+")}
    return [r for r in load_rewards(names) if r.name not in trained] if names else []


def own_prompts(generator: Any, seed: int) -> list[Prompt]:
    """Where no prompts are given: every class of a generator of classes once, or prompts of the world that no
    evaluation asks."""
    if isinstance(generator, ClassFlow):
        return [Prompt(str(label), label=label) for label in range(generator.classes)]
    return training_prompts(seed, without=evaluated_prompts())


def training_prompts(seed: int, count: int = 2000, without: Sequence[Prompt] = ()) -> list[Prompt]:
    """Prompts of the world; those of `without` are left out, but for the 18 single objects there are."""
    kept = {p.text for p in without if (p.spec or {}).get("tag") != "single_object"}
    made = (prompt_of(spec_of(seed * 7_368_787 + 500_000 + k)) for k in range(count))
    return [p for p in made if p.text not in kept]


def standardised(config: Any, bench: Bench, guidance: float | None = None) -> Any:
    """The configuration with the reward's mean and deviation on 96 pictures of the untuned generator, or as it is
    where they were given, or measured when the run began.

    guidance: of those pictures; None: the generator's own.
    """
    if (config.reward_mean, config.reward_std) != (0.0, 1.0):
        return config
    chosen, mine = [bench.prompts[i % len(bench.prompts)] for i in part(96)], part(96)
    drawn = sample(bench.generator, chosen, mine, guidance=guidance)
    scores = gather(score([bench.reward], drawn, chosen), 96)
    return replace(config, reward_mean=float(scores.nanmean()), reward_std=float(zscore_scale(scores)))


def beginning(generator: Any) -> dict[str, str]:
    """The hash of the weights that a run begins with."""
    return {"model": weight_hash(getattr(generator, "parts", generator.network))}


def pictures(generator: Any, config: TuningConfig, data: Path | None) -> Batches | None:
    """For the pretraining loss: one's own, or the noisy world for a generator that speaks its words."""
    if not config.pretraining_weight:
        return None
    if data is not None:
        return Batches(read_captioned(Path(data), picture_side(generator)), config.batch_size, config.seed)
    if speaks_of_the_world(generator) and not config.prompts:
        return Batches(noisy_world(config.seed + 1, picture_side(generator)), config.batch_size, config.seed)
    print("no captioned pictures given (--data): training goes without its pretraining loss, and pictures may drift")
    return None


def speaks_of_the_world(generator: Any) -> bool:
    return {"photo", "umbrella"} <= set(getattr(getattr(generator, "vocabulary", None), "words", ()))


@torch.no_grad()
def picture_side(generator: Any) -> int:
    """Pixels, of what the generator's codec decodes."""
    blank = torch.zeros(1, *generator.shape, device=next(generator.network.parameters()).device)
    return generator.codec.decode(blank).shape[-1]


def stored(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors in the file, or made now, in every process alike, and written whole."""
    if any_of(path.is_file())[0]:
        return load_file(path)
    made = {name: value.contiguous() for name, value in make().items()}
    on_first(lambda: write_whole(path, lambda file: file.write(save(made))))
    return made


@dataclass
class Together:
    """Several things that a run remembers, behind one face; `training` gives the step."""

    parts: Mapping[str, Any]

    @property
    def step(self) -> int:
        return self.parts["training"].step

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def own_parts(self) -> dict[str, Any]:
        """What no other process has: all but the weights and what was seen of them."""
        return {name: one.state_dict() for name, one in self.parts.items() if name not in ("training", "watch")}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Raises TastemakerError where the saved parts are others."""
        if saved.keys() != self.parts.keys():
            raise TastemakerError(
                f"the checkpoint holds {', '.join(saved)}, expected {', '.join(self.parts)}; it is of another command"
            )
        for name, one in self.parts.items():
            one.load_state_dict(saved[name])


def watch_of(bench: Bench, config: TuningConfig) -> Watch:
    """On the world's evaluation prompts, on the prompts that were given, or on classes from first to last."""
    prompts = list(bench.prompts) if config.prompts else evaluation_prompts(8, seed=1)
    if isinstance(bench.generator, ClassFlow):
        prompts = list(bench.prompts[:: max(1, len(bench.prompts) // config.watch.pictures)])
    return Watch(bench.generator, bench.reward, bench.held_out, prompts, config.watch, drift.figures)


def carry_out(
    train: Train, bench: Bench, config: TuningConfig, run: Run, track: str = "", more: Mapping[str, Any] | None = None
) -> Run:
    """Run or resume a training; what is kept ends up in the generator and in the run's folder, with result.json.

    train: from the state to the records. more: what else belongs to the checkpoints. Returns the run.
    """
    generator = bench.generator
    empty = spread(generator.network)
    state = begin(generator.network, config.optimiser)
    watch = watch_of(bench, config)
    whole: Resumable = Together({"training": state, "watch": watch, **(more or {})})  # type: ignore[assignment]
    run.restore(whole)
    if state.step == 0:
        sheet(run, generator, watch.prompts, 0)
    records = watched(train(state), watch, state, config.steps)
    follow(run, records, whole, config.steps, open_sinks(track, run, state.step))
    conclude(run, generator, state, watch, empty)
    return run


def conclude(
    run: Run, generator: Any, state: TrainingState, watch: Watch, empty: torch.nn.Module | None = None
) -> None:
    """Keep the averaged or the best weights, save them, and write down how they compare with the beginning.

    empty: of a network that was sharded, see `processes.assembled`."""
    went_back = watch.keep(state)
    last = watch.look()
    sheet(run, generator, watch.prompts, state.step)
    generator.network = assembled(generator.network, empty)
    on_first(lambda: save_tuned(generator, run.folder))
    if watch.stopped:
        print(f"stopped after step {state.step}: the reward rose and what is held out fell")
    assert watch.first is not None
    summary = (
        f"{state.step} steps; {len(watch.prompts)} pictures of prompts and seeds that are the same before and after."
    )
    if went_back:
        summary += " The training had begun to exploit the reward: the weights of its best look were kept."
    result = comparison(watch.first, last, watch.rewards, [p.text for p in watch.prompts])
    run.write_result(
        {"summary": summary, **result, "steps": state.step, "stopped_early": watch.stopped, "went_back": went_back}
    )


def save_tuned(generator: Any, folder: Path) -> None:
    """FOLDER/model.safetensors for tiny models, an adapter merged; a diffusers adapter as FOLDER's LoRA file; a whole
    diffusers pipeline in FOLDER/pipeline."""
    if isinstance(generator, (TinyFlow, TinyMasked)):
        lora.merge(generator.network)
    whole = isinstance(getattr(generator, "folder", None), PipelineFolder) and not adapters(generator.network)
    generator.save(str(folder / "pipeline" if whole else folder))


def comparison(before: Look, after: Look, rewards: Sequence[Reward], texts: Sequence[str]) -> dict[str, Any]:
    """`base` and `tuned` with every reward and figure, and their paired differences."""
    groups: dict[str, dict[str, tuple[Tensor, Tensor]]] = {
        "rewards": {r.name: pair for r, *pair in zip(rewards, before.scores.T, after.scores.T)},  # type: ignore
        "drift": {name: (value, after.figures[name]) for name, value in before.figures.items()},
    }
    result: dict[str, Any] = {"base": {"label": "Base"}, "tuned": {"label": "Tuned"}, "differences": {"tuned": {}}}
    for group, columns in groups.items():
        known = {n: p for n, p in columns.items() if (~(p[0] + p[1]).isnan()).sum() >= 2}
        for k, side in enumerate(("base", "tuned")):
            result[side][group] = {name: asdict(bootstrap_mean(pair[k], texts)) for name, pair in known.items()}
        differences = {name: asdict(paired_difference(b, a, texts)) for name, (a, b) in known.items()}
        result["differences"]["tuned"][group] = differences
    return result


def sheet(run: Run, generator: Any, prompts: Sequence[Prompt], step: int) -> None:
    """A grid of samples, samples/step-NNNNNN.png."""
    shown = [prompts[k * len(prompts) // SHOWN] for k in range(SHOWN)] if len(prompts) > SHOWN else list(prompts)
    images = sample(generator, shown, range(len(shown)))
    if first():
        save_grid(images, run.samples / f"step-{step:06d}.png", [p.text for p in shown])
