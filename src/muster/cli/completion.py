"""`muster completion SHELL` prints a script that completes verbs, actions and options; shtab writes it from the parsers."""

from __future__ import annotations

import argparse

import shtab

from muster.cli import outline, verbs

_HOW = """bash: eval "$(muster completion bash)"    zsh: eval "$(muster completion zsh)", after compinit"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell that is to complete `muster`")
    parser.epilog = _HOW


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(shtab.complete(_whole(), args.shell))
    return 0


def _whole() -> argparse.ArgumentParser:
    """The parser with every verb whose requirements are installed."""
    parser, subparsers = outline()
    parser.prog = "muster"
    for name, verb in verbs.installed().items():
        subparser = subparsers.add_parser(name, help=verb.summary)
        try:
            verb.load().configure(subparser)
        except ModuleNotFoundError:
            continue  # the verb completes without its options
    return parser
