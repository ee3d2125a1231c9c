"""Settings: a frozen dataclass of plain values, filled from its defaults, then a YAML file, then `key=value` words.

Nested dataclasses are reached by dots: `optimiser.learning_rate=1e-4`. A key that is not a field, or a value of the
wrong type, is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import TastemakerError, UnknownName

C = TypeVar("C")


def read_config(kind: type[C], path: str | Path | None = None, overrides: Sequence[str] = ()) -> C:
    """A `kind` from an optional YAML file and `key=value` words; what is not given keeps its default, or, where
    `preset` names a row of `kind.presets()`, what that row says.

    Raises UnknownName for a key that `kind` lacks, TastemakerError for a value of another type, a file that is not
    a YAML mapping, a word without `=`, and what the dataclass itself refuses.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(Path(path))
    for word in overrides:
        _set(values, *_split(word))
    known = keys_of(kind)
    _refuse_unknown(values, known)
    try:
        start = _over(kind, default_values(kind), preset_values(kind, values.get("preset")))
        return TypeAdapter(kind).validate_python(_over(kind, start, values))
    except ValidationError as error:
        raise TastemakerError(_sentence(error)) from error


def keys_of(kind: Any, prefix: str = "") -> dict[str, Any]:
    """Every key with its type, nested ones by dots."""
    hints = get_type_hints(kind)
    keys: dict[str, Any] = {}
    for f in fields(kind):
        hint = hints[f.name]
        keys |= keys_of(hint, f"{prefix}{f.name}.") if is_dataclass(hint) else {prefix + f.name: hint}
    return keys


def default_values(kind: Any) -> dict[str, Any]:
    """The defaults as plain values; fields without one are left out."""
    out: dict[str, Any] = {}
    for f in fields(kind):
        if f.default is not MISSING:
            out[f.name] = plain(f.default)
        elif f.default_factory is not MISSING:
            out[f.name] = plain(f.default_factory())
    return out


def preset_values(kind: Any, name: Any) -> dict[str, Any]:
    """The row of that name, of a kind that has some; a name that is not known is for the kind to refuse."""
    rows = kind.presets() if hasattr(kind, "presets") else {}
    return rows.get(str(name), {})


def plain(value: Any) -> Any:
    """What YAML and JSON hold: dataclasses and mappings as dicts, tuples as lists, paths and others as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in fields(value)})
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TastemakerError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, (dict, type(None))):
        raise TastemakerError(f"{path} must hold `key: value` lines, it holds a {type(values).__name__}")
    return values or {}


def _split(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise TastemakerError(f"expected key=value, got {word!r}; for example optimiser.learning_rate=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TastemakerError(f"{word!r}: {text!r} is not a YAML value") from error
    return key, value if isinstance(value, (list, dict, type(None))) else text  # words are typed by their field


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise TastemakerError(f"{key}: {name} is a single value and has no keys inside")
    values[last] = value


def _refuse_unknown(values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if any(k.startswith(f"{key}.") for k in known):
            if not isinstance(value, Mapping):
                inner = [k for k in known if k.startswith(f"{key}.")]
                raise TastemakerError(f"{key} holds several settings ({', '.join(inner[:4])}, ...), got {value!r}")
            _refuse_unknown(value, known, f"{key}.")
        elif key not in known:
            raise UnknownName("configuration key", key, list(known))


def _over(kind: Any, base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` laid over `base`, key by key where a setting is a dataclass; any other value replaces the default."""
    hints, out = get_type_hints(kind), {**base, **values}
    for name in values:
        if is_dataclass(hints[name]) and isinstance(base.get(name), dict):
            out[name] = _over(hints[name], base[name], values[name])
    return out


def _sentence(error: ValidationError) -> str:
    """All that is wrong, each as `key: what was expected, got what came`."""
    parts = []
    for item in error.errors():
        key = ".".join(str(x) for x in item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Exception):  # what the dataclass itself refuses already is a sentence
            parts.append(str(cause))
        elif item["type"] in ("missing", "missing_argument"):
            parts.append(f"{key}: expected a value, got none; give {key}=VALUE")
        else:
            parts.append(f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}")
    return "; ".join(dict.fromkeys(parts))
