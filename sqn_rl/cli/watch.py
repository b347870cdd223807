"""``sqn-watch``: runs in the browser, while they are trained or afterwards."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines

DESCRIPTION = """Shows a run, running or ended, on a page for browsers on this machine: its curves as they
grow, its wiring, and an episode played with its newest weights. Of a folder it lists all runs, with a link
to the page of each; new ones appear. Nothing is written. Ctrl-C ends it.

  sqn-watch runs/first
  sqn-watch runs
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
    parser.add_argument("run", type=Path, help="a run directory, or a folder with runs at any depth")
    parser.add_argument("--port", type=int, default=0, help="where to listen; if not given, one that is free")
    arguments = parser.parse_args(argv)

    from sqn_rl.disk import RECIPE_FILE
    from sqn_rl.recipe.reading import is_there
    from sqn_rl.watch.folder import WatchedFolder
    from sqn_rl.watch.run import WatchedRun
    from sqn_rl.watch.server import WatchServer

    kind = WatchedRun if is_there(arguments.run / RECIPE_FILE) else WatchedFolder
    shown = kind(arguments.run, catalogue_of(arguments))
    with WatchServer(shown, arguments.port) as server, suppress(KeyboardInterrupt):
        os.nice(10)  # training has priority
        print_lines(f"{shown.title}: {server.url}")
        server.serve_forever()
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
