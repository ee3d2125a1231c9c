"""Where else the figures of a run may go: TensorBoard, Weights & Biases, trackio (extra `tastemaker[track]`)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Protocol

from ..errors import MissingExtra, UnknownName
from ..ranks import first
from ..records import StepRecord
from .runs import Run


class Sink(Protocol):
    """Takes every record of a run, once."""

    def log(self, record: StepRecord) -> None: ...
    def close(self) -> None: ...


def _optional(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(package, "track") from error


def _finite(record: StepRecord) -> dict[str, float]:
    return {k: float(v) for k, v in record.values.items() if math.isfinite(v)}


class TensorBoard:
    """Event files in the run's folder `tensorboard/`; after a resume, steps logged past the checkpoint are purged."""

    def __init__(self, run: Run, start: int = 0):
        module = _optional("torch.utils.tensorboard", "tensorboard")
        self.writer = module.SummaryWriter(str(run.folder / "tensorboard"), purge_step=start + 1 if start else None)

    def log(self, record: StepRecord) -> None:
        for name, value in _finite(record).items():
            self.writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        self.writer.close()


class _Online:
    """wandb and trackio share the three calls used here."""

    package = ""

    def __init__(self, run: Run, start: int = 0):
        self.module = _optional(self.package, self.package)
        self.module.init(project="tastemaker", name=run.folder.name, config=dict(run.config))

    def log(self, record: StepRecord) -> None:
        self.module.log(_finite(record), step=record.step)

    def close(self) -> None:
        self.module.finish()


class Wandb(_Online):
    package = "wandb"


class Trackio(_Online):
    package = "trackio"


SINKS: Mapping[str, Callable[[Run, int], Sink]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


def sink_names(names: str) -> list[str]:
    """names: comma-separated, may be empty. Raises UnknownName."""
    wanted = [n.strip() for n in names.split(",") if n.strip()]
    for name in wanted:
        if name not in SINKS:
            raise UnknownName("sink", name, SINKS)
    return wanted


def open_sinks(names: str, run: Run, start: int = 0) -> list[Sink]:
    """names: comma-separated, may be empty. start: the step at which a resumed run goes on. None in all processes but
    the first."""
    return [SINKS[name](run, start) for name in sink_names(names)] if first() else []
