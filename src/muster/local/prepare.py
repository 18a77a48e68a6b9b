"""`python -m muster.local.prepare`: have every program built before something starts that would hide how far the build is."""

from __future__ import annotations

import sys

from muster.local import binaries
from muster.local.errors import LocalError
from muster.local.progress import Shown


def main() -> int:
    """Find or build every program of a local cluster; return 1, with a sentence, where one is not to be had."""
    try:
        binaries.find(binaries.LOCAL, Shown())
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
