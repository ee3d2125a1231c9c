"""The public reward models on tiny random weights: files, scores, gradients, sharing, and what does not fit."""

import json
from functools import partial

import pytest
import torch
from PIL import Image
from public import (
    PROMPTS,
    imagereward,
    open_clip_network,
    pictures,
    score_head,
    write_byte_pairs,
    write_clip_folder,
    write_hpsv2,
    write_vocabulary,
)
from safetensors.torch import save_file
from torch.nn.functional import normalize

from tastemaker.encoders.official import read_tensors
from tastemaker.encoders.siglip import Siglip, SiglipConfig, SiglipNetwork
from tastemaker.errors import TastemakerError
from tastemaker.protocols import Reward
from tastemaker.rewards.clipscore import ClipScore, clipscore, load_clipscore
from tastemaker.rewards.hpsv2 import HpsV2, load_hpsv2
from tastemaker.rewards.imagereward import MEAN, STD, ImageReward, load_imagereward
from tastemaker.rewards.laion_aesthetic import LaionAesthetic, load_laion_aesthetic, unit
from tastemaker.rewards.pickscore import load_pickscore, preference
from tastemaker.rewards.sciscore import load_sciscore
from tastemaker.rewards.score_head import ScoreHead
from tastemaker.rewards.siglip_aesthetic import LinearHead, SiglipAesthetic, fit_head, load_siglip_aesthetic
from tastemaker.rewards.table import load_reward
from tastemaker.sampling import score, score_batch
from tastemaker.weights import file_hash


def laion(folder, transformers):
    write_clip_folder(transformers, folder / "clip")
    torch.save(score_head().state_dict(), folder / "sac+logos+ava1-l14-linearMSE.pth")
    return load_laion_aesthetic(folder)


