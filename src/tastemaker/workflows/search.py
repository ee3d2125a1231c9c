"""`tastemaker search prm|parm|reflect|particles|halving|threshold|noise|draft|calibrate`: a search meets its
generator, its verifier and a folder.

A folder holds what `tastemaker sample` writes (pictures.jsonl says all candidates' scores), and beside it
ledger.json, result.json, strips/ with the paths of the first prompts and what the verifier said of them, and
report.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ..errors import TastemakerError
from ..generators.samplers import ddim, euler, heun, sde
from ..picture_bytes import from_bytes
from ..protocols import Generator, Plan, Reward
from ..records import Ledger, Prompt
from ..rewards.cached import Cached
from ..rewards.table import load_rewards
from ..rewards.zero_shot import ZeroShot
from ..sampling import sample_batches, score_checked
from ..search import best_of_n, calibrate, draft, halving, noise, parm, particles, prm, reflect, threshold
from ..search.ledger import NetworkClock
from ..search.selected import Selected
from ..search.walk import candidates
from .configs import plain, read_config
from .correction_export import CorrectionFile
from .files import write_json, write_yaml
from .load import load_generator
from .pair_export import PairFile
from .sample import check_words, crossed, one_reward, plan_of, wanted_prompts, write_pictures, zscore_scale
from .search_report import reported, write_search_page
from .strips import write_strip

METHODS: dict[str, Any] = {
    "best-of-n": best_of_n,
    "prm": prm,
    "parm": parm,
    "reflect": reflect,
    "particles": particles,
    "halving": halving,
    "threshold": threshold,
    "noise": noise,
    "draft": draft,
    "calibrate": calibrate,
}
PARTING = ("prm", "particles")  # need branches that part
PREVIEWS = ("parm", "reflect")  # need a verifier that judges previews
INDEPENDENT = ("best-of-n",)  # whose candidates do not depend on one another, so that fewer of them can be thought of
STRIPS = 8  # prompts whose paths are drawn
ETA = 0.7  # of `sde`, where a deterministic plan has to become a stochastic one


@dataclass(frozen=True)
class Request:
    """What is searched, with what."""

    model: str = "tiny-flow"
    rewards: Sequence[str] = ("alignment",)
    words: Sequence[str] = ()
    file: Path | None = None
    seeds: Sequence[int] = (0,)
    steps: int | None = None
    guidance: float | None = None
    budget: int | None = None  # network evaluations for each prompt and seed
    report_by: str = ""  # the judge who did not choose
    export_pairs: Path | None = None
    export_groups: Path | None = None  # of `reflect`
    schedule: str = ""  # of masked tokens


@dataclass
class Bench:
    """All of it, loaded."""

    generator: Any
    verifier: Any
    prompts: list[Prompt]
    seeds: list[int]
    plan: Plan
    guidance: float | None
    config: Any


def opened(method: str, request: Request, settings: Sequence[str]) -> Bench:
    """Load and check everything before anything is drawn. Raises TastemakerError as its parts do."""
    room = METHODS[method]
    config = read_config(room.Config, None, settings)
    generator = load_generator(request.model)
    prompts, seeds = crossed(wanted_prompts(request.words, request.file), request.seeds)
    check_words(generator, prompts)
    plan = plan_of(generator, request.steps, request.schedule)
    plan = stochastic(plan) if method in PARTING else plan
    verifier = verifier_of(load_rewards(request.rewards), generator, prompts, method in PREVIEWS, config)
    if request.budget is not None:
        count = paths_for(generator, prompts[0], plan, request.guidance, request.budget)
        config = replace(config, n=count)
    return Bench(generator, verifier, prompts, seeds, plan, request.guidance, config)


def stochastic(plan: Plan) -> Plan:
    """The same times with a sampler whose branches part, where it is known that the plan's do not."""
    if plan.sampler in (euler, heun):
        return replace(plan, sampler=sde, eta=ETA)
    return replace(plan, eta=1.0) if plan.sampler is ddim and plan.eta == 0 else plan


