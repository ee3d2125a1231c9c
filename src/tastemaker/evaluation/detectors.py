"""Object detectors from folders that transformers saved, read strictly and never downloaded.

A folder has config.json (with the names of its classes), weights and preprocessor_config.json. Pictures are brought
to the network's size with Pillow as that file says. Letters: B batch, Q queries, O classes, H W.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.official import read_json
from ..errors import MissingExtra, TastemakerError
from ..object_rules import Box
from ..picture_bytes import as_array
from ..records import Provenance
from ..weights import device_of, file_hash

Reader = Callable[..., "list[Instance] | str"]  # what a network says of one picture, or that it says nothing
NOTHING = "the detector's answer is not finite"
FLOOR = 0.05  # boxes of a lower score are not kept
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
UNUSED = ("n/a", "background")  # ids that COCO skips
NAMED = {  # other names of COCO's classes -> GenEval's
    "mouse": "computer mouse", "remote": "tv remote", "remote control": "tv remote", "keyboard": "computer keyboard",
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv", "television": "tv", "hair dryer": "hair drier",
    "hairdryer": "hair drier", "cellphone": "cell phone", "mobile phone": "cell phone", "doughnut": "donut",
    "hotdog": "hot dog", "teddybear": "teddy bear",
}  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """One object. mask (H, W) bool, of the picture's own size, where the detector gives one."""

    name: str
    box: Box
    mask: NDArray[np.bool_] | None = None


def geneval_name(label: str) -> str:
    """GenEval's name of a class, whatever the folder calls it."""
    plain = " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
    return NAMED.get(plain, plain)


@dataclass(frozen=True)
class Preparation:
    """What the network wants to see. A picture is resized to `fixed`, or its shorter side to `shortest` unless the
    longer one would exceed `longest`; pixels are (value * scale - mean) / std; sides are filled up to multiples."""

    fixed: tuple[int, int] | None = None  # height, width
    shortest: int = 800
    longest: int | None = 1333
    resample: int = int(Image.Resampling.BILINEAR)
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    multiple: int = 1

    def __str__(self) -> str:
        size = f"{self.fixed[0]} x {self.fixed[1]}" if self.fixed else f"shorter side {self.shortest}"
        return f"{size}, longest {self.longest}, Pillow filter {self.resample}, multiples of {self.multiple}"

    def size(self, height: int, width: int) -> tuple[int, int]:
        if self.fixed:
            return self.fixed
        short, long = sorted((height, width))
        exact = float(self.shortest)
        if self.longest is not None and long / short * exact > self.longest:
            exact = self.longest * short / long
        shorter, longer = round(exact), int(exact * long / short)
        return (longer, shorter) if height > width else (shorter, longer)

    def __call__(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) in [0, 1] -> pixels (B, 3, h, w) and the part (height, width) of them that is the picture."""
        height, width = self.size(*images.shape[-2:])
        sized = [
            Image.fromarray(a).resize((width, height), Image.Resampling(self.resample)) for a in as_array(images)
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(s, np.float32) for s in sized])).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        right, below = -width % self.multiple, -height % self.multiple
        return F.pad((pixels * self.scale - mean) / std, (0, right, 0, below)), (height, width)


def read_preparation(folder: Path) -> Preparation:
    """From preprocessor_config.json, or processor_config.json. Raises TastemakerError for what it cannot follow."""
    if (folder / "preprocessor_config.json").is_file():
        said = read_json(folder / "preprocessor_config.json")
    else:
        said = read_json(folder / "processor_config.json").get("image_processor", {})
    normalised = said.get("do_normalize", True)
    return Preparation(
        **_size_of(said, folder),
        resample=int(said.get("resample", Image.Resampling.BILINEAR)),
        scale=float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0,
        mean=tuple(said.get("image_mean") or (0.485, 0.456, 0.406)) if normalised else (0.0,) * 3,
        std=tuple(said.get("image_std") or (0.229, 0.224, 0.225)) if normalised else (1.0,) * 3,
        multiple=int(said.get("size_divisor") or said.get("size_divisibility") or 1),
    )


def _size_of(said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    size = said.get("size", {"shortest_edge": 800, "longest_edge": 1333})
    if isinstance(size, int):  # of the first releases
        return {"shortest": size, "longest": said.get("max_size")}
    if "shortest_edge" in size:
        return {"shortest": int(size["shortest_edge"]), "longest": size.get("longest_edge", said.get("max_size"))}
    if "height" in size and "width" in size:
        return {"fixed": (int(size["height"]), int(size["width"]))}
    raise TastemakerError(f"{folder}: cannot follow the size {size}; expected shortest_edge, or height and width")


class FolderDetector:
    """read: `of_masks` or `of_boxes`."""

    floor = FLOOR

    def __init__(
        self,
        network: nn.Module,
        names: Mapping[int, str],
        prepare: Preparation,
        read: Reader,
        provenance: Provenance,
    ):
        self.network, self.names, self.prepare, self.read = network.eval().requires_grad_(False), names, prepare, read
        self.classes, self.provenance = frozenset(names.values()), provenance

    @torch.no_grad()
    def instances(self, images: Tensor) -> list[list[Instance] | str]:
        """(B, 3, H, W) in [0, 1] -> for each picture its objects, or why there is no answer. Scores above FLOOR."""
        pixels, part = self.prepare(images)
        seen = self.network(pixel_values=pixels.to(device_of(self.network)))
        padded, size = tuple(pixels.shape[-2:]), tuple(images.shape[-2:])
        return [self.read(seen, self.names, row, part, padded, size) for row in range(len(images))]


def of_masks(
    seen: Any, names: Mapping[int, str], row: int, part: Sequence[int], padded: Sequence[int], size: Sequence[int]
) -> list[Instance] | str:
    """Mask2Former's instances (Cheng et al. 2022, arXiv 2112.01527) as the official evaluation's detector reads them:
    the Q best pairs of query and class; score = class probability x mean probability inside the mask; the box around
    the mask. Masks are enlarged as logits, to the pixels, and the picture's part of them to the picture's size."""
    if not finite(seen.class_queries_logits[row], seen.masks_queries_logits[row]):
        return NOTHING
    classes = seen.class_queries_logits[row].float().softmax(-1)[:, :-1]  # (Q, O)
    scores, places = classes.flatten().topk(len(classes))
    keep = scores > FLOOR
    scores, places = scores[keep], places[keep]
    if not len(scores):
        return []
    logits = seen.masks_queries_logits[row].float()[places // classes.shape[1]][None]  # (1, n, h, w)
    logits = F.interpolate(logits, tuple(padded), mode="bilinear", align_corners=False)[..., : part[0], : part[1]]
    logits = F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)[0]  # (n, H, W)
    masks = logits > 0
    inside = (logits.sigmoid() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
    found = zip((scores * inside).tolist(), (places % classes.shape[1]).tolist(), masks.cpu().numpy())
    return [Instance(names[k], around(mask, score), mask) for score, k, mask in found if score > FLOOR and k in names]


def finite(*values: Tensor) -> bool:
    return all(bool(v.isfinite().all()) for v in values)


def around(mask: NDArray[np.bool_], score: float) -> Box:
    """The smallest box that holds a mask which is not empty."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return Box(float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1), score)


