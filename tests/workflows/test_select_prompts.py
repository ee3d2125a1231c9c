"""From a file of prompts to those worth annotating."""

import numpy as np
import pytest

from tastemaker.data.prompts import read_prompts
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.workflows.select import embed_prompts, hash_words, select_from_file

THEMES = ("a photo of a cat", "an oil painting of the sea", "a red car in the city", "portrait of an old king")
WORDS = ("one", "two", "three", "four", "five", "six", "seven")


def test_each_theme_is_chosen_once_and_doubles_count_once(tmp_path):
    lines = [f"{theme}, version {word}" for theme in THEMES for word in WORDS]
    (tmp_path / "prompts.txt").write_text("\n".join([*lines, lines[0].upper()]))
    chosen = select_from_file(tmp_path / "prompts.txt", tmp_path / "chosen.jsonl", 4, k=6)
    assert sorted(p.text.split(",")[0] for p in chosen) == sorted(THEMES)
    assert read_prompts(tmp_path / "chosen.jsonl") == chosen
    everything = select_from_file(tmp_path / "prompts.txt", tmp_path / "all.jsonl", 28)
    assert len({p.text for p in everything}) == 28


def test_hashed_words_put_like_beside_like_whatever_the_order_of_the_list():
    rows = hash_words(["a red apple", "a red apple on a table", "castle at night", "!!!", ""])
    assert rows.shape == (5, 512) and np.abs(rows).sum(1).min() > 0
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.4 > unit[0] @ unit[2]
    assert np.array_equal(hash_words(["castle at night"])[0], rows[2])


def test_tiny_clip_embeds_the_worlds_prompts_alone():
    rows = embed_prompts(["a photo of a cat", "a photo of a dog", "a photo of two cats"], "tiny-clip", batch=2)
    assert rows.shape[0] == 3 and np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UnknownName, match="zeppelin"):
        embed_prompts(["a zeppelin"], "tiny-clip")


def test_an_embedding_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UnknownName, match="embedding of prompts"):
        embed_prompts(["a cat"], "glove")
    with pytest.raises(TastemakerError, match="folder of a sentence encoder"):
        embed_prompts(["a cat"], f"sentence:{tmp_path / 'nowhere'}")
    with pytest.raises(TastemakerError, match="no prompts"):
        embed_prompts([])


def test_a_sentence_encoder_averages_over_the_words_and_not_over_padding(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    together = embed_prompts(["a cat", "a dog sits a cat sits"], f"sentence:{tmp_path}")
    alone = embed_prompts(["a cat"], f"sentence:{tmp_path}")
    assert together.shape == (2, 16) and together[0] == pytest.approx(alone[0], abs=1e-6)
