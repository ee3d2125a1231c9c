"""tiny-judge: the embedded verifier, one small network for all of PARM's tasks and the critique of PARM++.

The patches of a picture and the words of its prompt, from tiny-clip's towers, meet in a small transformer together
with one token a question: is it what was asked for (ORM), can the preview be judged (clarity), can it become what was
asked for (potential)? From the words' places comes which of them the picture gets wrong, from the patches' places
where. The tower's states of a picture are the shared prefix: they are computed once and kept by the picture's
content, so that the follow-up questions about a preview cost the small transformer alone. `train judge` makes it
(algorithms/judge.py).

Letters: B batch, N patches, L words, D width of the towers, W of a head, Q = 3 questions, M members, G = sqrt(N).
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.tiny_clip import TinyClip, TinyClipNetwork, TowerConfig, resize, transformer
from ..encoders.words import Vocabulary, split_words
from ..errors import TastemakerError
from ..records import Prompt, Provenance
from ..weights import device_of, file_hash, fill, load_weights, save_weights, shape_of
from .ensemble import pessimistic
from .freezing import freeze_tiny_clip

KIND = "judge"
QUESTIONS = ("score", "clear", "potential")
KEPT = 1024  # pictures whose states are kept
ALIKE, ODDS_OF_LIKENESS = 0.7, 20.0  # the cosine that says neither yes nor no, log-odds per unit of it, to begin with
LEARNED = {  # recipe of `train judge` -> what it teaches beside the score; a head that never learned is not asked
    "orm": (),
    "prm": ("potential",),
    "parm": ("clear", "potential"),
    "parm++": ("clear", "potential", "critique", "faults"),
}


@dataclass(frozen=True)
class JudgeConfig:
    """Shape of the heads."""

    width: int = 96  # W, a multiple of 32
    depth: int = 2  # blocks
    members: int = 1  # M


class JudgeHead(nn.Module):
    """States of a picture and a prompt, and how alike the towers find the two, to the log-odds of the questions, the
    words and the patches. Before it has learned, the likeness alone answers what is asked of the prompt."""

    def __init__(self, towers: int, config: JudgeConfig):
        super().__init__()
        width = config.width
        self.picture, self.words = nn.Linear(towers, width), nn.Linear(towers, width)
        self.question = nn.Parameter(torch.randn(1, len(QUESTIONS), width) * 0.02)
        self.blocks = transformer(width, width // 32, config.depth)
        self.answer, self.word, self.place = (nn.Linear(width, 1) for _ in range(3))
        self.likeness = nn.Parameter(torch.tensor([ODDS_OF_LIKENESS * (q != "clear") for q in QUESTIONS]))
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, picture: Tensor, said: Tensor, alike: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N + 1, D), (B, L + 1, D), (B,) -> (B, Q), (B, L), (B, N)."""
        asked = self.question.expand(len(picture), -1, -1)
        h = self.blocks(torch.cat([asked, self.words(said), self.picture(picture)], 1))
        asked, words, patches = h.split([len(QUESTIONS), said.shape[1], picture.shape[1]], 1)
        answers = self.answer(asked)[..., 0] + alike[:, None] * self.likeness
        return answers, self.word(words[:, 1:])[..., 0], self.place(patches[:, 1:])[..., 0]


