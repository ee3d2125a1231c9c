"""DINOv2, DINOv3 and the names of all feature spaces, beside transformers on the same tiny weights; FID's Inception
by what is known of its graph; and the derivatives that R1 takes through each of them."""

import pytest
import torch
from public import pictures, write_clip_folder
from safetensors.torch import save_file
from small import shaken
from torch.nn.attention import SDPBackend, sdpa_kernel

from tastemaker.algorithms.discriminator import picture_slope
from tastemaker.encoders import inception
from tastemaker.encoders.dino import IMAGENET_MEAN, IMAGENET_STD, load_dinov2
from tastemaker.encoders.efficientnet_lite0 import EfficientNetLite0
from tastemaker.encoders.pixels import Squash, normalise
from tastemaker.encoders.protocol import Encoder
from tastemaker.encoders.table import load_encoder
from tastemaker.errors import TastemakerError, UnknownName

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def transformers_model(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "dinov3":
        more = {"intermediate_size": 48, "patch_size": 16, "num_register_tokens": 3}
        return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**TINY, **more))
    name = "Dinov2WithRegisters" if kind == "registers" else "Dinov2"
    config = getattr(transformers, f"{name}Config")(**TINY, mlp_ratio=2, image_size=70, patch_size=14)
    return getattr(transformers, f"{name}Model")(config)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models with weights everywhere, saved as folders."""
    found = {}
    for kind in ("dinov2", "registers", "dinov3"):
        model = shaken(transformers_model(kind), 1, 0.1)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        found[kind] = (model, folder)
    return found


@pytest.mark.parametrize("kind", ["dinov2", "registers", "dinov3"])
def test_dino_gives_the_class_token_of_transformers(folders, kind):
    model, folder = folders[kind]
    encoder = load_encoder(f"{'dinov3' if kind == 'dinov3' else 'dinov2'}:{folder}")
    seen = normalise(Squash(224)(pictures()), IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        expected = model(pixel_values=seen).last_hidden_state[:, 0]
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder.features(pictures()), expected, atol=2e-5, rtol=1e-4)
    assert isinstance(encoder, Encoder) and encoder.dim == 32 and len(encoder.provenance.weight_hash) == 64
    assert "224 x 224 (Pillow bicubic)" in encoder.provenance.preprocessing


def test_dino_of_the_other_kind_and_missing_folders_are_named(folders, tmp_path):
    with pytest.raises(TastemakerError, match="is no dinov3: it has learned places"):
        load_encoder(f"dinov3:{folders['dinov2'][1]}")
    with pytest.raises(TastemakerError, match="is no dinov2: it has no learned places"):
        load_encoder(f"dinov2:{folders['dinov3'][1]}")
    with pytest.raises(TastemakerError, match="config.json"):
        load_encoder(f"dinov2:{tmp_path}")
    with pytest.raises(TastemakerError, match="write dinov2:PATH"):
        load_encoder("dinov2")
    with pytest.raises(UnknownName, match="dinov2"):
        load_encoder("dino")


RELEASED = (  # the keys of the released DINOv2 folders, from those of this file
    ("layers.", "encoder.layer."),
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("layer_scale1", "layer_scale1.lambda1"),
    ("layer_scale2", "layer_scale2.lambda1"),
    ("mlp.wide", "mlp.fc1"),
    ("mlp.narrow", "mlp.fc2"),
)


def test_the_spelling_of_the_released_folders_is_read(folders, tmp_path):
    encoder = load_dinov2(folders["dinov2"][1])
    tensors = {"embeddings.mask_token": torch.zeros(1, 32)}
    for key, value in encoder.network.state_dict().items():
        for ours, theirs in RELEASED:
            key = key.replace(ours, theirs)
        key = key.replace("patch.", "embeddings.patch_embeddings.projection.")
        key = f"embeddings.{key}" if key in ("cls_token", "position_embeddings") else key
        tensors[key.replace("norm.", "layernorm.") if key.startswith("norm.") else key] = value
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folders["dinov2"][1] / "config.json").read_text())
    assert torch.equal(load_dinov2(tmp_path).features(pictures()), encoder.features(pictures()))
    tensors.pop("layernorm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(TastemakerError, match="1 missing .norm.weight"):
        load_dinov2(tmp_path)


def test_siglip_and_clip_are_feature_spaces_by_name(tmp_path):
    transformers = pytest.importorskip("transformers")
    write_clip_folder(transformers, tmp_path / "clip")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.SiglipVisionConfig(**sizes, image_size=28, patch_size=14)
    shaken(transformers.SiglipVisionModel(config), 0, 0.05).save_pretrained(tmp_path / "siglip")
    for name in ("clip", "siglip"):
        encoder = load_encoder(f"{name}:{tmp_path / name}")
        assert encoder.features(pictures()).shape == (3, encoder.dim) and "Pillow" in encoder.provenance.preprocessing
        same_derivatives(encoder)


def slopes(encoder, count=2):
    """Features with a gradient are the plain ones, and <J J^T w, w> = |J^T w|^2. -> images, w, J^T w, J J^T w."""
    images = torch.rand(count, 3, 20, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain = encoder.features(images)
    torch.testing.assert_close(encoder.features(images.clone().requires_grad_()), plain, atol=2e-5, rtol=1e-4)
    w = torch.randn(count, encoder.dim, generator=torch.Generator().manual_seed(4))
    g, moved = picture_slope(encoder.features, images, w)
    assert g.abs().sum() > 0
    torch.testing.assert_close((moved * w).sum(1), g.pow(2).flatten(1).sum(1), rtol=1e-3, atol=1e-9)
    return images, w, g, moved


def same_derivatives(encoder):
    """J g by a forward derivative is that by two backward ones."""
    images, w, g, moved = slopes(encoder)
    with sdpa_kernel(SDPBackend.MATH):
        x, w = images.requires_grad_(), w.requires_grad_()
        (back,) = torch.autograd.grad(encoder.features(x), x, w, create_graph=True)
        (expected,) = torch.autograd.grad(back, w, g)
    torch.testing.assert_close(g, back.detach(), atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(moved, expected, atol=1e-5 * float(expected.abs().max()) + 1e-9, rtol=1e-3)


@pytest.mark.parametrize("kind", ["registers", "dinov3"])
def test_r1_goes_through_dino(folders, kind):
    same_derivatives(load_encoder(f"{'dinov3' if kind == 'dinov3' else 'dinov2'}:{folders[kind][1]}"))


def test_r1_goes_through_efficientnet_lite0():
    slopes(EfficientNetLite0(), 1)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    torch.manual_seed(0)
    tensors = inception.InceptionNetwork().state_dict()
    tensors |= {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}  # some ports keep it
    file = tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(tensors, file)
    return file


def test_inception_has_the_graph_of_fid(inception_file):
    """94 convolutions with their norms and 23,850,960 weights: torchvision's 23,834,568 without the auxiliary head
    and with 1000 classes, and 8 classes more."""
    encoder = load_encoder(f"inception:{inception_file.parent}")
    network = encoder.network
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 + 8 * 2049
    keys = set(network.state_dict())
    assert len(keys) == 94 * 5 + 2
    assert {"Mixed_5b.branch3x3dbl_3.bn.running_var", "Mixed_6e.branch7x7dbl_5.conv.weight",
            "Mixed_7a.branch7x7x3_4.bn.bias", "Mixed_7c.branch3x3dbl_3b.conv.weight"} <= keys  # fmt: skip
    assert network.Mixed_7b.pool(torch.ones(1, 1, 4, 4)).min() == 1  # the padding does not count
    features = encoder.features(pictures())
    assert (
        features.shape == (3, 2048) and (features >= 0).all() and "TensorFlow 1" in encoder.provenance.preprocessing
    )


def test_inception_resizes_as_tensorflow_1_did():
    pixels = torch.rand(1, 2, 7, 5) * 255
    found = inception.tensorflow_bilinear(pixels, 11)
    expected = torch.zeros(1, 2, 11, 11)
    for i in range(11):
        for j in range(11):
            y, x = i * 7 / 11, j * 5 / 11
            top, left = int(y), int(x)
            below, right = min(top + 1, 6), min(left + 1, 4)
            for row, a in ((top, 1 - (y - top)), (below, y - top)):
                for column, b in ((left, 1 - (x - left)), (right, x - left)):
                    expected[..., i, j] += a * b * pixels[..., row, column]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)
    assert torch.equal(inception.tensorflow_bilinear(pixels, 7)[..., 0, 0], pixels[..., 0, 0])


def test_r1_goes_through_the_view_of_inception():
    """Behind it stand convolutions; a few stand for them here, since 94 take long."""
    encoder = inception.Inception(inception.InceptionNetwork())
    torch.manual_seed(2)
    short = torch.nn.Sequential(inception.Conv(3, 6, (3, 3), 2), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    encoder.network, encoder.dim = short.eval().requires_grad_(False), 24
    same_derivatives(encoder)


def test_inception_names_what_does_not_fit(tmp_path, inception_file):
    tensors = torch.load(inception_file, weights_only=True)
    tensors.pop("Mixed_7c.branch_pool.conv.weight")
    torch.save(tensors, tmp_path / "cut.pth")
    with pytest.raises(TastemakerError, match="1 missing .Mixed_7c.branch_pool.conv.weight"):
        load_encoder(f"inception:{tmp_path / 'cut.pth'}")
    with pytest.raises(TastemakerError, match="holds no weights of FID's Inception-v3"):
        load_encoder(f"inception:{tmp_path}")
