"""What a user can do wrong with a diffusers folder: one clear sentence each, and nothing unpickled."""

import json
import shutil
import sys

import pytest
import torch

for package in ("diffusers", "transformers", "peft"):
    pytest.importorskip(package)

import tiny_diffusers  # noqa: E402

from tastemaker import TastemakerError  # noqa: E402
from tastemaker.errors import MissingExtra  # noqa: E402
from tastemaker.generators.diffusers_load import load  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_diffusers.make("sd", tmp_path_factory.mktemp("sd"))


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def edit(file, **values):
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps(content))


def refused(folder, words: str, **options) -> str:
    with pytest.raises(TastemakerError, match=words) as caught:
        load(folder, **({"size": 16} | options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_no_pipeline(tmp_path):
    refused(tmp_path, "model_index.json")
    refused(tmp_path / "absent", "model_index.json")


def test_an_index_that_cannot_be_read(folder):
    (folder / "model_index.json").write_text("{")
    refused(folder, "cannot read")


def test_another_kind_is_named_with_the_kinds_that_work(folder):
    edit(folder / "model_index.json", _class_name="KandinskyPipeline")
    assert "FluxPipeline" in refused(folder, "'KandinskyPipeline'")


def test_a_component_that_is_not_there(folder):
    shutil.rmtree(folder / "vae")
    refused(folder, "lacks the folder 'vae'")
    edit(folder / "model_index.json", unet=[None, None])
    refused(folder, "no component 'unet'")


def test_components_of_other_libraries_are_not_imported(folder):
    edit(folder / "model_index.json", tokenizer=["antigravity", "Tokenizer"])
    refused(folder, "library 'antigravity'")
    assert "antigravity" not in sys.modules


def test_weights_cut_short(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(folder, "cannot read the pipeline folder")


def test_pickled_weights_are_not_read(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))
    refused(folder, "safetensors")


@pytest.mark.parametrize("size", [15, (16, 7), 0])
def test_sizes_that_the_vae_cannot_take(made, size):
    refused(made, "multiple of 2", size=size)


@pytest.mark.parametrize(
    "options, words",
    [({"lora_rank": 0}, "rank"), ({"dtype": "float8"}, "dtype"), ({"lora": "absent"}, "LoRA file")],
)
def test_options_out_of_range(made, options, words):
    refused(made, words, **options)


def test_schedules_that_the_network_cannot_follow(folder):
    config = folder / "scheduler" / "scheduler_config.json"
    edit(config, rescale_betas_zero_snr=True)
    refused(folder, "zero signal")
    edit(config, rescale_betas_zero_snr=False, thresholding=True)
    refused(folder, "clips")
    edit(config, thresholding=False, prediction_type="flow")
    refused(folder, "prediction_type")


@pytest.mark.parametrize("steps", [0, 1001])
def test_step_counts_outside_of_the_grid(made, steps):
    with pytest.raises(TastemakerError, match="between 1 and 1000"):
        load(made, size=16).native_plan(steps)


@pytest.mark.parametrize("package, options", [("diffusers", {}), ("transformers", {}), ("peft", {"lora_rank": 2})])
def test_without_the_extra_it_is_named(made, monkeypatch, package, options):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"'{package}'.*tastemaker\[models\]"):
        load(made, size=16, **options)


def test_pictures_of_another_size_are_named(made):
    with pytest.raises(TastemakerError, match="resize"):
        load(made, size=16).codec.encode(torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64))
