"""`muster local up|down|status|kubeconfig`: the local cluster by hand. Progress and errors go to stderr, results to stdout."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from muster import machines
from muster.kube.errors import KubeError
from muster_dev.local import directories, files, nodes, proc, processes, stack
from muster_dev.local.api import Api
from muster_dev.local.cluster import LocalCluster
from muster_dev.local.commands import Options
from muster_dev.local.errors import LocalError
from muster_dev.local.files import Files
from muster_dev.local.progress import Shown

NODES = "dgx-a100:2,pcie-8:2"
LEAST_GRACE = 4
"""The least grace period of a node, in seconds."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="start the cluster; it outlives the command", epilog=_catalogue())
    up.add_argument("--nodes", default=NODES, metavar="SPEC", help=f"MACHINE:COUNT,... (default: {NODES}); '' for none")
    up.add_argument("--with-muster", action="store_true", help="install muster too: operator, extender, scheduler, agents")
    up.add_argument("--foreground", action="store_true", help="stop the cluster when the command ends (Ctrl-C)")
    up.add_argument(
        "--node-grace-seconds",
        type=_grace,
        default=Options.node_grace_seconds,
        metavar="N",
        help=f"seconds without a renewal, from {LEAST_GRACE}, after which a node is Unknown (default: %(default)s)",
    )
    others = (
        actions.add_parser("down", help="stop the cluster and remove its files"),
        actions.add_parser(
            "status", help="show the processes and how many nodes are Ready; exit code 1 if a process or the cluster is down"
        ),
        actions.add_parser("kubeconfig", help="print the path of the kubeconfig"),
    )
    for action in (up, *others):
        action.add_argument(
            "--name", default=directories.DEFAULT, help="of several clusters, which one is meant (default: %(default)s)"
        )


def run(args: argparse.Namespace) -> int:
    """Carry out the action and return the exit code."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "up": up,
        "down": down,
        "status": status,
        "kubeconfig": kubeconfig,
    }
    try:
        return actions[args.action](args)
    except processes.AlreadyRunning as error:
        named = _named(args.name)
        return _fail(f"{error}: `muster local status{named}` shows it, `muster local down{named}` stops it")
    except (LocalError, KubeError) as error:
        return _fail(str(error))


def up(args: argparse.Namespace) -> int:
    """Start the cluster and print how to use it."""
    options = Options(node_grace_seconds=args.node_grace_seconds)
    started = LocalCluster(directories.local(args.name), nodes=args.nodes, options=options, progress=Shown())
    # SIGTERM works as Ctrl-C: the cluster is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        started.start()
        if args.with_muster:
            stack.install(started)
        print(_how_to_use(started, _named(args.name)), flush=True)
        if args.foreground:
            _until_interrupted()
        else:
            started.detach()
    finally:
        started.stop()
    return 0


def down(args: argparse.Namespace) -> int:
    """Stop the cluster; succeed if none is up."""
    directory = directories.local(args.name)
    with Shown().step("stopping the local cluster"):
        stopped = processes.stop_detached(directory)
    files.clean(directory)
    if not stopped:
        print("no local cluster was up")
    return 0


def status(args: argparse.Namespace) -> int:
    """Show the processes; return 1 if the cluster or one of its processes is down."""
    directory = directories.local(args.name)
    if not processes.running(directory):
        return _fail(f"no local cluster is up in {directory}; `muster local up{_named(args.name)}` starts one")
    listed = processes.recorded(directory)[1]
    console = Console(highlight=False)
    console.print(_table(listed))
    console.print(_nodes(directory), f"Logs: {directory / 'logs'}", sep="\n", soft_wrap=True)
    return int(any(process.state != "running" for process in listed))


def kubeconfig(args: argparse.Namespace) -> int:
    """Print the path of the kubeconfig of the cluster that is up."""
    directory = directories.local(args.name)
    if not processes.running(directory):
        return _fail(f"no local cluster is up in {directory}; `muster local up{_named(args.name)}` starts one")
    print(Files(directory).kubeconfig)
    return 0


def _until_interrupted() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _table(listed: list[processes.Process]) -> Table:
    table = Table("process", "pid", "port", "state", "memory", box=None, pad_edge=False)
    for process in listed:
        running = process.state == "running"
        memory = f"{proc.memory_mib(process.pid):.0f} MiB" if running else ""
        state = process.state if running else f"[red]{process.state}[/]"
        table.add_row(process.name, str(process.pid), str(process.port or ""), state, memory)
    return table


def _nodes(directory: Path) -> str:
    try:
        access = files.access(directory)
        with closing(Api(access)) as api:
            items = api.get("/api/v1/nodes?resourceVersion=0")["items"]
    except (LocalError, KubeError) as error:
        return f"the API server does not answer: {error}"
    return f"{sum(map(nodes.is_ready, items))} of {len(items)} nodes are Ready; the API server is {access.host}"


def _grace(text: str) -> int:
    """The grace period of nodes: kwok renews a lease once a second at most, so a shorter one would lose healthy nodes."""
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= LEAST_GRACE):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number of seconds from {LEAST_GRACE}")
    return int(text)


def _named(name: str) -> str:
    """The option that names this cluster, as it stands in a command."""
    return "" if name == directories.DEFAULT else f" --name {name}"


def _how_to_use(started: LocalCluster, named: str) -> str:
    return f"""
The cluster is up: {started.url}

  export KUBECONFIG={started.kubeconfig}
  {started.binaries["kubectl"]} get nodes

`muster local status{named}` shows its processes, `muster local down{named}` stops it."""


def _catalogue() -> str:
    return f"Machine types: {machines.names()}. At most {nodes.MOST} nodes."


def _fail(message: str) -> int:
    print(f"muster local: {message}", file=sys.stderr)
    return 1
