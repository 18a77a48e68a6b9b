"""The jobs of Gandiva's two cluster experiments (OSDI'18), drawn at random from the paper's distributions.

`Job.work` is in mini-batches: the progress of the job's P40s in its published time, on one server (`mix`) or on a placement
typical of YARN, under which the trace was recorded (`replay`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from math import exp, log
from random import Random
from typing import Annotated

from pydantic import Field

from muster.scheduling.profile import NO_NEIGHBOURS, Shape
from muster.scheduling.topology.links import UNLIMITED as ALONE_GBPS
from muster.simulator.jobs import Job
from muster.simulator.physics.gandiva import Gandiva, warm_up

MIX: Sequence[tuple[float, Sequence[str]]] = (
    (0.30, ("VAE", "SuperResolution")),
    (0.25, ("RHN", "SCRNN", "MI-LSTM")),
    (0.45, ("LSTM", "ResNet-50", "ResNext-50")),
)
"""Jobs with low, medium and high utilisation."""
ON_SEVERAL_GPUS = ("ResNet-50", "ResNext-50")
FIELDS: Sequence[tuple[float, Sequence[str]]] = (
    (0.10, ("InceptionV3", "ResNet-50", "VGG16", "AlexNet")),
    (0.60, ("Bi-Att-Flow", "LM", "GNMT", "Transformer")),
    (0.30, ("Wavenet", "DeepSpeech")),
)
"""Vision, language and speech; the models of figure 13, equally likely within a field."""
SERVER_GPUS = 4
SWITCH_GBPS = 12.0
SIZES = {1: 0.932, 2: 0.022, 4: 0.046}
"""The distribution of Philly's job sizes in GPUs (benchmarks/data/philly); jobs larger than a server count as one GPU."""
AS_RECORDED = {
    1: Shape("P40", (1,), ALONE_GBPS),
    2: Shape("P40", (1, 1), ALONE_GBPS),
    4: Shape("P40", (2, 1, 1), SWITCH_GBPS),
}
"""The assumed placement of a job recorded under YARN, by its GPUs: usually spread over several servers."""
MINUTE = 60.0


def mix(
    seed: int,
    count: Annotated[int, Field(ge=1, le=100_000)] = 1000,
    hours: Annotated[float, Field(gt=0)] = 2.0,
    gpu_minutes: tuple[float, float] = (30.0, 45.0),
) -> list[Job]:
    """Return the first experiment's jobs: uniform arrivals over `hours`; `gpu_minutes` bounds a job's GPU time."""
    random = Random(seed)
    arrivals = sorted(random.uniform(0.0, hours * 60 * MINUTE) for _ in range(count))
    jobs = []
    for index, arrival in enumerate(arrivals):
        kind = _drawn(random, MIX)
        gpus = random.choice((2, 4)) if kind in ON_SEVERAL_GPUS else 1
        shape = Shape("P40", (gpus,), SWITCH_GBPS)
        job = _job(f"job-{index:04}", arrival, kind, shape, random.uniform(*gpu_minutes) * MINUTE / gpus)
        jobs.append(replace(job, tasks=(gpus,)))  # one process with all GPUs of a server: PyTorch's DataParallel
    return jobs


def replay(
    seed: int,
    count: Annotated[int, Field(ge=1, le=100_000)],
    days: Annotated[float, Field(gt=0)] = 9.0,
) -> list[Job]:
    """Return the second experiment's jobs: runtimes of figure 16, sizes of Philly's jobs.

    The trace contains jobs that started and ended within `days`, so each arrives early enough to end in time.
    """
    random = Random(seed)
    runtimes = [(log(float(row["runtime_min"])), float(row["cdf"])) for row in _table("fig16_trace_runtime_cdf.csv")]
    drawn = []
    for _ in range(count):
        minutes = exp(_quantile([(log(0.1), 0.0), *runtimes], random.random()))
        shape = AS_RECORDED[random.choices(list(SIZES), list(SIZES.values()))[0]]
        arrival = random.uniform(0.0, max(0.0, days * 24 * 60 - minutes)) * MINUTE
        drawn.append((arrival, _drawn(random, FIELDS), shape, minutes * MINUTE))
    return [_job(f"job-{index:05}", *job) for index, job in enumerate(sorted(drawn))]


def _job(name: str, arrival: float, kind: str, shape: Shape, seconds: float) -> Job:
    """A job that runs for `seconds` on GPUs of a shape, after its start-up."""
    job = Job(name, arrival, (1,) * shape.gpus, 1.0, kind, start_seconds=warm_up(shape.gpus))
    return replace(job, work=seconds * Gandiva().rate(job, 0.0, shape, NO_NEIGHBOURS))


def _drawn(random: Random, groups: Sequence[tuple[float, Sequence[str]]]) -> str:
    kinds = random.choices([kinds for _, kinds in groups], [weight for weight, _ in groups])[0]
    return random.choice(kinds)


def _quantile(cdf: Sequence[tuple[float, float]], fraction: float) -> float:
    """The quantile of `fraction`, linear between the points of the distribution."""
    for (x0, y0), (x1, y1) in pairwise(cdf):
        if fraction <= y1:
            return x0 + (x1 - x0) * (fraction - y0) / (y1 - y0)
    return cdf[-1][0]


def _table(file: str) -> list[dict[str, str]]:
    text = files("muster.simulator").joinpath("data", "gandiva", file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
