"""`show-o:FOLDER`: the released Show-o (Xie et al. 2024, arXiv 2408.12528) as a masked-token generator.

Three folders as they are published: showlab/show-o or showlab/show-o-512x512 (config.json and weights), and inside or
beside it the language model's `phi-1_5` (config.json and tokenizer; its weights are not read) and `magvitv2`
(showlab/magvitv2). The sequence of a row is

    [pad ...][t2i][bos words eos] [soi][N tokens][eoi]        129 + 1 + N + 1 places

Words and what stands before them look back only, the picture's part looks everywhere, and nobody looks at padding.
Of the vocabulary the words come first, then ten marks, then the codes of the picture, and last the mask. Phi is that
of transformers, with normalised queries and keys as the release sets it. Its w is g - 1 (guidance.py), its sampler
`unmasking.show_o`. The loss is over the codes alone; the release's softmax runs over words too.

Letters: B batch, L places of the text's part, N tokens, M places in all, V codes, D width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.official import assemble, read_json, shapes_of
from ..errors import TastemakerError, UnknownName
from ..protocols import Condition, Plan
from ..weights import save_weights
from .class_checkpoints import Checkpoint, read_checkpoint, square_side
from .diffusers_common import unwrapped
from .diffusers_load import DTYPES, require
from .magvit import FILES, MagvitCodec, load_magvit
from .masked import MaskedGenerator
from .unmasking import cosine_times, show_o

KIND = "show-o"
PHI, MAGVIT = ("phi-1_5", "microsoft/phi-1_5"), ("magvitv2", "showlab/magvitv2")
TEXT = 129  # L: the task's mark and 128 places of the release for the words
MARKS = ("pad", "soi", "eoi", "sov", "eov", "t2i", "mmu", "t2v", "v2v", "lvg")  # in their order behind the words
DEFAULTS = {256: (18, 2.75), 1024: (50, 6.0)}  # tokens: steps and guidance of the release, its w and 1


@dataclass(frozen=True)
class Layout:
    """Where things stand in the vocabulary."""

    words: int
    codes: int  # V

    @property
    def first(self) -> int:
        """The id of code 0."""
        return self.words + len(MARKS)

    @property
    def mask(self) -> int:
        return self.first + self.codes

    def mark(self, name: str) -> int:
        return self.words + MARKS.index(name)

    def line(self, ids: list[int], begin: int, end: int) -> list[int]:
        """The L ids of a text: padded at the left, cut at the right before the end's mark."""
        ids = ids if ids[:1] == [begin] else [begin, *ids]
        line = [self.mark("t2i"), *ids, end]
        line = line if len(line) <= TEXT else [*line[: TEXT - 1], end]
        return [self.mark("pad")] * (TEXT - len(line)) + line


def omni_attention(sequence: Tensor, padding: int, text: int) -> Tensor:
    """(B, M) ids -> (B, 1, M, M) bool, true where the place of the row may look at that of the column. The first
    `text` places look back, the others everywhere; at padding only padding looks."""
    places = torch.arange(sequence.shape[1], device=sequence.device)
    back = (places[None] <= places[:, None]) | (places >= text)[:, None]  # (M, M)
    pads = sequence == padding  # (B, M)
    return (back & (~pads[:, None, :] | pads[:, :, None]))[:, None]


class ShowONetwork(nn.Module):
    """Phi between ids and the scores of a picture's codes, under the release's keys."""

    def __init__(self, phi: Any, layout: Layout, projector: tuple[int, int] | None = None):
        """projector: widths of the part that reads CLIP's features in `show-o-w-clip-vit`, which drawing never
        calls."""
        super().__init__()
        self.layout = layout
        self.showo: Any = phi
        if projector:
            wide = projector[1]
            self.mm_projector = nn.Sequential(nn.Linear(*projector), nn.GELU(), nn.Linear(wide, wide))

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        """tokens (B, N) int64, below 0 where masked, words (B, L) int64 -> logits (B, N, V)."""
        at, phi = self.layout, self.showo
        inside = torch.where(tokens < 0, at.mask, tokens + at.first)
        begin, end = (tokens.new_full((len(tokens), 1), at.mark(name)) for name in ("soi", "eoi"))
        sequence = torch.cat([words, begin, inside, end], 1)  # (B, M)
        seen = omni_attention(sequence, at.mark("pad"), words.shape[1])
        states = phi.model(input_ids=sequence, attention_mask=seen, use_cache=False).last_hidden_state
        h = states[:, -tokens.shape[1] - 1 : -1]  # (B, N, D)
        codes = slice(at.first, at.mask)
        return F.linear(h, phi.lm_head.weight[codes], phi.lm_head.bias[codes])


