"""Words into numbers: our two tokenizers beside the reference implementations, and what is no vocabulary."""

import gzip
import json

import pytest
from public import MERGES, PIECES, byte_pairs, write_byte_pairs, write_vocabulary

from tastemaker.encoders.clip_bpe import (
    BEGIN,
    BYTES,
    END,
    LAST,
    BytePairs,
    clean_open_clip,
    clean_transformers,
    load_byte_pairs,
    words,
)
from tastemaker.encoders.wordpiece import WordPieces, load_word_pieces
from tastemaker.errors import TastemakerError

TEXTS = [
    "the red cat",
    "The RED cats!  Isn't it\tred?",
    "Crème brûlée, naïve — 12 cafés № 3½",
    "they're 10,000 cat's; I'd've (said) so...",
    "猫 and a cat\n日本",
    "emoji 😀 and ﬁ ligatures",
    "don't 'quote' \"this\"",
    "x" * 120,
    "",
    "the " * 90,
]
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def test_byte_pairs_agree_with_the_tokenizers_package():
    tokenizers = pytest.importorskip("tokenizers")
    numbers, merges = byte_pairs()
    from tokenizers import Regex, models, normalizers, pre_tokenizers

    reference = tokenizers.Tokenizer(
        models.BPE(numbers, merges, continuing_subword_prefix="", end_of_word_suffix=LAST, fuse_unk=False)
    )
    reference.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    ours = BytePairs(numbers, merges, clean_transformers)
    for text in TEXTS:
        assert ours.pieces(text) == reference.encode(text).ids, text


def test_byte_pairs_are_cut_and_padded_with_the_end_kept():
    numbers, merges = byte_pairs()
    tokens = BytePairs(numbers, merges, clean_transformers)
    ids = tokens.encode(["the cat", "the " * 90], 8).tolist()
    the, cat = numbers["the" + LAST], numbers["cat" + LAST]
    assert ids == [[numbers[BEGIN], the, cat, numbers[END], 0, 0, 0, 0], [numbers[BEGIN], *[the] * 6, numbers[END]]]
    assert tokens.encode([]).shape == (0, 77)


def test_open_clip_cleans_entities_and_quotes():
    assert clean_open_clip("It&amp;amp;s  “RAINING”\n&lt;b&gt;") == 'it&s "raining" <b>'
    assert clean_transformers("It&amp;s  Cafe\u0301") == "it&amp;s café"


def test_words_are_found_as_in_clip():
    assert list(words("it's 10 cats!!, we'll")) == ["it", "'s", "1", "0", "cats", "!!,", "we", "'ll"]


def test_the_three_files_of_a_clip_tokenizer_are_one_vocabulary(tmp_path):
    numbers, merges = byte_pairs()
    write_byte_pairs(tmp_path / "a" / "tokenizer")
    (tmp_path / "b").mkdir()
    model = {"model": {"vocab": numbers, "merges": [" ".join(m) for m in merges]}}
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(model))
    (tmp_path / "c").mkdir()
    lines = "\n".join(["#version", *(" ".join(m) for m in merges)])
    (tmp_path / "c" / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(lines.encode()))
    found = [load_byte_pairs(tmp_path / name, clean_transformers) for name in "abc"]
    assert all(f.numbers == numbers and list(f.ranks) == MERGES for f in found)
    assert len(BYTES) == 256 == len(set(BYTES.values()))


def test_what_is_no_clip_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(TastemakerError, match="put vocab.json and merges.txt"):
        load_byte_pairs(tmp_path, clean_transformers)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(TastemakerError, match="without its merges.txt"):
        load_byte_pairs(tmp_path, clean_transformers)
    (tmp_path / "merges.txt").write_text("#version\n")
    with pytest.raises(TastemakerError, match="no CLIP vocabulary: it lacks <|startoftext|>"):
        load_byte_pairs(tmp_path, clean_transformers)


def test_word_pieces_agree_with_the_tokenizers_package(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    write_vocabulary(tmp_path)
    reference = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    ours = load_word_pieces(tmp_path)
    for text in TEXTS:
        expected = reference.encode(text, add_special_tokens=False).tokens
        assert ours.pieces(text) == expected, text


def test_word_pieces_are_cut_padded_and_masked():
    tokens = WordPieces({p: i for i, p in enumerate(PIECES)})
    ids, mask = tokens.encode(["the cats", "red " * 9], 6)
    named = [[PIECES[i] for i in row] for row in ids.tolist()]
    assert named[0] == ["[CLS]", "the", "cat", "##s", "[SEP]", "[PAD]"] and mask[0].tolist() == [1] * 5 + [0]
    assert named[1] == ["[CLS]", *["red"] * 4, "[SEP]"] and mask[1].all()


def test_what_is_no_bert_vocabulary_is_one_sentence(tmp_path):
    with pytest.raises(TastemakerError, match="put vocab.txt of bert-base-uncased"):
        load_word_pieces(tmp_path / "ImageReward.pt")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(TastemakerError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        load_word_pieces(tmp_path)
