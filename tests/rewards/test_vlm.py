"""Vision-language models from a folder, tiny and random: the pass is transformers' own, a follow-up question reads
nothing again, an adapter learns and is read back."""

import json
import shutil

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

from tastemaker.errors import TastemakerError  # noqa: E402
from tastemaker.records import Prompt  # noqa: E402
from tastemaker.rewards import questions  # noqa: E402
from tastemaker.rewards.table import load_reward  # noqa: E402
from tastemaker.rewards.vlm import SPELLINGS, load_vlm, text_of  # noqa: E402
from tastemaker.rewards.vlm_adapter import load_adapter, student_of  # noqa: E402
from tastemaker.rewards.vlm_kinds import most_views  # noqa: E402
from tastemaker.rewards.yes_no import answer_log_prob  # noqa: E402

SPECIAL = ["<|im_start|>", "<|im_end|>", "<image>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "[UNK]"]
TEXT = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
        "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}  # fmt: skip
KINDS = ("llava_onevision", "qwen2_vl")
GRIDS = [[28, 28], [28, 56], [56, 28], [56, 56], [28, 84]]
PROMPTS = [Prompt("a red cat"), Prompt("a dog"), Prompt("a red cat")]


def tokenizer():
    asked = (questions.OUTCOME, questions.CLARITY, questions.POTENTIAL, questions.CRITIQUE, questions.PROCESS)
    words = ["yes", "no", "Yes", "No", "\n", "system", "user", "assistant", "You are a helpful", "red", "cat", "dog"]
    split = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Whitespace()])
    pieces = dict.fromkeys(SPECIAL)
    for text in [*words, *asked]:
        pieces |= dict.fromkeys(piece for piece, _ in split.pre_tokenize_str(text))
    assert len(pieces) < 256
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = split
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", additional_special_tokens=SPECIAL[:-1]
    )


