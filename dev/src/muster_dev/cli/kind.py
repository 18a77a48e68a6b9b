"""`muster kind up|down|status|run|images`: muster in a kind cluster on this machine, installed as users install it.

Progress and errors go to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from muster_dev.kind import cluster, engine, example, images
from muster_dev.kind.cluster import Cluster
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="create the cluster, install muster, run an example; the cluster outlives the command")
    up.add_argument("--no-example", action="store_true", help="leave the example out")
    actions.add_parser("down", help="remove the cluster and everything that it made on this machine")
    actions.add_parser("status", help="show nodes and muster's pods; exit code 1 if there is no cluster")
    run = actions.add_parser("run", help="run a program for the cluster: muster kind run kubectl get pods")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")
    actions.add_parser("images", help="make muster's images, and show how they were made and where they are")


def run(args: argparse.Namespace) -> int:
    """Carry out the action and return the exit code."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "up": up,
        "down": down,
        "status": status,
        "run": run_program,
        "images": make_images,
    }
    try:
        return actions[args.action](args)
    except LocalError as error:
        print(f"muster kind: {error}", file=sys.stderr)
        return 1


def up(args: argparse.Namespace) -> int:
    """Bring the cluster up and run the example."""
    # SIGTERM works as Ctrl-C: a started engine is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Shown()
    started = cluster.up(progress)
    if not args.no_example:
        print(example.play(started, progress))
    print(_HOW_TO_USE)
    return 0


def down(_: argparse.Namespace) -> int:
    """Remove the cluster; succeed if there is none."""
    if not cluster.down(Shown()):
        print("there was no kind cluster of muster")
    return 0


def status(_: argparse.Namespace) -> int:
    """Show the nodes and muster's pods."""
    existing = _existing()
    print(existing.kubectl("get", "nodes", "--output", "wide"))
    print(existing.kubectl("get", "pods", "--namespace", cluster.NAMESPACE, "--output", "wide"), end="")
    return 0


def run_program(args: argparse.Namespace) -> int:
    """Run a program with KUBECONFIG set and the cluster in reach, and return its exit code."""
    if not args.command:
        raise LocalError("name a program to run, for example: muster kind run kubectl get pods")
    return _existing().call(*args.command)


def make_images(_: argparse.Namespace) -> int:
    """Make muster's images and print their names and their archive."""
    archive = images.make(engine.running(), Shown())
    print("\n".join(images.names()))
    if archive:
        print(f"{archive}\n(docker load, kind load image-archive, or ctr images import it)")
    return 0


def _existing() -> Cluster:
    existing = Cluster.find(Shown())
    if existing is None:
        raise LocalError("there is no kind cluster of muster; `muster kind up` creates one")
    return existing


_HOW_TO_USE = """
The cluster is up.

  muster kind run kubectl get dljobs       any program, with KUBECONFIG set and the cluster in reach
  muster kind status                       nodes and muster's pods
  muster kind down                         remove the cluster"""
