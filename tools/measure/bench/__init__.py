"""The parts of `tools/bench`: what is measured (`rows`), on which side (`sides`), and how it is told (`table`).

`ours` and `theirs` run in fresh processes, each with its side's Python; nothing but `theirs` imports the peer.
"""

from __future__ import annotations

PEER = "8.4.190"  # of ultralytics: every figure is measured against this one
