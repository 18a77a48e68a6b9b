"""The testbed of Gandiva (OSDI'18): its models on servers with P100s and P40s, after the paper's figures and tables.

A rate is in mini-batches/s, summed over the GPUs of a job. Published points are reproduced, with linear interpolation between
them and flat extrapolation. A model missing from a figure gets its factor from a formula over `Model.traffic`:

    within a server   VGG16's loss (figure 1), in proportion to the traffic above that of ResNet-50, which loses nothing
    between servers   (m - 1) model copies to and from a parameter server among m nodes, minus the part hidden by computation;
                      goodput and hidden part are those on which figure 2's two models agree
    same network card the loss for each further job (figure 4) as a fraction of that exchange; flows divide a card evenly, so a
                      neighbour with less traffic counts in proportion and one with more counts once
    same switch       the sensitivity of one job times the disturbance of the other: figure 3's values are such products
    same GPU          a function of summed utilisation: Table 1's pairs, and figure 10's light one

data/gandiva/SOURCE.md lists sources and assumptions.
"""

from __future__ import annotations

from muster.scheduling.profile import CoLocation, Profile, Shape, Via
from muster.simulator.jobs import Job
from muster.simulator.physics import gandiva_figures as figures
from muster.simulator.physics.gandiva_figures import Model, UnknownModel, curve, model

GOODPUT = 2.15
"""GB/s of TensorFlow 1.4 over 40 Gb/s: it reproduces the exchange of both models of figure 2 within 15 %."""
HIDDEN = 0.24
"""The fraction of a step that hides communication: the mean of figure 2's 0.13 (ResNet-50) and 0.35 (InceptionV3)."""
CARD_SHARE = 0.8
"""A job's wait for each neighbour on its cards, as a fraction of its own exchange (ResNet-50, figures 2 and 4)."""
SUSPEND_SECONDS_PER_MB = 0.1 / 98
"""A suspend and a resume of a typical image job take under 100 ms (section 4.1): 0.1 s for ResNet-50's 98 MB."""
LONGEST_SUSPEND = 1.0
USUAL_MB = 98.0
"""The assumed size of an unpublished checkpoint: ResNet-50's."""


class Gandiva:
    """Rates, costs and profiles of the paper's models; `Job.kind` names the model.

    `warm`: the destination of a move is prepared in advance (figure 13); otherwise it is not (figure 12).
    """

    placement_matters = True
    rates_drift = False

    def __init__(self, warm: bool = True) -> None:
        self._warm = warm

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        kind = model(job.kind)
        alone = shape.gpus * gpu_rate(kind, shape.model) / (1 + kind.scaling * (shape.gpus - 1))
        return alone / step(kind, shape) / crowding(kind, co_location) * packed(kind, shape.gpus, co_location)

    def milestone(self, job: Job, done: float) -> float:
        return job.work

    def resume_seconds(self, job: Job) -> float:
        return min(LONGEST_SUSPEND, SUSPEND_SECONDS_PER_MB * (model(job.kind).model_mb or USUAL_MB))

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        resized_in_place = len(before.counts) == len(after.counts) == 1 and before.counts != after.counts
        warm = migration(model(job.kind))[0 if resized_in_place else 1]
        return warm if self._warm else warm + warm_up(after.gpus)

    def profile(self, job: Job) -> Profile:
        kind = model(job.kind)
        return Profile({}, kind.utilisation, kind.memory, kind.model_mb, self.resume_seconds(job), migration(kind)[1])

    def busy(self, job: Job, co_location: CoLocation) -> float:
        kind = model(job.kind)
        return kind.utilisation * packed(kind, job.gpus, co_location)


def gpu_rate(kind: Model, gpus: str) -> float:
    """Return the mini-batches/s of one GPU of the slowest of these GPU models ("P100+P40"; "": the one measured)."""
    if not gpus:
        return next(iter(kind.rates.values()))
    try:
        return min(kind.rates[name] for name in gpus.split("+"))
    except KeyError:
        raise UnknownModel(f"Gandiva's testbed has GPUs {' and '.join(sorted(kind.rates))}, not {gpus}") from None


def step(kind: Model, shape: Shape) -> float:
    """Return the step time of a job alone, relative to the same number of GPUs under one switch."""
    return 1.0 + within(kind, shape.gbps) + across(kind, len(shape.counts))


def within(kind: Model, gbps: float) -> float:
    """Return the fraction that links of `gbps` inside a server add to a step."""
    curves = figures.locality()
    if kind.like in curves:
        return curve(curves[kind.like], gbps)
    worst, unaffected = model("VGG16"), model("ResNet-50")
    sensitivity = (kind.traffic - unaffected.traffic) / (worst.traffic - unaffected.traffic)
    return min(1.0, max(0.0, sensitivity)) * curve(curves[worst.name], gbps)


def across(kind: Model, nodes: int) -> float:
    """Return the fraction that the network between `nodes` servers adds to a step."""
    if nodes < 2:
        return 0.0
    exchange, hidden = exchanged(kind)
    return max(0.0, exchange * (nodes - 1) - hidden)


def exchanged(kind: Model) -> tuple[float, float]:
    """Return the exchange of one model copy over a card and the part hidden by computation, as fractions of a step."""
    figure = figures.spread().get(kind.like)
    if figure is None:
        return kind.traffic / GOODPUT, HIDDEN
    two, four = figure  # two servers: exchange - hidden; four: 3 exchange - hidden
    return (four - two) / 2, (four - two) / 2 - two


def crowding(kind: Model, co_location: CoLocation) -> float:
    """Return the step time with neighbours under the same switch and on the same cards, relative to that alone."""
    sensitivity = figures.bus()[kind.bus][0]
    switch = sum(sensitivity * figures.bus()[model(other).bus][1] for via, other in co_location if via is Via.SWITCH)
    flows = sum(_flow(kind, model(other)) for via, other in co_location if via is Via.NIC)
    return (1 + switch) * card(kind, 1 + flows)


def card(kind: Model, jobs: float) -> float:
    """Return the step time when `jobs` equal jobs share the cards of two servers, relative to one alone."""
    points = figures.cards().get(kind.like)
    if points is None:
        return 1 + CARD_SHARE * exchanged(kind)[0] * (jobs - 1) / (1 + across(kind, 2))
    (x0, y0), (x1, y1) = points[-2:]
    return curve(points, jobs) + max(0.0, jobs - x1) * (y1 - y0) / (x1 - x0)


def _flow(kind: Model, other: Model) -> float:
    return min(1.0, other.traffic / kind.traffic) if kind.traffic else 0.0


def packed(kind: Model, gpus: int, co_location: CoLocation) -> float:
    """Return the rate of a job with neighbours on its GPUs, assumed evenly spread, relative to that alone."""
    others = [model(other).utilisation for via, other in co_location if via is Via.GPU]
    if not others:
        return 1.0
    utilisation = kind.utilisation + max(max(others), sum(others) / gpus)
    busiest, rate = figures.packing()[-1]
    return curve(figures.packing(), utilisation) if utilisation <= busiest else rate * busiest / utilisation


def warm_up(gpus: int) -> float:
    """Return the start-up seconds of a process on `gpus` GPUs: the difference between figures 12 and 13."""
    return curve(figures.cold_moves(), gpus) - migration(model("ResNet-50"))[1]


def migration(kind: Model) -> tuple[float, float]:
    """Return the seconds of a move within a server and between two; by checkpoint size for models not in figure 13."""
    published, near, far = figures.moves()
    size = kind.model_mb or USUAL_MB
    return published.get(kind.name) or (curve(near, size), curve(far, size))