class JudgeNetwork(nn.Module):
    """(B, 3, S, S) and (B, L) word numbers -> (M, B, Q), (M, B, L), (M, B, N), log-odds of yes, and of a fault."""

    def __init__(self, towers: TinyClipNetwork, config: JudgeConfig):
        super().__init__()
        self.config, self.towers = config, towers
        self.heads = nn.ModuleList(JudgeHead(towers.config.width, config) for _ in range(config.members))

    def forward(self, images: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.judge(self.towers.image.states(images), self.towers.text.states(words))

    def judge(self, picture: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the towers' states (B, N + 1, D) and (B, L + 1, D)."""
        image, text = self.towers.image.project(picture[:, 0]), self.towers.text.project(said[:, 0])
        alike = F.cosine_similarity(image, text) - ALIKE  # (B,)
        answers, words, places = zip(*(head(picture, said, alike) for head in self.heads))
        return torch.stack(answers), torch.stack(words), torch.stack(places)


class TinyJudge:
    """A `Verifier` with `faults`: `clear`, `potential`, `critique` and `faults` are there where its recipe teaches
    them, and the score of a process reward model is its potential. Prompts must use its words.

    kappa: pessimism; of several members the answer is the mean less kappa times their deviation, in log-odds.
    """

    differentiable = False
    range = (-math.inf, math.inf)

    def __init__(
        self, network: JudgeNetwork, vocabulary: Vocabulary, recipe: Any = None, digest: str = "", kappa: float = 0.0
    ):
        self.network, self.vocabulary, self.recipe, self.kappa = network, vocabulary, recipe or {}, kappa
        self.name, self.size = "judge", network.towers.config.size
        self.learned = self.recipe.get("config", {}).get("recipe", "parm++")
        self.provenance = Provenance(f"tiny-judge, kappa {kappa}", digest, f"bilinear-antialias-{self.size}")
        self._states: OrderedDict[str, Tensor] = OrderedDict()

    @classmethod
    def new(cls, clip: TinyClip, config: JudgeConfig, seed: int = 0) -> TinyJudge:
        """Fresh heads on towers as they are; the towers become the judge's own and may be trained."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(JudgeNetwork(clip.network, config), clip.vocabulary)

    @property
    def grid(self) -> int:
        """G: patches a side."""
        return self.size // 8

    # for training

    def freeze(self, share: float) -> None:
        """See freezing.py."""
        freeze_tiny_clip(self.network.towers, share)

    def logits(self, images: Tensor, prompts: Sequence[Prompt], question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1], the number of the question of each (B,) -> its log-odds (M, B), and those of a
        fault of words (M, B, L) and patches (M, B, N). Raises UnknownName for a word it does not know."""
        device = device_of(self.network)
        answers, words, places = self.network(resize(images, self.size).to(device), self._words(prompts))
        return answers[:, torch.arange(len(images)), question.to(device)], words, places

    # the verbs of a verifier

    def __getattr__(self, name: str) -> Any:
        if name not in LEARNED["parm++"] or name not in LEARNED[self.__dict__.get("learned", "parm++")]:
            raise AttributeError(name)
        return getattr(self, f"_{name}")

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """log P(yes) - log P(no) to "does the picture show what the prompt says?", (B,)."""
        return self._answer(images, prompts, "potential" if self.learned == "prm" else "score")

    def _clear(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        """P(the preview can be judged), (B,). How far it is, is not looked at: the picture alone decides."""
        return self._answer(images, prompts, "clear").sigmoid()

    def _potential(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        """P(the preview becomes what was asked for), (B,)."""
        return self._answer(images, prompts, "potential").sigmoid()

    def _critique(self, images: Tensor, prompts: Sequence[Prompt]) -> list[str]:
        """The words of each prompt that the picture gets wrong; where none is likely, the likeliest."""
        wrong = self._judged(images, prompts)[1].mean(0)  # (B, L)
        out = []
        for row, prompt in zip(wrong, prompts):
            said = split_words(prompt.text)[: len(row)]
            odds = row[: len(said)].tolist()
            found = [w for w, v in zip(said, odds) if v > 0] or [said[max(range(len(said)), key=odds.__getitem__)]]
            out.append(f"not as asked: {', '.join(dict.fromkeys(found))}")
        return out

    def _faults(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """P(the region is at fault), (B, G, G), rows from the top."""
        return self._judged(images, prompts)[2].mean(0).sigmoid().unflatten(1, (self.grid, self.grid)).cpu()

    def judge(self, images: Tensor, prompts: Sequence[Prompt], questions: Sequence[str]) -> Tensor:
        """P(the picture shows it) for each of Q statements in the judge's words, (B, Q)."""
        columns = [self.score(images, [Prompt(q)] * len(images)) for q in questions]
        return torch.stack(columns, 1).sigmoid() if columns else torch.empty(len(images), 0)

    def _answer(self, images: Tensor, prompts: Sequence[Prompt], question: str) -> Tensor:
        answers = self._judged(images, prompts)[0][..., QUESTIONS.index(question)]  # (M, B)
        values = pessimistic(answers, self.kappa).cpu()
        return values.masked_fill(~images.isfinite().flatten(1).all(1).cpu(), math.nan)

    @torch.no_grad()
    def _judged(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
        said = self.network.towers.text.states(self._words(prompts))
        return self.network.judge(self._prefix(images), said)

    def _words(self, prompts: Sequence[Prompt]) -> Tensor:
        return self.vocabulary.encode([p.text for p in prompts]).to(device_of(self.network))

    def _prefix(self, images: Tensor) -> Tensor:
        """The tower's states (B, N + 1, D); those of pictures that were met before are not computed again."""
        keys = [hashlib.sha256(i.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest() for i in images]
        new = list({key: i for i, key in enumerate(keys) if key not in self._states}.values())
        found = {key: self._states[key] for key in keys if key in self._states}
        if new:
            square = resize(images[new].float(), self.size).to(device_of(self.network))
            found |= zip((keys[i] for i in new), self.network.towers.image.states(square))
        self._states.update(found)
        while len(self._states) > KEPT:
            self._states.popitem(last=False)
        return torch.stack([found[key] for key in keys])

    # on disk

    def write(self, path: str | Path, half: bool = False) -> str:
        """One safetensors file, towers included; returns its sha256."""
        description = {
            "kind": KIND,
            "network": asdict(self.network.config),
            "towers": asdict(self.network.towers.config),
            "words": self.vocabulary.words,
            "length": self.vocabulary.length,
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description, half)


def load_tiny_judge(path: str | Path, kappa: float = 0.0) -> TinyJudge:
    """From a file, or a folder with `model.safetensors`, frozen. Raises TastemakerError for another kind."""
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    tensors, said = load_weights(path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    config = shape_of(JudgeConfig, said, str(path), ("towers", "words", "length"))
    towers = shape_of(TowerConfig, {"network": said["towers"]}, str(path))
    vocabulary = Vocabulary(said["words"], said["length"])
    network = JudgeNetwork(TinyClipNetwork(towers, len(vocabulary), vocabulary.length), config)
    fill(network, tensors, str(path))
    return TinyJudge(network.eval().requires_grad_(False), vocabulary, said.get("recipe"), file_hash(path), kappa)