def config_of(kind, ids):
    if kind == "llava_onevision":
        vision = {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14, "hidden_size": 16,
                  "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}  # fmt: skip
        return transformers.LlavaOnevisionConfig(
            vision_config=vision, text_config={**TEXT, "model_type": "qwen2"}, image_token_id=ids["<image>"],
            vision_feature_layer=-1, image_grid_pinpoints=GRIDS, vision_aspect_ratio="anyres_max_2",
        )  # fmt: skip
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "mlp_ratio": 2}
    text = {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    return transformers.Qwen2VLConfig(
        vision_config=vision, text_config=text, image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    path, words = tmp_path_factory.mktemp(request.param), tokenizer()
    ids = {w: words.convert_tokens_to_ids(w) for w in SPECIAL}
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config_of(request.param, ids))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    model.save_pretrained(path)
    words.save_pretrained(path)
    (path / "preprocessor_config.json").write_text('{"min_pixels": 3136, "max_pixels": 12544}')
    return path


def pictures(height=56, width=56, count=3):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def whole_pass(verifier, images, conversation):
    """(B, V) by transformers' own forward of Qwen2-VL, from pixels and ids."""
    kind, ids = verifier.kind, list(verifier._tokens(conversation))
    place, count = ids.index(kind.token), kind.features(verifier.inner, images).shape[1]
    ids = torch.tensor(ids[:place] + [kind.token] * count + ids[place + 1 :]).expand(len(images), -1)
    grid = torch.tensor([[1, *kind.grid(images)]] * len(images))
    more = {"image_grid_thw": grid, "mm_token_type_ids": (ids == kind.token).int()}
    return verifier.network(input_ids=ids, pixel_values=kind.pixels(images), **more).logits[:, -1].float()


@pytest.mark.parametrize("folder", ["qwen2_vl"], indirect=True)
def test_the_pass_is_that_of_transformers(folder):
    verifier = load_vlm(folder)
    for shape in ((56, 56), (56, 112), (84, 56)):
        images, asked = pictures(*shape), questions.outcome("a red cat")
        with torch.no_grad():
            ours, theirs = verifier.first_logits(images, asked), whole_pass(verifier, images, asked)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def processed(images):
    """Views (B, K, 3, S, S) by transformers' own processor, from bytes."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    processor = LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=GRIDS, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return processor([(255 * one).byte().numpy() for one in images], return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("folder", ["llava_onevision"], indirect=True)
@pytest.mark.parametrize("shape", [(56, 56), (28, 28), (50, 28), (20, 70), (100, 30), (40, 41), (200, 170)])
def test_views_and_their_features_are_those_of_transformers(folder, shape):
    verifier = load_vlm(folder)
    smooth = torch.nn.functional.interpolate(pictures(4, 4, count=2), shape, mode="bilinear")
    images = (255 * (0.2 + 0.6 * smooth)).byte() / 255
    views = verifier.kind.pixels(images)
    expected = processed(images)
    assert views.shape == expected.shape
    torch.testing.assert_close(views, expected, atol=4.01 / 255, rtol=0)  # its resizing rounds to bytes, twice
    if shape == (56, 56):
        torch.testing.assert_close(views[:, 1:], expected[:, 1:], atol=1e-6, rtol=0)  # nothing is resized
    with torch.no_grad():
        sizes = torch.tensor([shape] * 2)
        theirs = verifier.inner.get_image_features(views, sizes, vision_aspect_ratio="anyres_max_2")
        ours = verifier.kind.features(verifier.inner, images)
    torch.testing.assert_close(ours, torch.stack(list(theirs.pooler_output)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("folder", ["llava_onevision"], indirect=True)
def test_the_pass_over_views_is_that_of_transformers(folder):
    verifier, images, asked = load_vlm(folder), pictures(56, 30), questions.outcome("a red cat")
    ids = list(verifier._tokens(asked))
    place, token = ids.index(verifier.kind.token), verifier.kind.token
    with torch.no_grad():
        count = verifier.kind.features(verifier.inner, images).shape[1]
        repeated = torch.tensor(ids[:place] + [token] * count + ids[place + 1 :]).expand(3, -1)
        whole = verifier.network(
            input_ids=repeated,
            pixel_values=verifier.kind.pixels(images),
            image_sizes=torch.tensor([[56, 30]] * 3),
            vision_aspect_ratio="anyres_max_2",
        ).logits[:, -1]
        torch.testing.assert_close(verifier.first_logits(images, asked), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("folder", ["llava_onevision"], indirect=True)
def test_one_square_view_is_what_transformers_makes_of_it(folder):
    verifier = load_vlm(folder)
    verifier.kind.most = most_views("pad")
    images, inner = pictures(28, 28), verifier.inner
    with torch.no_grad():
        pixels = verifier.kind.pixels(images)[:, 0]
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        packed, lengths = inner.pack_image_features(
            [one[None] for one in inner.multi_modal_projector(states)],
            torch.tensor([[28, 28]] * 3),
            inner.image_newline,
        )
        ours = verifier.kind.features(inner, images)
    torch.testing.assert_close(ours, torch.stack(packed))
    assert lengths.tolist() == [5, 5, 5]
    wide = verifier.kind.pixels(pictures(14, 28))[:, 0]
    torch.testing.assert_close(wide[:, :, :7], torch.zeros(3, 3, 7, 28), atol=1e-6, rtol=0)  # padded in the mean
    asked = questions.outcome("a red cat")
    ids = verifier._tokens(asked)
    place = ids.index(verifier.kind.token)
    with torch.no_grad():
        words = verifier.network.get_input_embeddings()(torch.tensor([ids] * 3))
        embedded = torch.cat([words[:, :place], ours, words[:, place + 1 :]], 1)
        whole = verifier.network(inputs_embeds=embedded).logits[:, -1]
        torch.testing.assert_close(verifier.first_logits(images, asked), whole, rtol=1e-4, atol=1e-4)


def test_a_follow_up_question_goes_on_from_the_first(folder):
    shared, alone = load_vlm(folder), load_vlm(folder)
    images, progress = pictures(), torch.full((3,), 0.5)
    seen = []
    shared.inner.language_model.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    prompts = [PROMPTS[0]] * 3
    clear = shared.clear(images, prompts, progress)
    later = shared.potential(images[[2, 0]], prompts[:2], progress[:2])
    assert shared.prefixes_used == 2 and len(seen) == 2 and seen[1][0] == 2 and seen[1][1] < seen[0][1] // 2
    unshared = alone.potential(images[[2, 0, 1]], prompts, progress)
    assert alone.prefixes_used == 0
    torch.testing.assert_close(later, unshared[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clear, alone.clear(images, prompts, progress), rtol=1e-4, atol=1e-5)
    again = shared.potential(images[[1]], prompts[:1], progress[:1])  # the first question is still there
    torch.testing.assert_close(again, unshared[2:], rtol=1e-4, atol=1e-5)


def test_rows_of_different_prompts_are_asked_apart_and_a_picture_read_once(folder):
    verifier, images, read = load_vlm(folder), pictures(), []
    part = verifier.inner.visual if hasattr(verifier.inner, "visual") else verifier.inner.vision_tower
    part.register_forward_hook(lambda *_: read.append(1))
    odds = verifier.score(images, PROMPTS)
    one_by_one = torch.cat([load_vlm(folder).score(images[[k]], [PROMPTS[k]]) for k in range(3)])
    torch.testing.assert_close(odds, one_by_one, rtol=1e-4, atol=1e-5)
    verifier.score(images, PROMPTS), verifier.clear(images, PROMPTS, torch.zeros(3))
    assert len(read) == 2  # two prompts, and nothing afterwards
    asked = questions.outcome("a dog")
    with torch.no_grad():
        logits = verifier.first_logits(images[[1]], asked)
    yes, no = (answer_log_prob(logits, verifier.ids[word]) for word in SPELLINGS)
    torch.testing.assert_close(odds[[1]], yes - no, rtol=1e-4, atol=1e-5)
    assert verifier.judge(images, PROMPTS, ["a red cat?", "a dog?"]).shape == (3, 2)


def test_a_critique_is_the_likeliest_words(folder):
    verifier, images = load_vlm(folder), pictures()
    texts = verifier.texts(images, [questions.critique("a red cat")] * 3, most=4)
    with torch.no_grad():
        ids = list(verifier._tokens(questions.critique("a red cat")))
        made = []
        for _ in range(4):
            logits, _cache = verifier._read(images[:1], tuple(ids + made))
            made.append(int(logits.argmax(-1)))
    stop = verifier.tokenizer.convert_tokens_to_ids("<|im_end|>")
    made = made[: made.index(stop)] if stop in made else made
    assert texts[0] == verifier.tokenizer.decode(made, skip_special_tokens=True).strip()


def test_an_adapter_changes_nothing_at_first_learns_and_is_read_back(folder, tmp_path):
    verifier, images, asked = load_vlm(folder), pictures(), torch.tensor([0, 1, 2])
    before = verifier.score(images, PROMPTS)
    student = student_of(verifier, 4, 0)
    torch.testing.assert_close(verifier.score(images, PROMPTS), before, rtol=1e-4, atol=1e-5)
    trained = {n for n, p in student.network.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n and "language_model" in n for n in trained)
    answer = torch.tensor([True, False, True])
    optimiser = torch.optim.Adam([p for p in student.network.parameters() if p.requires_grad], 0.02)
    losses = []
    for _ in range(8):
        odds, words, places = student.logits(images, PROMPTS, asked)
        loss = torch.nn.functional.softplus(torch.where(answer, -odds, odds)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1 and words.shape == places.shape == (1, 3, 0)
    student.write(tmp_path / "model.safetensors")
    fresh = load_vlm(folder)
    student_of(fresh, 4, 1)
    again = load_reward(f"vlm:{tmp_path}")
    verifier._prefix = None
    torch.testing.assert_close(again.score(images, PROMPTS), verifier.score(images, PROMPTS), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(again.score(images, PROMPTS), fresh.score(images, PROMPTS), atol=1e-4)
    assert not any(p.requires_grad for p in load_adapter(tmp_path).network.parameters())


def test_folders_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(TastemakerError, match="expected config.json"):
        load_vlm(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(TastemakerError, match="is of the kind 'bert'; vlm reads llava_onevision, qwen2_vl"):
        load_vlm(tmp_path)


@pytest.mark.parametrize("folder", ["llava_onevision"], indirect=True)
def test_the_folder_says_how_it_looks(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    said = json.loads(config.read_text())
    for ratio, most in (("pad", 0), ("anyres_max_9", 9)):
        config.write_text(json.dumps({**said, "vision_aspect_ratio": ratio}))
        assert load_vlm(tmp_path / "other").kind.most == most
    config.write_text(json.dumps({**said, "vision_aspect_ratio": "square"}))
    with pytest.raises(TastemakerError, match="vision_aspect_ratio 'square'; expected anyres_max_9"):
        load_vlm(tmp_path / "other")


def test_the_words_are_chatml():
    text = text_of(questions.potential("a cat"), "<image>\n")
    assert text.startswith("<|im_start|>system\n") and text.endswith("<|im_start|>assistant\n")
    assert text.startswith(text_of(questions.clarity("a cat"), "<image>\n")) and text.count("<image>") == 1
