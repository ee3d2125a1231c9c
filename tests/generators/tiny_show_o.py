"""A tiny random Show-o in the layout of the release: three folders, with keys and shapes written out here."""

from __future__ import annotations

import json
import pathlib

import torch
import transformers

WORDS = ("<|endoftext|>", "a", "the", "red", "blue", "cat", "dog", "two", "on", "mat")
BITS, SIDE = 4, 4  # of a token; tokens a side
CODES, FIRST = 2**BITS, len(WORDS) + 10
VOCABULARY = FIRST + CODES + 1
# channels and units of each level, the finest first
TINY = {"first": 32, "encoder": ((32, 64), (1, 1)), "decoder": ((32, 64), (2, 2)), "bits": BITS}
RELEASE = {
    "first": 128,
    "encoder": ((128, 256, 256, 512, 512), (4, 3, 4, 3, 4)),
    "decoder": ((128, 128, 256, 256, 512), (4, 4, 3, 4, 3)),
    "bits": 13,
}


def _conv(name, out, inside, side=3):
    return {f"{name}.weight": (out, inside, side, side), f"{name}.bias": (out,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _unit(name, narrow, wide):
    shapes = _norm(f"{name}.norm1", narrow) | _conv(f"{name}.conv1", wide, narrow)
    shapes |= _norm(f"{name}.norm2", wide) | _conv(f"{name}.conv2", wide, wide)
    return shapes | (_conv(f"{name}.nin_shortcut", wide, narrow, 1) if narrow != wide else {})


def _middle(name, width):
    shapes = _unit(f"{name}.block_1", width, width) | _unit(f"{name}.block_2", width, width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.attn_1.{part}", width, width, 1)
    return shapes | _norm(f"{name}.attn_1.norm", width)


def magvit_shapes(first, encoder, decoder, bits):
    """Every key of a tokenizer."""
    (wide, units), last = encoder, encoder[0][-1]
    shapes = _conv("encoder.conv_in", first, 3) | _middle("encoder.mid", last) | _norm("encoder.norm_out", last)
    shapes |= _conv("encoder.conv_out", bits, last) | _conv("encoder.quant_conv", bits, bits, 1)
    for k, (narrow, width) in enumerate(zip((first, *wide), wide)):
        for j in range(units[k]):
            shapes |= _unit(f"encoder.down.{k}.block.{j}", narrow if j == 0 else width, width)
        if k < len(wide) - 1:
            shapes |= _conv(f"encoder.down.{k}.downsample.conv", width, width)
    (wide, units), last = decoder, decoder[0][-1]
    shapes |= _conv("decoder.post_quant_conv", bits, bits, 1) | _conv("decoder.conv_in", last, bits)
    shapes |= (
        _middle("decoder.mid", last) | _norm("decoder.norm_out", wide[0]) | _conv("decoder.conv_out", 3, wide[0])
    )
    for k, (narrow, width) in enumerate(zip((*wide[1:], last), wide)):
        for j in range(units[k]):
            shapes |= _unit(f"decoder.up.{k}.block.{j}", narrow if j == 0 else width, width)
        if k > 0:
            shapes |= _conv(f"decoder.up.{k}.upsample.conv", width, width)
    return shapes | {"quantize.embedding": (2**bits, bits), "quantize.power_vals": (bits,)}


def magvit_tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {k: 0.3 * torch.randn(shape, generator=generator) for k, shape in magvit_shapes(**TINY).items()}
    tensors |= {k: v + 1 for k, v in tensors.items() if "norm" in k and k.endswith("weight")}
    values = 2 ** torch.arange(BITS - 1, -1, -1)
    signs = (torch.arange(CODES)[:, None] & values).bool().float() * 2 - 1
    return tensors | {"quantize.embedding": signs, "quantize.power_vals": values}


def phi_config():
    return transformers.PhiConfig(
        vocab_size=51200,  # as in the release: the tokens of Show-o are more
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        hidden_act="gelu_new",
        partial_rotary_factor=0.5,
    )


def phi(seed=1):
    """Show-o's own: queries and keys are normalised, and the vocabulary has marks, codes and the mask."""
    config = phi_config()
    config.vocab_size, config.qk_layernorm = VOCABULARY, True
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.PhiForCausalLM(config).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def write_words(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=WORDS[0], eos_token=WORDS[0], unk_token=WORDS[0]
    ).save_pretrained(folder)


def write(folder: pathlib.Path, seed: int = 1) -> pathlib.Path:
    """FOLDER/show-o, and beside it phi-1_5 and magvitv2. Returns the first."""
    from safetensors.torch import save_file

    home = folder / "show-o"
    home.mkdir(parents=True)
    said = {"w_clip_vit": False, "vocab_size": VOCABULARY, "llm_vocab_size": len(WORDS), "codebook_size": CODES}
    said |= {"num_vq_tokens": SIDE**2, "llm_model_path": "microsoft/phi-1_5", "mask_token_id": VOCABULARY - 1}
    (home / "config.json").write_text(json.dumps(said | {"_class_name": "Showo"}))
    save_file({f"showo.{k}": v.contiguous() for k, v in phi(seed).state_dict().items()}, home / "model.safetensors")
    phi_config().save_pretrained(folder / "phi-1_5")
    write_words(folder / "phi-1_5")
    (folder / "magvitv2").mkdir()
    (folder / "magvitv2" / "config.json").write_text('{"_class_name": "MAGVITv2"}')
    torch.save(magvit_tensors(), folder / "magvitv2" / "pytorch_model.bin")
    return home
