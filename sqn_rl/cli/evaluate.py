"""``sqn-eval``: evaluate the weights of a run."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import (
    Exit,
    Parser,
    add_checkpoint,
    catalogue_of,
    command,
    import_torchrl,
    options,
    print_lines,
    print_notes,
    require_at_least,
)
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.resolved import recipe_of
from sqn_rl.runs.manifest import noted_changes

DESCRIPTION = """Plays full episodes with the weights of a run, finished or stopped, by its recipe.yaml.

  sqn-eval runs/first --episodes 20
  sqn-eval runs/first --checkpoint best
  sqn-eval runs/first --video a.gif    one episode, with Q(s, a) and π(a|s) of every action below it"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    path = recipe_of(arguments.run)
    episodes = 1 if arguments.video and arguments.episodes is None else arguments.episodes
    require_at_least(1, "--episodes", episodes)
    require_at_least(0, "--seed", arguments.seed)
    require_at_least(0, "--max-steps", arguments.max_steps)
    given = {"eval_episodes": episodes, "seed": arguments.seed, "eval_max_steps": arguments.max_steps}
    overrides = [f"{name}={value}" for name, value in given.items() if value is not None]
    recipe = load_recipe(path, *overrides, catalogue=catalogue_of(arguments))
    print_notes(noted_changes(arguments.run, {path.name}))

    import_torchrl()
    from sqn_rl.runs.policy import Policy
    from sqn_rl.training.evaluation import format_evaluation

    policy, greedy = Policy(recipe, arguments.run, arguments.checkpoint), not arguments.stochastic
    if arguments.video:
        try:
            evaluation, frames = policy.film(arguments.video, greedy=greedy)
        except OSError as error:
            raise RecipeError(f"--video {arguments.video}: {error.strerror}") from error
        print_lines(f"{arguments.video}: {frames:,} of {sum(evaluation.lengths):,} steps")
    else:
        evaluation = policy.evaluate(greedy=greedy)
    print_lines(f"{path.parent}: weights after {policy.env_steps:,} environment steps")
    iqm = f", IQM {evaluation.iqm:.1f}" if len(evaluation.returns) > 1 else ""
    print_lines(f"return {format_evaluation(evaluation.row())}{iqm}")
    print_lines(" ".join(["returns", *(f"{value:g}" for value in evaluation.returns)]))
    return Exit.DONE


def _parser() -> Parser:
    parser = options("sqn-eval", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    add_checkpoint(parser)
    parser.add_argument(
        "--episodes", type=int, help="how many episodes; by default as in the run, or 1 with --video"
    )
    parser.add_argument("--seed", type=int, help="of the episodes; by default the run's")
    parser.add_argument(
        "--max-steps", type=int, help="cut longer episodes; by default as in the run: eval_max_steps"
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sample the policy instead of its best action"
    )
    parser.add_argument(
        "--video",
        type=Path,
        nargs="?",
        const=Path("video.gif"),
        metavar="FILE",
        help="record the episodes: a .gif (at most 900 steps), by default video.gif, or an .mp4 (9,000); "
        "an .mp4, and classic control, need the extra `video`",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
