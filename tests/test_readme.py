"""What the README says works: its Python runs, its commands exist with their options, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from tastemaker.cli.main import main
from tastemaker.cli.reference import commands
from tastemaker.weights import shipped

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)
LINES = [line.split("#")[0].strip() for line in re.findall(r"^    (tastemaker .*)$", README, re.M)]
needs_model = pytest.mark.skipif(not shipped("tiny-flow").is_file(), reason="tiny-flow is not in this checkout")


@pytest.fixture
def own_reward(tmp_path, monkeypatch):
    """A folder with the README's my_reward.py in it."""
    (tmp_path / "my_reward.py").write_text(BLOCKS[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_own_reward_is_ten_lines_at_most_and_prefers_red(own_reward):
    import torch

    import tastemaker as tm

    reward = tm.load_reward("my_reward.py:score")
    pictures = torch.zeros(2, 3, 4, 4)
    pictures[1, 0] = 1.0
    assert len(BLOCKS[0].splitlines()) <= 10
    assert reward.differentiable and reward.score(pictures, [tm.Prompt("x")] * 2).tolist() == [0.0, 1.0]


@needs_model
def test_the_python_of_the_readme_runs(own_reward):
    namespace: dict = {}
    for block in BLOCKS[1:]:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["images"].shape == (2, 3, 64, 64) and namespace["scores"].shape == (2, 1)
    assert namespace["scores"].isfinite().all()


@needs_model
def test_the_own_reward_selects_on_the_command_line(own_reward):
    words = next(shlex.split(line)[1:] for line in LINES if "best-of-n --reward" in line)
    words[words.index("--n") + 1] = "2"
    assert main([*words, "--seed", "0"]) == 0
    assert (own_reward / "red" / "grid.png").is_file() and (own_reward / "red" / "ledger.json").is_file()


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_readme_exists_with_its_options(line):
    known = dict(commands())
    command = next(c for words, c in known.items() if f"{line} ".startswith(f"{words} "))
    options = {name for p in command.params for name in p.opts}
    assert {word for word in shlex.split(line) if word.startswith("--")} <= options


def test_the_readme_lists_every_command():
    assert [words for words, _ in commands() if not any(f"{line} ".startswith(f"{words} ") for line in LINES)] == []


def test_every_link_and_picture_of_the_pages_is_there():
    pages = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
