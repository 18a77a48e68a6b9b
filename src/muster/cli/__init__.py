"""`muster VERB ...`, also as the kubectl plugin `kubectl muster VERB ...`: one module a verb (`verbs`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from muster.cli import verbs
from muster.cli.verbs import Command, Verb


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 2 for a wrong command line, 130 after Ctrl-C."""
    words = _without_help_verb(list(sys.argv[1:] if argv is None else argv))
    parser, subparsers = outline()
    command: Command | None = None
    for name, verb in verbs.installed().items():
        subparser = subparsers.add_parser(name, help=verb.summary, description=verb.summary)
        if words[:1] == [name]:
            command = _load(name, verb)
            command.configure(subparser)
    args = parser.parse_args(words)
    if command is None:  # argparse takes no abbreviation of a verb, so this is not reached
        parser.error(f"no verb is called {args.verb}")
    try:
        return command.run(args)
    except KeyboardInterrupt:
        return 130


def outline() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]]:
    """Return the parser of `muster` without its verbs, and where these are added."""
    parser = argparse.ArgumentParser(
        prog=_program(),
        description="Schedule deep-learning training on Kubernetes.",
        epilog="`muster help VERB` says more of a verb.",
    )
    parser.add_argument("--version", action="version", version=f"muster {version('muster')}")
    return parser, parser.add_subparsers(dest="verb", metavar="VERB", required=True)


def _without_help_verb(words: list[str]) -> list[str]:
    """`muster help VERB ...` is `muster VERB ... --help`."""
    return [*words[1:], "--help"] if words[:1] == ["help"] else words


def _load(name: str, verb: Verb) -> Command:
    try:
        return verb.load()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("muster"):  # a fault of muster, not a missing requirement
            raise
        sys.exit(
            f"muster {name} needs the Python module {error.name}, which is not installed: pip install '{verb.requirement}'"
        )


def _program() -> str:
    return "kubectl muster" if Path(sys.argv[0]).name == "kubectl-muster" else "muster"
