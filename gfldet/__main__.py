"""The command `gfldet`, and `python -m gfldet`."""

from __future__ import annotations

import signal
import sys


def run() -> int:
    """Run the command line of this process.  Ctrl-C ends it at once and in silence while that is still being loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gfldet.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