def verifier_of(rewards: Sequence[Reward], generator: Generator, prompts: Sequence[Prompt], previews: bool, config):
    """One verifier that remembers. previews: one that judges none is given a zero-shot judgement, with the middle and
    the spread of its scores on 64 pictures of the generator."""
    verifier: Any = one_reward(rewards, generator, prompts)
    if previews and not parm.judges_previews(verifier):
        chosen = [prompts[i % len(prompts)] for i in range(64)]
        drawn = torch.cat(list(sample_batches(generator, chosen, range(20_000, 20_064))))
        scores = score_checked(verifier, drawn, chosen)
        verifier = ZeroShot(verifier, 0.5, float(scores.nanmean()), float(zscore_scale(scores[:, None])[0]))
        print(f"'{verifier.name}' judges no previews: from half of the steps on they count as clear, and a score "
              f"below {verifier.middle:.3g}, its mean, as without potential")  # fmt: skip
    return Cached(verifier)


def paths_for(generator: Any, prompt: Prompt, plan: Plan, guidance: float | None, budget: int) -> int:
    """How many whole paths a budget of network evaluations allows. Raises TastemakerError where it is none."""
    clock, own = NetworkClock(), getattr(generator, "guidance", 1.0) if guidance is None else guidance
    with clock.on(generator.network):
        state = candidates(generator, [prompt], torch.tensor([0]), 1, plan, own)
        while not state.done.all():
            state = generator.advance(state)
    if budget < clock.rows:
        raise TastemakerError(
            f"a budget of {budget} network evaluations is too small for one path, which takes {clock.rows}; give "
            "more, or fewer --steps"
        )
    return budget // clock.rows


def search_to_folder(method: str, request: Request, out: Path, settings: Sequence[str] = ()) -> Path:
    """Search, and write what was found; returns the page. settings: key=value words of the method's `Config`. Raises
    TastemakerError, and writes nothing, where nothing was selected."""
    bench, ledger = opened(method, request, settings), Ledger()
    judge = reporting_judge(request.report_by, bench)
    pairs = None if request.export_pairs is None else PairFile(request.export_pairs)
    groups = None if request.export_groups is None else CorrectionFile(request.export_groups, bench.config.accept)
    kept = Kept(bench, pairs, judge, groups)
    for found in shown(method, bench, ledger):
        kept.take(found)
    kept.require_some(ledger)
    out.mkdir(parents=True, exist_ok=True)
    kept.write_strips(out / "strips")
    write_json(out / "ledger.json", ledger.as_dict() | {"left_out": len(bench.prompts) - len(kept.images)})
    if pairs is not None:
        print(f"wrote {pairs.close()} pairs to {request.export_pairs}")
    if groups is not None:
        print(f"wrote {groups.close()} groups to {request.export_groups}")
    write_pictures(out, kept.images, kept.prompts, kept.seeds, kept.rows)
    result = {"method": method} | reported(bench, kept, ledger, judge, curve=method in INDEPENDENT)
    write_json(out / "result.json", plain(result))
    write_yaml(out / "config.yaml", {"method": method, **plain(request), "search": plain(bench.config)})
    return write_search_page(out, result)


def shown(method: str, bench: Bench, ledger: Ledger) -> Iterator[Selected]:
    """The search's turns, with a bar over its prompts."""
    found = METHODS[method].search(
        bench.generator, bench.verifier, bench.prompts, bench.seeds, bench.config, ledger, bench.plan, bench.guidance
    )
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("searching", total=len(bench.prompts))
        for turn in found:
            bar.advance(task, len(turn.chosen))
            yield turn


def reporting_judge(name: str, bench: Bench) -> Reward | None:
    """The judge who did not choose. Raises TastemakerError where it is the one that chooses."""
    if not name:
        return None
    (judge,) = load_rewards([name])
    if judge.name in bench.verifier.name.split("+") and judge.provenance == bench.verifier.provenance:
        raise TastemakerError(f"'{name}' chooses the pictures; report by another judge, or leave --report-by out")
    return judge


