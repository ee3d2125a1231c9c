"""What pictures look like and how unlike they are: figures known from plain colours and simple geometry."""

import math

import numpy as np
import pytest
import torch

from tastemaker.errors import TastemakerError
from tastemaker.evaluation import drift as looks
from tastemaker.evaluation.diversity import cosine, diversity, diversity_difference, euclidean, per_prompt


def plain(red, green, blue):
    return torch.tensor([red, green, blue]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)


def halves(left, right):
    return torch.cat([plain(*left)[..., :4], plain(*right)[..., :4]], 3)


@pytest.mark.parametrize(
    "image, expected",
    [
        (plain(0.0, 0.0, 0.0), (0, 0, 0, 0, 0, 0)),
        (plain(0.5, 0.5, 0.5), (0.5, 0, 0, 0, 0.5, 0)),
        (plain(1.0, 0.0, 0.0), (0.299, 1, 0, 0.3 * 255 * math.hypot(1, 0.5), 0, 0)),
        (plain(0.8, 0.4, 0.4), (0.4 + 0.4 * 0.299, 0.5, 0, 0.3 * 255 * 0.4 * math.hypot(1, 0.5), 0.4, 0)),
        (halves((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), (0.5, 0, 0.5, 0, 0.5, 255**2 / 3)),
        (halves((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), (0.443, 1, 0.144, 255 + 0.3 * 127.5, 0, (0.288 * 255) ** 2 / 3)),
    ],
)
def test_figures_of_plain_pictures(image, expected):
    found = looks.figures(image)
    assert list(found) == ["brightness", "saturation", "contrast", "colourfulness", "whiteness", "sharpness"]
    assert list(found)[:5] == [f.__name__ for f in looks.OF_DRL]
    assert [v.item() for v in found.values()] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_figures_are_per_picture_and_differentiable():
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    together, alone = looks.figures(images), looks.figures(images[3:4])
    for name, values in together.items():
        assert values.shape == (5,)
        torch.testing.assert_close(values[3:4], alone[name])
        (gradient,) = torch.autograd.grad(values.sum(), images, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_blur_and_washing_out_move_the_figures_they_should():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(30, 3, 16, 16, generator=generator)
    before, prompts = looks.figures(images), torch.arange(30) // 3
    blurred = looks.figures(torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False))
    washed = looks.figures(0.5 + 0.5 * images)
    assert looks.paired_drift(before, blurred, prompts)["sharpness"].verdict() == "worse"
    verdicts = {name: i.verdict() for name, i in looks.paired_drift(before, washed, prompts).items()}
    assert verdicts == {name: "better" if name in ("brightness", "whiteness") else "worse" for name in before}
    other = looks.figures(torch.rand(40, 3, 16, 16, generator=generator) * 0.5)
    apart = looks.drift(before, prompts, other, torch.arange(40))
    assert apart["brightness"].value == pytest.approx(-0.25, abs=0.02) and apart["brightness"].verdict() == "worse"


def test_what_is_no_picture_is_refused():
    with pytest.raises(TastemakerError, match=r"\(B, 3, H, W\)"):
        looks.figures(torch.zeros(2, 1, 8, 8))
    with pytest.raises(TastemakerError, match="3 x 3"):
        looks.sharpness(torch.zeros(2, 3, 2, 8))


def test_distances_between_known_directions():
    features = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    np.testing.assert_allclose(cosine(features), [[0, 1, 2], [1, 0, 1], [2, 1, 0]], atol=1e-15)
    assert euclidean(features)[0, 2] == 4
    assert cosine(np.zeros((2, 2)))[0, 1] == 1


def test_diversity_is_the_mean_over_prompts_of_the_mean_over_pairs():
    features = np.array([[0.0], [1.0], [3.0], [5.0], [5.0]])  # pairs of prompt 7: 1, 3, 2; of prompt 9: 0
    prompts = np.array([7, 7, 7, 9, 9])
    assert per_prompt(features, prompts, euclidean).tolist() == [2.0, 0.0]
    assert diversity(features, prompts, euclidean).value == 1.0


def test_collapse_is_seen_in_pairs_and_single_pictures_are_left_out():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(20), 4)
    wide = rng.normal(size=(80, 16))
    narrow = np.repeat(rng.normal(size=(20, 16)), 4, 0) + 0.1 * rng.normal(size=(80, 16))
    assert diversity_difference(narrow, wide, prompts).verdict() == "worse"
    with pytest.warns(UserWarning, match="1 of 21"):
        assert diversity(np.r_[wide, wide[:1]], np.r_[prompts, 99]).count == 20
    with pytest.raises(TastemakerError, match="one prompt id per row"):
        diversity(wide, prompts[:5])
