"""Settings from files and words: complete, typed, and refused with the name of what is wrong."""

from dataclasses import dataclass, field

import pytest
import yaml

from tastemaker.algorithms.optimise import OptimiserConfig
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.workflows.configs import plain, read_config


@dataclass(frozen=True)
class Config:
    name: str = "x"
    steps: int = 100
    guidance: float | None = 2.0
    sizes: tuple[int, ...] = (1, 2)
    weights: dict[str, float] = field(default_factory=lambda: {"z": 2.0})
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=3e-4, ema_decay=0.99)


def test_words_go_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("steps: 7\noptimiser:\n  warmup_steps: 5\n")
    words = [
        "steps=9",
        "optimiser.learning_rate=1e-4",
        "sizes=[3, 4, 5]",
        "name=3",
        "guidance=null",
        "weights={a: 1}",
    ]
    config = read_config(Config, path, words)
    optimiser = OptimiserConfig(learning_rate=1e-4, ema_decay=0.99, warmup_steps=5)  # the owner's default survives
    assert config == Config("3", 9, None, (3, 4, 5), {"a": 1.0}, optimiser)


def test_settings_survive_their_file(tmp_path):
    config = read_config(Config, None, ["optimiser.learning_rate=1e-7", "optimiser.max_grad_norm=inf"])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(plain(config)))
    assert read_config(Config, tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    "word, kind, sentence",
    [
        ("stepps=1", UnknownName, "unknown configuration key 'stepps'; nearest known: steps"),
        ("optimiser.lerning_rate=1", UnknownName, "nearest known: optimiser.learning_rate"),
        ("steps=many", TastemakerError, "steps: .*valid integer.*got 'many'"),
        ("steps=1.5", TastemakerError, "steps: .*valid integer.*got '1.5'"),
        ("optimiser.learning_rate=fast", TastemakerError, "optimiser.learning_rate: .*valid number.*'fast'"),
        ("optimiser.accumulate=0", TastemakerError, "accumulate >= 1.* 0,"),
        ("optimiser=3", TastemakerError, "optimiser holds several settings"),
        ("steps.more=3", TastemakerError, "steps: .*valid integer"),
        ("steps", TastemakerError, "expected key=value, got 'steps'"),
    ],
)
def test_what_is_wrong_is_named(word, kind, sentence):
    with pytest.raises(kind, match=sentence):
        read_config(Config, None, [word])


def test_files_that_are_not_settings_are_refused(tmp_path):
    for text, sentence in (("- a\n- b", "it holds a list"), ("a: [", "is not readable YAML")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(TastemakerError, match=sentence):
            read_config(Config, tmp_path / "c.yaml")


def test_a_setting_without_a_default_must_be_given():
    @dataclass(frozen=True)
    class Needs:
        data: str

    with pytest.raises(TastemakerError, match="data: expected a value, got none; give data=VALUE"):
        read_config(Needs)
