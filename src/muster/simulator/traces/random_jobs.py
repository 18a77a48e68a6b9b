"""Random jobs with every feature of a request, for randomised tests; the same seed gives the same jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from muster.scheduling.gang import Sensitivity, Sharing
from muster.scheduling.topology.node import Level
from muster.simulator.jobs import Job

KINDS = ("vgg16", "resnet50", "lm", "vae", "gnmt")


def random_jobs(
    count: int, seed: int, *, largest: int = 8, load: float = 1.5, gpus: int = 32, queues: Sequence[str] = ("default",)
) -> Iterator[Job]:
    """Yield jobs with an average load of `load` times a cluster of `gpus` GPUs."""
    random = Random(seed)
    now = 0.0
    for index in range(count):
        tasks = (random.choice((1, 1, 1, 2, 4)),) * random.choice((1, 1, 2, 3, 4))
        while sum(tasks) > largest:
            tasks = tasks[:-1] if len(tasks) > 1 else (1,)
        work = 10 ** random.uniform(1.0, 3.5)
        now += random.expovariate(1.0) * work * sum(tasks) / (gpus * load)
        elastic = random.random() < 0.2
        yield Job(
            name=f"job-{index:06}",
            arrival=now,
            tasks=tasks,
            work=work,
            kind=random.choice(KINDS),
            fewest=1 if elastic else None,
            most=len(tasks) + 2 if elastic else None,
            queue=random.choice(queues),
            priority=random.choice((0, 0, 0, 0, 10)),
            sharing=Sharing(random.random() < 0.8, random.random() < 0.5, random.choice((1.0, 1.0, 2.0))),
            spread=random.random() < 0.1,
            required=random.choice((Level.CLUSTER,) * 6 + (Level.BLOCK, Level.RACK, Level.NODE)),
            preferred=random.choice((Level.NODE, Level.NODE, Level.RACK, Level.CLUSTER)),
            sensitivity=random.choice((Sensitivity.AUTO, Sensitivity.AUTO, Sensitivity.HIGH, Sensitivity.LOW)),
        )
