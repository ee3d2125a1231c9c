"""An aMUSEd folder against diffusers' own pipeline and scheduler: scores, guidance, the schedule, its steps, its
pictures; adapters; folders that do not fit."""

import json

import pytest
import torch

for package in ("diffusers", "transformers", "peft"):
    pytest.importorskip(package)

import diffusers  # noqa: E402
import tiny_diffusers  # noqa: E402
from tiny_diffusers import SIDE  # noqa: E402

from tastemaker.errors import TastemakerError  # noqa: E402
from tastemaker.generators.diffusers_load import load  # noqa: E402
from tastemaker.generators.unmasking import (  # noqa: E402
    MASK,
    Step,
    amused,
    cosine_times,
    linear_times,
    random_order,
    staying,
)
from tastemaker.protocols import Condition, Plan  # noqa: E402
from tastemaker.records import Ledger  # noqa: E402
from tastemaker.rewards.table import load_rewards  # noqa: E402
from tastemaker.sampling import sample  # noqa: E402
from tastemaker.search import best_of_n  # noqa: E402
from tastemaker.workflows.load import load_generator  # noqa: E402

PROMPTS = ["a red cat on the mat", "two dogs"]
TOKENS, CODES, MASKED = (SIDE // 2) ** 2, 24, 31


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_diffusers.make("amused", tmp_path_factory.mktemp("amused"))


@pytest.fixture(scope="module")
def generator(folder):
    return load(folder)


def met(pipeline, **more):
    """What the pipeline's transformer answered and what its scheduler was given, call by call."""
    answers, given = [], []
    step = pipeline.scheduler.step

    def watched(model_output, timestep, sample, **kwargs):
        given.append((model_output, sample))
        return step(model_output, timestep, sample, **kwargs)

    pipeline.scheduler.step = watched
    handle = pipeline.transformer.register_forward_hook(lambda module, args, output: answers.append(output))
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline(PROMPTS, output_type="pt", generator=torch.Generator().manual_seed(0), **more)
    handle.remove()
    return answers, given, out.images


def test_scores_guidance_and_pictures_are_those_of_the_pipeline(folder, generator):
    pipeline = diffusers.AmusedPipeline.from_pretrained(str(folder))
    _, given, _ = met(pipeline, guidance_scale=10.0, num_inference_steps=4)
    for scores, tokens in given:
        ours = torch.where(tokens == MASKED, MASK, tokens).flatten(1)
        guided = generator.guided_logits(ours, Condition.of(PROMPTS, 10.0))
        torch.testing.assert_close(guided, scores.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    answers, given, _ = met(pipeline, guidance_scale=1.0, num_inference_steps=2)
    first = generator.logits(torch.full((2, TOKENS), MASK), Condition.of(PROMPTS))
    torch.testing.assert_close(first, answers[0].flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)
    tokens = torch.randint(CODES, (2, SIDE // 2, SIDE // 2), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        shape = (2, SIDE // 2, SIDE // 2, 6)
        drawn = pipeline.vqvae.decode(tokens, force_not_quantize=True, shape=shape).sample
    torch.testing.assert_close(generator.codec.decode(tokens.flatten(1)), drawn)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_as_many_tokens_stay_masked_as_in_the_pipeline(tmp_path, schedule, steps):
    folder = tiny_diffusers.make("amused", tmp_path, masking_schedule=schedule)
    pipeline = diffusers.AmusedPipeline.from_pretrained(str(folder))
    _, given, _ = met(pipeline, num_inference_steps=steps)
    theirs = [int((tokens[0] == MASKED).sum()) for _, tokens in given]
    generator, ours = load(folder), []
    plan = generator.native_plan(steps)
    assert plan == Plan(amused, {"cosine": cosine_times, "linear": linear_times}[schedule](steps), temperature=2.0)
    state = generator.start(Condition.of(PROMPTS[:1]), torch.tensor([0]), plan)
    while not state.done.all():
        ours.append(int((state.x == MASK).sum()))
        state = generator.advance(state)
    assert ours == theirs and (state.x != MASK).all()


def test_a_step_masks_what_the_scheduler_masks(monkeypatch):
    """With the same draws and the same noise, step by step."""
    steps, generator = 6, torch.Generator().manual_seed(5)
    theirs = diffusers.AmusedScheduler(mask_token_id=MASKED)
    theirs.set_timesteps(steps, (2, 0))
    plan, tokens = Plan(amused, cosine_times(steps), temperature=2.0), torch.full((3, TOKENS), MASKED)
    for k, timestep in enumerate(theirs.timesteps[:-1]):
        logits, uniform = (
            torch.randn(3, TOKENS, CODES, generator=generator),
            torch.rand(3, TOKENS, generator=generator),
        )
        gumbel = -torch.log((-torch.log(uniform.clamp(1e-20))).clamp(1e-20))
        monkeypatch.setattr("diffusers.schedulers.scheduling_amused.gumbel_noise", lambda t, generator=None: gumbel)  # noqa: B023
        out = theirs.step(logits, timestep, tokens, generator=generator)
        drawn, known = out.pred_original_sample, tokens != MASKED
        log_p = logits.log_softmax(-1).gather(2, drawn[..., None].clamp_max(CODES - 1))[..., 0]
        end = torch.full((3,), plan.times[k + 1], dtype=torch.float64)
        stay = staying((~known).sum(1), TOKENS, end, torch.zeros(3, dtype=torch.bool))
        order = torch.zeros_like(tokens)
        masked = amused(Step(log_p, known, stay, order, uniform, torch.full((3,), k), plan))
        assert torch.equal(masked, out.prev_sample == MASKED), k
        tokens = out.prev_sample


def test_it_keeps_the_contract(generator):
    assert generator.guidance == 10.0 and generator.plan.steps == 12
    plan = generator.native_plan(4)
    images = sample(generator, PROMPTS, [3, 4], plan)
    assert images.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(sample(generator, PROMPTS[1:], [4], plan)[0], images[1], atol=1e-4, rtol=0)
    state = generator.start(Condition.of(PROMPTS), torch.arange(2), Plan(random_order, cosine_times(4)))
    assert generator.log_prob(state, generator.advance(state)).isfinite().all()
    judge, ledger = load_rewards("sharpness")[0], Ledger()
    found = list(best_of_n.search(generator, judge, PROMPTS, [0, 1], best_of_n.Config(3), ledger, plan, 2.0))
    assert (torch.cat([f.chosen for f in found]) >= 0).all() and ledger.network_evaluations == 2 * 3 * 4 * 2


def test_pictures_become_the_nearest_codes(generator):
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    tokens = generator.codec.encode(images, torch.arange(2))
    vqvae = generator.codec.vqvae
    with torch.no_grad():
        z = vqvae.encode(images).latents.flatten(2).transpose(1, 2)  # (B, N, D)
    distance = (z[:, :, None] - vqvae.quantize.embedding.weight).pow(2).sum(-1)
    assert torch.equal(tokens, distance.argmin(-1))
    with pytest.raises(TastemakerError, match=r"expected pictures of \(16, 16\) pixels, got \(8, 16\)"):
        generator.codec.encode(images[:, :, :8], torch.arange(2))
    with pytest.raises(TastemakerError, match="expected tokens from 0 to 23, got 24 to 24"):
        generator.codec.decode(torch.full((1, TOKENS), CODES))


def test_an_adapter_is_trained_saved_and_read(folder, tmp_path):
    generator = load(folder, lora_rank=2)
    condition, x1 = Condition.of(PROMPTS), torch.zeros(2, TOKENS, dtype=torch.int64)
    draw, trained = (
        generator.draw(x1, torch.arange(2)),
        [p for p in generator.network.parameters() if p.requires_grad],
    )
    optimiser = torch.optim.SGD(trained, 0.5)
    before = generator.loss(x1, condition, draw).detach()
    for _ in range(3):
        optimiser.zero_grad()
        generator.loss(x1, condition, draw).sum().backward()
        optimiser.step()
    after = generator.loss(x1, condition, draw).detach()
    assert after.sum() < before.sum()
    torch.testing.assert_close(generator.reference().loss(x1, condition, draw).detach(), before)
    generator.save(tmp_path)
    again = load(folder, lora=tmp_path)
    torch.testing.assert_close(again.loss(x1, condition, draw).detach(), after, atol=1e-5, rtol=1e-4)


def test_a_tuned_folder_is_a_pipeline_again(folder, tmp_path):
    generator = load(folder)
    with torch.no_grad():
        generator.network.mlm_layer.conv2.weight.mul_(3)
    generator.save(str(tmp_path / "tuned"))
    again = load_generator(str(tmp_path / "tuned"))
    tokens = torch.full((1, TOKENS), MASK)
    asked = Condition.of(PROMPTS[:1])
    assert torch.equal(again.logits(tokens, asked), generator.logits(tokens, asked))
    assert isinstance(diffusers.AmusedPipeline.from_pretrained(str(tmp_path / "tuned")), diffusers.AmusedPipeline)


def test_what_cannot_work_says_so(folder, tmp_path):
    with pytest.raises(TastemakerError, match="leave gradient_checkpointing off"):
        load(folder, gradient_checkpointing=True)
    other = tiny_diffusers.make("amused", tmp_path)
    config = other / "vqvae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lookup_from_codebook": False}))
    with pytest.raises(TastemakerError, match="expected a VQModel with lookup_from_codebook"):
        load(other)
    index = other / "model_index.json"
    index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "vqvae"}))
    with pytest.raises(TastemakerError, match="has no component 'vqvae'"):
        load(other)
