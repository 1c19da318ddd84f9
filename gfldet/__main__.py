"""`python -m gfldet`, the same as the command `gfldet`."""

from __future__ import annotations

import sys

from gfldet.cli import main

sys.exit(main())