@dataclass
class Kept:
    """What has been found so far, a row for each prompt and seed that something was selected for."""

    bench: Bench
    pairs: PairFile | None
    judge: Reward | None
    groups: CorrectionFile | None = None
    images: list[Tensor] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)  # (N,) by the verifier
    reports: list[Tensor] = field(default_factory=list)  # (N,) by the judge, NaN where nothing was finished
    chosen: list[int] = field(default_factory=list)
    strips: list[tuple[Selected, int]] = field(default_factory=list)
    met: int = 0

    def take(self, found: Selected) -> None:
        """One turn of the search."""
        for k in range(len(found.chosen)):
            prompt, seed = self.bench.prompts[self.met], self.bench.seeds[self.met]
            self.met += 1
            if self.met <= STRIPS:
                self.strips.append((found, k))
            if found.chosen[k] < 0:
                continue
            self.images.append(found.images[k])
            self.prompts.append(prompt)
            self.seeds.append(seed)
            self.chosen.append(int(found.chosen[k]))
            self.scores.append(found.scores[k])
            self.rows.append({"chosen": self.chosen[-1], "scores": [_number(s) for s in found.scores[k].tolist()]})
            if self.judge is not None:
                self.reports.append(self._report(found, k, prompt))
            if self.pairs is not None:
                self.pairs.add(prompt, found.pictures[k], found.scores[k])
            if self.groups is not None:
                self.groups.add(prompt, found.pictures[k], found.scores[k], found.redrawn[k])

    def _report(self, found: Selected, k: int, prompt: Prompt) -> Tensor:
        """(N,) of the finished candidates."""
        assert self.judge is not None
        finished = (~found.scores[k].isnan()).nonzero()[:, 0]
        values = torch.full_like(found.scores[k], torch.nan)
        pictures = from_bytes(found.pictures[k][finished])
        values[finished] = score_checked(self.judge, pictures, [prompt] * len(finished)).cpu()
        return values

    def write_strips(self, folder: Path) -> None:
        """The paths of the first prompts, a picture each."""
        for number, (found, k) in enumerate(self.strips):
            write_strip(folder / f"{number:06d}.png", found, k)

    def require_some(self, ledger: Ledger) -> None:
        """Raise TastemakerError, with the commonest reason, where nothing was selected for any prompt."""
        if not self.images:
            reason = max(ledger.unanswered, key=lambda r: ledger.unanswered[r], default="none was given")
            raise TastemakerError(
                f"'{self.bench.verifier.name}' gave no score for any candidate: nothing was selected ({reason})"
            )


def _number(value: float) -> float | None:
    return None if value != value else round(value, 4)


def calibrate_to_folder(request: Request, out: Path, settings: Sequence[str] = ()) -> Path:
    """Measure from which step on previews foretell the end, and write calibration.json."""
    bench, ledger = opened("calibrate", request, settings), Ledger()
    found = calibrate.calibrate(
        bench.generator, bench.verifier, bench.prompts, bench.seeds, bench.config, ledger, bench.plan, bench.guidance
    )
    out.mkdir(parents=True, exist_ok=True)
    start = found.foretells_from(bench.config.least)
    said = {"foretells_from": start, "least": bench.config.least, "verifier": bench.verifier.name}
    write_json(out / "calibration.json", said | found.as_dict() | {"ledger": ledger.as_dict()})
    for share, value, apart in zip(found.progress.tolist(), found.mean.tolist(), found.distance.mean(0).tolist()):
        print(f"{share:5.0%} of the steps: rank correlation {value:5.2f}, previews differ by {apart:.3f}")
    least = f"a rank correlation of {bench.config.least}"
    print(f"{least} is {'never reached' if start is None else f'kept from {start:.0%} on: first_look={start:.2f}'}")
    return out / "calibration.json"
