"""Which room may import which: the table is the whole truth. The files at the top are open to every room."""

import ast
from pathlib import Path

import pytest

import tastemaker

ROOT = Path(tastemaker.__file__).parent
ROOMS = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
TOOLS = {"algorithms": {"rewards.combine"}, "search": {"rewards.combine"}}
WORKING = {"sampling", "data", "encoders"}
MAY = {
    "world": set(),
    "data": set(),
    "encoders": set(),
    "rewards": {"encoders"},
    "generators": {"encoders"},
    "algorithms": WORKING,
    "search": WORKING,
    "evaluation": WORKING,
    "report": set(),
    "annotate": {"data.pairs", "data.prompts"},
    "studio": set(),
    "workflows": ROOMS - {"cli"},
    "cli": ROOMS,
}
TORCH_FREE = ("report", "annotate", "studio", "cli")


def imports(path):
    """Dotted names below the package, and the names of other packages, that a file imports anywhere in it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (("", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = list(parts[: len(parts) - node.level]) if node.level else []
            module = ".".join([*inside, *([node.module] if node.module else [])])
            ours = node.level > 0 or module.split(".")[0] == "tastemaker"
            names = [f"{module}.{a.name}".strip(".") for a in node.names]
            yield from ((n.removeprefix("tastemaker."), "") if ours else ("", module) for n in names)


FILES = sorted(p for p in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0] if path.parent != ROOT else ""
    if not room:
        return
    allowed = MAY[room] | TOOLS.get(room, set()) | {room}
    for name, _ in imports(path):
        target = name.split(".")
        if target[0] in ROOMS or target[0] == "sampling":
            fits = target[0] in allowed or ".".join(target[:2]) in allowed or room in ("workflows", "cli")
            assert fits, f"{path}: {room} may not import {name}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[0] in TORCH_FREE], ids=lambda p: p.name
)
def test_light_rooms_are_free_of_torch(path):
    assert not [package for _, package in imports(path) if package.split(".")[0] in ("torch", "transformers")]


def test_every_room_has_its_row():
    assert set(MAY) >= ROOMS
