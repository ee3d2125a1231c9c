"""`tastemaker evaluate frechet`: how near generated pictures are to real ones, and what rewards say of the same ones.

The protocol is that of DRL (arXiv 2606.19162, sections 5 and I): Fréchet distance in several feature spaces, kernel
distance, precision and recall (k = 3), density and coverage (k = 5), preference rewards, five statistics of looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.files import read_text
from ..encoders.protocol import Encoder
from ..errors import TastemakerError, expect
from ..evaluation.floor import Floor, floor_of_gaussian, floor_of_halves
from ..evaluation.frechet import frechet_distance
from ..evaluation.intervals import bootstrap_mean, paired_difference, unpaired_difference
from ..evaluation.prdc import prdc
from ..evaluation.references import OURS, Reference, is_moments_file, read_reference, save_references
from ..protocols import Reward
from ..rewards.table import load_rewards
from .evaluate import finish, neighbour_figures
from .load import load_encoder
from .pictures import Seen, look_at, partners
from .runs import make_room

CLOSE = 3  # k of the paper's precision and recall; density and coverage have 5


@dataclass(frozen=True)
class Settings:
    """What was measured; kept as the run's config.yaml."""

    on: str
    against: str
    base: str = ""
    spaces: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    class_names: str = ""
    saved: str = ""
    features_saved: bool = False
    what: str = "frechet"
    seed: int = 0  # of subsets, splits and resamples


def evaluate_frechet(
    images: Path,
    reference: Path,
    spaces: Sequence[str],
    out: Path,
    base: Path | None = None,
    rewards: Sequence[str] = (),
    class_names: Path | None = None,
    save: Path | None = None,
    save_features: bool = False,
) -> Path:
    """Distances of pictures to a reference in each feature space, over the floor of real against real; with `base`,
    another set of pictures, both and their differences. Returns the page.

    reference: pictures, or a file of moments (see evaluation/references.py). save: where to keep the moments of
    reference pictures, with their features where `save_features`. class_names: a text file, one name a line.
    Raises TastemakerError where nothing can be measured or a file of moments does not fit an encoder.
    """
    make_room(out)
    check_saving(reference, save, save_features, spaces)
    encoders = by_name([load_encoder(space) for space in spaces])
    judges = load_rewards(list(rewards)) if rewards else []
    names = read_text(class_names).splitlines() if class_names else []
    known, real = read_or_look(reference, encoders)
    if save:
        kept = known if save_features else {s: replace(one, features=None) for s, one in known.items()}
        save_references(save, kept, {space: encoder.provenance for space, encoder in encoders.items()})
        print(f"wrote {save}")
    keep = [space for space, one in known.items() if one.features is not None]
    sets = {"base": base, "pictures_measured": images} if base else {"pictures_measured": images}
    seen = {key: look_at(path, encoders, keep, judges, names) for key, path in sets.items()}
    result, lines = measured(seen, known, judges)
    lines = [*(f"{space}: {e.provenance.preprocessing}." for space, e in encoders.items()), *lines]
    print("\n".join(lines))
    for key, path in sets.items():
        result[key] = {"label": path.name, **result[key]}
    if real is not None:
        result["real"] = {"label": f"{reference.name} (real)", "drift": looks_of(real)}
    result["spaces"] = {space: asdict(encoder.provenance) for space, encoder in encoders.items()}
    settings = Settings(
        str(images), str(reference), str(base or ""), tuple(spaces), tuple(rewards), str(class_names or ""),
        str(save or ""), save_features,
    )  # fmt: skip
    weights = {space: encoder.provenance.weight_hash for space, encoder in encoders.items()}
    return finish(out, settings, {"summary": "\n".join(lines), **result}, weights)


def check_saving(reference: Path, save: Path | None, features: bool, spaces: Sequence[str]) -> None:
    """Before anything is loaded: raise TastemakerError where the files asked for make no sense together."""
    expect(not (save and is_moments_file(reference)), "reference pictures with --save-moments", str(reference))
    expect(save is None or save.suffix == OURS, f"a file name that ends in {OURS} for --save-moments", save)
    expect(not features or save is not None, "--save-moments FILE with --save-features", "none")
    if reference.suffix.lower() == ".npz" and len(spaces) != 1:
        raise TastemakerError(
            f"{reference} holds moments of one feature space and does not name it; name it by --space, "
            f"got {', '.join(spaces)}"
        )


def by_name(encoders: Sequence[Encoder]) -> dict[str, Encoder]:
    named = {encoder.name: encoder for encoder in encoders}
    expect(len(named) == len(encoders), "feature spaces of different names", [encoder.name for encoder in encoders])
    return named


def read_or_look(path: Path, encoders: Mapping[str, Encoder]) -> tuple[dict[str, Reference], Seen | None]:
    """The reference in each space; and what was seen, where it is pictures."""
    if is_moments_file(path):
        return {space: read_reference(path, space, encoder) for space, encoder in encoders.items()}, None
    seen = look_at(path, encoders, list(encoders))
    found = {s: Reference(moments, moments.count, seen.features[s].numpy()) for s, moments in seen.moments.items()}
    return found, seen


