"""``sqn-watch``: a run in the browser, while it is trained or afterwards."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines

DESCRIPTION = """Shows a run, running or ended, on a page for browsers on this machine: its curves as they
grow, its wiring, and an episode played with its newest weights. Nothing is written. Ctrl-C ends it.

  sqn-watch runs/first
  sqn-watch runs/first --port 8000"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-watch", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--port", type=int, default=0, help="where to listen; if not given, one that is free")
    arguments = parser.parse_args(argv)

    from sqn_rl.watch.run import WatchedRun
    from sqn_rl.watch.server import WatchServer

    run = WatchedRun(arguments.run, catalogue_of(arguments))
    with WatchServer(run, arguments.port) as server, suppress(KeyboardInterrupt):
        os.nice(10)  # training has priority
        print_lines(f"{run.title}: {server.url}")
        server.serve_forever()
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
