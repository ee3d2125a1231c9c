"""Detectors from folders: what their outputs mean by hand, sizes and names, and folders that must be refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_detectors
import torch
from PIL import Image
from public import write_clip_folder
from safetensors.torch import load_file, save_file

from tastemaker.encoders.clip import load_clip_folder
from tastemaker.errors import TastemakerError
from tastemaker.evaluation.colours import COLOURS, TEMPLATES, ColourNames, cut
from tastemaker.evaluation.detectors import (
    FLOOR,
    Instance,
    Preparation,
    around,
    geneval_name,
    load_boxes,
    load_mask2former,
    of_boxes,
    of_masks,
    read_preparation,
)
from tastemaker.evaluation.finders import ObjectFinder
from tastemaker.object_rules import Box
from tastemaker.records import Prompt

NAMES = {0: "cat", 1: "dog", 2: "bird"}
transformers = pytest.importorskip("transformers")
pytest.importorskip("scipy")  # Mask2Former's class asks for it


def log(*rows):
    return torch.tensor(rows, dtype=torch.float32).clamp_min(1e-9).log()


def test_instances_of_masks_by_hand():
    classes = log([0.9, 0.04, 0.02, 0.04], [0.2, 0.5, 0.0, 0.3], [0.0, 0.0, 0.01, 0.99])[None]
    masks = torch.full((1, 3, 4, 4), -50.0)
    masks[0, 0, 1:3, 0:2] = 50.0  # sure of it
    masks[0, 1, 0:2, 0:4] = 2.0  # sigmoid(2) = 0.88
    seen = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)
    found = {one.name: one for one in of_masks(seen, NAMES, 0, (4, 4), (4, 4), (4, 4))}
    assert set(found) == {"cat", "dog"}  # of three best pairs, the third is the second query as a cat
    assert found["dog"].box.score == pytest.approx(0.5 * 0.8808, abs=1e-4)
    both = [one.box.score for one in of_masks(seen, NAMES, 0, (4, 4), (4, 4), (4, 4)) if one.name == "cat"]
    assert both == pytest.approx([0.9, 0.2 * 0.8808], abs=1e-4)
    first = max(of_masks(seen, NAMES, 0, (4, 4), (4, 4), (4, 4)), key=lambda one: one.box.score)
    assert (first.box.x1, first.box.y1, first.box.x2, first.box.y2) == (0, 1, 2, 3)
    assert first.mask.shape == (4, 4) and first.mask.sum() == 4


def test_masks_are_enlarged_as_logits_without_the_padding():
    masks = torch.full((1, 1, 4, 4), -8.0)
    masks[0, 0, :, :2] = 8.0  # the left half of the padded picture
    seen = SimpleNamespace(class_queries_logits=log([0.9, 0.05, 0.02, 0.03])[None], masks_queries_logits=masks)
    (one,) = of_masks(seen, NAMES, 0, (16, 12), (16, 16), (32, 24))  # a quarter of the width is padding
    assert one.mask.shape == (32, 24) and (one.box.x1, one.box.y1, one.box.x2, one.box.y2) == (0, 0, 16, 32)
    masks[:] = -8.0
    assert of_masks(seen, NAMES, 0, (16, 12), (16, 16), (32, 24)) == []  # an empty mask is no object
    masks[0, 0, 0, 0] = float("nan")
    assert "not finite" in of_masks(seen, NAMES, 0, (16, 12), (16, 16), (32, 24))


def test_boxes_of_a_softmax_and_of_a_sigmoid_head_by_hand():
    places = torch.tensor([[[0.5, 0.5, 0.5, 0.25], [0.1, 0.5, 0.4, 1.0]]])
    softmax = SimpleNamespace(logits=log([0.6, 0.1, 0.0, 0.3], [0.2, 0.3, 0.1, 0.4])[None], pred_boxes=places)
    found = of_boxes(softmax, NAMES, 0, (1, 1), (1, 1), (40, 80))
    assert [(one.name, one.mask) for one in found] == [("cat", None), ("dog", None)]
    assert found[0].box == Box(20, 15, 60, 25, pytest.approx(0.6)) and found[1].box.x1 == 0  # ends at the picture
    odds = torch.tensor([[[2.0, -9.0, 1.0], [-9.0, 0.0, -9.0]]])
    found = of_boxes(SimpleNamespace(logits=odds, pred_boxes=places), NAMES, 0, (1, 1), (1, 1), (40, 80))
    assert [one.name for one in found] == ["cat", "bird"]  # the two best pairs, both of the first query
    assert found[0].box.score == pytest.approx(0.8808, abs=1e-4) and found[0].box.x1 == found[1].box.x1 == 20


def test_sizes_are_those_of_the_folder(tmp_path):
    usual = Preparation()
    assert usual.size(512, 512) == (800, 800) and usual.size(480, 640) == (800, 1066)
    assert usual.size(640, 480) == (1066, 800) and usual.size(200, 1000) == (267, 1333)
    assert Preparation(fixed=(640, 640)).size(100, 300) == (640, 640)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": 16, "max_size": 24, "size_divisor": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    made = read_preparation(tmp_path)
    pixels, part = made(torch.ones(2, 3, 8, 10))
    assert pixels.shape == (2, 3, 32, 32) and part == (16, 20)
    assert pixels[:, :, :16, :20].unique().tolist() == [1.0] and pixels[:, :, 16:].unique().tolist() == [0.0]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"max_height": 3}}))
    with pytest.raises(TastemakerError, match="cannot follow the size"):
        read_preparation(tmp_path)


def test_class_names_become_genevals():
    said = ["Mouse", "remote", "keyboard", "motorbike", "aeroplane", "sofa", "tvmonitor", "potted_plant", "person"]
    assert [geneval_name(name) for name in said] == [
        "computer mouse", "tv remote", "computer keyboard", "motorcycle", "airplane", "couch", "tv", "potted plant",
        "person",
    ]  # fmt: skip


def test_folders_load_and_answer(tmp_path):
    images = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    for make, load in ((tiny_detectors.mask2former, load_mask2former), (tiny_detectors.detr, load_boxes)):
        folder = make(transformers, tmp_path / load.__name__)
        detector = load(folder)
        assert detector.classes == {"cat", "dog", "computer mouse", "couch", "apple"}  # without N/A
        found = detector.instances(images)
        assert len(found) == 2 and all(one.name == "cat" and one.box.score > FLOOR for one in found[0])
        assert found[0] and all(0 <= one.box.x1 < one.box.x2 <= 48 and one.box.y2 <= 40 for one in found[0])
        alone = detector.instances(images[1:])[0]
        assert [one.box.score for one in alone] == pytest.approx([one.box.score for one in found[1]], abs=1e-4)
        assert len(detector.provenance.weight_hash) == 64
        if load is load_mask2former:
            assert all(one.box == around(one.mask, one.box.score) for one in found[0])
        dull = load(make(transformers, tmp_path / f"dull-{load.__name__}", lively=False))
        assert dull.instances(images) == [[], []]


def test_folders_that_would_be_silently_wrong_are_refused(tmp_path):
    folder = tiny_detectors.detr(transformers, tmp_path / "detr")
    weights = load_file(folder / "model.safetensors")
    renamed = {k.replace("class_labels_classifier", "classifier"): v for k, v in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TastemakerError, match=r"lacks 2 weights .*class_labels_classifier.*would be random"):
        load_boxes(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(k): f"LABEL_{k}" for k in range(6)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TastemakerError, match="no names"):
        load_boxes(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(TastemakerError, match="holds no weights"):
        load_boxes(folder)
    with pytest.raises(TastemakerError, match="expected a detector's folder"):
        load_mask2former(tmp_path / "absent")


def test_colours_are_asked_of_the_object_on_grey(tmp_path):
    write_clip_folder(transformers, tmp_path)
    clip = load_clip_folder(tmp_path)
    picture = Image.new("RGB", (40, 30), "blue")
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:30] = True
    one = Instance("cat", Box(5.4, 8.5, 30.0, 20.0), mask)
    part = cut(picture, one)
    assert part.size == (25, 12)  # 8.5 rounds to 8
    assert part.getpixel((0, 0)) == (0x99, 0x99, 0x99) and part.getpixel((6, 3)) == (0, 0, 255)
    assert cut(picture, Instance("cat", Box(5, 8, 5.2, 20))) is None
    namer = ColourNames(clip)
    red, gone = namer.name(picture, [one, Instance("cat", Box(5, 8, 5.2, 20))])
    texts = clip.text_vectors([t.format(colour=c, name="cat") for c in COLOURS for t in TEMPLATES])
    mean = torch.nn.functional.normalize(texts.reshape(10, 3, -1).mean(1), dim=-1)
    vector = clip.of_pixels(clip.view.open(part)[None])[0]
    assert gone is None and red == COLOURS[int((mean @ vector).argmax())]


def test_colours_are_named_only_where_a_prompt_asks(tmp_path):
    write_clip_folder(transformers, tmp_path / "clip")
    detector = load_boxes(tiny_detectors.detr(transformers, tmp_path / "detr"))
    finder = ObjectFinder(detector, ColourNames(load_clip_folder(tmp_path / "clip")))
    asked = Prompt("a red cat", spec={"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}]})
    plain = Prompt("a cat", spec={"tag": "single_object", "include": [{"class": "cat", "count": 1}]})
    named, bare = finder.find(torch.rand(1, 3, 40, 48).expand(2, -1, -1, -1), [asked, plain])
    assert {box.color for box in named["cat"]} <= set(COLOURS) and {box.color for box in bare["cat"]} == {None}
    assert set(finder.weights) == {"detector:detr", "clip:clip"} and finder.colours == "clip:clip"