def measured(
    seen: Mapping[str, Seen], known: Mapping[str, Reference], judges: Sequence[Reward]
) -> tuple[dict[str, Any], list[str]]:
    """The result as report/comparison.py reads it, and what to say. seen: `pictures_measured`, and maybe `base`."""
    result: dict[str, Any] = {key: {} for key in seen}
    lines: list[str] = []
    ratios: dict[str, float] = {}
    count = min(map(len, seen.values()))
    for space, reference in known.items():
        floors = {}
        for key, one in seen.items():
            groups, floors[key] = distances(one, space, reference, count)
            for group, values in groups.items():
                result[key].setdefault(group, {}).update(values)
        lines += told(space, len(seen["pictures_measured"]), reference, result, floors)
        if "base" in floors and (left := floors["pictures_measured"].excess) > 0:
            ratios[space] = floors["base"].excess / left
            lines.append(f"{space}: the excess over the floor, base over these: {ratios[space]:.2f}.")
    for key, one in seen.items():
        result[key] |= judged(one, judges)
        result[key]["drift"] = looks_of(one)
    if "base" in seen:
        differences, how = compared(seen["base"], seen["pictures_measured"], judges)
        result |= {"excess_ratio": ratios, "differences": {"pictures_measured": differences}}
        lines.append(how)
    return result, lines


def distances(seen: Seen, space: str, reference: Reference, count: int) -> tuple[dict[str, dict[str, Any]], Floor]:
    """Every figure of one space, and the floor at `count` pictures."""
    distance = frechet_distance(seen.moments[space], reference.moments)
    found: dict[str, dict[str, Any]] = {"frechet": {space: distance}}
    if reference.features is None:
        floor = floor_of_gaussian(reference.moments, reference.count, distance, len(seen))
    else:
        real, generated = torch.from_numpy(reference.features), seen.features[space]
        found |= neighbour_figures(real, generated, space)
        if min(len(real), len(generated)) > CLOSE:
            close = prdc(real, generated, CLOSE)
            found["prdc"] |= {f"{space} {name}, k = {CLOSE}": close[name] for name in ("precision", "recall")}
        floor = floor_of_halves(real, generated, count)
    figures = {"distance": floor.distance, "floor": floor.floor, "excess": floor.excess, "ratio": floor.ratio}
    return found | {"over_floor": {f"{space} {name}": value for name, value in figures.items()}}, floor


def told(
    space: str, count: int, reference: Reference, result: Mapping[str, Any], floors: Mapping[str, Floor]
) -> list[str]:
    """In words, and exactly which floor it was; what could not be measured is said."""
    of = "an unknown number of" if reference.count is None else reference.count
    known, floor = result["pictures_measured"]["frechet"][space], floors["pictures_measured"]
    lines = [
        f"{space}: Fréchet distance {known:.4g} of {count} pictures to {of} real ones. At {floor.count} pictures it "
        f"is {floor.distance:.4g}, the floor of real against real {floor.floor:.4g} ({floor.how}): excess "
        f"{floor.excess:.4g}, {floor.ratio:.3g} x the floor."
    ]
    if "base" in floors:
        one = floors["base"]
        lines.append(f"{space}, base: {one.distance:.4g} at {one.count} pictures, excess {one.excess:.4g}.")
    if reference.features is None:
        lines.append(
            f"{space}: the reference holds moments alone, so there is no kernel distance, precision, recall, density "
            "or coverage; they need its features (--save-features)."
        )
    return lines


def judged(seen: Seen, judges: Sequence[Reward]) -> dict[str, dict[str, Any]]:
    """Means of the rewards, by prompt; a reward that gave fewer than two numbers is named and left out."""
    found = {}
    for judge, scores in zip(judges, seen.scores.T):
        if (~scores.isnan()).sum() < 2:
            print(f"reward '{judge.name}' gave no score for {int(scores.isnan().sum())} of {len(seen)} pictures")
            continue
        found[judge.name] = asdict(bootstrap_mean(scores, seen.prompts))
    return {"rewards": found} if found else {}


def looks_of(seen: Seen) -> dict[str, Any]:
    return {name: asdict(bootstrap_mean(values, seen.prompts)) for name, values in seen.looks.items()}


def compared(base: Seen, after: Seen, judges: Sequence[Reward]) -> tuple[dict[str, Any], str]:
    """after - base of every reward and statistic of looks, and how: pair by pair where all of the smaller set have
    a partner of the same words and seed (or file name), else by two separate resamplings."""
    mine, theirs = partners(after, base)
    paired = len(mine) >= max(2, min(len(after), len(base)))

    def difference(a: torch.Tensor, b: torch.Tensor) -> dict[str, Any]:
        if paired:
            return asdict(paired_difference(a[mine], b[theirs], [after.prompts[i] for i in mine]))
        return asdict(unpaired_difference(a, after.prompts, b, base.prompts))

    rewards = {
        judge.name: difference(a, b)
        for judge, a, b in zip(judges, after.scores.T, base.scores.T)
        if min((~a.isnan()).sum(), (~b.isnan()).sum()) >= 2
    }
    looks = {name: difference(values, base.looks[name]) for name, values in after.looks.items()}
    how = f"of {len(mine)} pairs of the same words and seed" if paired else "of two sets without pairs"
    return {"rewards": rewards, "drift": looks}, f"Differences are {how}, intervals resample prompts."
