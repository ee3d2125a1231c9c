"""Weights on disk: whole or not at all, never unpickled, and what does not fit is named."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tastemaker.errors import TastemakerError
from tastemaker.weights import device_of, file_hash, fill, load_weights, parameters, save_weights, shipped


def test_files_go_round(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    path = tmp_path / "new" / "a.safetensors"
    digest = save_weights(path, network.state_dict(), {"kind": "x", "list": [1, 2]})
    tensors, said = load_weights(path)
    assert said == {"kind": "x", "list": [1, 2]}
    assert digest == file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    fill(other, tensors, "a")
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values()))
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
    assert parameters(network) == 15 and device_of(network).type == "cpu"


def test_half_is_read_as_float32_and_whole_numbers_stay(tmp_path):
    values = {"w": torch.tensor([1 / 3, 2.0]), "n": torch.tensor([2**40])}
    save_weights(tmp_path / "h.safetensors", values, {}, half=True)
    tensors, _ = load_weights(tmp_path / "h.safetensors")
    assert tensors["w"].dtype == torch.float32 and tensors["w"].tolist() == [0.333251953125, 2.0]
    assert tensors["n"].dtype == torch.int64 and tensors["n"].item() == 2**40


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, {"w": torch.ones(1)}, {})
    with pytest.raises(TypeError):
        save_weights(path, {"w": torch.zeros(1)}, {"not json": object()})
    assert load_weights(path)[0]["w"].item() == 1 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "no weights at .*; expected a .safetensors file"),
        (b"", "is not a whole safetensors file"),
        (b"PK\x03\x04 a pickle in a zip", "is not a whole safetensors file"),
        ("cut", "is not a whole safetensors file"),
        ({}, "has no description of its network"),
        ({"description": "not json"}, "has no description of its network"),
        ({"description": "[1]"}, "has no description of its network"),
    ],
)
def test_missing_foreign_and_damaged_files_are_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "a.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        save_weights(path, {"w": torch.ones(100)}, {})
        path.write_bytes(path.read_bytes()[:-50])
    elif content is not None:
        save_file({"w": torch.ones(1)}, path, content)
    with pytest.raises(TastemakerError, match=sentence):
        load_weights(path)


def test_what_does_not_fit_is_named():
    network = nn.Linear(2, 3)
    wrong = {"weight": torch.ones(3, 3), "scale": torch.ones(1)}
    with pytest.raises(
        TastemakerError, match=r"x does not fit.*1 missing \(bias\); 1 not known \(scale\); 1 of another"
    ):
        fill(network, wrong, "x")
    assert not torch.equal(network.weight, torch.ones(3, 2))


def test_shipped_files_say_how_they_were_made():
    found = sorted(p.stem for p in shipped("x").parent.glob("*.safetensors"))
    assert {"detector-a", "detector-b"} <= set(found)
    for name in found:
        tensors, said = load_weights(shipped(name))
        assert said["recipe"] and json.dumps(said) and all(t.isfinite().all() for t in tensors.values()), name
