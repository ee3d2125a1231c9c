"""A vision-language model from a folder as verifier: LLaVA-OneVision or Qwen2-VL, read through transformers.

One prefill an answer, and the distribution of its first token; nothing is sampled. Rows that ask the same are one
batch, so nothing is padded. The picture is read once: its features are kept by content, and a follow-up question goes
on from the keys and values of the first one. `train judge base=vlm:FOLDER` adds an adapter (vlm_adapter.py), and
`vlm:RUN` reads it back. Conversations are in ChatML, which both kinds were tuned with.

Letters: B batch, n tokens of a picture, D width, L tokens of a text, V vocabulary.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..devices import place
from ..errors import MissingExtra, TastemakerError
from . import questions
from .asked import Answers, Asked
from .questions import Conversation
from .vlm_kinds import KINDS
from .yes_no import answer_log_prob

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
END = "<|im_end|>"
SPELLINGS = {word: [f"{space}{w}" for space in ("", " ") for w in (word, word.capitalize(), word.upper())]
             for word in (questions.YES, questions.NO)}  # fmt: skip
KEPT = 64  # pictures whose features are kept


def text_of(conversation: Conversation, picture: str) -> str:
    """In ChatML, the picture's mark before the first question, ending where the answer begins."""
    text = SYSTEM
    for k, (question, answer) in enumerate(conversation):
        text += f"<|im_start|>user\n{picture if k == 0 else ''}{question}{END}\n<|im_start|>assistant\n"
        text += f"{answer}{END}\n" if answer else ""
    return text


@dataclass
class Prefix:
    """The keys and values of a first question about pictures."""

    ids: tuple[int, ...]
    pictures: list[str]
    cache: Any


