"""Rewards without weights: order on known degradations, gradients, any size, and each row on its own."""

import io
import math

import pytest
import torch
from PIL import Image

from tastemaker.errors import NotDifferentiable
from tastemaker.protocols import Reward
from tastemaker.rewards.compressibility import Compressibility
from tastemaker.rewards.harmony import TEMPLATES, Harmony, disharmony, hue_histogram, opponent, template_table
from tastemaker.rewards.sharpness import FLOOR, Sharpness, edge_energy, noise_level, smooth

REWARDS = [Sharpness(), Harmony(), Compressibility()]
SMOOTH = [Sharpness(), Harmony()]
name = lambda reward: reward.name  # noqa: E731


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawing(seed=0, count=6, size=64):
    """Clean pictures (B, 3, H, W): discs and bars of few colours on a light ground, edges one pixel wide."""
    g = generator(seed)
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    pictures = []
    for _ in range(count):
        picture = torch.full((3, size, size), 0.9)
        for k in range(3):
            cx, cy, r = (torch.rand(3, generator=g) * torch.tensor([44, 44, 8]) + torch.tensor([10, 10, 6])).tolist()
            inside = (r - ((x - cx) ** 2 + (y - cy) ** 2).sqrt()).clamp(-0.5, 0.5) + 0.5
            bar = (r / 2 - (x - cx).abs()).clamp(-0.5, 0.5) + 0.5
            cover = inside if k else bar
            color = torch.rand(3, 1, 1, generator=g) * 0.3 + torch.tensor([0.5, 0.2, 0.0]).view(3, 1, 1)
            picture = picture * (1 - cover) + color * cover
        pictures.append(picture)
    return torch.stack(pictures)


def noisy(images, std, seed=1):
    return (images + std * torch.randn(images.shape, generator=generator(seed))).clamp(0, 1)


@pytest.mark.parametrize("reward", REWARDS, ids=name)
def test_facts_and_ranges(reward):
    assert isinstance(reward, Reward) and reward.provenance.preprocessing
    values = reward.score(torch.cat([drawing(), torch.rand(4, 3, 64, 64, generator=generator())]), [])
    low, high = reward.range
    assert (
        values.shape == (10,) and values.dtype == torch.float32 and (low <= values).all() and (values <= high).all()
    )


@pytest.mark.parametrize("reward", REWARDS, ids=name)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (33, 20), (100, 64)])
def test_any_size(reward, size):
    images = torch.rand(2, 3, *size, generator=generator())
    assert reward.score(images, []).isfinite().all()
    assert reward.score(torch.ones(1, 3, *size), []).isfinite().all()


