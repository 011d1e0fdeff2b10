"""``dmp``, and ``python -m dmp_cli``: a signal is answered in one sentence, even while dmp itself is loaded."""

from __future__ import annotations

import sys

from .runtime import complain, end_on_signals, ended_by, hold_lifeline


def main() -> None:
    """Entry point of the ``dmp`` script."""
    try:
        end_on_signals()
        hold_lifeline()
        from .cli import main as run

        run()
    except KeyboardInterrupt as ended:  # while the commands were being loaded
        complain(getattr(ended, "message", "stopped by Ctrl-C"))
        sys.exit(128 + (ended_by() or 2))


if __name__ == "__main__":
    main()
