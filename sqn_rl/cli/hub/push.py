"""``sqn-push``: a run for the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sqn_rl.cli import Exit, add_checkpoint, catalogue_of, command, options, print_lines, print_notes
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.resolved import recipe_of
from sqn_rl.runs.manifest import noted_changes

DESCRIPTION = """Writes a run as a model for the Hugging Face hub: a card with the evaluation, recipe.yaml,
curve.png, graph.svg, evaluations.jsonl and the weights. It pushes them, or writes them to a folder only.

  sqn-push runs/first me/sqn-cartpole      after `hf auth login`, with the extra `hub`
  sqn-push runs/first --to model"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-push", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("repo", nargs="?", help="the repository: owner/name; it is created if needed")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write this folder, and push nothing")
    parser.add_argument("--private", action="store_true", help="if it is created, create it as private")
    add_checkpoint(parser)
    arguments = parser.parse_args(argv)
    if (arguments.repo is None) == (arguments.to is None):
        parser.error("expected a repository, or --to FOLDER")
    path = recipe_of(arguments.run)

    from sqn_rl.runs.sharing.hub import HuggingFace, push, write_model

    hub = HuggingFace() if arguments.repo else None
    recipe = load_recipe(path, "device=cpu", catalogue=catalogue_of(arguments))
    print_notes(noted_changes(arguments.run, {path.name}))
    run = arguments.run.absolute()  # an environment may change the folder
    if hub is None:
        write_model(run, recipe, arguments.to.absolute(), arguments.checkpoint)
        print_lines(f"{arguments.to}: a model card, the recipe and the weights")
        return Exit.DONE
    with TemporaryDirectory() as folder:
        write_model(run, recipe, Path(folder), arguments.checkpoint)
        push(hub, Path(folder), arguments.repo, private=arguments.private)
    print_lines(f"{arguments.repo}: pushed; `sqn-pull {arguments.repo} FOLDER` fetches it")
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
