"""`tastemaker evaluate pareto`: two figures of several runs as fronts, with the area that each dominates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.datasets import read_table
from ..data.files import parse_json, read_text
from ..errors import TastemakerError, UnknownName, expect
from ..evaluation.pareto import area_difference, area_interval, nadir, non_dominated, resample_points
from ..report.comparison import LESS_IS_BETTER, RESERVED, contenders
from ..report.fronts import Axis, FrontPoint, fronts_png
from ..report.runs import write_reports
from .files import write_whole
from .runs import Run, make_room

NORMAL = 1.96  # half a 95 % interval in standard deviations
DRAWING = "pareto.png"


@dataclass(frozen=True)
class Settings:
    """What was compared; kept as the run's config.yaml."""

    results: tuple[str, ...]
    x: str
    y: str
    lower: tuple[str, ...]
    corner: tuple[float, float]
    what: str = "pareto"
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """One point of a front; letters: Q measurements, one a seed."""

    front: str
    name: str
    rows: NDArray  # (Q, 2) in the units of the figures
    error: NDArray  # (2,) standard deviation of a single measurement, 0 where it is not known


def evaluate_pareto(results: Sequence[str], x: str, y: str, lower: str, corner: str, out: Path) -> Path:
    """Every result as a point of its front. Writes pareto.png, result.json and the page, which is returned.

    results: RUN, RUN/result.json or FILE.csv, each alone, as FRONT=PATH, or as FRONT:POINT=PATH; points of one name
    are seeds of one point. A CSV has the columns x and y and, if it has them, `front` and `point`. x, y: GROUP.FIGURE
    of the last contender of a result.json that has it, or CONTENDER.GROUP.FIGURE; or a column.
    lower: which axes are better when lower; corner: "X,Y" in the units of the figures.
    Raises TastemakerError where a file or figure is missing.
    """
    make_room(out)
    x, y = x or default_figure(results, ("frechet",)), y or default_figure(results, ("rewards", "preference"))
    points = gathered([point for text in results for point in read_points(text, x, y)])
    axes = Axis(x, is_lower(x, "x", lower)), Axis(y, is_lower(y, "y", lower))
    sign = np.array([-1.0 if axis.lower_is_better else 1.0 for axis in axes])  # higher is better from here on
    begin = sign * parse_corner(corner) if corner else nadir([sign * p.rows.mean(0) for p in points])
    fronts: dict[str, list[Point]] = {}
    for point in points:
        fronts.setdefault(point.front, []).append(point)
    result = compared(fronts, sign, begin)
    left, bottom = map(float, sign * begin)
    settings = Settings(tuple(results), x, y, tuple(a.name for a in axes if a.lower_is_better), (left, bottom))
    run = Run.create(out, settings)
    drawn = {name: drawn_points(own, sign) for name, own in fronts.items()}
    write_whole(out / DRAWING, lambda file: file.write(fronts_png(drawn, *axes)))
    run.write_result({"summary": summary(settings, axes), **result, **listed(drawn)})
    for name in fronts:
        area = result[name]["pareto"]["dominated area"]
        print(f"{name}: dominated area {area['value']:.4g} [{area['low']:.4g}, {area['high']:.4g}]")
    return write_reports([run.folder])[0]


def summary(settings: Settings, axes: Sequence[Axis]) -> str:
    x, y = axes
    return (
        f"{x.label} against {y.label}. The dominated area begins at {x.name} = {settings.corner[0]:.4g}, {y.name} = "
        f"{settings.corner[1]:.4g}. Its interval redraws the seeds of a point, or moves a point by the error that "
        "its own interval says; a figure without an interval is taken as exact."
    )


def listed(drawn: Mapping[str, Sequence[FrontPoint]]) -> dict[str, Any]:
    """The drawing and its points, for result.json."""
    points = [{"front": name, **asdict(point)} for name, own in drawn.items() for point in own]
    return {"figures": [{"file": DRAWING, "caption": "Whiskers are 95 % intervals."}], "points": points}


def drawn_points(points: Sequence[Point], sign: NDArray) -> list[FrontPoint]:
    best = non_dominated([sign * p.rows.mean(0) for p in points])
    return [shown(point, bool(one)) for point, one in zip(points, best)]


def compared(fronts: Mapping[str, Sequence[Point]], sign: NDArray, corner: NDArray) -> dict[str, Any]:
    """The area of every front, and the differences to the first one."""
    result: dict[str, Any] = {}
    measured = {}
    for k, (name, points) in enumerate(fronts.items()):
        rows = [sign * p.rows for p in points]
        middle = np.stack([r.mean(0) for r in rows])
        measured[name] = middle, resample_points(rows, [p.error for p in points], seed=k)
        area = asdict(area_interval(*measured[name], corner))
        best = int(non_dominated(middle).sum())
        result[name] = {
            "label": name, "pareto": {"dominated area": area}, "points": len(points), "not dominated": best,
        }  # fmt: skip
    first, *others = measured.values()
    result["differences"] = {
        name: {"pareto": {"dominated area": asdict(area_difference(*one, *first, corner))}}
        for name, one in zip(list(measured)[1:], others)
    }
    return result


