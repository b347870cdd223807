"""``sqn-compare``: which variant is better, and whether the runs show it."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import Exit, Parser, command

DESCRIPTION = """Compares finished runs, grouped by recipe, overrides and environment: scores with 95 %
intervals, and the probability that one is better than another. Names the runs that it leaves out: those that
have not ended, are damaged, or were evaluated in another way than most.

  sqn-compare runs/sqn/CartPole-v1 runs/sqn_dueling/CartPole-v1
  sqn-compare 'runs/*/CartPole-v1' --output comparison     as Markdown, CSV and PNG too"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = Parser("sqn-compare", DESCRIPTION)
    parser.add_argument("runs", nargs="+", help="run directories, folders that contain some, or globs")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write comparison.md, .csv and .png"
    )
    arguments = parser.parse_args(argv)

    from sqn_rl.analysis.comparison import compare
    from sqn_rl.analysis.finished import find_runs, read_runs
    from sqn_rl.cli.terminal.screen import make_folder, show_comparison, write_comparison

    comparison = compare(*read_runs(find_runs(arguments.runs)))
    show_comparison(comparison)
    if arguments.output:
        write_comparison(comparison, make_folder(arguments.output, "output"))
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