class LocalVlm(Asked):
    """A verifier that asks `model`, a transformers model of one of KINDS. batch: pictures at once."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        said: dict[str, Any],
        name: str = "vlm",
        batch: int = 16,
        preview: Callable[[str], Conversation] = questions.potential,
    ):
        super().__init__(name, str(getattr(model.config, "_name_or_path", "")), preview)
        self.network, self.tokenizer, self.batch = model, tokenizer, batch
        self.kind: Any = KINDS[model.config.model_type](model.config, said)
        self.inner = getattr(model, "model", model)
        self.ids = {word: self._single(spelled) for word, spelled in SPELLINGS.items()}
        self._features: OrderedDict[str, Tensor] = OrderedDict()
        self._prefix: Prefix | None = None
        self.prefixes_used = 0  # pictures whose first question was not read again

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def answers(self, images: Tensor, conversations: Sequence[Conversation]) -> Answers:
        """(B,) each; rows of one conversation go together, `batch` at a time."""
        yes, no = torch.empty(len(images)), torch.empty(len(images))
        for rows in self._alike(conversations):
            with torch.no_grad():
                logits = self.first_logits(images[rows], conversations[rows[0]])
            yes[rows], no[rows] = (answer_log_prob(logits, self.ids[w]).cpu() for w in SPELLINGS)
        return Answers(yes, no)

    @torch.no_grad()
    def texts(self, images: Tensor, conversations: Sequence[Conversation], most: int = 48) -> list[str]:
        """The likeliest words, a token at a time, at most `most`."""
        out = [""] * len(images)
        stop = self.tokenizer.convert_tokens_to_ids(END)
        for rows in self._alike(conversations):
            made, cache = self._read(images[rows], self._tokens(conversations[rows[0]]))
            found: list[Tensor] = []
            for _ in range(most):
                found.append(made.argmax(-1))
                if (torch.stack(found, 1) == stop).any(1).all():
                    break
                made = self._go_on(images[rows], found[-1][:, None], cache)
            for i, row in enumerate(torch.stack(found, 1).tolist()):
                ids = row[: row.index(stop)] if stop in row else row
                out[rows[i]] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return out

    def first_logits(self, images: Tensor, conversation: Conversation, remember: bool = True) -> Tensor:
        """(B, 3, H, W) in [0, 1], all asked the same -> (B, V) float32 at the answer's first token."""
        ids, known = self._tokens(conversation), self._prefix
        names = [_name(image) for image in images] if remember else []
        shared = remember and len(conversation) > 1 and known is not None
        if shared and known and known.ids == ids[: len(known.ids)] and set(names) <= set(known.pictures):
            cache = copy.deepcopy(known.cache)
            cache.batch_select_indices(torch.tensor([known.pictures.index(name) for name in names]))
            self.prefixes_used += len(names)
            rest = torch.tensor([ids[len(known.ids) :]] * len(images), device=self.device)
            return self._go_on(images, rest, cache)
        logits, cache = self._read(images, ids, remember)
        if remember and len(conversation) == 1:
            self._prefix = Prefix(ids, names, cache)
        return logits

    # the parts of a pass

    def _tokens(self, conversation: Conversation) -> tuple[int, ...]:
        text = text_of(conversation, self.kind.picture)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _read(self, images: Tensor, ids: tuple[int, ...], remember: bool = True) -> tuple[Tensor, Any]:
        """(B, V) behind a text with a picture in it, and its keys and values."""
        place = ids.index(self.kind.token)
        features = self._seen(images, remember)
        words = self.network.get_input_embeddings()(torch.tensor([ids] * len(images), device=self.device))
        parts = [words[:, :place], features.to(words), words[:, place + 1 :]]
        where = self.kind.positions(place, images, features.shape[1], len(ids) - place - 1).to(self.device)
        out = self.inner.language_model(inputs_embeds=torch.cat(parts, 1), position_ids=where, use_cache=remember)
        return self._logits(out), out.past_key_values

    def _go_on(self, images: Tensor, ids: Tensor, cache: Any) -> Tensor:
        """(B, V) behind (B, L) more tokens; the cache grows by them."""
        past, count = cache.get_seq_length(), ids.shape[1]
        tokens = self._features_of(images).shape[1]
        # positions behind the picture count on by one, so any split of the words before and after it gives the last
        where = self.kind.positions(1, images, tokens, past - tokens - 1 + count)[..., -count:].to(self.device)
        words = self.network.get_input_embeddings()(ids)
        out = self.inner.language_model(
            inputs_embeds=words, position_ids=where, past_key_values=cache, use_cache=True
        )
        return self._logits(out)

    def _logits(self, out: Any) -> Tensor:
        return self.network.lm_head(out.last_hidden_state[:, -1]).float()

    def _seen(self, images: Tensor, remember: bool) -> Tensor:
        return self._features_of(images) if remember else self.kind.features(self.inner, images.to(self.device))

    def _features_of(self, images: Tensor) -> Tensor:
        """(B, n, D); pictures that were met before are not read again."""
        names = [_name(image) for image in images]
        new = list({name: i for i, name in enumerate(names) if name not in self._features}.values())
        found = {name: self._features[name] for name in names if name in self._features}
        if new:
            seen = self.kind.features(self.inner, images[new].float().to(self.device))
            found |= zip((names[i] for i in new), seen)
        self._features.update(found)
        while len(self._features) > max(KEPT, 2 * self.batch):
            self._features.popitem(last=False)
        return torch.stack([found[name] for name in names])

    def _alike(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        groups: dict[Conversation, list[int]] = {}
        for k, one in enumerate(conversations):
            groups.setdefault(one, []).append(k)
        return [rows[i : i + self.batch] for rows in groups.values() for i in range(0, len(rows), self.batch)]

    def _single(self, spelled: Sequence[str]) -> list[int]:
        """The ids of the spellings that are one token. Raises TastemakerError where none is."""
        made = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in spelled]
        unknown = self.tokenizer.unk_token_id
        ids = sorted({one[0] for one in made if len(one) == 1 and one[0] != unknown})
        if not ids:
            raise TastemakerError(f"the tokenizer has no single token for '{spelled[0]}'; the answer cannot be read")
        return ids


def _name(image: Tensor) -> str:
    return hashlib.sha256(image.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def load_vlm(where: str, preview: Callable[[str], Conversation] = questions.potential) -> LocalVlm:
    """A model's folder, or a run of `train judge base=vlm:FOLDER`. Raises MissingExtra without transformers, and
    TastemakerError for a folder of another kind."""
    folder = Path(where)
    if (folder / "model.safetensors").is_file() and not (folder / "config.json").is_file():
        from .vlm_adapter import load_adapter

        return load_adapter(folder)
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "models") from error
    if not (folder / "config.json").is_file():
        raise TastemakerError(f"{folder} is not the folder of a model: expected config.json in it")
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in KINDS:
        raise TastemakerError(f"{folder} is of the kind '{kind}'; vlm reads {', '.join(KINDS)}")
    half = torch.float16 if torch.cuda.is_available() else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=half, local_files_only=True, use_safetensors=True
    )
    model = place(model.eval().requires_grad_(False))
    file = folder / "preprocessor_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return LocalVlm(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), said, preview=preview)
