"""`tastemaker demo`: a generator as it is, tuned with ReFL, searched with best-of-N, on the same prompts and seeds.

A stage that is done lies in the run folder and is not done again, so the demo can be interrupted at any moment.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..algorithms import refl
from ..data.images import save_image
from ..data.prompts import read_prompts
from ..encoders.protocol import extract
from ..evaluation import drift as drifts
from ..evaluation.geneval import compare, geneval
from ..evaluation.intervals import bootstrap_mean, paired_difference
from ..picture_bytes import as_bytes, from_bytes
from ..protocols import Reward
from ..records import Ledger, Prompt
from ..report.runs import write_reports
from ..rewards.table import load_rewards
from ..sampling import sample_batches, score
from ..search.best_of_n import Config as BestOfN
from ..search.best_of_n import search
from ..search.ledger import metered
from ..weights import shipped
from ..world.check import WorldCheck
from ..world.grammar import evaluation_prompts
from ..world.scenes import compose, draw
from .evaluate import geneval_figures, set_distances
from .load import load_encoder
from .refl import tune
from .runs import Run
from .sample import check_words, crossed, one_reward
from .tuning import Bench, held_out_rewards, load_tunable, pictures, standardised, stored, training_prompts

SHORT_REFL = refl.Config(  # a stronger pull than `train refl` has by itself: an effect in four minutes
    steps=60,
    reward_weight=0.5,
    margin=2.0,
    first_late=0.25,
    optimiser=replace(refl.Config().optimiser, learning_rate=3e-4),
)
CONTENDERS = {"base": "Base", "refl": "ReFL", "best_of_8": "Best of 8"}
SPACES = ("tiny-clip", "efficientnet-lite0")
SHOWN = 12  # prompts with pictures on the page
STUDIO = {
    "text": "A generator that was told four rewards in training comes along: choose between them by sliders, with "
    "pictures beside them. It needs pip install 'tastemaker[web]'; in a checkout `make studio` does that too.",
    "command": "tastemaker studio",
    "address": "http://localhost:8001",
}


@dataclass(frozen=True)
class Settings:
    """Everything that the demo's figures depend on."""

    model: str = "tiny-flow"
    rewards: tuple[str, ...] = ("alignment",)
    prompts: str = ""
    seed: int = 0
    per_task: int = 17
    seeds_per_prompt: int = 4
    n: int = 8
    refl: refl.Config = field(default_factory=refl.Config)


@dataclass(frozen=True)
class Stage:
    """One contender's pictures and what they cost."""

    images: Tensor  # (B, 3, H, W) in [0, 1], through 8 bits
    cost: Mapping[str, float]


def run_demo(
    model: str,
    rewards: Sequence[str] | None,
    prompts: Path | None,
    seed: int,
    steps: int | None,
    out: Path,
    overwrite,
) -> str:
    """Run what is not yet done and write report.html and result.json. Returns a sentence that says where."""
    began = time.perf_counter()
    settings = settings_of(model, rewards, prompts, seed, steps)
    rows = read_prompts(prompts) if prompts else evaluation_prompts(settings.per_task, seed)
    wanted, numbers = crossed(rows, range(settings.seeds_per_prompt))
    generator, chosen = load_tunable(model, settings.refl.lora_rank), load_rewards(settings.rewards)
    check_words(generator, rows)
    for one in chosen:
        refl.require_gradient(one)
    run = open_demo(out, settings, overwrite)
    reward = one_reward(chosen, generator, rows)
    say = Console(stderr=True).print

    say(f"1/4  the generator as it is: {len(wanted)} pictures of {len(rows)} prompts")
    base = kept(run.folder / "base", lambda: plain(generator, wanted, numbers))
    say(f"2/4  the best of {settings.n} by {reward.name}, for the same prompts and seeds")
    best = kept(run.folder / "best_of_8", lambda: selected(generator, reward, wanted, numbers, settings.n))
    say(f"3/4  ReFL: {settings.refl.steps} steps along the gradient of {reward.name}")
    tuned = kept(run.folder / "tuned", lambda: tuned_stage(generator, reward, rows, wanted, numbers, settings, run))
    say("4/4  measuring")
    result = measured({"base": base, "refl": tuned, "best_of_8": best}, wanted, numbers, reward, run)
    result["summary"] = (
        f"{model}, {len(rows)} prompts with {settings.seeds_per_prompt} seeds each; reward: {reward.name}. "
        "The same prompts and seeds for all; intervals resample prompts, then pictures."
    )
    result["next"] = [STUDIO] if shipped("tiny-miro").is_file() else []
    result["total_seconds"] = round(time.perf_counter() - began, 1)
    run.write_result(result)
    write_reports([run.folder])
    return told(result) + f"\nopen {run.folder / 'report.html'}"


