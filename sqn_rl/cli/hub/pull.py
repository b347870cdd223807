"""``sqn-pull``: a run from the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import Exit, Parser, command, print_lines, print_notes
from sqn_rl.errors import to_type

DESCRIPTION = """Downloads a run that `sqn-push` pushed to the Hugging Face hub: only its files. None is run.
Then `sqn-eval FOLDER` and `sqn_rl.load("FOLDER")` play it, as any run of somebody else.

  sqn-pull me/sqn-cartpole model"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = Parser("sqn-pull", DESCRIPTION)
    parser.add_argument("repo", help="the repository: owner/name")
    parser.add_argument("folder", type=Path, help="the folder to write; it must not exist")
    arguments = parser.parse_args(argv)

    from sqn_rl.runs.sharing.hub import HuggingFace, pull

    left = pull(HuggingFace(), arguments.repo, arguments.folder)
    print_notes([f"{len(left)} other files of the repository were left there"] if left else [])
    print_lines(f"{arguments.folder}: play it with {to_type('sqn-eval', arguments.folder)}")
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
