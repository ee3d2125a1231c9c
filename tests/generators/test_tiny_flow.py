"""tiny-flow: image k is the same alone or in any batch, words outside its vocabulary are errors, files go round."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import tiny_flow

from tastemaker.encoders.words import PAD, Vocabulary, split_words
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.networks import NetworkConfig
from tastemaker.generators.samplers import ddim, euler, heun, sde
from tastemaker.generators.tiny_flow import TinyFlow, load_tiny_flow
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.sampling import finish, sample
from tastemaker.weights import shipped
from tastemaker.world.grammar import evaluation_prompts

PROMPTS = evaluation_prompts(6)[:32]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("sampler, eta", [(euler, 0.0), (heun, 0.0), (sde, 0.7), (ddim, 1.0)])
def test_image_k_alone_is_image_k_of_a_batch(sampler, eta, guidance):
    generator, plan = tiny_flow(), Plan(sampler, uniform_times(4), eta)
    seeds = [7 * k + 1 for k in range(32)]
    together = sample(generator, PROMPTS, seeds, plan, guidance)
    for k in (0, 13, 31):
        alone = sample(generator, [PROMPTS[k]], [seeds[k]], plan, guidance)
        torch.testing.assert_close(alone[0], together[k], rtol=0, atol=1e-5)
    assert len({round(float(image.mean()), 6) for image in together}) == 32
    torch.testing.assert_close(
        sample(generator, PROMPTS, seeds, plan, guidance, batch=5), together, rtol=0, atol=1e-5
    )


def test_a_branch_alone_is_the_branch_of_a_batch():
    generator, plan = tiny_flow(), Plan(sde, uniform_times(3), 0.7)
    seeds, branch = torch.arange(32) % 4, torch.arange(32) // 4
    together = finish(generator, generator.start(Condition.of(PROMPTS), seeds, plan, branch)).x
    for k in (3, 30):
        start = generator.start(Condition.of([PROMPTS[k]]), seeds[k : k + 1], plan, branch[k : k + 1])
        torch.testing.assert_close(finish(generator, start).x[0], together[k], rtol=0, atol=1e-5)


def test_a_forked_line_alone_is_the_line_in_its_crowd():
    generator, plan = tiny_flow(), Plan(sde, uniform_times(4), 0.7)
    state = generator.advance(generator.start(Condition.of(PROMPTS[:8], 2.0), torch.arange(8), plan))
    crowd = finish(generator, generator.advance(state.fork(3)).fork(2)).x
    alone = finish(generator, generator.advance(state[5].fork(3)).fork(2)).x
    torch.testing.assert_close(alone, crowd[30:36], rtol=0, atol=1e-5)
    assert len({float(x) for x in crowd.sum((1, 2, 3))}) == 48


def test_the_loss_of_a_picture_does_not_depend_on_the_batch():
    generator, x1 = tiny_flow(), torch.rand(32, 3, 16, 16) * 2 - 1
    seeds = torch.arange(32)
    draw = generator.draw(x1, seeds)
    loss = generator.loss(x1, Condition.of(PROMPTS), draw)
    assert loss.shape == (32,)
    one = generator.loss(x1[9:10], Condition.of([PROMPTS[9]]), generator.draw(x1[9:10], seeds[9:10]))
    torch.testing.assert_close(one, loss[9:10], rtol=1e-5, atol=1e-5)


def test_training_captions_drop_to_the_null_condition():
    generator = tiny_flow()
    drop = torch.tensor([False, True])
    condition = generator.caption_condition([Prompt("a photo of a zebra cat"), Prompt("a photo of a dog")], drop)
    known = generator.prepare(Condition.of(["a photo of a cat"])).cache["words"]
    null = generator.prepare(Condition.of([""])).cache["words"]
    assert torch.equal(condition.cache["words"], torch.cat([known, null])) and not null.any()


def test_the_prediction_is_a_picture_and_the_divisor_has_its_floor():
    generator = tiny_flow()
    condition = generator.prepare(Condition.of(PROMPTS[:2]))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0.5, 0.99])
    with torch.no_grad():
        x1 = generator.network(x, t, condition.cache["words"])
        v = generator.velocity(x, t, condition)
    torch.testing.assert_close(v, (x1 - x) / torch.tensor([0.5, 0.05]).reshape(2, 1, 1, 1))


def test_a_new_network_depends_on_its_seed_alone():
    config, words = NetworkConfig(size=16, width=32, depth=1, heads=1), Vocabulary(["cat"], 3)
    before = torch.random.get_rng_state()
    a, b, c = (TinyFlow.new(config, words, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(a.network.patchify.weight, b.network.patchify.weight)
    assert not torch.equal(a.network.patchify.weight, c.network.patchify.weight)


def test_unknown_words_and_long_prompts():
    generator = tiny_flow()
    with pytest.raises(UnknownName, match="unknown prompt word 'umbrela'; nearest known: umbrella"):
        sample(generator, ["a photo of an umbrela"], [0])
    with pytest.raises(TastemakerError, match="has 13 words, the model reads 12"):
        sample(generator, [" ".join(["cat"] * 13)], [0])


def test_words():
    words = Vocabulary(["cat", "dog"], 4)
    assert split_words("A red-cat, 2 dogs_!") == ["a", "red", "cat", "2", "dogs"]
    assert words.encode(["Dog cat", ""]).tolist() == [[2, 1, PAD, PAD], [PAD] * 4]
    assert words.encode_known(["the dog and cat cat cat cat"]).tolist() == [[2, 1, 1, 1]]
    assert words.encode([]).shape == (0, 4) and len(words) == 3
    assert Vocabulary.of(["b a", "a c", "a b"], 4, most=2).words == ["a", "b"]


def test_files_go_round(tmp_path):
    generator = tiny_flow()
    generator.recipe = {"steps": 3}
    generator.save(tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        again = load_tiny_flow(path)
        assert again.recipe == {"steps": 3} and again.vocabulary.words == generator.vocabulary.words
        assert torch.equal(sample(again, PROMPTS[:2], [0, 1]), sample(generator, PROMPTS[:2], [0, 1]))
    generator.write(tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "model.safetensors").stat().st_size
    half = sample(load_tiny_flow(tmp_path / "half.safetensors"), PROMPTS[:2], [0, 1])
    torch.testing.assert_close(half, sample(generator, PROMPTS[:2], [0, 1]), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"kind": "tiny-clip"}, "holds a model of kind 'tiny-clip', expected 'tiny-flow'"),
        ({"network": {"size": 16, "colour": 3}}, "colour"),
        ({"network": {"size": 16, "width": 64, "heads": 1, "depth": 1}}, "of another shape"),
        ({"words": None}, "words"),
    ],
)
def test_a_file_of_another_model_or_version_is_one_sentence(tmp_path, change, sentence):
    tiny_flow().save(tmp_path)
    path = tmp_path / "model.safetensors"
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["description"]) | change
    said = {k: v for k, v in said.items() if v is not None}
    save_file(load_file(path), path, {"description": json.dumps(said)})
    with pytest.raises(TastemakerError, match=sentence):
        load_tiny_flow(path)


def test_the_decoder_enlarges_and_travels_with_the_network(tmp_path):
    generator = tiny_flow(enlarge=2)
    images, seeds = torch.rand(3, 3, 32, 32), torch.arange(3)
    x1 = generator.codec.encode(images, seeds)
    assert x1.shape == (3, 3, 16, 16)
    torch.testing.assert_close(x1[0, :, 0, 0], images[0, :, :2, :2].mean((1, 2)) * 2 - 1)
    assert generator.codec.decode(x1).shape == images.shape == (3, *sample(generator, PROMPTS[:1], [0]).shape[1:])
    draw = generator.draw(x1, seeds)
    loss = generator.codec_loss(images, draw)
    assert loss.shape == (3,) and torch.equal(generator.codec_loss(images, draw), loss)
    torch.testing.assert_close(generator.codec_loss(images[1:2], draw[1]), loss[1:2])
    generator.save(tmp_path)
    found = sample(load_tiny_flow(tmp_path), PROMPTS[:3], [0, 1, 2])
    torch.testing.assert_close(found, sample(generator, PROMPTS[:3], [0, 1, 2]))
    torch.testing.assert_close(sample(generator, PROMPTS[2:3], [2])[0], found[2], rtol=0, atol=1e-5)


@pytest.mark.skipif(not shipped("tiny-flow").is_file(), reason="the shipped weights are not there")
def test_the_shipped_one_draws_its_prompts():
    generator = load_tiny_flow(shipped("tiny-flow"))
    images = sample(generator, PROMPTS[:3], [0, 1, 2], Plan(euler, uniform_times(3)))
    assert images.shape == (3, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    alone = sample(generator, PROMPTS[2:3], [2], Plan(euler, uniform_times(3)))
    torch.testing.assert_close(alone[0], images[2], rtol=0, atol=1e-5)
    assert generator.recipe
