"""Training and saving diffusers folders: LoRA, gradients, references, losses, files that diffusers reads."""

import os
from dataclasses import replace

import pytest
import torch

for package in ("diffusers", "transformers", "peft"):
    pytest.importorskip(package)

import diffusers  # noqa: E402
import tiny_diffusers  # noqa: E402

from tastemaker import TastemakerError, sample  # noqa: E402
from tastemaker.generators import diffusers_lora  # noqa: E402
from tastemaker.generators.diffusers_load import load  # noqa: E402
from tastemaker.protocols import Condition, Draw  # noqa: E402

PROMPTS = ["a red cat on the mat", "two dogs"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: tiny_diffusers.make(kind, tmp_path_factory.mktemp(kind)) for kind in tiny_diffusers.KINDS}


def open_tiny(folder, **options):
    return load(folder, size=16, sequence_length=32, **options)


def stir(network, size: float = 0.3) -> None:
    """Give every trainable tensor some other value."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad:
                seed = sum(map(ord, name))
                p.add_(size * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))


def draw(generator, prompts=PROMPTS):
    return sample(generator, prompts, [1, 2], generator.native_plan(2), guidance=2.0)


def before_the_last_step(generator):
    state = generator.start(Condition.of(PROMPTS, 2.0), torch.tensor([1, 2]), generator.native_plan(3))
    return generator.advance(generator.advance(state))


def brightness(generator, state):
    """Of the last step's pictures, with the gradient of that step and the decoding, as ReFL takes it."""
    return generator.preview(generator.advance(state, grad=True), grad=True).double().square().sum()


def gradients(generator):
    generator.network.zero_grad()
    brightness(generator, before_the_last_step(generator)).backward()
    return {n: p.grad.clone() for n, p in generator.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained(folders, kind):
    generator = open_tiny(folders[kind], lora_rank=2)
    assert draw(generator).equal(draw(open_tiny(folders[kind])))
    trained = [n for n, p in generator.network.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    frozen = [generator.codec.vae, generator.folder.pipeline.text_encoder]
    assert not any(p.requires_grad for module in frozen for p in module.parameters())


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_the_gradient_of_the_last_step_reaches_the_adapter(folders, kind):
    generator = open_tiny(folders[kind], lora_rank=2)
    stir(generator.network)
    found = gradients(generator)
    assert set(found) == {n for n, p in generator.network.named_parameters() if p.requires_grad}
    name = max((n for n in found if ".lora_B" in n), key=lambda n: found[n].abs().max())
    weight = dict(generator.network.named_parameters())[name]
    direction, step, values = found[name] / found[name].norm(), 0.1, []
    state = before_the_last_step(generator)
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * step * direction)
            values.append(brightness(generator, state))
            weight.sub_(sign * step * direction)
    slope = (values[0] - values[1]) / (2 * step)
    assert float(slope) == pytest.approx(float(found[name].norm()), rel=0.05)


def test_gradients_reach_the_whole_network_without_an_adapter(folders):
    found = gradients(open_tiny(folders["sd"]))
    assert "conv_in.weight" in found and found["conv_in.weight"].abs().max() > 0


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_gradient_checkpointing_gives_the_same_gradients(folders, kind):
    plain = open_tiny(folders[kind], lora_rank=2)
    saving = open_tiny(folders[kind], lora_rank=2, gradient_checkpointing=True)
    for generator in (plain, saving):
        stir(generator.network)
    a, b = gradients(plain), gradients(saving)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_the_reference_is_the_base_and_the_policy_stays_adapted(folders, kind):
    generator = open_tiny(folders[kind], lora_rank=2)
    stir(generator.network)
    base, reference = open_tiny(folders[kind]), generator.reference()
    adapted = draw(generator)
    assert reference.network is generator.network
    assert draw(reference).equal(draw(base))
    assert draw(generator).equal(adapted) and (adapted - draw(base)).abs().max() > 1e-3
    assert gradients(generator)  # the adapter can still be trained


def test_a_gradient_through_the_reference_is_that_of_the_base(folders):
    """Adjoint methods differentiate the reference; a checkpointed forward must not run again with the adapter."""
    generator = open_tiny(folders["sd"], lora_rank=2, gradient_checkpointing=True)
    stir(generator.network)
    condition, t, found = Condition.of(PROMPTS), torch.full((2,), 0.5), []
    for g in (open_tiny(folders["sd"]), generator.reference()):
        x = torch.ones(2, 4, 8, 8, requires_grad=True)
        g.velocity(x, t, condition).square().sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_the_reference_of_a_fully_tuned_network_is_a_frozen_copy(folders):
    generator = open_tiny(folders["sd3"])
    before, reference = draw(generator), generator.reference()
    stir(generator.network, 0.05)
    assert draw(reference).equal(before) and not draw(generator).equal(before)
    assert not any(p.requires_grad for p in reference.network.parameters())


# losses


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_unet_loss_is_the_official_training_loss(tmp_path, prediction):
    folder = tiny_diffusers.make("sd", tmp_path, prediction_type=prediction)
    generator = open_tiny(folder)
    x1 = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition = generator.prepare(Condition.of([*PROMPTS, *PROMPTS]))
    made = generator.draw(x1, torch.arange(4))
    n = generator.grid.timestep(made.time).long()
    scheduler = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    noisy = scheduler.add_noise(x1, made.noise, n)
    targets = {"epsilon": made.noise, "v_prediction": scheduler.get_velocity(x1, made.noise, n), "sample": x1}
    answer = generator.network(noisy, n, condition.cache["text"]).sample
    want = (answer - targets[prediction]).square().mean((1, 2, 3))
    torch.testing.assert_close(generator.loss(x1, condition, made), want, atol=1e-5, rtol=1e-4)


def test_draws_are_on_the_grid_and_follow_the_seeds(folders):
    generator = open_tiny(folders["sd"])
    made = generator.draw(torch.zeros(400, 4, 8, 8), torch.arange(400))
    n = generator.grid.timestep(made.time)
    assert n.equal(n.round()) and made.time.equal(generator.grid.time(n))
    assert 0 <= n.min() < 50 and 950 < n.max() <= 999 and abs(n.mean() - 499.5) < 60
    alone = generator.draw(torch.zeros(1, 4, 8, 8), torch.tensor([7]))
    assert alone.time.equal(made.time[7:8]) and alone.noise.equal(made.noise[7:8])


def test_the_flow_loss_is_the_velocity_error(folders):
    generator = open_tiny(folders["sd3"])
    x1, x0 = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition, t = generator.prepare(Condition.of(PROMPTS)), torch.tensor([0.3, 0.8])
    x = t[:, None, None, None] * x1 + (1 - t[:, None, None, None]) * x0
    cache = condition.cache
    answer = generator.network(x, cache["text"], cache["pooled"], 1000 * (1 - t)).sample
    want = (answer - (x0 - x1)).square().mean((1, 2, 3))
    torch.testing.assert_close(generator.loss(x1, condition, Draw(t, x0)), want, atol=1e-5, rtol=1e-4)


# files


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_a_saved_adapter_is_read_by_diffusers_and_by_us(folders, kind, tmp_path):
    generator = open_tiny(folders[kind], lora_rank=2, lora_alpha=3.0)
    stir(generator.network)
    want = draw(generator)
    generator.save(tmp_path / "lora")
    assert os.listdir(tmp_path) == ["lora"] and os.listdir(tmp_path / "lora") == [diffusers_lora.FILE]
    again = open_tiny(folders[kind], lora=tmp_path / "lora")
    torch.testing.assert_close(draw(again), want, atol=1e-5, rtol=0)
    assert gradients(again)
    theirs = open_tiny(folders[kind])
    theirs.folder.pipeline.load_lora_weights(tmp_path / "lora")
    torch.testing.assert_close(draw(theirs), want, atol=1e-5, rtol=0)
    assert (draw(open_tiny(folders[kind])) - want).abs().max() > 1e-3


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_a_tuned_network_is_saved_as_a_folder_that_diffusers_opens(folders, kind, tmp_path):
    generator = open_tiny(folders[kind])
    for _ in range(2):  # the second writes over the first
        stir(generator.network, 0.05)
        generator.save(tmp_path / "tuned")
    assert os.listdir(tmp_path) == ["tuned"]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "tuned", use_safetensors=True)
    theirs = getattr(pipeline, generator.folder.family.network).state_dict()
    for name, value in generator.network.state_dict().items():
        assert theirs[name].equal(value), name
    assert draw(open_tiny(tmp_path / "tuned")).equal(draw(generator))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folders, tmp_path, monkeypatch):
    generator = open_tiny(folders["sd"], lora_rank=2)
    generator.save(tmp_path / "lora")
    old = (tmp_path / "lora" / diffusers_lora.FILE).read_bytes()
    stir(generator.network)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TastemakerError, match="No space left"):
        generator.save(tmp_path / "lora")
    assert os.listdir(tmp_path) == ["lora"]
    assert (tmp_path / "lora" / diffusers_lora.FILE).read_bytes() == old


