"""``sqn-diagnose``: what was not finite in the update that stopped a run."""

import os
from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines, print_notes
from sqn_rl.errors import CheckpointError, SqnError, explain
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.resolved import recipe_of
from sqn_rl.runs.manifest import noted_changes

DESCRIPTION = """Computes the update again that stopped a run with exit code 4, from the batch and the weights
kept in its numerics.safetensors, and lists everything in it that is not finite, the first cause first."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code: that of the run, 4, if anything is not finite.
    """
    parser = options("sqn-diagnose", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    arguments = parser.parse_args(argv)
    path = recipe_of(arguments.run)
    recipe = load_recipe(path, catalogue=catalogue_of(arguments))
    print_notes(noted_changes(arguments.run, {path.name}))

    from sqn_rl.parts.env.opening import close
    from sqn_rl.runs.directory import NUMERICS
    from sqn_rl.runs.serialization import read_tensors
    from sqn_rl.training.numerics import not_finite, unbundle
    from sqn_rl.training.weights import load_weights

    path = arguments.run / NUMERICS
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: missing: no update of this run was stopped")
    tensors = dict(read_tensors(path))
    parts = recipe.build(last="loss", num_envs=1)
    close(parts["env"])
    loss = parts["loss"]
    try:
        batch, weights = unbundle(tensors)
        load_weights(loss, weights)
        found = not_finite(loss, batch)
    except Exception as error:  # a batch that does not fit may raise anything
        why = str(error) if isinstance(error, SqnError) else explain(error)
        raise CheckpointError(f"{path}: not what a run keeps of an update of this recipe: {why}") from error
    print_lines(*(found or ["everything is finite"]))
    return Exit.NUMERICS if found else Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
