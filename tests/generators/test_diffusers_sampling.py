"""Trajectories of diffusers folders beside the official pipelines, from the same latents and draws."""

from dataclasses import replace

import pytest
import torch

for package in ("diffusers", "transformers"):
    pytest.importorskip(package)

import diffusers  # noqa: E402
import tiny_diffusers  # noqa: E402

from tastemaker import sample  # noqa: E402
from tastemaker.generators.diffusers_flow import pack, positions, unpack  # noqa: E402
from tastemaker.generators.diffusers_grid import grid_of  # noqa: E402
from tastemaker.generators.diffusers_load import load  # noqa: E402
from tastemaker.generators.samplers import ddim, euler, sde  # noqa: E402
from tastemaker.protocols import Condition  # noqa: E402
from tastemaker.sampling import finish  # noqa: E402

PROMPTS = ["a red cat on the mat", "two dogs"]
SHAPE = (2, 4, 8, 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: tiny_diffusers.make(kind, tmp_path_factory.mktemp(kind)) for kind in tiny_diffusers.KINDS}


def open_tiny(folder, **options):
    return load(folder, size=16, sequence_length=32, **options)


def latents(seed: int = 3) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def official(folder, steps: int, guidance: float, **options):
    """Latents after each step of the official pipeline, and its pictures (B, 3, H, W)."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return official_run(pipeline, steps, guidance, **options)


def official_run(pipeline, steps: int, guidance: float, **options):
    path = []

    def keep(pipe, i, t, given):
        path.append(given["latents"])
        return given

    if hasattr(pipeline, "text_encoder_3") or isinstance(pipeline, diffusers.FluxPipeline):
        options["max_sequence_length"] = 32
    asked = {"latents": latents(), "callback_on_step_end": keep, "output_type": "pt", "height": 16, "width": 16}
    with torch.no_grad():
        images = pipeline(PROMPTS, num_inference_steps=steps, guidance_scale=guidance, **(asked | options)).images
    return path, images


def ours(generator, plan, guidance: float, start=None, draws=None):
    """States after each step, started at diffusers' latents."""
    state = generator.start(Condition.of(PROMPTS, guidance), torch.arange(2), plan)
    state, path = replace(state, x=latents() if start is None else start), []
    for k in range(plan.steps):
        state = generator.advance(state, None if draws is None else draws[k])
        path.append(state)
    return path


def in_their_units(generator, state):
    return generator.finish(state.x, torch.full((2,), state.plan.times[int(state.step[0])]))


def assert_same_run(generator, path, theirs, images):
    for state, x in zip(path, theirs, strict=True):
        torch.testing.assert_close(in_their_units(generator, state), x, atol=5e-5, rtol=1e-5)
    torch.testing.assert_close(generator.preview(path[-1]).clamp(0, 1), images, atol=1e-4, rtol=0)


# UNet families

