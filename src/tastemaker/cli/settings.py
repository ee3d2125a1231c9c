"""The settings of an algorithm, read from its source without importing it, for `--help` that needs no torch.

Every field of the dataclass `Config` counts; its sentence is the string literal below it or the comment behind it.
A field whose type is another dataclass of the same room is followed into it, with dots. Fields of a base class of
the room come first, and one that is given again counts as it is given last, in its old place: as in a dataclass.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOM = Path(__file__).resolve().parent.parent / "algorithms"


@dataclass(frozen=True)
class Setting:
    name: str  # nested ones by dots
    type: str
    default: str  # as written in the source; "" where a value must be given
    sentence: str


def settings_of(algorithm: str, kind: str = "Config") -> list[Setting]:
    """The settings of algorithms/ALGORITHM.py (a dash stands for an underscore), in the order of the fields; those of
    another room where it is named first, as in `search/parm`."""
    room, _, name = algorithm.rpartition("/")
    return _read((ROOM.parent / room if room else ROOM) / f"{name.replace('-', '_')}.py", kind)


def _read(path: Path, kind: str) -> list[Setting]:
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    found: dict[str, Setting] = {}
    for made in (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind):
        for base in map(ast.unparse, made.bases):
            home = _home(path, tree, base)
            found |= {s.name: s for s in (_read(home, base) if home else [])}
        for i, node in enumerate(made.body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found |= {s.name: s for s in _setting(path, tree, node, _sentence(made.body, i, lines))}
    return list(found.values())


def _setting(path: Path, tree: ast.Module, node: ast.AnnAssign, sentence: str) -> list[Setting]:
    name, type_ = ast.unparse(node.target), ast.unparse(node.annotation)
    home = _home(path, tree, type_)
    if home is None:
        return [Setting(name, type_, _default(node.value), sentence)]
    given = _keywords(node.value)
    return [Setting(f"{name}.{s.name}", s.type, given.get(s.name, s.default), s.sentence) for s in _read(home, type_)]


def _home(path: Path, tree: ast.Module, kind: str) -> Path | None:
    """The file of this room that defines the dataclass `kind`, or None where it is a plain type."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == kind:
            return path
        if isinstance(node, ast.ImportFrom) and node.level == 1 and kind in {a.name for a in node.names}:
            return path.parent / f"{node.module}.py"
    return None


def _default(value: ast.expr | None) -> str:
    """What the field holds if nothing is said; `field(default_factory=f)` is what f makes."""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "field"):
        return "" if value is None else ast.unparse(value)
    given = {k.arg: k.value for k in value.keywords}
    factory = given.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return ast.unparse(factory.body)
    return _default(given.get("default")) if factory is None else f"{ast.unparse(factory)}()"


def _keywords(value: ast.expr | None) -> dict[str, str]:
    """The keywords with which a nested dataclass is made where it is the default."""
    try:
        made = ast.parse(_default(value), mode="eval").body
    except SyntaxError:
        return {}
    return {k.arg: ast.unparse(k.value) for k in made.keywords if k.arg} if isinstance(made, ast.Call) else {}


def _sentence(body: list[ast.stmt], i: int, lines: list[str]) -> str:
    after = body[i + 1] if i + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return " ".join(after.value.value.split())
    end = body[i].end_lineno or 0
    return lines[end - 1][body[i].end_col_offset or 0 :].strip().lstrip("#").strip()
