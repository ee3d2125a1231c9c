"""Our CLIP and SigLIP beside those of transformers on the same tiny weights; files that do not fit are named."""

import pytest
import torch
from public import PROMPTS, clip_model, open_clip_network, pictures, write_byte_pairs, write_clip_folder
from small import shaken

from tastemaker.encoders.clip import config_of, from_transformers, load_clip_folder, network_of
from tastemaker.encoders.official import read_folder, read_tensors
from tastemaker.encoders.pixels import HALF, Squash, normalise
from tastemaker.encoders.protocol import Encoder
from tastemaker.encoders.siglip import load_siglip
from tastemaker.errors import TastemakerError

transformers = pytest.importorskip("transformers")
TEXTS = [p.text for p in PROMPTS]


def pooled(answer):
    return getattr(answer, "pooler_output", answer)


@pytest.mark.parametrize("end", [2, 519])
def test_clip_gives_the_vectors_of_transformers(tmp_path, end):
    model = write_clip_folder(transformers, tmp_path, end=end)
    clip = load_clip_folder(tmp_path)
    ids = clip.tokens.encode(TEXTS, 77)
    seen = normalise(clip.view(pictures()))
    with torch.no_grad():
        image = pooled(model.get_image_features(pixel_values=seen))
        text = pooled(model.get_text_features(input_ids=ids))
    torch.testing.assert_close(clip.features(pictures()), image, atol=1e-5, rtol=1e-4)
    expected = torch.nn.functional.normalize(text, dim=-1)
    torch.testing.assert_close(clip.text_vectors(TEXTS), expected, atol=1e-5, rtol=1e-4)
    assert isinstance(clip, Encoder) and clip.dim == 16 and len(clip.provenance.weight_hash) == 64


def test_siglip_gives_the_features_of_transformers(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    model = shaken(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes)), 0, 0.05)
    model.save_pretrained(tmp_path)
    siglip = load_siglip(tmp_path)
    with torch.no_grad():
        expected = model(normalise(Squash(28)(pictures()), HALF, HALF)).pooler_output
    torch.testing.assert_close(siglip.features(pictures()), expected, atol=1e-5, rtol=1e-4)
    assert isinstance(siglip, Encoder) and siglip.features(pictures()).shape == (3, siglip.dim)


def test_each_different_text_is_read_once(tmp_path):
    write_clip_folder(transformers, tmp_path)
    clip = load_clip_folder(tmp_path)
    read = []
    encode = clip.tokens.encode
    clip.tokens.encode = lambda texts, length: read.append(list(texts)) or encode(texts, length)
    vectors = clip.text_vectors(["a", "b", "a", "a"])
    assert read == [["a", "b"]] and torch.equal(vectors[0], vectors[3]) and not torch.equal(vectors[0], vectors[1])
    torch.testing.assert_close(vectors[1:2], clip.text_vectors(["b"]))


def test_a_folder_that_lacks_a_part_is_one_sentence(tmp_path):
    with pytest.raises(TastemakerError, match="expected a CLIP model folder"):
        load_clip_folder(tmp_path / "absent")
    with pytest.raises(TastemakerError, match="cannot read .*config.json"):
        load_clip_folder(tmp_path)
    clip_model(transformers).save_pretrained(tmp_path)
    with pytest.raises(TastemakerError, match="no CLIP tokenizer"):
        load_clip_folder(tmp_path)
    write_byte_pairs(tmp_path / "tokenizer")
    assert load_clip_folder(tmp_path).tokens is not None
    silent = load_clip_folder(tmp_path, words=False)
    with pytest.raises(TastemakerError, match="without its tokenizer"):
        silent.text_vectors(["a"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TastemakerError, match="holds no model.safetensors"):
        load_clip_folder(tmp_path)


def test_every_key_is_accounted_for(tmp_path):
    clip_model(transformers).save_pretrained(tmp_path)
    tensors, _ = read_folder(tmp_path)
    good = from_transformers(tensors, "file")
    config = config_of(good, "file", (4, 2))
    network_of(good | {"attn_mask": torch.zeros(1)}, config, "file")
    with pytest.raises(TastemakerError, match="1 not known .a.strange.key"):
        network_of(good | {"a.strange.key": torch.zeros(1)}, config, "file")
    with pytest.raises(TastemakerError, match="1 missing .ln_final.weight"):
        network_of({k: v for k, v in good.items() if k != "ln_final.weight"}, config, "file")
    with pytest.raises(TastemakerError, match="but not .*k_proj"):
        from_transformers({k: v for k, v in tensors.items() if "k_proj" not in k}, "file")
    with pytest.raises(TastemakerError, match="is no CLIP: it has no visual.conv1.weight.* first keys are: a, b"):
        config_of({"a": torch.zeros(1), "b": torch.zeros(1)}, "file", (4, 2))
    with pytest.raises(TastemakerError, match="activation 'relu6'"):
        config_of(good, "file", (4, 2), ("relu6", "gelu"))


def test_files_of_plain_tensors_only(tmp_path):
    torch.save({"state_dict": open_clip_network().state_dict()}, tmp_path / "good.pt")
    assert "visual.proj" in read_tensors(tmp_path / "good.pt", inside="state_dict")
    with pytest.raises(TastemakerError, match="holds no state dict"):
        read_tensors(tmp_path / "good.pt")
    torch.save({"network": torch.nn.Linear(1, 1)}, tmp_path / "module.pt")
    with pytest.raises(TastemakerError, match="more than plain tensors, and is not loaded"):
        read_tensors(tmp_path / "module.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a weight file")
    (tmp_path / "broken.safetensors").write_bytes(b"neither")
    (tmp_path / "text.txt").write_text("x")
    for name, words in (("absent.pt", "no weights at"), ("broken.safetensors", "not a whole safetensors file"),
                        ("text.txt", "is no weight file")):  # fmt: skip
        with pytest.raises(TastemakerError, match=words):
            read_tensors(tmp_path / name)
    with pytest.raises(TastemakerError, match="broken.pt"):
        read_tensors(tmp_path / "broken.pt")


def test_half_precision_weights_are_read_in_float32(tmp_path):
    torch.save({"a": torch.ones(2).half(), "n": torch.arange(2)}, tmp_path / "half.pt")
    found = read_tensors(tmp_path / "half.pt")
    assert found["a"].dtype == torch.float32 and found["n"].dtype == torch.int64


def test_a_folder_in_several_files_is_one_model(tmp_path):
    model = clip_model(transformers)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    tensors, file = read_folder(tmp_path)
    assert file.name == "model.safetensors.index.json" and set(tensors) >= set(dict(model.named_parameters()))
