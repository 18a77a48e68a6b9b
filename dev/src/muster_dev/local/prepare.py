"""`python -m muster_dev.local.prepare` builds every program beforehand, where the progress of the build can be seen."""

from __future__ import annotations

import sys

from muster_dev.local import binaries
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Shown


def main() -> int:
    """Find or build every program of a local cluster; return 1, with a message, if a build fails."""
    try:
        binaries.find(binaries.LOCAL, Shown())
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
