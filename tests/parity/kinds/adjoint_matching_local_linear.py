"""The local-linear integrator and its adjoint in float64: coefficients, exact moments of a Gaussian, an MLP chain."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close
from safetensors.torch import load_file
from torch import Tensor

from tastemaker.algorithms import memoryless as process
from tastemaker.protocols import Transition

SCHEMES = {"LL": process.published_scheme, "EM": process.euler_maruyama_scheme}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    expected, arrays = json.loads((folder / "expected.json").read_text()), np.load(folder / "expected.npz")
    for steps in sorted({int(name[1:].split("/")[0]) for name in arrays.files if name.startswith("K")}):
        yield from coefficients(steps, arrays)
        yield from gaussian(steps, config["gaussian"], expected, arrays)
    yield from chain(folder, config["mlp"], expected, arrays)


def spans(steps: int) -> tuple[Tensor, Tensor]:
    times = torch.tensor(process.even_times(steps), dtype=torch.float64)
    return times[:-1], times[1:]


def coefficients(steps: int, arrays) -> Iterator[Comparison]:
    t, s = spans(steps)
    found = (*process.local_linear_coefficients(t, s), process.sigma(t, s) ** 2)
    for name, ours in zip(("Phi", "Omega", "V", "sigma2"), found):
        yield close(f"K{steps}/{name}", ours, arrays[f"K{steps}/{name}"], atol=1e-10)


def gaussian(steps: int, config, expected, arrays) -> Iterator[Comparison]:
    """Every step is affine in x, so mean and variance are carried through exactly."""
    mu, var = config["mu"], config["var"]

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        return mu + (t * var - (1 - t)) / (t**2 * var + (1 - t) ** 2) * (x - t * mu)

    last = torch.full((1, 1), -config["lam"] * config["reward_slope"], dtype=torch.float64)
    states = [torch.zeros(1, 1, dtype=torch.float64)] * (steps + 1)
    carried = {n: process.adjoints(make(steps), velocity, states, last) for n, make in SCHEMES.items()}
    for name, found in carried.items():
        yield close(
            f"K{steps}/adjoint_{name}", torch.cat(found)[:, 0], arrays[f"K{steps}/adjoint_{name}"], atol=1e-10
        )
    for name, sampler in {"LL": process.local_linear, "EM": process.euler_maruyama, "ODE": ode}.items():
        for kind, a in (("base", [last * 0] * steps), ("tilt", carried["LL"])):
            found = moments(sampler, velocity, a, steps)
            yield close(f"K{steps}/{name}_{kind}", found, arrays[f"K{steps}/{name}_{kind}_mean_var"], atol=1e-10)
            rows = [
                r for r in expected["rows"] if (r["K"], r["scheme"], r["tilted"]) == (steps, name, kind == "tilt")
            ]
            for row in rows:
                ends = [row["mean"], row["var"]]
                yield close(f"K{steps} {name} {kind}, end", found[:, -1], ends, atol=1e-10)


def ode(velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    return Transition(x + (s - t)[:, None] * velocity(x, t), torch.zeros_like(t))


def moments(sampler, velocity, adjoints: list[Tensor], steps: int) -> np.ndarray:
    """(2, T + 1): mean and variance under v - sigma^2 a / 2."""
    mean, var = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    path = [(float(mean), float(var))]
    for t, s, a in zip(*spans(steps), adjoints):
        pull = process.sigma(t, s) ** 2 * a / 2
        probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        step = sampler(lambda x, t, pull=pull: velocity(x, t) - pull, probe, t.expand(2), s.expand(2), 0.0)
        shift, slope = step.mean[0, 0], step.mean[1, 0] - step.mean[0, 0]
        mean, var = slope * mean + shift, slope**2 * var + step.std[0] ** 2
        path.append((float(mean), float(var)))
    return np.array(path).T


def chain(folder: pathlib.Path, config, expected, arrays) -> Iterator[Comparison]:
    weights, inputs = load_file(folder / "weights.safetensors"), np.load(folder / "inputs.npz")
    base, tuned = (
        {n.split(".", 1)[1]: w.double() for n, w in weights.items() if n.startswith(f"{whose}.")}
        for whose in ("base", "finetuned")
    )
    tuned = {n: w.requires_grad_() for n, w in tuned.items()}
    scheme, draws = process.published_scheme(config["K"]), torch.from_numpy(inputs["xi"])
    states = [torch.from_numpy(inputs["x0"])]
    for k, (t, s) in enumerate(zip(*spans(config["K"]))):
        x = states[-1]
        step = scheme.plan.sampler(field(tuned), x, t.expand(len(x)), s.expand(len(x)), 0.0)
        noise = draws[k] if k < len(draws) else torch.zeros_like(x)
        states.append((step.mean + step.std[:, None] * noise).detach())
    yield close("mlp/trajectory", torch.stack(states), arrays["mlp/trajectory"], atol=1e-9)
    end = states[-1].clone().requires_grad_()
    reward = (torch.from_numpy(inputs["reward_w"]) * end.tanh()).sum(1)
    yield close("mlp/reward", reward.detach(), arrays["mlp/reward"], atol=1e-9)
    last = -config["lam"] * torch.autograd.grad(reward.sum(), end)[0]
    a = process.adjoints(scheme, field(base), states, last)
    yield close("mlp/adjoint", torch.stack(a), arrays["mlp/adjoint"], atol=1e-9)
    terms = torch.stack([term(scheme, k, field(tuned), field(base), states[k], a[k]) for k in range(config["K"])])
    yield close("mlp/loss_terms", terms.detach(), arrays["mlp/loss_terms"], atol=1e-9)
    loss = terms.mean() / 2
    yield close("mlp loss", loss.detach(), expected["mlp_half_mean_loss"], atol=1e-9)
    for name, gradient in zip(tuned, torch.autograd.grad(loss, list(tuned.values()))):
        yield close(f"mlp/grad_{name}", gradient, arrays[f"mlp/grad_{name}"], atol=1e-9)


def field(w: dict[str, Tensor]):
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(torch.cat([x, t[:, None]], 1) @ w["W1"].T + w["b1"]) @ w["W2"].T + w["b2"]

    return velocity


def term(scheme, k: int, tuned, base, x: Tensor, a: Tensor) -> Tensor:
    t, gain, spread = (x.new_full((len(x),), v[k]) for v in (scheme.times, scheme.gain, scheme.spread))
    return process.matching(tuned(x, t), base(x, t), a, gain, spread)
