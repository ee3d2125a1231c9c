"""Scores of a set of pictures, as one Parquet file. Letters: N pictures, R rewards.

| column | what |
|---|---|
| file, sha256, prompt | the picture as it was named, its content, the words it was scored against |
| one per reward | float32, NaN where the reward gave none |

The schema's metadata holds, under `tastemaker`, JSON: `rewards` (name -> model, weight_hash, preprocessing) and
`errors` (pictures that could not be read, with the reason).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..errors import TastemakerError
from ..records import Provenance
from .files import whole_file

FIXED = ("file", "sha256", "prompt")
KEY = b"tastemaker"


@dataclass(frozen=True)
class Scores:
    """One row per picture that could be read."""

    files: tuple[str, ...]
    sha256: tuple[str, ...]
    prompts: tuple[str, ...]
    names: tuple[str, ...]  # R rewards
    values: Tensor  # (N, R) float32
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()  # (file, reason)

    def column(self, name: str) -> Tensor:
        """(N,) of one reward."""
        return self.values[:, self.names.index(name)]


def write_scores(path: str | Path, scores: Scores) -> None:
    """Whole or not at all. Raises TastemakerError for a full disk, a name used twice, or a name of a fixed column."""
    _check(scores)
    columns: dict[str, object] = {"file": scores.files, "sha256": scores.sha256, "prompt": scores.prompts}
    fixed = {name: pa.array(list(values), pa.string()) for name, values in columns.items()}  # type: ignore[call-overload]
    rewards = {n: pa.array(v.numpy(), pa.float32()) for n, v in zip(scores.names, scores.values.float().T)}
    notes = {"rewards": {n: asdict(p) for n, p in scores.provenance.items()}, "errors": scores.errors}
    table = pa.table({**fixed, **rewards}).replace_schema_metadata({KEY: json.dumps(notes).encode()})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)


def read_scores(path: str | Path) -> Scores:
    """Raises TastemakerError where the file is missing, damaged, or lacks a fixed column."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise TastemakerError(f"cannot read {path} as a table of scores: {error}") from error
    missing = [name for name in FIXED if name not in table.column_names]
    if missing:
        raise TastemakerError(f"{path} is no table of scores: it lacks the column(s) {', '.join(missing)}")
    notes = json.loads((table.schema.metadata or {}).get(KEY, b'{"rewards": {}, "errors": []}'))
    names = tuple(
        n for n in table.column_names if n not in FIXED and pa.types.is_floating(table.schema.field(n).type)
    )
    values = [np.array(table[n].to_numpy(), np.float32) for n in names]  # a null becomes NaN
    files, sha256, prompts = (tuple(table[name].to_pylist()) for name in FIXED)
    return Scores(
        files,
        sha256,
        prompts,
        names,
        torch.from_numpy(np.stack(values, 1)) if values else torch.empty(table.num_rows, 0),
        {n: Provenance(**p) for n, p in notes["rewards"].items()},
        tuple((file, reason) for file, reason in notes["errors"]),
    )


def _check(scores: Scores) -> None:
    rows = {len(scores.files), len(scores.sha256), len(scores.prompts), scores.values.shape[0]}
    if len(rows) > 1 or scores.values.shape[1:] != (len(scores.names),):
        raise TastemakerError(f"expected values of shape {(len(scores.files), len(scores.names))}, "
                              f"got {tuple(scores.values.shape)}")  # fmt: skip
    taken = [n for i, n in enumerate(scores.names) if n in FIXED or n in scores.names[:i]]
    if taken:
        raise TastemakerError(f"a reward cannot be called '{taken[0]}': the name is taken; give it another")
