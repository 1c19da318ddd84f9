"""Settings: the schema, their validation, and the files of cfg/."""

from __future__ import annotations