def test_a_failed_exchange_of_folders_puts_the_old_one_back(folders, tmp_path, monkeypatch):
    generator, rename = open_tiny(folders["sd"]), os.replace
    generator.save(tmp_path / "tuned")

    def fail_once_in_place(source, target):
        if str(source).endswith(".partial"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_once_in_place)
    with pytest.raises(TastemakerError, match="No space left"):
        generator.save(tmp_path / "tuned")
    assert os.listdir(tmp_path) == ["tuned"]
    assert draw(open_tiny(tmp_path / "tuned")).equal(draw(generator))


def test_a_folder_with_other_files_is_not_written_over(folders, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TastemakerError, match="other files"):
        open_tiny(folders["sd"]).save(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_wrapped_network_is_called_through_its_wrapper_and_saved_without_it(folders, tmp_path):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, *args, **more):
            self.calls += 1
            return self.module(*args, **more)

    generator = open_tiny(folders["sd"], lora_rank=2)
    stir(generator.network)
    want = draw(generator)
    generator.network = Wrapper(generator.network)
    assert draw(generator).equal(want) and generator.network.calls == 2
    generator.save(tmp_path / "lora")
    torch.testing.assert_close(draw(open_tiny(folders["sd"], lora=tmp_path / "lora")), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", tiny_diffusers.KINDS)
def test_a_network_in_bfloat16_keeps_states_and_adapters_in_float32(folders, kind):
    generator = open_tiny(folders[kind], lora_rank=2, dtype="bfloat16")
    state = generator.start(Condition.of(PROMPTS, 2.0), torch.tensor([1, 2]), generator.native_plan(3))
    assert generator.advance(state).x.dtype == torch.float32
    assert {p.dtype for p in generator.network.parameters() if p.requires_grad} == {torch.float32}
    exact = open_tiny(folders[kind])
    x, t = state.x, torch.full((2,), 0.5)
    v = exact.velocity(x, t, Condition.of(PROMPTS))
    error = generator.velocity(x, t, Condition.of(PROMPTS)) - v
    assert error.abs().max() < 0.1 * v.abs().max()
    stirred = replace(state, x=state.x.clone())
    assert generator.preview(stirred).dtype == torch.float32
