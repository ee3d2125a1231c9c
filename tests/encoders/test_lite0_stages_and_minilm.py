"""Stages of EfficientNet-Lite0 against its own pooled features; MiniLM against transformers' BERT."""

import importlib.util

import pytest
import torch

from tastemaker.encoders.efficientnet_lite0 import EfficientNetLite0, preprocess
from tastemaker.encoders.lite0_stages import CHANNELS, Lite0Stages, maps, moments
from tastemaker.encoders.minilm import PACKAGE, MiniLM, package_folder
from tastemaker.encoders.protocol import Encoder
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt

MINILM = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not there")


@pytest.fixture(scope="module")
def lite0():
    return EfficientNetLite0()


@pytest.fixture
def images():
    return torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(0))


def test_the_last_map_pools_to_the_usual_features(lite0, images):
    found = list(maps(lite0.network, preprocess(images)))
    assert tuple(m.shape[1] for m in found) == CHANNELS
    torch.testing.assert_close(found[-1].mean((2, 3)), lite0.features(images))


def test_moments_of_every_stage_and_side(lite0, images):
    stages = Lite0Stages(lite0, sides=(64, 96))
    assert isinstance(stages, Encoder)
    features = stages.features(images)
    assert features.shape == (2, stages.dim) == (2, 4 * sum(CHANNELS)) and features.isfinite().all()
    alone = Lite0Stages(lite0, sides=(96,)).features(images)
    torch.testing.assert_close(features[:, stages.dim // 2 :], alone)
    map_ = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(moments(map_)[:, :3], map_.mean((2, 3)))
    torch.testing.assert_close(moments(map_)[:, 3:], map_.std((2, 3), correction=0), atol=1e-6, rtol=1e-5)


def test_the_gradient_reaches_the_pixels(lite0, images):
    images = images[:1].requires_grad_()
    (gradient,) = torch.autograd.grad(Lite0Stages(lite0, sides=(64,)).features(images).sum(), images)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@MINILM
def test_minilm_is_transformers_bert_with_mean_pooling():
    transformers = pytest.importorskip("transformers")
    folder = package_folder()
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["a photo of a cat", "Statue of a man, close-up, sci-fi style", "x"]
    with torch.no_grad():
        words = tokenizer(texts, padding=True, return_tensors="pt")
        states, mask = theirs(**words).last_hidden_state, words["attention_mask"][..., None]
        expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    ours = MiniLM().vectors([Prompt(t) for t in texts])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(MiniLM().vectors([Prompt(texts[0])]), ours[:1], atol=1e-5, rtol=1e-4)


@MINILM
def test_like_words_lie_close():
    near, other, far = MiniLM().vectors([Prompt("a small dog"), Prompt("a little puppy"), Prompt("tax law")])
    assert float(near @ other) > 0.6 > float(near @ far) + 0.2


def test_a_folder_without_the_files_is_one_clear_error(tmp_path):
    with pytest.raises(TastemakerError, match="has no model.safetensors of all-MiniLM"):
        MiniLM(tmp_path)
