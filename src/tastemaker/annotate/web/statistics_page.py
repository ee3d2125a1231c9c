"""The live statistics of a project: agreement, preferred places, speed, and how strong each model is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from markupsafe import Markup
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import TastemakerError
from ...records import Ranking, Vote
from .. import figures, store
from ..projects import load_project
from ..statistics import summary
from ..strengths import comparisons_of, strengths
from . import charts
from .state import State, state_of

RESAMPLES = 200
MOST_MODELS = 12
AGREEMENT = (
    ("percent", "Same answer"),
    ("cohen", "Cohen's kappa (mean of two)"),
    ("fleiss", "Fleiss' kappa"),
    ("alpha_nominal", "Krippendorff's alpha, nominal"),
    ("alpha_ordinal", "Krippendorff's alpha, ordinal"),
    ("alpha_interval", "Krippendorff's alpha, interval"),
    ("tau_b", "Kendall's tau-b (mean of two)"),
    ("kendall_w", "Kendall's W"),
)


pages = APIRouter()


@pages.get("/admin/projects/{project}/statistics")
def page(request: Request, project: int, part: int = 0) -> Response:
    state = state_of(request)
    person = state.person(request, "admin")
    with state.database.reading() as session:
        view, hours = load_project(session, project), figures.by_hour(session, project)
        progress = figures.progress(session, project)
    name = "figures.html" if part else "statistics.html"
    values = _found(state, project)
    shown: dict[str, Any] = {"agreement": agreement_rows(values), "plots": plots(values, hours)}
    shown["number"] = charts.number
    return state.page(name, person, project=view, progress=progress, found=values, share=charts.share, **shown)


@pages.get("/admin/projects/{project}/statistics.json")
def data(request: Request, project: int) -> Response:
    state = state_of(request)
    state.person(request, "admin")
    return JSONResponse(_found(state, project))


def _found(state: State, project: int) -> dict[str, Any]:
    """One look at a time, and none where nothing is new."""
    with state.looking, state.database.reading() as session:
        newest, known = figures.last_event(session), state.statistics.get(project)
        if known is None or known[0] != newest:
            known = state.statistics[project] = newest, statistics(session, project)
        return known[1]


def statistics(session: Session, project: int) -> dict[str, Any]:
    """`statistics.summary` of the project, with the strength of each model where models are known."""
    votes, ratings, rankings = store.everything(session, project, every=True)
    return {**summary(votes, ratings, rankings), "models": model_strengths([*votes, *rankings])}


def model_strengths(answers: Sequence[Vote | Ranking]) -> dict[str, Any]:
    """model -> Davidson's strength with its interval; empty where fewer than two are known or too little was said."""
    counted = [a for a in answers if a.about.get("counted")]
    models = {image: name for a in counted for image, name in _models(a)}
    if not 2 <= len(set(models.values())) <= MOST_MODELS:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = strengths(comparisons_of(counted, models.get), l2=0.1, resamples=RESAMPLES)
    except TastemakerError:
        return {}
    rows = zip(fitted.items, fitted.strengths)
    return {str(k): v.as_dict() for k, v in sorted(rows, key=lambda row: -row[1].value)}


def _models(answer: Vote | Ranking) -> list[tuple[str, str]]:
    images = (answer.image_a, answer.image_b) if isinstance(answer, Vote) else answer.images
    hidden = answer.about.get("hidden") or ()
    return [(image, str(h["model"])) for image, h in zip(images, hidden) if h.get("model")]


def agreement_rows(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(what was judged, [(figure, value)]) for the figures that are known."""
    parts = {"Votes": found["votes"], "Rankings": found["rankings"]}
    parts |= {f"Marks: {scale}": row for scale, row in found["ratings"].items()}
    rows = [(name, _known(part)) for name, part in parts.items()]
    share = found["pairs"]["share"]
    pairs = [("Preferences of two people", [(f"the same one of {found['pairs']['of']} times", charts.share(share))])]
    return (pairs if share is not None else []) + [row for row in rows if row[1]]


def _known(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(words, charts.number(part[name])) for name, words in AGREEMENT if part.get(name) is not None]


def plots(found: Mapping[str, Any], hours: Sequence[int]) -> list[tuple[str, Markup]]:
    """(caption, plot)."""
    drawn = [("Answers an hour", charts.line(hours, "Answers an hour, the last 48 hours", "48 hours ago", "now"))]
    names = {
        "a": "first of the item",
        "b": "second of the item",
        "tie": "tie",
        "both_bad": "both bad",
        "skip": "skip",
    }
    choices = {words: found["choices"][f"choice_{name}"] for name, words in names.items()}
    if sum(choices.values()):
        drawn.append(("Choices", charts.bars(choices, "How often each choice was made")))
    left = found["position"]["left"]
    if left is not None:
        bias = charts.bars({"left picture": left}, "Share of choices for the left picture", high=1.0, mark=0.5)
        drawn.append(("Position: half is expected", bias))
    if found["models"]:
        low = min(row["low"] for row in found["models"].values())
        caption = "Strength of each model (Davidson; natural logarithm of odds)"
        drawn.append((caption, charts.bars(found["models"], caption, low=min(0.0, low))))
    people = {row["annotator"]: row["answers"] for row in found["annotators"][:15]}
    if people:
        drawn.append(("Answers of each person", charts.bars(people, "Answers of each person")))
    return drawn