def siglip(seed=0):
    torch.manual_seed(seed)
    network = SiglipNetwork(SiglipConfig(28, 14, 32, 2, 4, 48)).eval().requires_grad_(False)
    return Siglip(network)


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """One of each, loaded from files where there is a released layout."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("public")
    for name in ("clip", "laion", "hps"):
        (folder / name).mkdir()
    write_clip_folder(transformers, folder / "clip")
    write_hpsv2(folder / "hps")
    head = LinearHead(torch.randn(32, generator=torch.Generator().manual_seed(0)), torch.tensor(5.0))
    made = [
        imagereward(),
        load_pickscore(folder / "clip"),
        load_sciscore(folder / "clip"),
        load_clipscore(folder / "clip"),
        load_hpsv2(folder / "hps", heads=(2, 2)),
        laion(folder / "laion", transformers),
        SiglipAesthetic(siglip(), head),
    ]
    return {reward.name: reward for reward in made}


NAMES = ["imagereward", "pickscore", "sciscore", "clipscore", "hpsv2", "laion-aesthetic", "siglip-aesthetic"]
each = pytest.mark.parametrize("name", NAMES)


@each
def test_the_differentiable_path_is_the_plain_one(rewards, name):
    images = pictures()
    plain = rewards[name].score(images, PROMPTS)
    wanted = images.clone().requires_grad_()
    with_gradient = rewards[name].score(wanted, PROMPTS)
    torch.testing.assert_close(with_gradient.detach(), plain, atol=1e-6, rtol=1e-6)
    if name != "clipscore" or (plain > 0).any():
        with_gradient.sum().backward()
        assert (wanted.grad != 0).any() and wanted.grad.isfinite().all()


@each
def test_a_picture_scores_the_same_alone_in_a_batch_and_from_its_file(rewards, name):
    reward, images = rewards[name], pictures()
    together = reward.score(images, PROMPTS)
    assert together.shape == (3,) and together.dtype == torch.float32 and isinstance(reward, Reward)
    torch.testing.assert_close(reward.score(images[1:2], PROMPTS[1:2]), together[1:2], atol=1e-5, rtol=1e-5)
    saved = [Image.fromarray((p.permute(1, 2, 0) * 255).round().byte().numpy()) for p in images]
    torch.testing.assert_close(reward.score_pictures(saved, PROMPTS), together, atol=2e-2, rtol=1e-3)
    if name != "hpsv2":  # the others see 8 bits in any case
        torch.testing.assert_close(reward.score_pictures(saved, PROMPTS), together, atol=1e-6, rtol=1e-6)


@each
def test_what_is_shared_changes_no_score_and_autocast_changes_nothing(rewards, name):
    alone = rewards[name].score(pictures(), PROMPTS)
    table = score_batch([rewards[n] for n in NAMES], pictures(), PROMPTS)
    torch.testing.assert_close(table[:, NAMES.index(name)], alone, atol=1e-6, rtol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rewards[name].score(pictures(), PROMPTS), alone, atol=1e-4, rtol=1e-4)


@each
def test_provenance_says_the_preprocessing(rewards, name):
    said = rewards[name].provenance
    assert said.model and ("Pillow" in said.preprocessing or "black around" in said.preprocessing)
    assert name in ("imagereward", "siglip-aesthetic") or len(said.weight_hash) >= 64


@each
def test_a_broken_picture_is_nan_and_no_other(rewards, name):
    images = pictures()
    images[1, 0, 20, 20] = float("nan")
    with pytest.warns(UserWarning, match="gave no score for 1 of 3"):
        values = score([rewards[name]], images, PROMPTS)[:, 0]
    assert values.isnan().tolist() == [False, True, False]


def test_one_resize_serves_the_rewards_of_one_view(rewards):
    reward, seen = rewards["pickscore"], []
    view = reward.view

    class Counting:
        def __call__(self, images):
            seen.append(len(images))
            return view(images)

    counting = Counting()
    pair = [rewards["pickscore"], rewards["sciscore"]]
    try:
        for one in pair:
            one.view = counting
        score(pair, pictures(4), [PROMPTS[0]] * 4, batch=3)
    finally:
        for one in pair:
            one.view = view
    assert seen == [3, 1]  # once a batch, not once a reward
    assert rewards["sciscore"].view == view != rewards["hpsv2"].view


def test_the_formulas(rewards):
    images = pictures()
    pick, clip = rewards["pickscore"], rewards["clipscore"]
    cosine = pick.clip.cosines(pick.pixels(images), PROMPTS)
    torch.testing.assert_close(pick.score(images, PROMPTS), pick.network.logit_scale.exp() * cosine)
    prefixed = clip.clip.text_vectors([f"A photo depicts {p.text}" for p in PROMPTS])
    expected = clipscore(clip.clip.features(images), prefixed)
    torch.testing.assert_close(clip.score(images, PROMPTS), expected)
    assert torch.equal(preference(torch.tensor([0.0, 0.0])), torch.tensor([0.5, 0.5]))
    assert (clipscore(torch.eye(2), -torch.eye(2)) == 0).all() and (
        clipscore(torch.eye(2), torch.eye(2)) == 2.5
    ).all()
    network, reward = rewards["imagereward"].network, rewards["imagereward"]
    raw = network(*_inputs(reward, images))
    torch.testing.assert_close(reward.score(images, PROMPTS), (raw - MEAN) / STD)


def _inputs(reward, images):
    from tastemaker.encoders.pixels import normalise

    return normalise(reward.pixels(images)), *reward.tokens.encode([p.text for p in PROMPTS], 35)


def test_imagereward_reads_the_text_and_only_35_tokens_of_it(rewards):
    reward, images = rewards["imagereward"], pictures(2)
    words = "red cat " * 40
    long = [type(PROMPTS[0])(words), type(PROMPTS[0])(words + "house")]
    scores = reward.score(images[:1].expand(2, -1, -1, -1), long)
    assert scores[0] == scores[1]
    assert (reward.score(images, PROMPTS[:2]) - reward.score(images, PROMPTS[1:])).abs().max() > 1e-4


def test_imagereward_is_written_and_read_again(tmp_path):
    reward = imagereward()
    sha = reward.write(tmp_path / "ImageReward.safetensors")
    write_vocabulary(tmp_path)
    again = load_imagereward(tmp_path)
    assert again.provenance.weight_hash == sha == file_hash(tmp_path / "ImageReward.safetensors")
    torch.testing.assert_close(again.score(pictures(), PROMPTS), reward.score(pictures(), PROMPTS))
    assert again.network.blip.config.heads == 2 and not again.network.training
    released = dict(reward.network.state_dict())
    released["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    torch.save(released, tmp_path / "ImageReward.pt")
    twin = load_imagereward(tmp_path / "ImageReward.pt", heads=2, text_heads=2)
    torch.testing.assert_close(twin.score(pictures(), PROMPTS), reward.score(pictures(), PROMPTS))


def test_imagereward_in_training_drops_and_learns():
    reward = imagereward()
    network = reward.network.train().requires_grad_(True)
    first, second = (network(*_inputs(reward, pictures())) for _ in range(2))
    assert not torch.equal(first, second)
    first.sum().backward()
    unused = {n for n, p in network.named_parameters() if p.grad is None}
    assert unused == {f"blip.{side}_proj.{part}" for side in ("vision", "text") for part in ("weight", "bias")}


def test_the_head_begins_near_zero():
    head = score_head(400)
    head.begin()
    assert abs(float(head.layers[0].weight.detach().std()) - 1 / 401) < 1e-4 and not head.layers[0].bias.any()


def test_imagereward_files_that_do_not_fit(tmp_path):
    reward = imagereward()
    with pytest.raises(TastemakerError, match="expected ImageReward.pt or"):
        load_imagereward(tmp_path)
    reward.write(tmp_path / "ImageReward.safetensors")
    with pytest.raises(TastemakerError, match="put vocab.txt of bert-base-uncased"):
        load_imagereward(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(TastemakerError, match="the vocabulary has 4 pieces, but the network knows"):
        load_imagereward(tmp_path)
    write_vocabulary(tmp_path)
    tensors = read_tensors(tmp_path / "ImageReward.safetensors")
    short = {k: v for k, v in tensors.items() if k != "mlp.layers.4.bias"}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(TastemakerError, match="1 missing .mlp.layers.4.bias"):
        load_imagereward(tmp_path / "short.safetensors", heads=2, text_heads=2)
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(TastemakerError, match="no BLIP checkpoint.*first keys are: a, b"):
        load_imagereward(tmp_path / "other.safetensors")


def test_hpsv2_files(tmp_path, rewards):
    write_hpsv2(tmp_path, "HPS_v2.1_compressed.pt")
    newer = load_hpsv2(tmp_path, "hpsv2.1", heads=(2, 2))
    assert newer.name == "hpsv2.1" and newer.range == (-1.0, 1.0)
    torch.testing.assert_close(newer.score(pictures(), PROMPTS), rewards["hpsv2"].score(pictures(), PROMPTS))
    with pytest.raises(TastemakerError, match="expected HPS_v2_compressed.pt"):
        load_hpsv2(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(TastemakerError, match="no CLIP tokenizer"):
        load_hpsv2(tmp_path, "hpsv2.1", heads=(2, 2))
    wrong = {k: v for k, v in open_clip_network().state_dict().items() if "resblocks.1.ln_2" not in k}
    torch.save({"state_dict": wrong}, tmp_path / "HPS_v2.1_compressed.pt")
    write_byte_pairs(tmp_path)
    with pytest.raises(TastemakerError, match="4 missing .transformer.resblocks.1.ln_2.bias"):
        load_hpsv2(tmp_path, "hpsv2.1", heads=(2, 2))


def test_laion_files(tmp_path):
    transformers = pytest.importorskip("transformers")
    reward = laion(tmp_path, transformers)
    features = reward.clip.features(pictures())
    torch.testing.assert_close(reward.score(pictures(), PROMPTS), reward.head(normalize(features, dim=-1)))
    assert "+" in reward.provenance.weight_hash
    torch.save(score_head(8).state_dict(), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    with pytest.raises(TastemakerError, match="reads 8 features, but this CLIP gives 16"):
        load_laion_aesthetic(tmp_path)
    torch.save({"linear.weight": torch.zeros(1, 16)}, tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    with pytest.raises(TastemakerError, match="is no aesthetic head.*linear.weight"):
        load_laion_aesthetic(tmp_path)


def test_unit_length_however_short():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-21, 4e-21]])
    torch.testing.assert_close(unit(rows), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, 0.8]]))


def test_a_head_of_your_own_is_fitted_written_and_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 32, generator=generator) * 3
    truth = torch.randn(32, generator=generator)
    marks = normalize(features, dim=-1) @ truth + 5.5
    head = fit_head(features, marks, ridge=1e-9, about="a test")
    torch.testing.assert_close(head.weight, truth, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(features), marks, atol=1e-4, rtol=1e-4)
    assert fit_head(features, marks, ridge=10.0).weight.norm() < 0.1 * truth.norm()
    head.write(tmp_path / "aesthetic-head.safetensors")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes)).save_pretrained(tmp_path / "siglip")
    reward = load_siglip_aesthetic(tmp_path)
    assert reward.head.about == "a test" and reward.score(pictures(), PROMPTS).shape == (3,)
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors", {"description": json.dumps({"kind": "other"})})
    with pytest.raises(TastemakerError, match="holds 'other', expected the head"):
        load_siglip_aesthetic(tmp_path / "x.safetensors", tmp_path / "siglip")


@pytest.mark.parametrize(
    "features, marks, words",
    [
        (torch.zeros(3, 4), torch.zeros(2), "expected features"),
        (torch.zeros(1, 4), torch.zeros(1), "N >= 2"),
        (torch.zeros(2, 4), torch.tensor([1.0, float("nan")]), "must be finite"),
    ],
)
def test_a_head_needs_marks(features, marks, words):
    with pytest.raises(TastemakerError, match=words):
        fit_head(features, marks)


@pytest.mark.parametrize("name", ["imagereward", "pickscore", "sciscore", "clipscore", "hpsv2", "hpsv2.1",
                                  "laion-aesthetic", "siglip-aesthetic", "vqa", "orm"])  # fmt: skip
def test_each_name_asks_for_its_path_and_says_what_is_missing(name, tmp_path):
    with pytest.raises(TastemakerError, match=f"{name}:PATH"):
        load_reward(name)
    with pytest.raises(TastemakerError, match="expected|no weights|cannot read"):
        load_reward(f"{name}:{tmp_path / 'absent'}")


def test_every_reward_has_its_line_in_the_list(capsys):
    from tastemaker.workflows.load import ABOUT, print_models

    print_models()
    shown = capsys.readouterr().out
    assert all(row[0].partition(":")[0] in shown for row in ABOUT) and "Apache-2.0" in shown


def test_classes_take_what_is_loaded_already():
    made = [partial(ClipScore), partial(HpsV2), partial(LaionAesthetic, head=ScoreHead(16))]
    from tastemaker.encoders.clip import Clip

    clip = Clip(open_clip_network())
    assert [m(clip).differentiable for m in made] == [True] * 3
    with pytest.raises(TastemakerError, match="reads 31 features"):
        SiglipAesthetic(siglip(), LinearHead(torch.zeros(31), torch.tensor(0.0)))
    with pytest.raises(TastemakerError, match="pieces"):
        ImageReward(imagereward().network, type("Few", (), {"__len__": lambda self: 3})())
