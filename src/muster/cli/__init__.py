"""`muster VERB ...`, also as the kubectl plugin `kubectl muster VERB ...`: one module of this package per verb.

A verb's module has configure(parser) and run(args) -> exit code, and is imported only when its verb is asked for: the
base install has no dependencies, and what a verb needs beyond it is named when it is missing.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

VERBS = {
    "demo": "what muster does, shown on a real control plane in a few minutes",
    "kind": "muster in a kind cluster on this machine, installed by helm: up, down, status, run, images",
    "local": "a real Kubernetes control plane on this machine, without Docker: up, down, status, kubeconfig",
    "simulate": "what a policy would do with a trace of jobs, or with a live cluster's snapshot",
    "snapshot": "write what a plan depends on from a live cluster into a file, for simulate --snapshot",
}
EXTRAS = {"demo": "local", "kind": "local", "simulate": "all", "snapshot": "all"}
"""The extra of the package that has what a verb needs, where it is called otherwise than the verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 2 for a wrong command line, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog=_program(), description="Schedule deep-learning training on Kubernetes.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen: ModuleType | None = None
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if words[:1] == [name]:
            chosen = _module(name)
            chosen.configure(verb)
    args = parser.parse_args(words)
    if chosen is None:  # argparse takes no abbreviation of a verb, so this is not reached
        parser.error(f"no verb is called {args.verb}")
    try:
        return int(chosen.run(args))
    except KeyboardInterrupt:
        return 130


def _module(verb: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{verb}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "muster":
            raise
        extra = EXTRAS.get(verb, verb)
        sys.exit(f"muster {verb} needs the Python module {error.name}, which is not installed: pip install 'muster[{extra}]'")


def _program() -> str:
    return "kubectl muster" if Path(sys.argv[0]).name == "kubectl-muster" else "muster"