@pytest.mark.parametrize("reward", REWARDS, ids=name)
def test_a_row_alone_equals_the_row_in_a_batch(reward):
    images = torch.cat([drawing(count=4), torch.rand(4, 3, 64, 64, generator=generator())])
    alone = torch.cat([reward.score(images[i : i + 1], []) for i in range(8)])
    torch.testing.assert_close(reward.score(images, []), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reward", SMOOTH, ids=name)
def test_gradient_against_finite_differences(reward):
    images = noisy(drawing(count=2), 0.02).double().requires_grad_()
    reward.score(images, []).sum().backward()
    for seed in range(4):
        direction = torch.randn(images.shape, generator=generator(seed), dtype=torch.float64)
        step = 1e-7 * direction
        with torch.no_grad():
            numeric = (reward.score(images + step, []) - reward.score(images - step, [])).sum() / 2e-7
        torch.testing.assert_close((images.grad * direction).sum(), numeric, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reward", SMOOTH, ids=name)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_gradient_of_a_flat_picture_is_finite(reward, value):
    images = torch.full((1, 3, 16, 16), value, requires_grad=True)
    reward.score(images, []).sum().backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("reward", REWARDS, ids=name)
def test_a_picture_with_nan_gives_nan_and_spoils_no_other(reward):
    images = drawing(count=3)
    clean = reward.score(images, [])
    images[1, 0, 3, 3] = float("nan")
    values = reward.score(images, [])
    assert values.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(values[::2], clean[::2], atol=1e-5, rtol=1e-5)


# sharpness


def test_sharpness_of_a_flat_picture_is_the_floor():
    torch.testing.assert_close(
        Sharpness().score(torch.full((1, 3, 9, 9), 0.3), []), torch.tensor([math.log(FLOOR) / 2])
    )


def test_edge_energy_of_a_ramp_is_its_squared_slope():
    """A ramp has coherence 1 everywhere, so its energy is slope^2, but for the two border columns at half slope."""
    ramp = (torch.arange(200.0) * 0.004).expand(1, 1, 50, 200)
    torch.testing.assert_close(edge_energy(ramp), torch.tensor([0.004**2]), rtol=0.02, atol=0)


def test_noise_level_is_the_standard_deviation_of_white_noise_and_0_on_a_ramp():
    grey = 0.5 + 0.1 * torch.randn(1, 1, 200, 200, generator=generator())
    torch.testing.assert_close(noise_level(grey), torch.tensor([0.1]), rtol=0.03, atol=0)
    ramp = (torch.arange(50.0) * 0.01).expand(1, 1, 50, 50)
    assert noise_level(ramp) < 1e-4


def test_smoothing_keeps_the_mean_and_has_the_stated_width():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    blurred = smooth(point, 2.0)[0, 0]
    variance = (blurred.sum(0) * (torch.arange(41.0) - 20) ** 2).sum()
    torch.testing.assert_close(torch.stack([blurred.sum(), variance]), torch.tensor([1.0, 4.0]), rtol=0.03, atol=0)


@pytest.mark.parametrize("worse", [lambda x: smooth(x, 0.7), lambda x: smooth(x, 2.0), lambda x: 0.4 * x + 0.5])
def test_blur_and_haze_cost_sharpness_in_every_picture(worse):
    images = drawing(count=12)
    assert (Sharpness().score(worse(images), []) < Sharpness().score(images, []) - 0.1).all()


def test_more_noise_is_never_sharper():
    images = drawing(count=12)
    levels = torch.stack([Sharpness().score(noisy(images, std), []) for std in (0.0, 0.03, 0.06, 0.12, 0.25)])
    assert (levels.diff(dim=0) < 0).all()


def test_no_noise_scores_above_a_clean_sharp_picture():
    clean = Sharpness().score(drawing(count=12), []).min()
    shape = (8, 3, 64, 64)
    white = [noisy(torch.full(shape, 0.5), std) for std in (0.02, 0.1, 0.3, 1.0)]
    coins = (torch.rand(8, 1, 64, 64, generator=generator()) > 0.5).float().expand(shape)
    soft = [(0.5 + std * smooth(torch.randn(shape, generator=generator(2)), std)).clamp(0, 1) for std in (1.0, 2.0)]
    for pictures in [*white, coins, *soft]:
        assert Sharpness().score(pictures, []).max() < clean


def test_noise_on_half_a_picture_does_not_pay():
    images = drawing(count=12)
    half = images.clone()
    half[..., :32] = noisy(images, 0.3)[..., :32]
    assert (Sharpness().score(half, []) < Sharpness().score(images, []) - 1).all()


# harmony


def hues(*degrees, chroma=0.3, size=16):
    """Equal stripes of the given hues (1, 3, H, W)."""
    angle = torch.tensor(degrees, dtype=torch.float32).deg2rad().repeat_interleave(size)
    u, v = chroma * angle.cos(), chroma * angle.sin()
    green_blue = 2 / math.sqrt(3) * v  # G - B; R - (G + B) / 2 = u
    rgb = torch.stack([0.5 + 2 * u / 3, 0.5 - u / 3 + green_blue / 2, 0.5 - u / 3 - green_blue / 2])
    return rgb[None, :, None].expand(1, 3, size, -1)


def distance(*degrees):
    return float(disharmony(hue_histogram(opponent(hues(*degrees)))))


def test_histogram_holds_the_mean_chroma_at_its_hue():
    histogram = hue_histogram(opponent(hues(90.0)))
    assert histogram.argmax() == 12 and abs(float(histogram.sum()) - 0.3) < 0.002
    between = hue_histogram(opponent(hues(93.75)))  # half way between two bins
    torch.testing.assert_close(between[0, 12], between[0, 13], rtol=1e-3, atol=1e-5)


def test_template_table_matches_the_paper():
    distances, widths = template_table()
    assert distances.shape == (7 * 24, 48) and list(TEMPLATES) == list("iVLITYX")
    opposite = distances[3 * 24]  # I, not turned: sectors of 18 degrees at 0 and 180
    assert [opposite[0], opposite[24], opposite[12]] == [0, 0, 81]
    torch.testing.assert_close(widths[::24] * 360, torch.tensor([18, 93.6, 97.2, 36, 180, 111.6, 187.2]))


def test_harmonic_hues_cost_less_than_scattered_ones():
    assert distance(30.0) < distance(30.0, 210.0) < distance(0.0, 120.0, 240.0) < distance(*range(0, 360, 15))
    assert distance(30.0, 210.0) < 2.5 and distance(*range(0, 360, 15)) > 10


def test_turning_every_hue_changes_nothing():
    assert abs(distance(0.0, 45.0, 180.0) - distance(75.0, 120.0, 255.0)) < 1e-3


def test_colour_rises_to_its_best_amount_and_falls_beyond():
    values = [float(Harmony().score(hues(30.0, chroma=c), [])) for c in (0.0, 0.05, 0.15, 0.3, 0.45)]
    assert values[0] < 1e-6 and values[0] < values[1] < values[2] < values[3] > values[4]


def test_haze_noise_and_clutter_cost_harmony():
    images = drawing(count=12)
    clean = Harmony().score(images, [])
    assert (Harmony().score(0.3 * images + 0.6, []) < clean).all()
    assert (Harmony().score(noisy(images, 0.2), []) < clean).all()
    flecks = images.clone()
    g = generator(5)
    for _ in range(40):
        x, y = torch.randint(0, 60, (2,), generator=g).tolist()
        flecks[:, :, y : y + 4, x : x + 4] = torch.rand(1, 3, 1, 1, generator=g).round()
    assert (Harmony().score(flecks, []) < clean).all()


# compressibility


def test_compressibility_is_the_size_of_pillows_file():
    image = torch.rand(1, 3, 24, 40, generator=generator())
    buffer = io.BytesIO()
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    assert Compressibility().score(image, []).item() == pytest.approx(-len(buffer.getvalue()) / 1000)
    assert Compressibility().score(torch.full_like(image, 0.5), []) > Compressibility().score(image, [])


def test_compressibility_refuses_a_gradient():
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    with pytest.raises(NotDifferentiable, match="best-of-n"):
        Compressibility().score(images, [])
    with torch.no_grad():
        assert Compressibility().score(images, []).shape == (1,)
