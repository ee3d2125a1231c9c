"""Which rewards there are, and how people name them: one line here per reward.

| what people type | what they get |
|---|---|
| `sharpness` | the constructor of that name, without arguments |
| `NAME:PATH` | the constructor of that name, with a path to weights, or the URL of an endpoint |
| `my_reward.py:score` | the user's own, see custom.py |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from ..devices import place
from ..errors import TastemakerError, UnknownName
from ..protocols import Reward
from ..weights import shipped
from .custom import load_custom


def _sharpness() -> Reward:
    from .sharpness import Sharpness

    return Sharpness()


def _harmony() -> Reward:
    from .harmony import Harmony

    return Harmony()


def _compressibility() -> Reward:
    from .compressibility import Compressibility

    return Compressibility()


def _alignment() -> Reward:
    from .alignment import Alignment

    return Alignment()


def _preference(path: str = "") -> Reward:
    from .preference import load_preference

    return load_preference(path)


def _imagereward(path: str) -> Reward:
    from .imagereward import load_imagereward

    return load_imagereward(path)


def _pickscore(path: str) -> Reward:
    from .pickscore import load_pickscore

    return load_pickscore(path)


def _sciscore(path: str) -> Reward:
    from .sciscore import load_sciscore

    return load_sciscore(path)


def _clipscore(path: str) -> Reward:
    from .clipscore import load_clipscore

    return load_clipscore(path)


def _hpsv2(path: str) -> Reward:
    from .hpsv2 import load_hpsv2

    return load_hpsv2(path, "hpsv2")


def _hpsv21(path: str) -> Reward:
    from .hpsv2 import load_hpsv2

    return load_hpsv2(path, "hpsv2.1")


def _laion_aesthetic(path: str) -> Reward:
    from .laion_aesthetic import load_laion_aesthetic

    return load_laion_aesthetic(path)


def _siglip_aesthetic(path: str) -> Reward:
    from .siglip_aesthetic import load_siglip_aesthetic

    return load_siglip_aesthetic(path)


def _discriminator(path: str) -> Reward:
    from .discriminator import load_discriminator

    return load_discriminator(path)


def _vqa(url: str) -> Reward:
    from .vqa import load_vqa

    return load_vqa(url)


def _orm(url: str) -> Reward:
    from .orm import load_orm

    return load_orm(url)


def _prm(url: str) -> Reward:
    from .orm import load_prm

    return load_prm(url)


def _judge(path: str = "") -> Reward:
    from .tiny_judge import load_tiny_judge

    return load_tiny_judge(path or shipped("tiny-judge"))


def _vlm(path: str) -> Reward:
    from .vlm import load_vlm

    return load_vlm(path)


def _pessimistic(said: str) -> Reward:
    from .ensemble import load_ensemble

    return load_ensemble(said)


def _ocr() -> Reward:
    from .ocr import OcrMatch

    return OcrMatch()


REWARDS: dict[str, Callable[..., Reward]] = {
    "sharpness": _sharpness,
    "harmony": _harmony,
    "compressibility": _compressibility,
    "alignment": _alignment,
    "preference": _preference,
    "imagereward": _imagereward,
    "pickscore": _pickscore,
    "sciscore": _sciscore,
    "clipscore": _clipscore,
    "hpsv2": _hpsv2,
    "hpsv2.1": _hpsv21,
    "laion-aesthetic": _laion_aesthetic,
    "siglip-aesthetic": _siglip_aesthetic,
    "discriminator": _discriminator,
    "vqa": _vqa,
    "orm": _orm,
    "prm": _prm,
    "judge": _judge,
    "vlm": _vlm,
    "pessimistic": _pessimistic,
    "ocr": _ocr,
}


def load_reward(name: str) -> Reward:
    """See the table above. Raises UnknownName with the nearest names, and TastemakerError where a path is missing,
    or given to a reward that takes none."""
    if name.endswith(".py") or ".py:" in name:
        return place(load_custom(name))
    short, colon, path = name.partition(":")
    if short not in REWARDS:
        raise UnknownName("reward", short, REWARDS, "Your own is given as FILE.py:NAME")
    make = REWARDS[short]
    wanted = list(inspect.signature(make).parameters.values())
    if colon and not wanted:
        raise TastemakerError(f"reward '{short}' takes no path, got '{path}'; write '{short}'")
    if not path and any(p.default is p.empty for p in wanted):
        raise TastemakerError(f"reward '{short}' needs the path of its weights; write '{short}:PATH'")
    return place(make(path) if path else make())


def load_rewards(names: str | Sequence[str]) -> list[Reward]:
    """Several, from a list or with commas between. Raises TastemakerError where two have one name."""
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    rewards = [load_reward(name) for name in wanted]
    called = [reward.name for reward in rewards]
    twice = next((n for i, n in enumerate(called) if n in called[:i]), None)
    if twice is not None:
        raise TastemakerError(f"two rewards are called '{twice}'; give one of them another `name`")
    return rewards
