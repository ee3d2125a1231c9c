"""The command line: quick help without torch, one sentence for what the user can mend."""

import errno
import subprocess
import sys
import time
import types

import pytest

from tastemaker.cli import settings
from tastemaker.cli.main import main
from tastemaker.cli.options import names, parse_seeds, split_config
from tastemaker.errors import TastemakerError

HELP = """
import sys
sys.modules.update(torch=None, numpy=None)
from tastemaker.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [[], ["train"], ["train", "refl"], ["search", "best-of-n"], ["report"]])
def test_help_needs_no_torch(words):
    done = subprocess.run([sys.executable, "-c", HELP, *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: " in done.stdout, done.stderr


def test_help_is_quick():
    def seconds():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tastemaker", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


def test_no_words_show_help(capsys):
    assert main([]) == 0 and main(["train"]) == 0
    assert "evaluate" in capsys.readouterr().out


@pytest.fixture
def raising(monkeypatch):
    """`tastemaker models` with a workflow that raises what the test wants."""

    def install(error):
        def print_models():
            raise error

        monkeypatch.setitem(
            sys.modules, "tastemaker.workflows.load", types.SimpleNamespace(print_models=print_models)
        )
        return main(["models"])

    return install


@pytest.mark.parametrize(
    "error, sentence",
    [
        (TastemakerError("expected 3, got 4"), "expected 3, got 4"),
        (FileNotFoundError(errno.ENOENT, "", "a.yaml"), "no such file or folder: a.yaml"),
        (PermissionError(errno.EACCES, "", "/root/x"), "no permission for /root/x"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: could not write a file"),
        (IsADirectoryError(errno.EISDIR, "", "runs"), "runs: is a directory"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(raising, capsys, error, sentence):
    assert raising(error) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")


def test_interruption_is_130_and_our_own_mistakes_are_not_hidden(raising):
    assert raising(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["trian"], "No such command 'trian'"),
        (["sample", "--seed", "7..0"], "the seed range '7..0' must rise"),
        (["sample", "--steps", "none"], "Invalid value for '--steps'"),
        (["train", "refl", "a.yaml", "b.yaml"], "expected one CONFIG.yaml and then key=value words, got 'b.yaml'"),
    ],
)
def test_wrong_words_are_one_sentence(capsys, words, sentence):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {sentence}") and captured.err.count("\n") == 1


def test_seed_ranges():
    assert parse_seeds("3") == [3]
    assert parse_seeds("0..3,10, 7") == [0, 1, 2, 3, 10, 7]
    for wrong in ("", "a", "1-3", "-1", "0..", "..3", "1,,2", "0..99999999"):
        with pytest.raises(TastemakerError, match="seed"):
            parse_seeds(wrong)


def test_names_and_configs():
    assert names(" a, b") == ["a", "b"]
    with pytest.raises(TastemakerError, match="one or more names"):
        names(",")
    path, words = split_config(["c.yaml", "a=1"])
    assert (str(path), words) == ("c.yaml", ["a=1"])
    assert split_config(None) == (None, [])


SOURCE = '''
from .optimise import OptimiserConfig
@dataclass(frozen=True)
class Inner:
    depth: int = 2  # how deep
@dataclass(frozen=True)
class Config:
    steps: int = 10
    """how
    many"""
    data: str
    names: list[str] = field(default_factory=list)  # of things
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=3e-4)
    inner: Inner = field(default_factory=lambda: Inner(depth=5))
    def method(self): ...
'''
HEIR = """
from .an_algorithm import Config, Inner
@dataclass(frozen=True)
class Heir(Config):
    own: float = 0.5  # how much
    steps: int = 20  # how many more
    inner: Inner = field(default_factory=lambda: Inner(depth=7))
"""


def test_settings_are_read_from_the_source(tmp_path, monkeypatch):
    (tmp_path / "an_algorithm.py").write_text(SOURCE)
    (tmp_path / "optimise.py").write_text((settings.ROOM / "optimise.py").read_text())
    monkeypatch.setattr(settings, "ROOM", tmp_path)
    found = {s.name: s for s in settings.settings_of("an-algorithm")}
    assert found["steps"] == settings.Setting("steps", "int", "10", "how many")
    assert found["data"].default == "" and found["names"] == settings.Setting(
        "names", "list[str]", "list()", "of things"
    )
    assert found["optimiser.learning_rate"].default == "0.0003" and found["optimiser.ema_decay"].default == "0.0"
    assert found["optimiser.accumulate"].sentence.startswith("steps whose gradients")
    assert found["inner.depth"] == settings.Setting("inner.depth", "int", "5", "how deep")

    (tmp_path / "heir.py").write_text(HEIR)
    heir = settings.settings_of("heir", "Heir")
    assert [s.name for s in heir] == [*found, "own"]  # the base's first, each name once
    differing = {s.name: (s.default, s.sentence) for s in heir if s != found.get(s.name)}
    assert differing == {
        "steps": ("20", "how many more"),
        "inner.depth": ("7", "how deep"),
        "own": ("0.5", "how much"),
    }


@pytest.mark.parametrize("name", ["refl", "draft", "sft", "reward-weighted", "raft"])
def test_the_settings_read_from_the_source_are_the_fields_of_the_dataclass(name):
    from importlib import import_module

    from tastemaker.workflows.configs import keys_of

    config = import_module(f"tastemaker.algorithms.{name.replace('-', '_')}").Config
    assert [s.name for s in settings.settings_of(name)] == list(keys_of(config))
