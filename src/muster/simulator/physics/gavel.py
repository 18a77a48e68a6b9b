"""Rates of 26 kinds of one-GPU jobs on V100, P100 and K80, alone and in pairs, as measured for Gavel (OSDI'20).

A rate is in mini-batches/s. The fastest GPU depends on the kind: a CycleGAN on a K80 has a ninth of its V100 rate, while most
recommenders are faster on the K80. Each pair is measured separately: some lose nothing, some do not fit into one GPU's memory.
Gavel's simulator charges nothing for a move; here the scenario sets the cost.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import prod
from typing import Annotated

from pydantic import Field

from muster.scheduling.profile import CoLocation, Profile, Shape, Via
from muster.scheduling.topology.links import UNLIMITED
from muster.simulator.jobs import Job

MODELS = ("V100", "P100", "K80")
_ALONE = "alone"

Seconds = Annotated[float, Field(ge=0)]


class UnknownKind(LookupError):
    """A kind of job or a GPU model without a measured rate."""


class Gavel:
    """The measured rates, with the scenario's costs of a move and a resume."""

    placement_matters = True
    rates_drift = False

    def __init__(self, move_seconds: Seconds = 0.0, resume_seconds: Seconds = 0.0) -> None:
        self._move, self._resume = move_seconds, resume_seconds

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        return rate(job.kind, shape.model, co_location)

    def milestone(self, job: Job, done: float) -> float:
        return job.work

    def resume_seconds(self, job: Job) -> float:
        return self._resume

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        return self._move

    def profile(self, job: Job) -> Profile:
        if job.gpus != 1:
            raise UnknownKind(f"it asks for {job.gpus} GPUs; only jobs of one were measured")
        rate(job.kind, MODELS[0])
        return Profile(suspend_seconds=self._resume, migrate_seconds=self._move)

    def busy(self, job: Job, co_location: CoLocation) -> float:
        return 1.0 / (1 + sum(via is Via.GPU for via, _ in co_location))  # co-located jobs divide one busy GPU


@cache
def rate(kind: str, model: str, co_location: CoLocation = ()) -> float:
    """Return the mini-batches/s of a job on a GPU of `model`; the losses to several neighbours multiply.

    Raise UnknownKind.
    """
    row = _row(kind, model)
    neighbours = [neighbour for via, neighbour in co_location if via is Via.GPU]
    for neighbour in neighbours:
        _row(neighbour, model)
    return row[_ALONE] * prod(row[neighbour] / row[_ALONE] for neighbour in neighbours)


def kinds() -> tuple[str, ...]:
    """Return the kinds of jobs in the order of the tables."""
    return tuple(_table(MODELS[0]))


def full_profiles() -> dict[str, Profile]:
    """Return a profile with every measured rate for each kind, the input of Gavel's own policies."""
    return {kind: Profile(rates=_rates(kind)) for kind in kinds()}


def _rates(kind: str) -> dict[tuple[Shape, CoLocation], float]:
    co_locations: list[CoLocation] = [(), *(((Via.GPU, other),) for other in kinds())]
    return {
        (Shape(model, (1,), UNLIMITED), co_location): rate(kind, model, co_location)
        for model in MODELS
        for co_location in co_locations
    }


def _row(kind: str, model: str) -> Mapping[str, float]:
    if model not in MODELS:
        raise UnknownKind(f"there is no measurement on a GPU called {model!r}; expected one of {', '.join(MODELS)}")
    try:
        return _table(model)[kind]
    except KeyError:
        raise UnknownKind(f"no measurement of {kind!r}; expected one of {', '.join(kinds())}") from None


@cache
def _table(model: str) -> Mapping[str, Mapping[str, float]]:
    path = files("muster.simulator") / "data" / "gavel" / f"{model.lower()}.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {row.pop("kind"): {column: float(cell) for column, cell in row.items()} for row in rows}