def settings_of(model: str, rewards, prompts: Path | None, seed: int, steps: int | None) -> Settings:
    names = tuple(rewards or (("alignment",) if model == "tiny-flow" else ("sharpness", "harmony")))
    config = replace(
        SHORT_REFL,
        steps=steps or SHORT_REFL.steps,
        model=model,
        reward=",".join(names),
        prompts=str(prompts or ""),
        seed=seed,
    )
    return Settings(model, names, str(prompts or ""), seed, refl=config)


def open_demo(out: Path, settings: Settings, overwrite: bool) -> Run:
    """A new run, or one that is there already: what it has done is not done again."""
    if (out / "config.yaml").is_file() and not overwrite:
        return Run.resume(out, settings)
    run = Run.create(out, settings, overwrite=overwrite)  # refuses a folder that is not a run
    for name in ("base", "best_of_8", "tuned"):
        (out / f"{name}.safetensors").unlink(missing_ok=True)
    shutil.rmtree(out / "refl", ignore_errors=True)
    return run


def kept(path: Path, make: Callable[[], Stage]) -> Stage:
    """The stage from its file, or made now and written whole."""

    def tensors() -> dict[str, Tensor]:
        stage = make()
        costs = {k: torch.tensor(float(v), dtype=torch.float64) for k, v in stage.cost.items()}
        return {"images": as_bytes(stage.images), **costs}

    found = stored(path.with_suffix(".safetensors"), tensors)
    return Stage(from_bytes(found.pop("images")), {k: float(v) for k, v in found.items()})


