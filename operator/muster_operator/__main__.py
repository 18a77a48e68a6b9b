"""`python -m muster_operator`: what runs, with which settings. It stands for election, connects, and runs the loop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import kopf
import uvloop

from muster.allocation.vouching import Vouching
from muster.kube.client import Client
from muster.kube.events import Recorder
from muster.kube.reflector import Reflector
from muster.kube.store import Store
from muster.scheduling.decisions import Preempt
from muster.scheduling.settings import Settings
from muster_operator import listeners, watch_health
from muster_operator.api_writer import ApiWriter
from muster_operator.controller import Context
from muster_operator.crd_check import CrdCheck
from muster_operator.dljob.gang import resources_of
from muster_operator.dlqueue.usage import DLQUEUES
from muster_operator.election import Election
from muster_operator.endpoints import Endpoints
from muster_operator.loop import Loop
from muster_operator.node_loss import GRACE_SECONDS, NodeLoss
from muster_operator.planning.executors import VERBS
from muster_operator.planning.planning import Planning
from muster_operator.registration import controllers
from muster_operator.reporting import Reporter, own_pod
from muster_operator.resources import Resource
from muster_operator.storage.storage import Storage
from muster_operator.stores import Stores
from muster_operator.work_queue import WorkQueue

log = logging.getLogger("muster.operator")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="muster-operator", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config")
    parser.add_argument("--host", default="127.0.0.1", help="address of /metrics, /healthz and /readyz (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8081, help="port of the same (default: %(default)s)")
    parser.add_argument(
        "--lease",
        type=_lease,
        metavar="NAMESPACE/NAME",
        help="lead only while holding this Lease, so that there may be several operators (default: there is only one)",
    )
    parser.add_argument("--no-preemption", action="store_true", help="never requeue a running gang for one of higher priority")
    parser.add_argument(
        "--slice-seconds",
        type=float,
        default=60.0,
        help="how often jobs with sharing.timeSlicing take turns (default: %(default)s)",
    )
    parser.add_argument(
        "--node-loss-grace-seconds",
        type=float,
        default=GRACE_SECONDS,
        help="how long a node may be NotReady before its gangs are started elsewhere (default: %(default)s)",
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser.parse_args()


def _lease(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} does not name a Lease: give NAMESPACE/NAME")
    return text


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig  # kopf looks there
    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)  # until kopf takes over
    async with (
        Endpoints(options.host, options.port) as endpoints,
        _leading(options, endpoints) as may_write,
        await Client.connect(options.kubeconfig, may_write=may_write) as client,
    ):
        check = CrdCheck(client)
        while True:
            endpoints.waits_for = lambda: check.trouble
            await check.wait()
            try:
                await _operate(options, client, endpoints)
                return
            except Exception:
                if not await check.check():
                    raise
                log.warning("muster's definitions were deleted: starts again when they are back")


@asynccontextmanager
async def _leading(options: argparse.Namespace, endpoints: Endpoints) -> AsyncIterator[Callable[[], None] | None]:
    """Wait to lead if there may be several operators, and give what is asked before a write; hand the lease back in the end."""
    if options.lease is None:
        yield None
        return
    election = Election(options.kubeconfig, options.lease)
    endpoints.waits_for = lambda: election.trouble
    try:
        await election.win()
        yield election.check
    finally:
        await election.resign()


async def _operate(options: argparse.Namespace, client: Client, endpoints: Endpoints) -> None:
    """Watch, reconcile and plan until kopf ends."""
    stores, recorder = Stores(resources_of), Recorder(client, "muster-operator")
    reporter = Reporter(recorder)
    work_queue = WorkQueue(reporter.failed)
    node_loss = NodeLoss(stores.view.nodes, work_queue.pace, options.node_loss_grace_seconds)
    context = Context(stores, work_queue, ApiWriter(client, stores), reporter, node_loss, Storage(stores, work_queue))
    parts = controllers(context)
    loop = Loop(context, parts, Planning(context, parts, _settings(options)))
    endpoints.waits_for = lambda: loop.health.trouble if stores.synced else "waiting for the first lists"
    queues = stores.of(DLQUEUES)
    audit, reflectors = listeners.Audit(client, DLQUEUES, queues), _reflectors(client, stores.watched)
    vouching = Vouching(client, stores.view)
    await vouching.settle()
    work = [
        vouching.run(),
        *(reflector.run() for reflector in reflectors.values()),
        audit.run(),
        watch_health.report({**reflectors, DLQUEUES.plural: audit}, reporter, own_pod()),
        recorder.run(),
        loop.run(),
        _freeze(stores),
    ]
    registry = listeners.registry(DLQUEUES, queues)
    await _until_kopf_ends(kopf.operator(registry=registry, clusterwide=True, standalone=True), work)


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(verbs=VERBS - {Preempt} if options.no_preemption else VERBS, slice_seconds=options.slice_seconds)


def _reflectors(client: Client, watched: Mapping[Resource[Any], Store[Any]]) -> dict[str, Reflector[Any]]:
    """What feeds the stores, by resource; that of DLQueues is fed by kopf."""
    return {
        resource.plural: Reflector(client, resource.path(), resource.decode, store, label_selector=resource.label_selector)
        for resource, store in watched.items()
        if resource is not DLQUEUES
    }


async def _until_kopf_ends(listening: Coroutine[Any, Any, None], work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all until kopf ends, on SIGTERM or SIGINT, or until a part fails; the state is in the cluster."""
    kopf_task = asyncio.create_task(listening)
    tasks = {kopf_task, *(asyncio.create_task(part) for part in work)}
    running = tasks
    try:
        while not kopf_task.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _freeze(stores: Stores) -> None:
    """Exempt the first lists from garbage collection, since they live long, and collect the rest seldom.

    A burst of gangs makes many objects and few cycles; by default a tenth of the operator's time goes into garbage collection.
    """
    await stores.wait_synced()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def main() -> None:
    """Entry point of muster-operator."""
    options = arguments()
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options))


if __name__ == "__main__":
    main()
