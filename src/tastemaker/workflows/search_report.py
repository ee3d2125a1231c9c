"""What a search gained and what it cost, as figures and as a page.

Selection is by verifier A; where a judge B who did not choose is given, the report is by B too: the plain picture
against the kept one, and how B's mean moves with the number of candidates, so that an exploited verifier shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..encoders.table import load_encoder
from ..evaluation.diversity import per_prompt
from ..evaluation.intervals import bootstrap_mean, paired_difference
from ..evaluation.n_curve import curve_of, peak_of, reports_of
from ..protocols import Reward
from ..records import Ledger
from ..report.page import Listing, Page, Section, Text, Tile, Tiles, write_page
from ..report.pictures import Picture, PictureGrid, PictureRow
from ..report.tables import Table
from .files import finite

if TYPE_CHECKING:
    from .search import Bench, Kept

SHEET = 1600  # pixels, the longest side of a strip on the page


def reported(bench: Bench, kept: Kept, ledger: Ledger, judge: Reward | None, curve: bool) -> dict[str, Any]:
    """The figures of a search. curve: the candidates are independent, so that fewer of them can be thought of."""
    result: dict[str, Any] = {
        "verifier": bench.verifier.name,
        "prompts": len(bench.prompts),
        "left_out": len(bench.prompts) - len(kept.images),
        "ledger": ledger.as_dict(),
        "score": float(torch.stack([s[c] for s, c in zip(kept.scores, kept.chosen)]).mean()),
    }
    if judge is not None:
        result["report_by"] = judge.name
        result |= by_judge(kept, curve)
    apart = kept_diversity(kept)
    return result | ({} if apart is None else {"diversity_of_the_kept": apart})


def by_judge(kept: Kept, curve: bool) -> dict[str, Any]:
    """The judge's mean of the kept pictures, against candidate 0, and its curve over the number of candidates."""
    texts = [p.text for p in kept.prompts]
    report = torch.stack(kept.reports)
    own = report[torch.arange(len(report)), torch.tensor(kept.chosen)]
    if len(own) < 2:
        return {"report": float(own[0])}
    out: dict[str, Any] = {"report": bootstrap_mean(own, texts)}
    if not report[:, 0].isnan().any():
        out["report_minus_plain"] = paired_difference(own, report[:, 0], texts)
    if curve and not report.isnan().any() and report.shape[1] > 1:
        reports = reports_of(torch.stack(kept.scores), report)
        peak = peak_of(reports)
        out["n_curve"] = {str(n): value for n, value in curve_of(reports).items()}
        out["peak"] = {"n": peak.n, "exploited": peak.exploited, "fall": peak.fall}
    return out


def kept_diversity(kept: Kept) -> float | None:
    """How unlike the kept pictures of one prompt are over its seeds: the mean distance of ImageNet features, as
    evaluation/diversity.py has it; None where no prompt has two."""
    texts = [p.text for p in kept.prompts]
    if len(set(texts)) == len(texts):
        return None
    encoder = load_encoder("efficientnet-lite0")
    with torch.no_grad():
        features = torch.cat([encoder.features(torch.stack(part)) for part in _chunks(kept.images, 32)])
    return float(np.nanmean(per_prompt(features.cpu().numpy(), np.array(texts))))


def _chunks(images: list, size: int) -> list[list]:
    return [images[i : i + size] for i in range(0, len(images), size)]


def write_search_page(out: Path, result: dict[str, Any]) -> Path:
    """OUT/report.html: figures, the kept pictures, and the paths with the verifier's words."""
    ledger = result["ledger"]
    tiles = [
        Tile("network evaluations", ledger["network_evaluations"]),
        Tile("paths", ledger["paths"], f"{ledger['pruned']} cut off"),
        Tile("answers of the verifier", ledger["verifier_calls"]),
        Tile("seconds", round(ledger["seconds"], 1)),
    ]
    parts = [
        [part, round(s, 2), ledger["flops_by_part"].get(part, 0.0)] for part, s in ledger["seconds_by_part"].items()
    ]
    sections = [
        Section("Cost", [Tiles(tiles), Table(["part", "seconds", "floating-point operations"], parts)]),
        Section("Figures", [Table(["", ""], _figures(result))]),
        Section(
            "Kept",
            [PictureGrid([PictureRow("kept pictures", [Picture(out / "grid.png", longest=SHEET)])], large=True)],
        ),
    ]
    strips = sorted((out / "strips").glob("*.png"))
    if strips:
        rows = [PictureRow(f"prompt {int(p.stem)}", [Picture(p, longest=SHEET)]) for p in strips]
        words = (
            "A row is a path: its previews with what the verifier said, and its end. The first row is the kept one."
        )
        sections.append(Section("Paths", [Text(words), PictureGrid(rows, large=True)]))
    config = out / "config.yaml"
    sections.append(Section("Settings", [Listing("config.yaml", config.read_text(encoding="utf-8"))]))
    lead = f"{result['prompts']} prompts and seeds, chosen by {result['verifier']}."
    return write_page(Page(f"Search: {result['method']}", lead, sections), out / "report.html")


def _figures(result: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name, value in result.items():
        if name in ("ledger", "method", "n_curve", "peak"):
            continue
        rows.append([name.replace("_", " "), value])
    rows += [[f"report by n = {n}", value] for n, value in result.get("n_curve", {}).items()]
    if "peak" in result:
        words = ", and falls after it: the verifier is exploited" if result["peak"]["exploited"] else ""
        rows.append(["the curve is highest at", f"n = {result['peak']['n']}{words}"])
    return [[name, finite(value) if isinstance(value, float) else value] for name, value in rows]
