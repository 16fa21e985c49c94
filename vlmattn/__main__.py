"""``python -m vlmattn``."""

from __future__ import annotations

from vlmattn.cli import main

if __name__ == "__main__":
    main()
