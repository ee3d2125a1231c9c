"""Show-o's released layout: its sequence, mask, logits and guidance against Phi asked by hand, its tokenizer against
diffusers, files and their faults."""

import json

import pytest
import torch

for package in ("diffusers", "transformers"):
    pytest.importorskip(package)

import tiny_show_o  # noqa: E402
from tiny_show_o import BITS, CODES, FIRST, SIDE, VOCABULARY, WORDS  # noqa: E402

from tastemaker.errors import TastemakerError  # noqa: E402
from tastemaker.generators.magvit import Magvit, config_of, load_magvit  # noqa: E402
from tastemaker.generators.show_o import load  # noqa: E402
from tastemaker.generators.unmasking import MASK, cosine_times, random_order, show_o  # noqa: E402
from tastemaker.protocols import Condition, Plan  # noqa: E402
from tastemaker.records import Ledger  # noqa: E402
from tastemaker.sampling import finish, sample  # noqa: E402
from tastemaker.search.ledger import metered  # noqa: E402
from tastemaker.workflows.load import load_generator  # noqa: E402

PAD, SOI, EOI, T2I, MASKED = len(WORDS), len(WORDS) + 1, len(WORDS) + 2, len(WORDS) + 5, VOCABULARY - 1
PROMPTS = ["a red cat", "two blue dog on the mat"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tiny_show_o.write(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def generator(home):
    return load(home)


def by_hand(text, tokens):
    """The scores of one row, (N, V): the sequence and the mask place by place, Phi of transformers."""
    line = [T2I, 0, *(WORDS.index(w) for w in text.split()), 0]
    pads = 129 - len(line)
    sequence = [PAD] * pads + line + [SOI, *(MASKED if t < 0 else FIRST + t for t in tokens), EOI]
    m = len(sequence)
    seen = torch.full((m, m), torch.finfo(torch.float32).min)
    for i in range(m):
        for j in range(m):
            picture = i >= 129
            padding = i < pads and j <= i
            words = pads <= i < 129 and pads <= j <= i
            if padding or words or (picture and j >= pads):
                seen[i, j] = 0
    with torch.no_grad():
        logits = tiny_show_o.phi()(input_ids=torch.tensor([sequence]), attention_mask=seen[None, None]).logits[0]
    return logits[130 : 130 + SIDE**2, FIRST:MASKED]


def test_scores_are_those_of_phi_behind_the_released_prompt(generator):
    tokens = torch.full((2, SIDE**2), MASK)
    tokens[1, [0, 3, 7]] = torch.tensor([5, CODES - 1, 0])
    logits = generator.logits(tokens, Condition.of(PROMPTS))
    assert logits.shape == (2, SIDE**2, CODES)
    expected = torch.stack([by_hand(text, row) for text, row in zip(PROMPTS, tokens.tolist())])
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
    nothing = torch.stack([by_hand("", row) for row in tokens.tolist()])
    w = 1.75  # the release: (1 + w) cond - w uncond
    guided = generator.guided_logits(tokens, Condition.of(PROMPTS, 1 + w))
    torch.testing.assert_close(guided, (1 + w) * expected - w * nothing, atol=1e-4, rtol=1e-4)


def test_a_long_prompt_loses_its_last_words_and_keeps_its_end(generator):
    words = generator.encode_text(Condition.of(["cat " * 200, "cat " * 126]))["words"]
    assert words.shape == (2, 129)
    assert words[0].tolist() == [T2I, 0, *[5] * 126, 0] == words[1].tolist()


def test_it_keeps_the_contract(generator):
    assert generator.plan == Plan(show_o, cosine_times(18)) and generator.guidance == 2.75
    plan, ledger = generator.native_plan(5), Ledger()
    with metered(generator.network, ledger):
        images = sample(generator, PROMPTS, [3, 4], plan, 2.0)
    assert images.shape == (2, 3, 8, 8) and ledger.network_evaluations == 2 * 2 * 5
    torch.testing.assert_close(sample(generator, PROMPTS[1:], [4], plan, 2.0)[0], images[1], atol=1e-4, rtol=0)
    state = generator.start(Condition.of(PROMPTS[:1]), torch.tensor([0]), Plan(random_order, cosine_times(4)))
    after = generator.advance(state)
    assert generator.log_prob(state, after).isfinite().all()
    end = finish(generator, after)
    assert ((end.x >= 0) & (end.x < CODES)).all()
    assert torch.equal(generator.preview(end), generator.codec.decode(end.x))


def test_its_loss_trains_phi_and_not_the_tokenizer(generator):
    x1 = generator.codec.encode(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(2))
    assert x1.shape == (2, SIDE**2) and x1.unique().numel() > 1
    loss = generator.loss(x1, Condition.of(PROMPTS), generator.draw(x1, torch.arange(2)))
    loss.sum().backward()
    grown = generator.network.showo.lm_head.weight.grad.abs().sum(1)
    assert (grown[FIRST:MASKED] > 0).all() and (grown[:FIRST] == 0).all()
    assert generator.network.showo.model.layers[0].self_attn.q_layernorm.weight.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in generator.codec.tokenizer.parameters())
    generator.network.zero_grad(set_to_none=True)


def from_diffusers(tensors, side, levels):
    """The released keys under the names of diffusers' encoder or decoder of the same architecture."""
    renamed = {}
    for key, value in tensors.items():
        if not key.startswith(side) or "quant_conv" in key:
            continue
        name = key.removeprefix(f"{side}.")
        for k in range(levels):
            name = name.replace(f"down.{k}.", f"down_blocks.{k}.")
            name = name.replace(f"up.{k}.", f"up_blocks.{levels - 1 - k}.")
        for ours, theirs in (
            (".block.", ".resnets."), ("downsample.", "downsamplers.0."), ("upsample.", "upsamplers.0."),
            ("nin_shortcut", "conv_shortcut"), ("norm_out", "conv_norm_out"), ("mid.block_1", "mid_block.resnets.0"),
            ("mid.block_2", "mid_block.resnets.1"), ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
            ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"), ("mid.attn_1.", "mid_block.attentions.0.to_"),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        renamed[name] = value[..., 0, 0] if "attentions" in name and value.ndim == 4 else value
    return renamed


def test_the_tokenizer_is_the_autoencoder_that_diffusers_knows(home):
    from diffusers.models.autoencoders.vae import Decoder, Encoder

    tokenizer, tensors = load_magvit(home.parent / "magvitv2"), tiny_show_o.magvit_tensors()
    shape = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 32}
    encoder = Encoder(3, BITS, ("DownEncoderBlock2D",) * 2, double_z=False, **shape)
    decoder = Decoder(BITS, 3, ("UpDecoderBlock2D",) * 2, **shape)
    encoder.load_state_dict(from_diffusers(tensors, "encoder", 2))
    decoder.load_state_dict(from_diffusers(tensors, "decoder", 2))
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        z = torch.nn.functional.conv2d(
            encoder(x), tensors["encoder.quant_conv.weight"], tensors["encoder.quant_conv.bias"]
        )
        torch.testing.assert_close(tokenizer.encoder(x), z, atol=1e-4, rtol=1e-4)
        signs = z.sign()
        entered = torch.nn.functional.conv2d(
            signs, tensors["decoder.post_quant_conv.weight"], tensors["decoder.post_quant_conv.bias"]
        )
        torch.testing.assert_close(tokenizer.decoder(signs), decoder(entered), atol=1e-4, rtol=1e-4)


def test_tokens_of_a_picture_decode_to_what_its_signs_decode_to(generator):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    tokenizer = generator.codec.tokenizer
    with torch.no_grad():
        signs = torch.where(tokenizer.encoder(images * 2 - 1) > 0, 1.0, -1.0)
        expected = tokenizer.decoder(signs) / 2 + 0.5
    tokens = generator.codec.encode(images, torch.arange(2))
    torch.testing.assert_close(generator.codec.decode(tokens), expected, atol=1e-4, rtol=1e-4)
    first = signs[0, :, 0, 0]  # the first bit is the most significant
    assert int(tokens[0, 0]) == sum(2 ** (BITS - 1 - k) for k in range(BITS) if first[k] > 0)
    with pytest.raises(TastemakerError, match="reads pictures of 8 x 8 pixels, got 16 x 8"):
        generator.codec.encode(torch.rand(1, 3, 8, 16), torch.arange(1))
    with pytest.raises(TastemakerError, match="expected tokens from 0 to 15, got 16"):
        generator.codec.decode(torch.full((1, SIDE**2), CODES))


def test_the_released_sizes_make_the_released_keys():
    shapes = tiny_show_o.magvit_shapes(**tiny_show_o.RELEASE)
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    config = config_of(tensors, "memory")
    assert config.factor == 16 and config.bits == 13
    with torch.device("meta"):
        network = Magvit(config)
    assert {key: tuple(v.shape) for key, v in network.state_dict().items()} == shapes


def test_it_is_loaded_by_name_and_saved_for_load(home, tmp_path):
    generator = load_generator(f"show-o:{home}")
    with torch.no_grad():
        generator.network.showo.lm_head.bias.add_(torch.linspace(0, 3, VOCABULARY))
    generator.save(tmp_path / "tuned")
    again = load_generator(str(tmp_path / "tuned"))
    plan = generator.native_plan(3)
    assert torch.equal(sample(again, PROMPTS, [0, 1], plan), sample(generator, PROMPTS, [0, 1], plan))
    with pytest.raises(TastemakerError, match="show-o needs the path of a checkpoint or its folder"):
        load_generator("show-o")


def test_the_part_that_reads_clips_features_is_kept(home, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tiny_show_o.write(tmp_path)
    more = {"mm_projector.0.weight": (6, 5), "mm_projector.0.bias": (6,)}
    more |= {"mm_projector.2.weight": (6, 6), "mm_projector.2.bias": (6,)}
    tensors = load_file(other / "model.safetensors") | {k: torch.ones(v) for k, v in more.items()}
    save_file(tensors, other / "model.safetensors")
    found = load(other)
    assert set(found.network.state_dict()) == set(tensors)
    assert not found.network.mm_projector[0].weight.requires_grad
    plan = found.native_plan(3)
    assert torch.equal(sample(found, PROMPTS, [0, 1], plan), sample(load(home), PROMPTS, [0, 1], plan))


def rewrite(path, **changed):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_folders_that_do_not_fit_say_so(tmp_path):
    from safetensors.torch import load_file, save_file

    home = tiny_show_o.write(tmp_path)
    weights, tensors = home / "model.safetensors", load_file(home / "model.safetensors")
    save_file({**tensors, "showo.extra": torch.zeros(1)}, weights)
    with pytest.raises(TastemakerError, match=r"does not fit the network: tensors 1 not known \(showo.extra\)"):
        load(home)
    save_file({k: v for k, v in tensors.items() if "lm_head.bias" not in k}, weights)
    with pytest.raises(TastemakerError, match=r"1 missing \(showo.lm_head.bias\)"):
        load(home)
    save_file(tensors, weights)
    rewrite(home / "config.json", num_vq_tokens=15)
    with pytest.raises(TastemakerError, match="15 tokens, which make no square"):
        load(home)
    rewrite(home / "config.json", vocab_size=VOCABULARY + 1, num_vq_tokens=16)
    with pytest.raises(TastemakerError, match=f"vocab_size is {VOCABULARY + 1}, expected {VOCABULARY}"):
        load(home)
    (home / "config.json").write_text("{}")
    with pytest.raises(TastemakerError, match="is no Show-o: its config.json does not say vocab_size, llm_vocab"):
        load(home)
    rewrite(home / "config.json", vocab_size=VOCABULARY, llm_vocab_size=len(WORDS), codebook_size=CODES)
    rewrite(tmp_path / "phi-1_5" / "config.json", model_type="llama")
    with pytest.raises(TastemakerError, match=r"of the kind 'llama', expected 'phi'"):
        load(home)
    (tmp_path / "phi-1_5").rename(tmp_path / "elsewhere")
    with pytest.raises(
        TastemakerError, match="expected the folder of microsoft/phi-1_5 .* copy it there as 'phi-1_5'"
    ):
        load(home)
    with pytest.raises(TastemakerError, match="is no MAGVIT-v2 tokenizer as showlab/magvitv2"):
        load_magvit(weights)
