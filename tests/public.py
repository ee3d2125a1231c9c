"""Tiny files in the layouts of the public reward models, with random weights everywhere."""

import json

import torch
from small import shaken

from tastemaker.encoders.blip import BlipConfig
from tastemaker.encoders.clip import ClipConfig, ClipNetwork, TowerConfig
from tastemaker.encoders.clip_bpe import BEGIN, BYTES, END, LAST
from tastemaker.encoders.wordpiece import WordPieces
from tastemaker.records import Prompt
from tastemaker.rewards.imagereward import ImageReward, ImageRewardNetwork
from tastemaker.rewards.score_head import ScoreHead

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz,.!",
    "the",
    "cat",
    "##s",
    "##e",
    "##d",
    "red",
]
MERGES = [("t", "h"), ("th", "e" + LAST), ("c", "a"), ("ca", "t" + LAST), ("r", "e"), ("re", "d" + LAST)]
PROMPTS = [Prompt("the red cat"), Prompt("a red, red house!"), Prompt("cats")]


def pictures(count=3, height=40, width=56, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def byte_pairs():
    """Vocabulary and merges of a CLIP tokenizer that knows every byte and a few words."""
    pieces = [*BYTES.values(), *(c + LAST for c in BYTES.values()), *("".join(m) for m in MERGES), BEGIN, END]
    return {piece: i for i, piece in enumerate(pieces)}, MERGES


def write_byte_pairs(folder):
    numbers, merges = byte_pairs()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    return folder


def imagereward(seed=0):
    config = BlipConfig(
        size=32, patch=16, width=32, depth=2, heads=2, hidden=64, words=len(PIECES) + 2, positions=40,
        text_width=24, text_depth=2, text_heads=2, text_hidden=48, shared=8,
    )  # fmt: skip
    torch.manual_seed(seed)
    network = shaken(ImageRewardNetwork(config), seed, 0.1).requires_grad_(False)
    return ImageReward(network, WordPieces({p: i for i, p in enumerate(PIECES)}))


def write_vocabulary(folder):
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")


def open_clip_network(seed=0):
    words = len(byte_pairs()[0])
    config = ClipConfig(TowerConfig(32, 2, 2, 64), TowerConfig(24, 2, 2, 48), 28, 14, 16, words)
    torch.manual_seed(seed)
    return shaken(ClipNetwork(config), seed, 0.05).requires_grad_(False)


def write_hpsv2(folder, name="HPS_v2_compressed.pt"):
    write_byte_pairs(folder)
    torch.save({"state_dict": open_clip_network().state_dict()}, folder / name)
    return folder


def clip_model(transformers, seed=0, end=2):
    """A tiny CLIPModel of the transformers package."""
    words = len(byte_pairs()[0])
    text = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "vocab_size": words, "eos_token_id": end, "hidden_act": "quick_gelu"}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 28, "patch_size": 14, "hidden_act": "gelu"}  # fmt: skip
    torch.manual_seed(seed)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return shaken(transformers.CLIPModel(config), seed, 0.05)


def write_clip_folder(transformers, folder, **more):
    model = clip_model(transformers, **more)
    model.save_pretrained(folder)
    write_byte_pairs(folder)
    return model


def score_head(width=16, seed=0):
    torch.manual_seed(seed)
    return ScoreHead(width).eval()
