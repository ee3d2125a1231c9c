"""Tiny random pipelines of the supported kinds, with tokenizers made on the spot, as diffusers saves them."""

from __future__ import annotations

import json
import pathlib
import string

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

WORDS = ("a", "the", "red", "blue", "cat", "dog", "two", "dogs", "on", "mat")
CHANNELS, SIDE = 4, 16  # of a latent; of a picture in pixels, the VAE halves it


def clip_tokenizer(folder: pathlib.Path, pad: str = "<|endoftext|>"):
    """Letter by letter, each letter also as the end of a word; no merges."""
    folder.mkdir(parents=True)
    letters = [c for c in string.printable if not c.isspace()]
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad, model_max_length=77
    )


def t5_tokenizer():
    """Whole words, closed by </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {token: i for i, token in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def clip(model, width: int, vocabulary: int, act: str = "quick_gelu"):
    return model(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=width,
            hidden_act=act,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    )


def t5():
    return T5EncoderModel(
        T5Config(
            vocab_size=3 + len(WORDS),
            d_model=40,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def vae(**more):
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=CHANNELS,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=SIDE,
        **more,
    )


def unet(width: int, **more):
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(16, 24),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=width,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **more,
    )


def ddim(**more):
    given = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return DDIMScheduler(**(given | {"set_alpha_to_one": False, "steps_offset": 1} | more))


def sd(folder: pathlib.Path, **scheduler) -> None:
    tokenizer = clip_tokenizer(folder / "made")
    diffusers.StableDiffusionPipeline(
        vae=vae(scaling_factor=0.18215),
        text_encoder=clip(CLIPTextModel, 16, len(tokenizer)),
        tokenizer=tokenizer,
        unet=unet(16),
        scheduler=ddim(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "pipeline")


def sdxl(folder: pathlib.Path) -> None:
    tokenizer, tokenizer_2 = clip_tokenizer(folder / "made"), clip_tokenizer(folder / "made_2", "!")
    diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip(CLIPTextModel, 16, len(tokenizer)),
        text_encoder_2=clip(CLIPTextModelWithProjection, 12, len(tokenizer), "gelu"),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet(
            28,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=12 + 6 * 8,
            use_linear_projection=True,
        ),
        scheduler=ddim(),
        add_watermarker=False,
    ).save_pretrained(folder / "pipeline")


def sd3(folder: pathlib.Path) -> None:
    tokenizer, tokenizer_2 = clip_tokenizer(folder / "made"), clip_tokenizer(folder / "made_2", "!")
    diffusers.StableDiffusion3Pipeline(
        vae=vae(scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(CLIPTextModelWithProjection, 16, len(tokenizer)),
        text_encoder_2=clip(CLIPTextModelWithProjection, 12, len(tokenizer), "gelu"),
        text_encoder_3=t5(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=t5_tokenizer(),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=SIDE // 2,
            patch_size=2,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=40,
            caption_projection_dim=32,
            pooled_projection_dim=28,
            pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder / "pipeline")


def flux(folder: pathlib.Path) -> None:
    tokenizer = clip_tokenizer(folder / "made")
    diffusers.FluxPipeline(
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(CLIPTextModel, 16, len(tokenizer)),
        text_encoder_2=t5(),
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * CHANNELS,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=40,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    ).save_pretrained(folder / "pipeline")


def amused(folder: pathlib.Path, **scheduler) -> None:
    tokenizer = clip_tokenizer(folder / "made", "!")
    diffusers.AmusedPipeline(
        vqvae=diffusers.VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=6,
            norm_num_groups=4,
            num_vq_embeddings=24,
            lookup_from_codebook=True,
        ),
        tokenizer=tokenizer,
        text_encoder=clip(CLIPTextModelWithProjection, 16, len(tokenizer)),
        transformer=diffusers.UVit2DModel(
            hidden_size=32,
            cond_embed_dim=16,
            micro_cond_encode_dim=4,
            micro_cond_embed_dim=20,
            encoder_hidden_size=16,
            vocab_size=32,
            codebook_size=24,
            in_channels=16,
            block_out_channels=16,
            num_res_blocks=1,
            block_num_heads=2,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            sample_size=SIDE // 2,
        ),
        scheduler=diffusers.AmusedScheduler(**({"mask_token_id": 31} | scheduler)),
    ).save_pretrained(folder / "pipeline")


KINDS = {"sd": sd, "sdxl": sdxl, "sd3": sd3, "flux": flux}  # flow and diffusion
MASKED = {"amused": amused}


def make(kind: str, folder: pathlib.Path, seed: int = 0, **scheduler) -> pathlib.Path:
    """Returns the pipeline folder. The same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        (KINDS | MASKED)[kind](folder, **scheduler)
    return folder / "pipeline"
