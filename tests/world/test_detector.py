"""Detectors: targets and boxes are two views of one thing, the loss is a plain sum, files go round."""

import pytest
import torch
from torch.nn import functional as F

from tastemaker.errors import TastemakerError
from tastemaker.weights import save_weights
from tastemaker.world.detector import (
    CELL,
    GRID,
    NETWORKS,
    OUTPUTS,
    Detector,
    DetectorConfig,
    detection_loss,
    load_detector,
    new_detector,
    split,
    targets_of,
)
from tastemaker.world.grammar import COLORS, OBJECTS, spec_of
from tastemaker.world.scenes import compose
from tastemaker.world.train_detectors import Scenes

SMALL = {"convolutions": DetectorConfig("convolutions", 16, 1), "patches": DetectorConfig("patches", 24, 1)}


class Oracle(torch.nn.Module):
    """Says exactly what the targets say."""

    def __init__(self, targets, sure=6.0):
        super().__init__()
        self.targets, self.sure = targets, sure
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images):
        kind, tint = (self.targets[:, k].long() for k in (0, 1))
        logits = torch.full((len(images), len(OBJECTS), GRID, GRID), -8.0)
        tints = torch.zeros(len(images), len(COLORS) + 1, GRID, GRID)
        logits.scatter_(1, kind.clamp_min(0)[:, None], torch.where(kind >= 0, self.sure, -8.0)[:, None])
        tints.scatter_(1, tint[:, None], torch.where(kind >= 0, 9.0, 0.0)[:, None])
        return torch.cat([logits, tints, self.targets[:, 2:]], 1)


def test_boxes_of_perfect_answers_are_the_scenes_own():
    scenes = [compose(spec_of(seed), seed) for seed in range(200)]
    found = Detector(Oracle(targets_of(scenes))).detect(torch.zeros(200, 3, 64, 64))
    for scene, boxes in zip(scenes, found):
        assert sum(map(len, boxes.values())) == len(scene.items)
        for item in scene.items:
            nearest = min(boxes[item.name], key=lambda b: abs(b.centre[0] - item.x) + abs(b.centre[1] - item.y))
            assert nearest.centre == pytest.approx((item.x, item.y), abs=1e-3)
            assert nearest.size[0] == pytest.approx(item.side, abs=1e-3) and nearest.color == item.color
            assert nearest.score == pytest.approx(0.9975, abs=1e-3)


def test_doubtful_cells_and_neighbours_of_a_peak_give_no_box():
    targets = targets_of([compose(spec_of(1, "single_object"), 1)])
    assert Detector(Oracle(targets, sure=-2.3)).detect(torch.zeros(1, 3, 64, 64)) == [{}]  # 0.091
    assert Detector(Oracle(targets, sure=-2.1)).detect(torch.zeros(1, 3, 64, 64)) != [{}]  # 0.109

    class Blob(Oracle):
        def forward(self, images):
            out = torch.full((1, OUTPUTS, GRID, GRID), -8.0)
            out[0, 3, 5:7, 5:7] = torch.tensor([[1.0, 2.0], [0.5, 1.5]])
            return out

    (boxes,) = Detector(Blob(targets)).detect(torch.zeros(1, 3, 64, 64))
    assert list(boxes) == [OBJECTS[3]] and len(boxes[OBJECTS[3]]) == 1


def test_targets_leave_the_cells_beside_a_centre_unjudged():
    scene = compose(spec_of(3, "single_object"), 3)
    item, kind = scene.items[0], targets_of([scene])[0, 0]
    i, j = int(item.x // CELL), int(item.y // CELL)
    assert kind[j, i] == OBJECTS.index(item.name)
    around = kind[j - 1 : j + 2, i - 1 : i + 2].flatten().tolist()
    assert sorted(around)[:8] == [-2] * 8 and (kind == -1).sum() == GRID**2 - 9


def test_the_loss_against_a_plain_loop():
    torch.manual_seed(0)
    targets = targets_of([compose(spec_of(seed), seed) for seed in range(3)])
    outputs = torch.randn(3, OUTPUTS, GRID, GRID)
    logits, tints, place = split(outputs)
    for b in range(3):
        total = 0.0
        for j in range(GRID):
            for i in range(GRID):
                kind = int(targets[b, 0, j, i])
                if kind == -2:
                    continue
                wanted = torch.zeros(len(OBJECTS))
                if kind >= 0:
                    wanted[kind] = 1
                    total += F.cross_entropy(tints[b, :, j, i], targets[b, 1, j, i].long()).item()
                    total += (place[b, :, j, i] - targets[b, 2:, j, i]).abs().sum().item()
                total += F.binary_cross_entropy_with_logits(logits[b, :, j, i], wanted, reduction="sum").item()
        assert float(detection_loss(outputs, targets)[b]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_learn_and_files_go_round(kind, tmp_path):
    detector = new_detector(SMALL[kind], "small", 0)
    network, scenes = detector.network, Scenes(5, 100)
    images, targets = (torch.stack(parts) for parts in zip(*(scenes[k] for k in range(4))))
    assert network(images).shape == (4, OUTPUTS, GRID, GRID)
    assert network(images)[:, : len(OBJECTS)].sigmoid().mean() < 0.05  # begins with the belief that cells are empty
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(6):
        loss = detection_loss(network(images), targets).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    detector.write(tmp_path / "d.safetensors", half=False)
    again = load_detector(tmp_path / "d.safetensors")
    assert again.name == "small" and torch.equal(again.network(images), network(images))
    assert not any(p.requires_grad for p in again.network.parameters())


def test_other_sides_are_brought_to_64():
    detector = new_detector(SMALL["convolutions"], "small", 0)
    assert (
        len(detector.detect(torch.rand(2, 3, 32, 32))) == 2 and len(detector.detect(torch.rand(1, 3, 128, 128))) == 1
    )


def test_a_file_of_another_model_is_refused(tmp_path):
    save_weights(tmp_path / "x.safetensors", {"w": torch.ones(1)}, {"kind": "tiny-flow"})
    with pytest.raises(TastemakerError, match="holds a model of kind 'tiny-flow', expected 'detector'"):
        load_detector(tmp_path / "x.safetensors")
