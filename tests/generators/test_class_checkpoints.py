"""Files of released class generators: what is read, which keys are refused by name, what goes round."""

import argparse
import json
import pickle

import pytest
import torch

for package in ("diffusers", "transformers"):
    pytest.importorskip(package)

import tiny_releases  # noqa: E402
from tiny_releases import CLASSES, networks  # noqa: E402

from tastemaker import TastemakerError, load_generator, sample  # noqa: E402
from tastemaker.errors import MissingExtra  # noqa: E402
from tastemaker.generators import jit, lora, rae, sit  # noqa: E402
from tastemaker.protocols import Condition  # noqa: E402
from tastemaker.records import Prompt  # noqa: E402

KINDS = ("sit", "repa", "jit", "rae")
READ = {"sit": sit.read_network, "repa": sit.read_network, "jit": jit.read_network, "rae": rae.read_network}
FILES = {"sit": "last.pt", "repa": "last.pt", "jit": "checkpoint-last.pth", "rae": "stage2_model.pt"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    return {kind: tiny_releases.write(folder / kind, kind) for kind in KINDS}


@pytest.fixture
def copied(made, tmp_path):
    """A folder of one's own with the checkpoint's file and settings, rewritten by a function of its tensors."""

    def copy(kind, change):
        (tmp_path / "config.json").write_text((made[kind] / "config.json").read_text())
        tensors = networks()[kind].state_dict()
        torch.save(change(tensors), tmp_path / FILES[kind])
        return tmp_path

    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_gives_a_generator_that_draws_and_its_file_goes_round(made, kind, tmp_path):
    generator = load_generator(f"{kind}:{made[kind]}")
    generator.plan = generator.native_plan(2)
    prompts = [Prompt("", label=1), Prompt(f"{CLASSES - 1}"), Prompt("")]
    images = sample(generator, prompts, [0, 1, 2])
    assert images.shape[:2] == (3, 3) and images.isfinite().all() and images.std() > 0.01
    for name, value in networks()[kind].state_dict().items():
        assert torch.equal(generator.network.state_dict()[name], value), name
    generator.save(tmp_path)
    for name in (f"{kind}:{tmp_path}", str(tmp_path), str(tmp_path / "model.safetensors")):
        again = load_generator(name)
        again.plan = again.native_plan(2)
        assert torch.equal(sample(again, prompts, [0, 1, 2]), images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_s_gradient_goes_through_the_decoder_to_the_network_alone(made, kind):
    generator = load_generator(f"{kind}:{made[kind]}")
    condition = Condition.of([Prompt("", label=1)] * 2)
    state = generator.start(condition, torch.tensor([0, 1]), generator.native_plan(2))
    images = generator.preview(generator.advance(state), grad=True)
    (images * torch.linspace(-1, 1, images.numel()).reshape(images.shape)).sum().backward()
    assert generator.network.final_layer.linear.weight.grad.abs().sum() > 0
    frozen = getattr(generator.codec, "vae", getattr(generator.codec, "decoder", torch.nn.Identity()))
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_and_what_stays(made, kind):
    network, _ = READ[kind](made[kind])
    fixed = {n.split(".")[0] for n, p in network.named_parameters() if not p.requires_grad}
    assert fixed == {"pos_embed"} | {"repa": {"projectors"}, "rae": {"t_embedder"}}.get(kind, set())
    assert not network.training and (kind != "rae" or network.t_embedder.mlp[0].weight.requires_grad)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_unknown_keys_are_named(copied, kind):
    lost, other = "blocks.1.attn.proj.bias", "blocks.1.attn.surplus"
    folder = copied(kind, lambda t: {other if k == lost else k: v for k, v in t.items()})
    with pytest.raises(TastemakerError, match=rf"1 missing \({lost}\); 1 not known \({other}\)"):
        READ[kind](folder)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_something_else_are_refused(copied, kind):
    folder = copied(kind, lambda tensors: {"conv.weight": torch.zeros(2, 2)})
    with pytest.raises(TastemakerError, match="its first keys are: conv.weight"):
        READ[kind](folder)


def test_a_training_checkpoint_gives_its_average_whatever_the_script_kept_beside(copied):
    arguments = argparse.Namespace(model="SiT-XL/2", lr=1e-4)
    folder = copied("sit", lambda t: {"model": {}, "ema": t, "opt": {"state": {}}, "args": arguments})
    network, _ = sit.read_network(folder / "last.pt")
    assert torch.equal(network.pos_embed, networks()["sit"].pos_embed)


def test_nothing_else_is_unpickled(copied):
    class Harm:
        def __reduce__(self):
            return (print, ("unpickled",))

    folder = copied("sit", lambda t: {"ema": t, "args": Harm()})
    with pytest.raises(TastemakerError, match="more than plain tensors"):
        sit.read_network(folder)
    (folder / "last.pt").write_bytes(pickle.dumps({"a": 1})[:5])
    with pytest.raises(TastemakerError):
        sit.read_network(folder)


def test_blocks_that_repa_s_first_files_count_apart_are_joined(copied):
    def apart(tensors):
        later = {f"decoder_blocks.0.{k.removeprefix('blocks.2.')}": v for k, v in tensors.items() if "blocks.2." in k}
        return {k: v for k, v in tensors.items() if "blocks.2." not in k} | later

    network, _ = sit.read_network(copied("repa", apart))
    expected = networks()["repa"].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())


def test_rotary_tables_that_some_copies_store_are_made_again(copied):
    stored = {f"net.feat_rope{k}.freqs_cos": torch.zeros(16, 8) for k in ("", "_incontext")}
    folder = copied("jit", lambda t: {**{f"net.{k}": v for k, v in t.items()}, **stored})
    network, _ = jit.read_network(folder)
    assert not any("rope" in k for k in network.state_dict())


def test_heads_of_a_width_that_no_release_has_are_asked_for(copied):
    folder = copied("sit", lambda t: t)
    (folder / "config.json").write_text("{}")
    with pytest.raises(TastemakerError, match=r'width 16\? Write {"num_heads": NUMBER} into config.json'):
        sit.read_network(folder)
    (folder / "config.json").write_text(json.dumps({"num_heads": 3}))
    with pytest.raises(TastemakerError, match="how many attention heads"):
        sit.read_network(folder)


def test_the_noise_of_jit_is_as_said_or_as_its_size_tells(made, tmp_path):
    assert jit.load(made["jit"]).about["noise_scale"] == 1.0
    generator = jit.load(made["jit"], noise_scale=2.0)
    generator.save(tmp_path)
    assert jit.load(tmp_path).about == {"in_context_start": 1, "noise_scale": 2.0}


def test_a_vae_that_is_not_there_is_asked_for(copied):
    folder = copied("sit", lambda t: t)
    with pytest.raises(
        TastemakerError, match="expected the folder of a diffusers AutoencoderKL.*there is none beside"
    ):
        sit.load(folder)
    with pytest.raises(TastemakerError, match="'absent' is none"):
        sit.load(folder, vae="absent")
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text("{}")
    with pytest.raises(TastemakerError, match="cannot read the VAE"):
        sit.load(folder)


def test_without_the_extra_it_is_named(made, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"'diffusers'.*tastemaker\[models\]"):
        sit.load(made["sit"])
    assert jit.load(made["jit"]).shape == (3, 8, 8)  # pixels need none


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_without_a_path_is_one_sentence(kind):
    with pytest.raises(TastemakerError, match=f"write {kind}:PATH"):
        load_generator(kind)
    with pytest.raises(TastemakerError, match="no weights at"):
        load_generator(f"{kind}:absent.pt")


def test_an_adapter_is_trained_alone_and_merged_into_what_is_saved(made, tmp_path):
    pytest.importorskip("peft")
    generator = load_generator(f"jit:{made['jit']}")
    generator.plan = generator.native_plan(2)
    before = sample(generator, ["1"], [0])
    lora.add(generator.network, 2)
    assert torch.equal(sample(generator, ["1"], [0]), before)
    with torch.no_grad():
        for p in generator.network.parameters():
            p.add_(0.1) if p.requires_grad else None
    after = sample(generator, ["1"], [0])
    generator.save(tmp_path)
    again = load_generator(str(tmp_path))
    again.plan = again.native_plan(2)
    torch.testing.assert_close(sample(again, ["1"], [0]), after, rtol=0, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(sample(generator, ["1"], [0]), after)  # saving left the adapter in place


# RAE's decoder and encoder


def test_rae_decodes_with_a_gradient_and_asks_for_an_encoder(made):
    generator = load_generator(f"rae:{made['rae']}")
    codec = generator.codec
    x1 = torch.randn(2, 8, 4, 4, requires_grad=True)
    images = codec.decode(x1)
    assert images.shape == (2, 3, 8, 8)
    images.sum().backward()
    assert x1.grad.abs().min() > 0
    torch.testing.assert_close(codec.decode(x1[1:])[0], images[1], rtol=0, atol=1e-5)
    with pytest.raises(TastemakerError, match="put its folder, as transformers saves it, at encoder"):
        codec.encode(torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_rae_encodes_to_normalised_tokens_of_its_last_layer_norm(tmp_path):
    folder = tiny_releases.write(tmp_path, "rae")
    tiny_releases.write_dino(folder / "encoder")
    codec = load_generator(f"rae:{folder}").codec
    images = torch.rand(3, 3, 8, 8)
    z = codec.encode(images, torch.arange(3))
    assert z.shape == (3, 8, 4, 4)
    tokens = z * codec.deviation + codec.mean  # mean 0 and deviation 1 over the channels: no scale, no bias
    torch.testing.assert_close(tokens.mean(1), torch.zeros(3, 4, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.var(1, unbiased=False), torch.ones(3, 4, 4), rtol=0, atol=1e-2)
    torch.testing.assert_close(codec.encode(images[2:], torch.tensor([9]))[0], z[2], rtol=0, atol=1e-5)
    with pytest.raises(TastemakerError, match="8 x 8 pixels"):
        codec.encode(torch.rand(1, 3, 4, 4), torch.tensor([0]))


def test_parts_of_rae_that_lack_or_do_not_fit(made, tmp_path):
    folder = tiny_releases.write(tmp_path / "rae", "rae")
    torch.save({"mean": torch.zeros(9, 4, 4), "var": torch.ones(9, 4, 4)}, folder / "stat.pt")
    with pytest.raises(TastemakerError, match=r"`mean` and `var` of latents of shape \(8, 4, 4\)"):
        rae.load(folder)
    (folder / "decoder.pt").unlink()
    with pytest.raises(TastemakerError, match="no decoder of RAE"):
        rae.load(folder)
    assert rae.load(folder, codec=made["rae"]).codec.side == 8
