"""The job sources, physics and policies that a scenario can name, one line each; `plugin_fields` says what a builder is."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from muster.scheduling.decisions import VERBS, Migrate, Pack, Preempt
from muster.scheduling.settings import Policy, Settings
from muster.simulator.physics import Ideal
from muster.simulator.physics.gandiva import Gandiva
from muster.simulator.physics.gavel import Gavel
from muster.simulator.physics.pollux import Pollux
from muster.simulator.plugin_fields import Builder, Fixed
from muster.simulator.policies import Oracle
from muster.simulator.policies.kubernetes import KubeScheduler
from muster.simulator.policies.muster import Muster
from muster.simulator.policies.optimus import Optimus
from muster.simulator.policies.ordered import ORDERS, Order, Ordered
from muster.simulator.policies.rounds import FairRounds
from muster.simulator.policies.tiresias import Tiresias
from muster.simulator.policies.yarn import Yarn
from muster.simulator.traces import ffdl, gandiva, gavel, listed, openb, philly, poisson, pollux, tiresias


def _planner(policy: Policy) -> Builder:
    def build(
        settings: Annotated[Settings, Fixed(frozenset({"policy", "verbs"}))],
        preemption: bool = True,
        packing: bool = True,
        migration: bool = True,
    ) -> Muster:
        switches = ((Preempt, preemption), (Pack, packing), (Migrate, migration))
        off = {verb for verb, on in switches if not on}
        return Muster(replace(settings, policy=policy, verbs=VERBS - off))

    return build


def _ordered(order: Order) -> Builder:
    def build(oracle: Oracle) -> Ordered:
        return Ordered(order, oracle)

    return build


SOURCES: dict[str, Builder] = {
    "list": listed.jobs,
    "poisson": poisson.jobs,
    "philly": philly.jobs,
    "tiresias": tiresias.jobs,
    "pollux": pollux.jobs,
    "openb": openb.jobs,
    "gandiva-mix": gandiva.mix,
    "gandiva-replay": gandiva.replay,
    "gavel": gavel.jobs,
    "ffdl-learners": ffdl.learners,
    "ffdl-days": ffdl.days,
}
PHYSICS: dict[str, Builder] = {
    "ideal": Ideal,
    "gandiva": Gandiva,
    "gavel": Gavel,
    "pollux": Pollux,
}
POLICIES: dict[str, Builder] = {
    **{policy.value: _planner(policy) for policy in Policy},
    "tiresias": Tiresias,
    "optimus": Optimus,
    "fair-rounds": FairRounds,
    "yarn": Yarn,
    "kube-scheduler": KubeScheduler,
    **{name: _ordered(order) for name, order in ORDERS.items()},
}
