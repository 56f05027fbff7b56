"""`python -m scripts.local COMMAND`: run this tree's platform on this machine."""

from __future__ import annotations

import sys

_INTERRUPTED = 130


def _main() -> int:
    try:
        from scripts.local.commands import main  # noqa: PLC0415 - Ctrl-C may come while it imports

        return main()
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(_main())
