"""MIRO's released layout on tiny random weights: every key, the network against plain formulas, sampling that hands
its latents on, two branches, what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

pytest.importorskip("transformers")
pytest.importorskip("diffusers")

from tiny_diffusers import t5, t5_tokenizer, vae

from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.miro_release import Released, load
from tastemaker.generators.reward_targets import with_caption_kept
from tastemaker.generators.rin import RinConfig
from tastemaker.generators.samplers import euler
from tastemaker.protocols import Condition, Plan
from tastemaker.sampling import finish, sample
from tastemaker.workflows.load import load_generator

REWARDS = ("clip_score", "aesthetic_score")
SIZES = {
    "data_size": 4, "data_dim": 32, "num_input_channels": 4, "num_latents": 6, "latents_dim": 64, "label_dim": 40,
    "num_processing_layers": 2, "num_blocks": 2, "patch_size": 2, "read_write_heads": 4, "compute_heads": 8,
    "num_text_registers": 3,
}  # fmt: skip
SAID = {
    "network": {**SIZES, "coherence_keys": list(REWARDS), "coherence_dropout": 0.0, "num_cond_tokens": 77,
                "use_cond_rin_block": True, "concat_cond_token_to_latents": False, "use_self_conditioning": True},
    "preconditioning": {"sigma_data": 0.5, "logvar_channels": 8}, "max_text_len": 7,
    "sampler_defaults": {"num_steps": 3, "guidance_scale": 2.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("miro")
    torch.manual_seed(0)
    released = Released(RinConfig.of(SAID["network"], "here"), 8)
    with torch.no_grad():
        for name, p in released.named_parameters():
            p.normal_(0, 0.2 if p.ndim > 1 else 0.5)
            if "ln" in name.split(".")[-2] and name.endswith("weight"):
                p.add_(1)
        for affine, values in ((released.postprocessing, (0.06, 0.08, 0.07, 0.1)),):
            affine.scale.copy_(torch.tensor(values).reshape(1, 4, 1, 1))
            affine.bias.copy_(torch.tensor([0.02, -0.03, 0.0, -0.2]).reshape(1, 4, 1, 1))
    save_file(released.state_dict(), made / "model.safetensors")
    (made / "config.json").write_text(json.dumps(SAID))
    np.save(made / "uncond_embedding.npy", torch.randn(2, 40).numpy())
    vae().save_pretrained(made / "vae")
    t5().save_pretrained(made / "text_encoder")
    t5_tokenizer().save_pretrained(made / "tokenizer")
    return made


@pytest.fixture(scope="module")
def generator(folder):
    return load(folder)


def keys():
    """As the release writes them."""
    both = ("weight", "bias")
    names = ["data_pos_embedding", "latents", "coherence_positional_embedding", "text_registers",
             "registers_coherence_mask", "cond_mask", "data_ln.weight", "map_tokens_to_patches.0.weight"]  # fmt: skip
    dense = ["patch_extractor", "map_text_tokens", "map_tokens_to_patches.1", "ln_previous_1", "ln_previous_2",
             "linear_previous.linear_1", "linear_previous.linear_2"]  # fmt: skip
    for scalar in ("time_embedder", *(f"coherence_embedder.{r}_coherence" for r in REWARDS)):
        names += [f"{scalar}.encode_time.freqs", f"{scalar}.encode_time.phases"]
        dense += [f"{scalar}.map_time_input", f"{scalar}.map_time_output"]
    for i in range(2):
        block = f"transformers_blocks.{i}"
        names += [f"{block}.{n}" for n in ("layer_scale_1", "layer_scale_2", "attention_mask_dummy")]
        dense += [
            f"{block}.{n}" for n in ("initial_ln", "middle_ln", "sa.qkv", "sa.out", "ffn.linear_1", "ffn.linear_2")
        ]
        crossing = [f"rin_blocks.{i}.{n}" for n in ("retrieve_cond", "retriever_ca", "writer_ca")]
        thinking = [f"rin_blocks.{i}.processer_sa.{j}" for j in range(2)]
        for own, first, att, matrices in (
            *((c, "initial_to_ln", "ca", ("q", "kv")) for c in crossing),
            *((t, "initial_ln", "sa", ("qkv",)) for t in thinking),
        ):
            names += [f"{own}.{first}.weight", f"{own}.middle_ln.weight", f"{own}.attention_mask_dummy"]
            names += [f"{own}.{att}.{m}.weight" for m in matrices]
            dense += [f"{own}.{att}.{n}" for n in ("out", "q_norm", "k_norm")]
            dense += [f"{own}.ffn.{n}" for n in ("linear_packed", "linear_out")]
    network = [*names, *(f"{d}.{b}" for d in dense for b in both)]
    outside = ["preconditioning.logvar_proj.0.freqs", "preconditioning.logvar_proj.0.phases"]
    outside += [f"preconditioning.logvar_proj.1.{b}" for b in both]
    outside += [f"{n}.{v}" for n in ("data_preprocessing", "postprocessing") for v in ("scale", "bias")]
    return {f"network.{n}" for n in network} | set(outside)


def test_the_keys_are_those_of_the_release(generator):
    assert set(generator.released.state_dict()) == keys()


def plain(weights, x, t, levels, text, mask, previous):
    """The network once more, formula by formula, one row at a time."""
    w = {k.removeprefix("network."): v for k, v in weights.items()}

    def linear(name, v):
        return v @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def rms(name, v):
        return v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    def ln(name, v):
        v = v - v.mean(-1, keepdim=True)
        return v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(name, q, k, v, heads, normed):
        found = []
        for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1)):
            a, b = (ln(f"{name}.q_norm", a), ln(f"{name}.k_norm", b)) if normed else (a, b)
            found.append(torch.softmax(a @ b.T / math.sqrt(a.shape[-1]), -1) @ c)
        return linear(f"{name}.out", torch.cat(found, -1))

    def swiglu(name, v):
        value, gate = linear(f"{name}.linear_packed", v).chunk(2, -1)
        return linear(f"{name}.linear_out", value * gate * torch.sigmoid(gate))

    def mlp(name, v):
        return linear(f"{name}.linear_2", F.gelu(linear(f"{name}.linear_1", v)))

    def cross(name, v, source):
        k, u = linear(f"{name}.ca.kv", source).chunk(2, -1)
        v = v + attention(f"{name}.ca", linear(f"{name}.ca.q", rms(f"{name}.initial_to_ln", v)), k, u, 4, True)
        return v + swiglu(f"{name}.ffn", rms(f"{name}.middle_ln", v))

    def scalar(name, value):
        waves = math.sqrt(2) * torch.cos(value * w[f"{name}.encode_time.freqs"] + w[f"{name}.encode_time.phases"])
        hidden = linear(f"{name}.map_time_input", (waves - waves.mean()) / waves.std())
        return linear(f"{name}.map_time_output", hidden * torch.sigmoid(hidden))

    found, ends = [], []
    for row in range(len(x)):
        tokens = []
        for j, name in enumerate(REWARDS):
            level = levels[row, j]
            tokens.append(
                scalar(f"coherence_embedder.{name}_coherence", level) if level == level else torch.zeros(64)
            )
        tokens = torch.cat([torch.stack(tokens) + w["coherence_positional_embedding"], w["text_registers"],
                            linear("map_text_tokens", text[row][mask[row]])])  # fmt: skip
        for i in range(2):
            name = f"transformers_blocks.{i}"
            q, k, v = linear(f"{name}.sa.qkv", ln(f"{name}.initial_ln", tokens)).chunk(3, -1)
            tokens = tokens + w[f"{name}.layer_scale_1"] * attention(f"{name}.sa", q, k, v, 16, False)
            tokens = tokens + w[f"{name}.layer_scale_2"] * mlp(f"{name}.ffn", ln(f"{name}.middle_ln", tokens))
        time = scalar("time_embedder", t[row])
        about = torch.cat([time[None], tokens])
        before = previous[row] + mlp("linear_previous", ln("ln_previous_1", previous[row]))
        latents = w["latents"] + time + ln("ln_previous_2", before)
        patches = torch.stack([x[row][:, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2].permute(1, 2, 0).flatten()
                               for a in range(2) for b in range(2)])  # fmt: skip
        data = rms("data_ln", linear("patch_extractor", patches)) + w["data_pos_embedding"]
        for i in range(2):
            block = f"rin_blocks.{i}"
            latents = cross(f"{block}.retriever_ca", cross(f"{block}.retrieve_cond", latents, about), data)
            for j in range(2):
                name = f"{block}.processer_sa.{j}"
                q, k, v = linear(f"{name}.sa.qkv", rms(f"{name}.initial_ln", latents)).chunk(3, -1)
                latents = latents + attention(f"{name}.sa", q, k, v, 8, True)
                latents = latents + swiglu(f"{name}.ffn", rms(f"{name}.middle_ln", latents))
            data = cross(f"{block}.writer_ca", data, latents)
        out = linear("map_tokens_to_patches.1", rms("map_tokens_to_patches.0", data)).reshape(2, 2, 2, 2, 4)
        found.append(out.permute(4, 0, 2, 1, 3).reshape(4, 4, 4))
        ends.append(latents)
    return torch.stack(found), torch.stack(ends)


@torch.no_grad()
def test_the_network_is_the_formulas(generator):
    torch.manual_seed(1)
    x, t, previous = torch.randn(3, 4, 4, 4), torch.rand(3), torch.randn(3, 6, 64)
    levels = torch.tensor([[0.0, 1.0], [0.3, float("nan")], [1.0, 0.5]])
    text, mask = torch.randn(3, 7, 40), torch.arange(7) < torch.tensor([[2], [7], [4]])
    inputs = (x, t, levels, text, mask, previous)
    for ours, theirs in zip(generator.network(*inputs), plain(generator.released.state_dict(), *inputs)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_velocity_has_our_sign_and_the_releases_scales(generator):
    x, t = torch.randn(2, 4, 4, 4), torch.tensor([0.2, 0.9])
    condition = generator.prepare(Condition.of(["a cat"] * 2, targets=torch.ones(2, 2)))
    cache = condition.cache
    deviation = ((0.5 * t) ** 2 + (1 - t) ** 2).sqrt().reshape(2, 1, 1, 1)
    out, _ = generator.network(x / deviation, t, cache["levels"], cache["text"], cache["mask"], cache["latents"])
    torch.testing.assert_close(generator.velocity(x, t, condition), -math.sqrt(1.25) * out)


@torch.no_grad()
def test_sampling_hands_latents_on_in_both_branches_and_the_release_empties_the_caption(generator):
    assert generator.guidance == 3.0 and generator.plan.steps == 3
    plan = Plan(euler, uniform_times(2))
    state = generator.start(Condition.of(["a cat", "a dog"], 3.0), torch.tensor([1, 2]), plan)
    plus, minus = state.condition.cache, state.condition.negative.cache
    assert (plus["levels"] == 1).all() and (minus["levels"] == 0).all()
    empty = torch.from_numpy(np.load(generator.said["text"] + "/uncond_embedding.npy"))
    assert torch.equal(minus["text"][:, :2], empty.expand(2, -1, -1)) and minus["mask"].sum(1).tolist() == [2, 2]
    x, previous = state.x, {"+": plus["latents"], "-": minus["latents"]}
    for step in range(2):
        t, v = torch.full((2,), step / 2), {}
        gain = 1 / ((0.5 * t) ** 2 + (1 - t) ** 2).sqrt().reshape(2, 1, 1, 1)
        for sign, cache in (("+", plus), ("-", minus)):
            known = (cache["levels"], cache["text"], cache["mask"], previous[sign])
            out, previous[sign] = generator.network(x * gain, t, *known)
            v[sign] = -math.sqrt(1.25) * out
        x = x + 0.5 * (v["+"] + 2.0 * (v["+"] - v["-"]))
    torch.testing.assert_close(finish(generator, state).x, x, rtol=1e-4, atol=1e-4)
    alone = sample(generator, ["a dog"], [2], plan)
    torch.testing.assert_close(alone[0], sample(generator, ["a cat", "a dog"], [1, 2], plan)[1], rtol=0, atol=1e-4)
    paper = generator.asking(generator.positive, generator.negative, with_caption_kept)
    kept = paper.prepare(Condition.of(["a cat"], 3.0))
    assert torch.equal(kept.negative.cache["text"], kept.cache["text"])


def test_latents_are_normalised_channel_by_channel(generator):
    x1 = torch.randn(1, 4, 4, 4)
    scale, bias = generator.released.postprocessing.scale, generator.released.postprocessing.bias
    with torch.no_grad():
        expected = generator.codec.vae.decode((x1 - bias) / scale, return_dict=False)[0] / 2 + 0.5
        torch.testing.assert_close(generator.codec.decode(x1), expected, rtol=1e-4, atol=1e-5)


def test_it_loads_by_name_and_is_saved_in_its_layout(generator, folder, tmp_path):
    generator.save(tmp_path / "saved")
    again = load_generator(f"miro:{tmp_path / 'saved'}")
    plan = Plan(euler, uniform_times(1))
    assert torch.equal(sample(again, ["a cat"], [3], plan), sample(generator, ["a cat"], [3], plan))


def test_other_layouts_and_broken_folders_are_named(folder, tmp_path):
    with pytest.raises(TastemakerError, match="another layout .concat_cond_token_to_latents=True"):
        RinConfig.of({**SAID["network"], "concat_cond_token_to_latents": True}, "here")
    with pytest.raises(TastemakerError, match="no coherence_keys"):
        RinConfig.of({}, "here")
    with pytest.raises(TastemakerError, match=r"config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SAID))
    tensors = Released(RinConfig.of(SAID["network"], "here"), 8).state_dict()
    tensors["network.extra"] = tensors.pop("network.latents")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(TastemakerError, match=r"missing \(network.latents\); 1 not known \(network.extra\)"):
        load(tmp_path)
    with pytest.raises(TastemakerError, match="needs the path"):
        load_generator("miro")