def of_boxes(
    seen: Any, names: Mapping[int, str], row: int, part: Sequence[int], padded: Sequence[int], size: Sequence[int]
) -> list[Instance] | str:
    """Boxes of the DETR family (arXiv 2005.12872). A head with one class more than there are names has a softmax with
    "nothing" as its last: a query is its best class. Any other has a sigmoid a class: the Q best pairs of query and
    class. Boxes end where the picture does."""
    if not finite(seen.logits[row], seen.pred_boxes[row]):
        return NOTHING
    logits, places = seen.logits[row].float(), seen.pred_boxes[row].float()  # (Q, O), (Q, 4): centre and size, shares
    if logits.shape[-1] == names_in(names) + 1:
        scores, kinds = logits.softmax(-1)[:, :-1].max(-1)
        queries = torch.arange(len(logits), device=logits.device)
    else:
        scores, best = logits.sigmoid().flatten().topk(len(logits))
        queries, kinds = best // logits.shape[-1], best % logits.shape[-1]
    centre, sides = places[queries].cpu().split(2, -1)
    whole = torch.tensor([size[1], size[0]])
    corners = torch.cat([(centre - sides / 2) * whole, (centre + sides / 2) * whole], -1)
    corners = corners.clamp_min(0).minimum(torch.cat([whole, whole]))
    rows = zip(scores.tolist(), kinds.tolist(), corners.tolist())
    return [
        Instance(names[k], Box(x1, y1, x2, y2, score))
        for score, k, (x1, y1, x2, y2) in rows
        if score > FLOOR and k in names
    ]


def names_in(names: Mapping[int, str]) -> int:
    """How many classes the head has: ids may leave some out."""
    return max(names) + 1


def load_mask2former(folder: str | Path, device: torch.device | str = "cpu") -> FolderDetector:
    """An instance segmentation folder, such as Mask2Former's of COCO. Raises as `load_folder` does."""
    return load_folder(folder, "mask2former", "AutoModelForUniversalSegmentation", of_masks, device)


def load_boxes(folder: str | Path, device: torch.device | str = "cpu") -> FolderDetector:
    """Any folder of AutoModelForObjectDetection: DETR, RT-DETR, YOLOS, ... Raises as `load_folder` does."""
    return load_folder(folder, "detector", "AutoModelForObjectDetection", of_boxes, device)


def load_folder(
    folder: str | Path, kind: str, loader: str, read: Reader, device: torch.device | str
) -> FolderDetector:
    """Raises TastemakerError where the folder is not whole, a weight of the network is not in it (weights under other
    names leave a network that finds nothing), or classes have no names; MissingExtra without transformers."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise TastemakerError(
            f"expected a detector's folder (config.json, weights, preprocessor_config.json): {folder}"
        )
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra("transformers", "models")
    import transformers

    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise TastemakerError(f"{folder} holds no weights; expected {' or '.join(WEIGHTS)}")
    try:
        network, report = getattr(transformers, loader).from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise TastemakerError(f"cannot read {folder} as a {kind}: {type(error).__name__}: {error}") from error
    lost = sorted(report["missing_keys"])
    if lost:
        raise TastemakerError(
            f"{file} lacks {len(lost)} weights of the network, such as {', '.join(lost[:3])}; they would be random. "
            "Convert the weights to the names of this architecture"
        )
    prepare = read_preparation(folder)
    about = Provenance(f"{kind}:{folder.name}", file_hash(file), str(prepare))
    return FolderDetector(network.float().to(device), class_names(network.config, folder), prepare, read, about)


def class_names(config: Any, folder: Path) -> dict[int, str]:
    """Class id -> GenEval's name. Raises TastemakerError where the folder gives no names."""
    said = {int(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()}
    if not said or all(name == f"LABEL_{k}" for k, name in said.items()):
        raise TastemakerError(f"{folder / 'config.json'} gives its classes no names; expected `id2label`")
    return {k: geneval_name(name) for k, name in said.items() if name.casefold() not in UNUSED}
