"""`python -m scripts.observe`: watch the platform of this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.local.home import Home, RunnerError
from scripts.local.lock import held
from scripts.local.options import Options, port
from scripts.local.run import run
from scripts.local.view import make_reporter
from scripts.observe.stack import RULES, Choice, Observe, home_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Exit code 3 when there is no Prometheus."""
    parser = argparse.ArgumentParser(prog="python -m scripts.observe", description=__doc__)
    parser.add_argument("--rules", type=Path, default=RULES, help="the folder of the rule files")
    parser.add_argument("--interval", default="5s", help="between two scrapes (5s)")
    args = parser.parse_args(arguments)
    try:
        options = Options.from_environment()
        _refuse_twice(options.home)
        choice = Choice(
            prometheus_port=port(os.environ, "SLIPWAY_PROMETHEUS_PORT", 9090, room=0),
            grafana_port=port(os.environ, "SLIPWAY_GRAFANA_PORT", 3000, room=0),
            rules=args.rules.resolve(),
            interval=args.interval,
        )
        stack = Observe(options, choice)
        run(stack.options, lambda _: stack, make_reporter())
    except RunnerError as error:
        print(f"slipway: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse_twice(platform: Home) -> None:
    if held(home_of(platform)):
        raise RunnerError("`make observe` runs already; end it with Ctrl-C where it runs")


if __name__ == "__main__":
    raise SystemExit(main())