GRIDS = [
    {},
    {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    {"prediction_type": "sample", "timestep_spacing": "leading", "set_alpha_to_one": True},
    {"beta_schedule": "linear", "timestep_spacing": "linspace", "num_train_timesteps": 500},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
]


# at eta = 1 and a signal near 0, diffusers takes the root of a rounded difference, which may be negative
@pytest.mark.parametrize("grid, eta", [*((g, eta) for g in GRIDS for eta in (0.0, 0.8)), (GRIDS[0], 1.0)])
def test_sd_is_the_official_ddim(tmp_path, grid, eta):
    folder = tiny_diffusers.make("sd", tmp_path, **grid)
    generator = open_tiny(folder)
    theirs, images = official(folder, 7, 3.0, eta=eta, generator=torch.Generator().manual_seed(5))
    draw = torch.Generator().manual_seed(5)
    plan = generator.diffusers_plan(7, eta)
    start = generator.straight(latents(), torch.full((2,), plan.times[0]))
    path = ours(generator, plan, 3.0, start, [torch.randn(SHAPE, generator=draw) for _ in range(7)])
    assert_same_run(generator, path, theirs, images)


@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_neighbouring_timesteps_keep_their_digits(schedule, eta):
    """float32 coefficients of a step from n to n - 1 beside Eqs. 12 and 16 of DDIM in float64."""
    grid = grid_of(tiny_diffusers.ddim(beta_schedule=schedule))
    betas = tiny_diffusers.ddim(beta_schedule=schedule).betas.double()
    n = torch.arange(999, 0, -1)
    before, after = (grid.times[n] ** 2 / (grid.times[n] ** 2 + (1 - grid.times[n]) ** 2) for n in (n, n - 1))
    std = eta * ((1 - after) / (1 - before) * (1 - before / after)).sqrt()
    kept, scale = (1 - after - std**2).sqrt(), after.sqrt() + (1 - after).sqrt()
    torch.testing.assert_close(1 - before / after, betas[n], atol=1e-6, rtol=1e-3)
    t, s, one = grid.time(n), grid.time(n - 1), torch.ones(999, 1)
    zero_data = ddim(lambda x, t: -x / (1 - t)[:, None], one, t, s, eta)  # x1 = 0 and eps = x / (1 - t)
    torch.testing.assert_close(zero_data.std.double(), std / scale, atol=1e-9, rtol=1e-4)
    want = kept / scale / (1 - grid.times[n])
    torch.testing.assert_close(zero_data.mean[:, 0].double(), want, atol=1e-6, rtol=1e-4)


def test_native_and_diffusers_plan_agree_where_nothing_is_rounded(folders):
    generator = open_tiny(folders["sd"])
    native, theirs = generator.native_plan(6), generator.diffusers_plan(6)
    assert native.sampler is ddim and native.times == pytest.approx(theirs.times, abs=1e-7)
    start = generator.straight(latents(), torch.full((2,), native.times[0]))
    a, b = ours(generator, native, 3.0, start)[-1], ours(generator, theirs, 3.0, start)[-1]
    torch.testing.assert_close(a.x, b.x, atol=1e-5, rtol=1e-5)


def test_sdxl_with_the_euler_scheduler_is_our_ddim_without_noise(folders):
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders["sdxl"], add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    _, images = official_run(pipeline, 5, 4.0)
    generator = open_tiny(folders["sdxl"])
    generator.folder.pipeline.scheduler.register_to_config(set_alpha_to_one=True)  # as Euler ends
    generator = generator.folder.family.build(generator.folder)
    plan = generator.native_plan(5)
    assert plan.times[-1] == 1
    path = ours(generator, plan, 4.0, generator.straight(latents(), torch.full((2,), plan.times[0])))
    torch.testing.assert_close(generator.preview(path[-1]).clamp(0, 1), images, atol=1e-4, rtol=0)


def test_sdxl_is_the_official_ddim(folders):
    generator = open_tiny(folders["sdxl"])
    theirs, images = official(folders["sdxl"], 5, 4.0)
    plan = generator.diffusers_plan(5)
    path = ours(generator, plan, 4.0, generator.straight(latents(), torch.full((2,), plan.times[0])))
    assert_same_run(generator, path, theirs, images)


def test_time_starts_at_the_last_training_timestep(folders):
    generator = open_tiny(folders["sd"])
    alpha = diffusers.DDIMScheduler.from_pretrained(folders["sd"], subfolder="scheduler").alphas_cumprod[-1].sqrt()
    assert generator.time_start == pytest.approx(float(alpha / (alpha + (1 - alpha**2).sqrt())), rel=1e-5)
    assert all(t >= generator.time_start for t in generator.native_plan(1000).times)


def test_timesteps_are_integers_on_the_grid_and_between_neighbours_elsewhere(folders):
    grid = open_tiny(folders["sd"]).grid
    every = torch.arange(1000)
    assert grid.timestep(grid.time(every)).equal(every.float())
    middle = (grid.times[400] + grid.times[401]) / 2
    assert grid.timestep(middle[None]).item() == pytest.approx(400.5, abs=1e-3)
    assert grid.timestep(torch.tensor([0.0, 1.0])).tolist() == [999, 0]


def test_log_prob_is_the_density_of_the_official_step(folders):
    generator = open_tiny(folders["sd"])
    plan = generator.native_plan(8, eta=0.7)
    before = generator.start(Condition.of(PROMPTS, 3.0), torch.tensor([4, 5]), plan)
    after = generator.advance(before)
    t, s = torch.full((2,), plan.times[0]), torch.full((2,), plan.times[1])
    scheduler = diffusers.DDIMScheduler.from_pretrained(folders["sd"], subfolder="scheduler")
    scheduler.set_timesteps(8)
    n, scale = scheduler.timesteps[0], 1 / (s[0] ** 2 + (1 - s[0]) ** 2).sqrt()
    velocity = generator.guided_velocity(before.condition)(before.x, t)
    eps = before.x - plan.times[0] * velocity
    mean = scheduler.step(eps, n, generator.finish(before.x, t), eta=0.7, variance_noise=torch.zeros(SHAPE))
    std = 0.7 * scheduler._get_variance(n, scheduler.timesteps[1]).sqrt()
    want = torch.distributions.Normal(mean.prev_sample / scale, std / scale).log_prob(after.x).flatten(1).sum(1)
    torch.testing.assert_close(generator.log_prob(before, after), want, atol=1e-2, rtol=1e-4)


# flow families


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sd3_is_the_official_euler(folders, guidance):
    generator = open_tiny(folders["sd3"])
    theirs, images = official(folders["sd3"], 6, guidance)
    assert_same_run(generator, ours(generator, generator.native_plan(6), guidance), theirs, images)


def test_flux_is_the_official_euler(folders):
    generator = open_tiny(folders["flux"], flux_guidance=2.5)
    theirs, images = official(folders["flux"], 6, 2.5, latents=pack(latents()))
    path = ours(generator, generator.native_plan(6), 1.0)
    assert_same_run(generator, path, [unpack(x, 8, 8) for x in theirs], images)


def test_flux_guides_with_a_negative_prompt_too(folders):
    generator = open_tiny(folders["flux"], flux_guidance=2.5)
    _, images = official(folders["flux"], 4, 2.5, latents=pack(latents()), true_cfg_scale=3.0, negative_prompt="")
    path = ours(generator, generator.native_plan(4), 3.0)
    torch.testing.assert_close(generator.preview(path[-1]).clamp(0, 1), images, atol=1e-4, rtol=0)


def test_flux_packing():
    x = latents()
    assert unpack(pack(x), 8, 8).equal(x)
    assert pack(x).equal(diffusers.FluxPipeline._pack_latents(x, *SHAPE))
    assert positions(2, 3).equal(diffusers.FluxPipeline._prepare_latent_image_ids(1, 2, 3, "cpu", torch.float32))


# every kind


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_a_picture_is_the_same_alone_and_in_a_batch(folders, kind):
    generator = open_tiny(folders[kind])
    plan = generator.native_plan(4)
    prompts, seeds = [*PROMPTS, "a dog", "the blue mat", ""], [3, 1, 4, 1, 5]
    together = sample(generator, prompts, seeds, plan, guidance=3.0)
    assert together.shape == (5, 3, 16, 16)
    alone = torch.cat([sample(generator, [p], [s], plan, guidance=3.0) for p, s in zip(prompts, seeds)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together[1] - together[3]).abs().max() > 1e-4  # the same seed, another prompt


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_preview_at_every_step_and_a_plan_without_noise_is_euler(folders, kind):
    generator = open_tiny(folders[kind])
    state = generator.start(Condition.of(PROMPTS, 2.0), torch.tensor([1, 2]), generator.native_plan(3))
    assert generator.preview(state).shape == (2, 3, 16, 16)
    by_euler = finish(generator, replace(state, plan=replace(state.plan, sampler=euler)))
    state = finish(generator, state)
    torch.testing.assert_close(generator.preview(state), generator.preview(by_euler), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["sd", "sd3", "flux"])
def test_a_folders_own_picture_size(folders, kind):
    generator = load(folders[kind])
    assert generator.shape[1:] == ((8, 8) if kind != "flux" else (128, 128))
    assert load(folders[kind], size=(16, 12)).shape[1:] == (8, 6)


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_sde_steps_have_their_log_prob(folders, kind):
    generator = open_tiny(folders[kind])
    before = generator.start(Condition.of(PROMPTS), torch.tensor([1, 2]), generator.native_plan(6, sde, eta=0.5))
    before = generator.advance(before)
    after = generator.advance(before)
    moved = replace(after, x=after.x + 0.1)
    assert (generator.log_prob(before, after) > generator.log_prob(before, moved)).all()


def test_the_vae_posterior_is_sampled_with_each_pictures_seed(folders):
    codec = open_tiny(folders["sd3"]).codec
    images, seeds = torch.rand(3, 3, 16, 16), torch.tensor([7, 8, 9])
    x1 = codec.encode(images, seeds)
    torch.testing.assert_close(codec.encode(images[1:2], seeds[1:2]), x1[1:2], atol=1e-5, rtol=0)
    posterior = codec.vae.encode(images * 2 - 1).latent_dist
    z = x1 / 1.5305 + 0.0609
    draws = ((z - posterior.mean) / posterior.std).detach()
    assert draws.mean().abs() < 0.15 and (draws.std() - 1).abs() < 0.1
