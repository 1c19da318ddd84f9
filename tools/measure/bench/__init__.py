"""The parts of `tools/bench`: what is measured (`rows`), on which side (`sides`), and how it is told (`table`).

`ours`, `theirs` and `libre` run in fresh processes, each with its side's Python; nothing but these imports the peers.
"""

from __future__ import annotations

PEER = "8.4.190"  # of ultralytics: every figure is measured against this one
LIBRE = "1.6.0"  # of LibreYOLO, for the part `libre`