class ShowO(MaskedGenerator):
    """A generator over `ShowONetwork`; the tokenizer of pictures is frozen."""

    network: ShowONetwork

    def __init__(self, network: ShowONetwork, codec: MagvitCodec, words: Any, about: Mapping[str, Any]):
        """words: Phi's tokenizer. about: what `save` writes beside the weights."""
        tokens = codec.side**2
        steps, guidance = DEFAULTS.get(tokens, DEFAULTS[256])
        super().__init__(network, tokens, codec, self.native_plan(steps), guidance)
        self.words, self.about, self.layout = words, dict(about), network.layout
        self.picture_size = codec.size

    @staticmethod
    def native_plan(steps: int) -> Plan:
        """The release's: by confidence, few tokens at first."""
        return Plan(show_o, cosine_times(steps))

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        begin, end = self.words.bos_token_id, self.words.eos_token_id
        texts = (self.words(prompt.text)["input_ids"] for prompt in condition.prompts)
        lines = [self.layout.line(list(ids), begin, end) for ids in texts]
        return {"words": torch.tensor(lines, dtype=torch.int64, device=self.device)}

    def predict_logits(self, tokens: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.network(tokens, condition.cache["words"]).float()

    def save(self, folder: str | Path) -> None:
        """FOLDER/model.safetensors under the release's keys; it remembers where Phi's and MAGVIT's folders are."""
        network = unwrapped(self.network)
        save_weights(Path(folder) / "model.safetensors", network.state_dict(), {"kind": KIND, **self.about})


def load(path: str | os.PathLike, device: str = "cpu", dtype: str = "float32") -> ShowO:
    """The folder of a released Show-o, or one that `save` wrote. dtype: of Phi.

    Raises MissingExtra without transformers, TastemakerError for files that do not fit or folders that are not
    there.
    """
    require("transformers")
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    checkpoint = read_checkpoint(path, FILES, "")
    said = checked(checkpoint)
    layout = Layout(said["llm_vocab_size"], said["codebook_size"])
    phi = folder_of(checkpoint, "llm_model_path", PHI, "the language model's config.json and tokenizer")
    magvit = folder_of(checkpoint, "magvit", MAGVIT, "the tokenizer of pictures")
    tokenizer = load_magvit(magvit)
    if 2**tokenizer.config.bits != layout.codes:
        raise TastemakerError(
            f"{magvit} has 2^{tokenizer.config.bits} codes and {checkpoint.path} {layout.codes}; expected those that "
            "were released together"
        )
    network = read_network(checkpoint, phi, layout).to(device, DTYPES[dtype])
    codec = MagvitCodec(tokenizer.to(device), square_side(said["num_vq_tokens"], checkpoint))
    sizes = {name: said[name] for name in ("vocab_size", "llm_vocab_size", "codebook_size", "num_vq_tokens")}
    about = {**sizes, "llm_model_path": str(phi), "magvit": str(magvit)}
    return ShowO(network, codec, read_words(phi, layout), about)


def checked(checkpoint: Checkpoint) -> dict[str, Any]:
    """What config.json says, with the release's defaults. Raises TastemakerError where it is that of another
    model."""
    said = {"codebook_size": 8192, "num_vq_tokens": 256, **checkpoint.said}
    missing = [name for name in ("vocab_size", "llm_vocab_size") if not isinstance(said.get(name), int)]
    if missing:
        raise TastemakerError(
            f"{checkpoint.path} is no Show-o: its config.json does not say {', '.join(missing)}; expected the folder "
            "of showlab/show-o or showlab/show-o-512x512"
        )
    whole = said["llm_vocab_size"] + len(MARKS) + said["codebook_size"] + 1
    if said["vocab_size"] != whole:
        raise TastemakerError(
            f"{checkpoint.path}: vocab_size is {said['vocab_size']}, expected {whole}: llm_vocab_size, "
            f"{len(MARKS)} marks, codebook_size and the mask"
        )
    return said


def folder_of(checkpoint: Checkpoint, key: str, names: tuple[str, ...], what: str) -> Path:
    """The folder that config.json names under `key`, or one of `names` inside or beside the checkpoint's. Raises
    TastemakerError where there is none."""
    here = checkpoint.path.parent
    near = [root / name for root in (here, here.parent) for name in names]
    told = [Path(checkpoint.said[key])] if checkpoint.said.get(key) else []
    found = next((folder for folder in (*told, *near) if (folder / "config.json").is_file()), None)
    if found is None:
        raise TastemakerError(
            f"expected the folder of {names[-1]} ({what}) inside or beside {here}, and there is none; copy it there "
            f"as '{names[0]}'"
        )
    return found.resolve()


def read_network(checkpoint: Checkpoint, phi: Path, layout: Layout) -> ShowONetwork:
    """Phi with the checkpoint's tensors, every key accounted for; trainable but for what drawing never calls."""
    from transformers import AutoConfig, AutoModelForCausalLM

    require_phi(phi)
    config = AutoConfig.from_pretrained(str(phi), local_files_only=True)
    config.vocab_size, config.qk_layernorm, config.use_cache = layout.mask + 1, True, False
    tensors, projector = checkpoint.tensors, None
    if "mm_projector.0.weight" in tensors:
        wide, narrow = shapes_of(tensors, ["mm_projector.0.weight"], str(checkpoint.path), "Show-o")[0]
        projector = (narrow, wide)

    def make() -> ShowONetwork:
        return ShowONetwork(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"), layout, projector)

    network = assemble(make, tensors, str(checkpoint.path))
    inner: Any = network.showo.model
    inner.rotary_emb = type(inner.rotary_emb)(config=config)  # not in any file, and on no device until now
    network.showo.requires_grad_(True)
    return network


def require_phi(folder: Path) -> None:
    """Raise TastemakerError for the folder of another language model."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "phi":
        raise TastemakerError(f"{folder} is of the kind '{kind}', expected 'phi' (microsoft/phi-1_5)")


def read_words(folder: Path, layout: Layout) -> Any:
    """Phi's tokenizer. Raises TastemakerError where it cannot be read or has other than the words of the release."""
    from transformers import AutoTokenizer

    try:
        words = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TastemakerError(f"cannot read the tokenizer in '{folder}': {reason}; copy the folder whole") from error
    if len(words) != layout.words:
        raise TastemakerError(f"the tokenizer in '{folder}' has {len(words)} words, expected {layout.words}")
    return words