def read_points(text: str, x: str, y: str) -> Iterator[Point]:
    """Of one argument; a point a row of a CSV, or one for a result.json."""
    front, name, path = named(text)
    if path.suffix.lower() == ".csv":
        yield from csv_points(path, front, x, y)
        return
    result = read_result(path)
    found = [interval_of(result, figure, path) for figure in (x, y)]
    rows = np.array([[value for value, _ in found]])
    expect(np.isfinite(rows).all(), f"numbers for {x} and {y} in {path}", rows.tolist()[0])
    yield Point(front, name, rows, np.array([reach / NORMAL for _, reach in found]))


def named(text: str) -> tuple[str, str, Path]:
    """Front, point and path of PATH, FRONT=PATH or FRONT:POINT=PATH."""
    if Path(text).exists() or "=" not in text:
        words, path = "", Path(text)
    else:
        words, _, place = text.partition("=")
        path = Path(place)
    if not path.exists():
        raise TastemakerError(f"no results at {path}; expected a run, its result.json or a CSV")
    front, _, name = words.partition(":")
    expect(front not in RESERVED, f"another name for a front than {', '.join(RESERVED)}", front)
    folder = path.parent if path.name == "result.json" else path
    return front or "runs", name or folder.resolve().name, path


def csv_points(path: Path, front: str, x: str, y: str) -> Iterator[Point]:
    rows, columns = read_table(path)
    for column in (x, y):
        if column not in columns:
            raise UnknownName("column", column, columns, f"Columns are read from the first line of {path}")
    for line, row in rows:
        try:
            values = np.array([[float(row[x]), float(row[y])]])
        except ValueError as error:
            raise TastemakerError(f"{path} line {line}: expected numbers in {x} and {y}, got {error}") from error
        expect(np.isfinite(values).all(), f"finite numbers in {path} line {line}", values.tolist()[0])
        yield Point(row.get("front") or front, row.get("point") or f"line {line}", values, np.zeros(2))


def gathered(points: Sequence[Point]) -> list[Point]:
    """Points of one front and one name as one, their measurements together."""
    alike: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        alike.setdefault((point.front, point.name), []).append(point)
    expect(len(alike) > 0, "at least one point", "none")
    return [
        Point(front, name, np.concatenate([p.rows for p in same]), same[0].error)
        for (front, name), same in alike.items()
    ]


def read_result(path: Path) -> dict[str, Any]:
    file = path / "result.json" if path.is_dir() else path
    result = parse_json(read_text(file), str(file))
    if not isinstance(result, dict) or not contenders(result):
        raise TastemakerError(f"{file} holds no figures; expected what `tastemaker evaluate` writes")
    return result


def figures_in(result: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure as GROUP.FIGURE, of the last contender that has it, and as CONTENDER.GROUP.FIGURE."""
    found: dict[str, Any] = {}
    for key, entry in contenders(result).items():
        for group, values in entry.items():
            if isinstance(values, dict):
                for figure, value in values.items():
                    found[f"{group}.{figure}"] = found[f"{key}.{group}.{figure}"] = value
    return found


def interval_of(result: Mapping[str, Any], name: str, path: Path) -> tuple[float, float]:
    """Value, and half of its 95 % interval or 0."""
    known = figures_in(result)
    if name not in known:
        raise UnknownName("figure", name, known, f"{path} has no such figure")
    value = known[name]
    if isinstance(value, dict):
        return float(value["value"]), (float(value["high"]) - float(value["low"])) / 2
    return float("nan") if value is None else float(value), 0.0


def default_figure(results: Sequence[str], groups: Sequence[str]) -> str:
    """The first figure of the first of these groups in the first result that is no table."""
    for text in results:
        _, _, path = named(text)
        if path.suffix.lower() != ".csv":
            for name in figures_in(read_result(path)):
                if name.split(".")[0] in groups:
                    return name
    raise TastemakerError(f"no figure of {' or '.join(groups)} to take by itself; name the axes by --x and --y")


def is_lower(name: str, letter: str, lower: str) -> bool:
    """Whether lower is better: as it was said, else by the figure's group."""
    said = [part.strip() for part in lower.split(",") if part.strip()]
    expect(set(said) <= {"x", "y"}, "x, y or x,y for --lower", lower)
    return letter in said if said else bool(set(re.split(r"[. ]", name)) & set(LESS_IS_BETTER))


def parse_corner(text: str) -> NDArray:
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        raise TastemakerError(f"expected two numbers such as 120,0.1 for --corner, got '{text}'") from error
    return np.array([x, y])


def shown(point: Point, best: bool) -> FrontPoint:
    """For the drawing: the mean of its seeds, and half a 95 % interval of that mean."""
    x, y = map(float, point.rows.mean(0))
    seeds = len(point.rows)
    error = point.rows.std(0, ddof=1) / seeds**0.5 if seeds > 1 else point.error
    return FrontPoint(point.name, x, y, (float(NORMAL * error[0]), float(NORMAL * error[1])), best)
