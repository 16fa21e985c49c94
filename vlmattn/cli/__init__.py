"""The command line: ``vlmattn demo | ask | map | models | verify | scenes``."""

from __future__ import annotations

from vlmattn.cli.main import main

__all__ = ["main"]
