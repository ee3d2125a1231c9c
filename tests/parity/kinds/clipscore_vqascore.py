"""The arithmetic of CLIPScore and of yes/no scores on stored features and logits."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close

from tastemaker.rewards.clipscore import clipscore, refclipscore, reference_score
from tastemaker.rewards.yes_no import answer_log_prob, log_odds, sequence_probability

TOLERANCE = {"f32": {"atol": 1e-6}, "f64": {"atol": 1e-12}}
LOGARITHMS = {"f32": {"atol": 1e-6, "rtol": 3e-5}, "f64": {"atol": 1e-12}}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    clip, vqa = np.load(folder / "clip_inputs.npz"), np.load(folder / "vqa_inputs.npz")
    for what, kind in (("f32", torch.float32), ("f64", torch.float64)):
        features = {k: torch.from_numpy(clip[k]).to(kind) for k in clip.files if k.endswith("features")}
        counts = clip["references_per_item"].tolist()
        yield from clip_scores(features, counts, expected["clip"][what], what, config["w"])
        logits = {k: torch.from_numpy(vqa[k]).to(kind) for k in vqa.files}
        yield from yes_no(logits["first_position_logits"], config, expected["vqa"][what], what)
        yield from sequences(logits["two_position_logits"], config, expected, what)


def clip_scores(features, counts, said, what: str, w: float) -> Iterator[Comparison]:
    image, text = features["image_features"], features["text_features"]
    scores = clipscore(image, text, w)
    reference = reference_score(text, features["reference_features"].split(counts))
    yield close(f"{what} clipscore", scores, said["clipscore"], **TOLERANCE[what])
    yield close(f"{what} mean", scores.mean(), said["mean"], **TOLERANCE[what])
    yield close(f"{what} ref_only", reference, said["ref_only"], **TOLERANCE[what])
    yield close(f"{what} refclipscore", refclipscore(scores, reference), said["refclipscore_official"],
                **TOLERANCE[what])  # fmt: skip


def yes_no(logits, config, said, what: str) -> Iterator[Comparison]:
    ids = {"yes": [config["yes_id"]], "no": [config["no_id"]]}
    yes, no = (answer_log_prob(logits, ids[k]) for k in ("yes", "no"))
    all_yes, all_no = (answer_log_prob(logits, [*ids[k], config[f"{k}_variant_id"]]) for k in ("yes", "no"))
    found = {
        "p_yes_full_vocab": yes.exp(),
        "p_no_full_vocab": no.exp(),
        "logp_yes_full_vocab": yes,
        "p_yes_normalised_yes_no": log_odds(yes, no).sigmoid(),
        "log_odds_yes_minus_no": log_odds(yes, no),
        "p_yes_full_vocab_case_variants_summed": all_yes.exp(),
        "p_yes_normalised_case_variants_logsumexp": log_odds(all_yes, all_no).sigmoid(),
    }
    for name, value in said.items():
        tolerance = LOGARITHMS if name.startswith("log") else TOLERANCE
        yield close(f"{what} {name}", found[name], value, **tolerance[what])


def sequences(logits, config, expected, what: str) -> Iterator[Comparison]:
    said = expected["clip_flant5_exp_minus_mean_ce_over_yes_and_eos"][what]
    found = sequence_probability(logits, [config["yes_id"], config["eos_id"]])
    yield close(f"{what} flan-t5", found, said, **TOLERANCE[what])
    if what == "f32":  # these are stored in one precision
        for temperature, value in expected["geometric_mean_two_token_answer_by_temperature"].items():
            found = sequence_probability(logits, config["two_token_answer_ids"], float(temperature))
            yield close(f"geometric mean at {temperature}", found, value, **TOLERANCE[what])
