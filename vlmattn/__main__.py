"""``python -m vlmattn``, and the start of the ``vlmattn`` command."""

from __future__ import annotations


def run() -> None:
    """Run the command line; an interruption while it is still being imported ends it as quietly as a later one."""
    try:
        from vlmattn.cli import main

        main()
    except KeyboardInterrupt:
        import sys

        print("vlmattn: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
