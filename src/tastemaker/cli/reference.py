"""docs/reference.md, made from the commands themselves: `python -m tastemaker.cli.reference > docs/reference.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from .main import app
from .options import AlgorithmCommand
from .settings import Setting, settings_of

HEAD = """# Commands and settings

Made by `make reference` from the commands and the `Config` of each algorithm; do not edit by hand. Settings are
given as `key=value` words or in a YAML file, nested ones with dots:
`tastemaker train refl my.yaml optimiser.ema_decay=0.99`.
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join([HEAD, *(_command(words, c) for words, c in commands())])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with the words that call it: `tastemaker train refl`."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield words, command
            return
        for name, child in inner.items():
            yield from walk(f"{words} {name}", child)

    return walk("tastemaker", get_command(app))


def _command(words: str, command: Any) -> str:
    rows = [_parameter(p) for p in command.params if p.name != "help"]
    parts = [f"## `{words}`\n", f"{' '.join((command.help or '').split())}\n"]
    parts += ["| | | if not given |\n|---|---|---|\n" + "\n".join(rows) + "\n"] if rows else []
    if isinstance(command, AlgorithmCommand):
        settings = "\n".join(_setting(s) for s in settings_of(getattr(command, "algorithm", str(command.name))))
        parts.append(f"| setting | type | default | |\n|---|---|---|---|\n{settings}\n")
    return "\n".join(parts)


def _parameter(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    word = f"`{name}`" if parameter.param_type_name == "argument" else f"`{parameter.opts[0]}`"
    blank = parameter.default is None or parameter.default is False or parameter.required
    default = "" if blank else f"`{parameter.default}`"
    return f"| {word} | {_cell(parameter.help or '')} | {'required' if parameter.required else default} |"


def _setting(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else "required"
    return f"| `{setting.name}` | `{_cell(setting.type)}` | {_cell(default)} | {_cell(setting.sentence)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