def plain(generator: Any, prompts: Sequence[Prompt], seeds: Sequence[int], batch: int = 64) -> Stage:
    ledger, began = Ledger(), time.perf_counter()
    with metered(generator.network, ledger):
        parts = sample_batches(generator, prompts, seeds, batch=batch)
        shown = track(parts, "     drawing", -(-len(prompts) // batch), console=Console(stderr=True))
        images = torch.cat([part.cpu() for part in shown])
    return Stage(images, {"network_evaluations": ledger.network_evaluations, "seconds": time.perf_counter() - began})


def selected(generator: Any, reward: Reward, prompts: Sequence[Prompt], seeds: Sequence[int], n: int) -> Stage:
    ledger, config = Ledger(), BestOfN(n)
    parts = search(generator, reward, prompts, seeds, config, ledger)
    total = -(-len(prompts) // max(1, config.batch_size // n))
    images = torch.cat([part.images for part in track(parts, "     searching", total, console=Console(stderr=True))])
    cost = {"network_evaluations": ledger.network_evaluations, "verifier_calls": ledger.verifier_calls}
    return Stage(images, cost | {"seconds": ledger.seconds})


def tuned_stage(generator: Any, reward: Reward, rows, prompts, seeds, settings: Settings, run: Run) -> Stage:
    """Train in RUN/refl (resumable), then draw the same prompts and seeds."""
    folder, ledger, began = run.folder / "refl", Ledger(), time.perf_counter()
    training = rows if settings.prompts else training_prompts(settings.seed, without=rows)
    bench = Bench(generator, reward, training, held_out_rewards(settings.refl, reward))
    config = standardised(settings.refl, bench, settings.refl.guidance)
    resumes = (folder / "config.yaml").is_file()
    inner = Run.resume(folder, config) if resumes else Run.create(folder, config)
    with metered(generator.network, ledger):
        tune(bench, pictures(generator, config, None), config, inner)
    trained = {"training_evaluations": ledger.network_evaluations, "training_seconds": time.perf_counter() - began}
    drawn = plain(generator, prompts, seeds)
    return Stage(drawn.images, {**drawn.cost, **trained})


def measured(stages: Mapping[str, Stage], prompts, seeds, trained_on: Reward, run: Run) -> dict[str, Any]:
    """The result: every figure of every contender, and paired differences to the base."""
    texts = [p.text for p in prompts]
    rewards = [trained_on, *load_rewards([n for n in ("sharpness", "harmony") if n != trained_on.name])]
    scores = {k: score(rewards, s.images, prompts) for k, s in stages.items()}
    moves = {k: drifts.figures(s.images) for k, s in stages.items()}
    result: dict[str, Any] = {k: {"label": CONTENDERS[k]} for k in stages}
    differences: dict[str, Any] = {k: {} for k in stages if k != "base"}
    correct = {}
    if all(p.spec for p in prompts):
        correct = {k: WorldCheck().score(s.images, prompts) for k, s in stages.items()}
        for k, right in correct.items():
            result[k]["geneval"] = geneval_figures(geneval(prompts, right))
        for k in differences:
            differences[k]["geneval"] = geneval_figures(compare(prompts, correct[k], correct["base"]))
    for k, values in scores.items():
        named = {r.name: column for r, column in zip(rewards, values.T)}
        result[k]["rewards"] = {name: asdict(bootstrap_mean(column, texts)) for name, column in named.items()}
    for k in differences:
        pairs = zip(rewards, scores[k].T, scores["base"].T)
        differences[k]["rewards"] = {r.name: asdict(paired_difference(a, b, texts)) for r, a, b in pairs}
        moved = drifts.paired_drift(moves["base"], moves[k], texts)
        differences[k]["drift"] = {name: asdict(i) for name, i in moved.items()}
    for k, groups in distances(stages, prompts).items():
        result[k] |= groups
    for k, stage in stages.items():
        result[k]["drift"] = {name: float(v.mean()) for name, v in moves[k].items()}
        result[k] |= stage.cost
    shown = show(stages, prompts, seeds, correct, run)
    return {**result, "differences": differences, "pictures": shown}


def distances(stages: Mapping[str, Stage], prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    """Against clean drawings of the same specs, where prompts have them; both feature spaces."""
    if not all(p.spec for p in prompts):
        return {}
    real = torch.stack([torch.from_numpy(draw(compose(p.spec or {}, 10**6 + k))) for k, p in enumerate(prompts)])
    real = real.permute(0, 3, 1, 2)
    found: dict[str, dict[str, Any]] = {k: {} for k in stages}
    for space in SPACES:
        encoder = load_encoder(space)
        reference = extract(encoder, real.split(64))
        for k, stage in stages.items():
            features = extract(encoder, stage.images.split(64))
            for group, values in set_distances(reference, features, space).items():
                found[k].setdefault(group, {}).update(values)
    return found


def show(
    stages: Mapping[str, Stage], prompts, seeds, correct: Mapping[str, Tensor], run: Run
) -> list[dict[str, Any]]:
    """Pictures of evenly spaced prompts, all contenders side by side. Not chosen by how they look."""
    rows = []
    for k in range(0, len(prompts), max(1, len(prompts) // SHOWN))[:SHOWN]:
        files = {name: f"samples/{name}-{k:04d}.png" for name in stages}
        for name, stage in stages.items():
            save_image(stage.images[k], run.folder / files[name])
        right = {name: bool(values[k]) for name, values in correct.items()}
        rows.append({"prompt": prompts[k].text, "seed": int(seeds[k]), "files": files, "correct": right})
    return rows


def told(result: Mapping[str, Any]) -> str:
    """The headline for the terminal."""
    lines = []
    for key, label in CONTENDERS.items():
        group = "geneval" if "geneval" in result[key] else "rewards"
        name, figure = next(iter(result[key][group].items()))
        line = f"{label:<10} {group} {name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
        if key in result["differences"]:
            d = result["differences"][key][group][name]
            line += f"   difference {d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
        lines.append(line)
    return "\n".join(lines)
