"""``sqn-eval``: evaluate the last weights of a run."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import Exit, catalogue_of, command, options
from sqn_rl.errors import RecipeError
from sqn_rl.recipe import load_recipe

DESCRIPTION = "Plays full games with the last weights of a run, finished or stopped, as its recipe.yaml says."


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-eval", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--episodes", type=int, help="how many games; as in the run, if not given")
    parser.add_argument("--seed", type=int, help="of the games; the run's, if not given")
    parser.add_argument(
        "--stochastic", action="store_true", help="sample the policy instead of its best action"
    )
    arguments = parser.parse_args(argv)
    path = arguments.run / "recipe.yaml"
    if not path.is_file():
        raise RecipeError(f"{arguments.run}: not a run directory: there is no recipe.yaml in it")
    overrides = [f"{name}={value}" for name, value in _given(arguments.episodes, arguments.seed).items()]
    recipe = load_recipe(path, *overrides, catalogue=catalogue_of(arguments))

    from sqn_rl.experiment import Experiment

    evaluation, env_steps = Experiment(recipe).evaluate(
        arguments.run / "checkpoints",
        episodes=recipe.run.eval_episodes,
        greedy=not arguments.stochastic,
        seed=recipe.run.seed,
    )
    how = "sampled" if arguments.stochastic else "greedy"
    print(f"{path.parent}: weights after {env_steps:,} environment steps")
    numbers = f"mean {evaluation.mean:.1f}  std {evaluation.std:.1f}  IQM {evaluation.iqm:.1f}"
    print(f"{len(evaluation.returns)} {how} games: {numbers}")
    print("returns", *(f"{value:g}" for value in evaluation.returns))
    return Exit.DONE


def _given(episodes: int | None, seed: int | None) -> dict[str, int]:
    return {
        name: value for name, value in {"eval_episodes": episodes, "seed": seed}.items() if value is not None
    }
