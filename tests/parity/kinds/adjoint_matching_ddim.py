"""Adjoint matching's own code on a noise prediction with DDIM at eta = 1: adjoints, controls, losses, the threshold.

Everything stays in the fixture's units: states are the scheduler's, the "velocity" is the predicted noise, and the
sampler below takes our DDIM step of the straight path there and back.
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close, equal
from safetensors.torch import load_file
from torch import Tensor

from tastemaker.algorithms import drl
from tastemaker.algorithms import memoryless as process
from tastemaker.generators.paths import eps_to_velocity, expand, vp_scale, vp_time
from tastemaker.generators.samplers import ddim
from tastemaker.protocols import Plan, Transition


def in_their_units(eps, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """DDIM from x_vp to x_vp, the field being the noise at x_vp."""
    straight = lambda x, t: eps_to_velocity(eps(expand(vp_scale(t), x) * x, t), x, t)  # noqa: E731
    step = ddim(straight, x / expand(vp_scale(t), x), t, s, eta)
    return Transition(expand(vp_scale(s), x) * step.mean, vp_scale(s) * step.std)


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    expected, arrays = json.loads((folder / "expected.json").read_text()), np.load(folder / "expected.npz")
    inputs, weights = np.load(folder / "inputs.npz"), load_file(folder / "weights.safetensors")
    base, tuned = (part(weights, "base"), part(weights, "finetuned"))
    tuned = {n: w.requires_grad_() for n, w in tuned.items()}
    timesteps = torch.from_numpy(inputs["timesteps"])
    abar = torch.cat(
        [
            torch.from_numpy(inputs["alphas_cumprod"])[timesteps],
            torch.from_numpy(inputs["final_alpha_cumprod"].reshape(1)),
        ]
    )
    scheme = process.transposed_scheme(Plan(in_their_units, tuple(vp_time(abar.sqrt()).tolist()), config["eta"]))
    native = dict(zip(scheme.times, timesteps.tolist()))
    x = list(torch.from_numpy(inputs["trajectory"]).unbind(1))
    last = terminal(config, inputs, x[-1])
    yield close("reward", last[1], arrays["reward"], rtol=1e-9)
    a = process.adjoints(scheme, network(base, native), x, last[0])
    yield close("adjoint_states", torch.stack(a, 1), arrays["adjoint_states"], rtol=1e-9, atol=1e-12)
    single = process.adjoints(scheme, network(base, native), x, last[0].float().double())
    theirs = arrays["adjoint_states_official_float32"]
    yield close("adjoint_states_official_float32", torch.stack(single, 1), theirs, rtol=1e-5, atol=1e-6)
    yield from losses(scheme, network(base, native), network(tuned, native), x, a, arrays, expected, tuned)
    yield from thresholds(expected["ema_update"])
    yield from split(expected["time_split"])


def part(weights: dict[str, Tensor], whose: str) -> dict[str, Tensor]:
    return {n.split(".", 1)[1]: w.double().clone() for n, w in weights.items() if n.startswith(f"{whose}.")}


def network(w: dict[str, Tensor], native: dict[float, int]):
    """eps = sqrt(t / 1000) x + 0.15 (W2 tanh(W1 [x; t / 1000] + b1) + b2 + c mean_hw(x)), per pixel."""

    def eps(x: Tensor, t: Tensor) -> Tensor:
        u = torch.tensor([native[float(k)] for k in t], dtype=x.dtype) / 1000
        said = torch.cat([x, expand(u, x).expand(-1, 1, *x.shape[2:])], 1)
        hidden = torch.tanh(torch.einsum("oi,bihw->bohw", w["W1"], said) + w["b1"][:, None, None])
        mixed = torch.einsum("oi,bihw->bohw", w["W2"], hidden) + w["b2"][:, None, None]
        mean = (x.mean((2, 3)) @ w["c"].T)[:, :, None, None]
        return expand(u.sqrt(), x) * x + 0.15 * (mixed + mean)

    return eps


def terminal(config, inputs, end: Tensor) -> tuple[Tensor, Tensor]:
    end = end.clone().requires_grad_()
    reward = (torch.from_numpy(inputs["reward_w"]) * end).flatten(1).sum(1) - 0.05 * end.pow(2).flatten(1).sum(1)
    return -config["reward_multiplier"] * torch.autograd.grad(reward.sum(), end)[0], reward.detach()


def losses(scheme, base, tuned, x, a, arrays, expected, weights) -> Iterator[Comparison]:
    terms, controls, spreads, predicted = [], [], [], []
    for k in range(len(scheme.gain)):
        t, gain, spread = (x[k].new_full((len(x[k]),), v[k]) for v in (scheme.times, scheme.gain, scheme.spread))
        v_base, v = base(x[k], t), tuned(x[k], t)
        controls.append(process.residual(v, v_base, torch.zeros_like(v), gain, spread).detach())
        terms.append(process.matching(v, v_base, a[k], gain, spread))
        spreads.append(spread)
        predicted.append(v_base)
    terms = torch.stack(terms, 1)  # (B, T)
    yield close("eps_base", torch.stack(predicted, 1), arrays["eps_base"], rtol=1e-9, atol=1e-12)
    yield close("std_dev_t", torch.stack(spreads, 1), arrays["std_dev_t"], rtol=1e-9)
    yield close("control_sqrt_dt", torch.stack(controls, 1), arrays["control_sqrt_dt"], rtol=1e-9, atol=1e-12)
    yield close("loss_terms", terms.detach(), arrays["loss_terms"], rtol=1e-9)
    for name in ("all", *(n for n in expected if n.startswith("quantile"))):
        figures, kept = expected[name], torch.ones_like(terms)
        if name != "all":
            share = float(name.removeprefix("quantile"))
            threshold = drl.running_threshold(terms.detach().sqrt(), None, share, 0.0, float("inf"))
            yield close(f"{name}, threshold", threshold, figures["ema_threshold"], rtol=1e-9)
            kept = drl.within(terms, threshold)
        yield close(f"{name}, loss", (terms * kept).mean().detach(), figures["loss"], rtol=1e-9)
    for name, gradient in zip(weights, torch.autograd.grad(terms.mean(), list(weights.values()))):
        yield close(f"grad_{name}", gradient, arrays[f"grad_{name}"], rtol=1e-9, atol=1e-12)


def thresholds(rows) -> Iterator[Comparison]:
    """The official mean: the first value, then a plain mean of two, then 0.9 and 0.1; no cap."""
    found: list[float] = []
    for k, value in enumerate(rows["values"]):
        memory = 0.5 if k == 1 else 0.9
        norms = torch.tensor([value], dtype=torch.float64)
        found.append(drl.running_threshold(norms, found[-1] if found else None, 0.9, memory, float("inf")))
    yield close("ema_update", found, rows["thresholds"], rtol=1e-9)


def split(rows) -> Iterator[Comparison]:
    """Half of the drawn steps from the first 60 %, half from the rest, as in the example."""
    total, example = rows["num_timesteps"], rows["example_indices"]
    scheme = process.local_linear_scheme(total)
    early, late = drl.strata(scheme)
    yield equal("steps before the split", len(early), rows["middle"])
    drawn = [drl.stratified(scheme, len(example) / total, 0, k) for k in range(50)]
    counts = {sum(k < rows["middle"] for k in steps) for steps in drawn}
    yield equal("drawn before the split", counts, {sum(k < rows["middle"] for k in example)})
    yield equal("drawn in all", {len(set(steps)) for steps in drawn}, {len(example)})
