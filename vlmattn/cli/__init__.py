"""The command line; ``vlmattn --help`` lists its commands."""

from __future__ import annotations

from vlmattn.cli.main import main

__all__ = ["main"]
