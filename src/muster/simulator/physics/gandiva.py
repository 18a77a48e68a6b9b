"""The testbed of Gandiva (OSDI'18): its models as its figures and tables show them, on servers with P100s and P40s.

A rate counts the mini-batches of all GPUs of a job together. It is what the figures say where they say it, interpolated between
their points and flat beyond them; a model that a figure leaves out gets its factor from a formula over `Model.traffic`:

    within a server   the loss of VGG16 (figure 1) in proportion to how far traffic is above ResNet-50's, which loses nothing
    between servers   (m - 1) model copies to and from a parameter server among m nodes, less what computing hides; with the
                      goodput and the hidden share on which figure 2's two models agree
    same network card the loss for each job more (figure 4) as a share of that exchange; a neighbour with less traffic counts
                      less, one with more counts once, since flows share a card evenly
    same switch       what one suffers times what the other causes: the values of figure 3 are such products
    same GPU          by summed utilisation: Table 1's pairs, and figure 10's light one

data/gandiva/SOURCE.md says where each figure is from and what is assumed.
"""

from __future__ import annotations

from muster.scheduling.profile import CoLocation, Profile, Shape, Via
from muster.simulator.jobs import Job
from muster.simulator.physics import gandiva_figures as figures
from muster.simulator.physics.gandiva_figures import Model, UnknownModel, curve, model

GOODPUT = 2.15
"""GB/s of TensorFlow 1.4 over 40 Gb/s: with it the exchange that figure 2 shows of either model is right within 15 %."""
HIDDEN = 0.24
"""The share of a step behind which communication hides: the mean of figure 2's 0.13 (ResNet-50) and 0.35 (InceptionV3)."""
CARD_SHARE = 0.8
"""The part of its exchange that a job waits for each neighbour on its cards (ResNet-50, figures 2 and 4)."""
SUSPEND_SECONDS_PER_MB = 0.1 / 98
"""A suspend and a resume of typical image jobs take under 100 ms (section 4.1); ResNet-50 is one."""
LONGEST_SUSPEND = 1.0
USUAL_MB = 98.0
"""What a checkpoint is taken to be where the paper does not say: ResNet-50's."""


class Gandiva:
    """Rates, costs and profiles of the paper's models; `Job.kind` names the model.

    `warm`: the destination of a move was prepared (figure 13); else it starts from nothing (figure 12).
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
    """Return the mini-batches/s of one GPU of the slowest of these models ("P100+P40"; "" is where it was measured)."""
    if not gpus:
        return next(iter(kind.rates.values()))
    try:
        return min(kind.rates[one] for one in gpus.split("+"))
    except KeyError:
        raise UnknownModel(f"Gandiva's testbed has GPUs {' and '.join(sorted(kind.rates))}, not {gpus}") from None


def step(kind: Model, shape: Shape) -> float:
    """Return the time of a step of a job alone, beside that of as many GPUs under one switch."""
    return 1.0 + within(kind, shape.gbps) + across(kind, len(shape.counts))


def within(kind: Model, gbps: float) -> float:
    """Return what links of `gbps` inside a server add to a step."""
    curves = figures.locality()
    if kind.like in curves:
        return curve(curves[kind.like], gbps)
    most, none = model("VGG16"), model("ResNet-50")
    share = (kind.traffic - none.traffic) / (most.traffic - none.traffic)
    return min(1.0, max(0.0, share)) * curve(curves[most.name], gbps)


def across(kind: Model, nodes: int) -> float:
    """Return what the network between `nodes` servers adds to a step."""
    if nodes < 2:
        return 0.0
    exchange, hidden = exchanged(kind)
    return max(0.0, exchange * (nodes - 1) - hidden)


def exchanged(kind: Model) -> tuple[float, float]:
    """Return the exchange of one copy of a model over a card, and what of it computing hides, as shares of a step."""
    figure = figures.spread().get(kind.like)
    if figure is None:
        return kind.traffic / GOODPUT, HIDDEN
    two, four = figure  # two servers: exchange - hidden; four: 3 exchange - hidden
    return (four - two) / 2, (four - two) / 2 - two


def crowding(kind: Model, co_location: CoLocation) -> float:
    """Return the time of a step beside neighbours under the same switch and on the same cards, beside that alone."""
    suffers = figures.bus()[kind.bus][0]
    switch = sum(suffers * figures.bus()[model(other).bus][1] for via, other in co_location if via is Via.SWITCH)
    flows = sum(_flow(kind, model(other)) for via, other in co_location if via is Via.NIC)
    return (1 + switch) * card(kind, 1 + flows)


def card(kind: Model, jobs: float) -> float:
    """Return the time of a step of one of `jobs` like it that share the cards of two servers, beside that of one alone."""
    points = figures.cards().get(kind.like)
    if points is None:
        return 1 + CARD_SHARE * exchanged(kind)[0] * (jobs - 1) / (1 + across(kind, 2))
    (x0, y0), (x1, y1) = points[-2:]
    return curve(points, jobs) + max(0.0, jobs - x1) * (y1 - y0) / (x1 - x0)


def _flow(kind: Model, other: Model) -> float:
    return min(1.0, other.traffic / kind.traffic) if kind.traffic else 0.0


def packed(kind: Model, gpus: int, co_location: CoLocation) -> float:
    """Return the rate of a job beside that alone on its GPUs; its neighbours there are taken to be spread over them."""
    others = [model(other).utilisation for via, other in co_location if via is Via.GPU]
    if not others:
        return 1.0
    utilisation = kind.utilisation + max(max(others), sum(others) / gpus)
    busiest, rate = figures.packing()[-1]
    return curve(figures.packing(), utilisation) if utilisation <= busiest else rate * busiest / utilisation


def warm_up(gpus: int) -> float:
    """Return the seconds in which a new process gets ready on so many GPUs: what figure 12's moves take beside figure 13's."""
    return curve(figures.cold_moves(), gpus) - migration(model("ResNet-50"))[1]


def migration(kind: Model) -> tuple[float, float]:
    """Return the seconds of a move within a server and between two; by checkpoint size where figure 13 leaves the model out."""
    known, near, far = figures.moves()
    size = kind.model_mb or USUAL_MB
    return known.get(kind.name) or (curve(near, size), curve(far, size))
