"""A trained policy: the parts of a run that act, with its weights, for use in other programs."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import CheckpointError, SettingError, as_path, require
from sqn_rl.parts import machine
from sqn_rl.parts.actor.base import NetworkActor, apply_user_mask
from sqn_rl.parts.actor.greedy import value_actor
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.checks import require_finite
from sqn_rl.parts.env.opening import close, closing_env
from sqn_rl.parts.observations import ObservationSpec
from sqn_rl.protocols import Annealed
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import Recipe, load_recipe
from sqn_rl.recipe.resolved import recipe_of
from sqn_rl.runs.manifest import CHECKPOINTS, noted_changes
from sqn_rl.runs.playing import PolicyPlayer
from sqn_rl.runs.saved import LAST, read_weights, with_targets
from sqn_rl.training.evaluation import EVALUATION_SEED, Evaluation, evaluate, evaluate_in_new
from sqn_rl.training.torch_modes import torch_threads
from sqn_rl.training.weights import load_weights
from sqn_rl.types import dtype_name


def load(
    run: str | Path,
    checkpoint: str | int = LAST,
    *,
    trust: Sequence[str | Path] = (),
    config_dirs: Sequence[str | Path] = (),
    device: str | None = None,
) -> "Policy":
    """Load the trained policy of a run, finished or not.

    No replay and no optimizer are built. A ``recipe.yaml`` that was changed since the run gives a warning.

    Args:
        run: the run directory.
        checkpoint: ``"last"``, the newest; ``"best"``, the best evaluation's, which a run with
            ``checkpoint_best`` keeps; or the environment steps of one that is kept.
        trust: modules whose classes the run's recipe may name, besides the parts of sqn_rl.
        config_dirs: folders in which trusted modules lie, as for ``--config-dir``.
        device: where the networks are; by default where they were trained, else, with a warning, the CPU.

    Raises:
        RecipeError: there is no run, or its recipe names something that cannot be built or is not trusted.
        SettingError: PyTorch cannot use ``device`` here.
        CheckpointError: there is no checkpoint yet, the one asked for is not kept, or it is damaged.
    """
    path = recipe_of(run := as_path("run", run))
    usable = device is None or machine.has_device(device)
    require(usable, "device", device, "one that PyTorch can use here, such as cpu")
    overrides = [] if device is None else [f"device={device}"]
    recipe = load_recipe(path, *overrides, catalogue=Catalogue(config_dirs, trust))
    for note in noted_changes(run, {RECIPE_FILE}):
        warnings.warn(note, stacklevel=2)
    return Policy(recipe, run, checkpoint)


class Filmed(NamedTuple):
    """The result of recording a video."""

    evaluation: Evaluation
    """The complete episodes."""
    frames: int
    """The number of frames, one per step."""


class Policy(nn.Module):
    """A trained policy, made by :func:`sqn_rl.load`.

    Observations may be what the environment returns outside of this package: an array, a list, a number, or a
    Dict or tuple of these; one or a batch. They are checked, flattened and scaled as in training. Or they are
    tensors ``[*S]`` or ``[B, *S]``, as the environments of this package return them.

    ``actor`` is the policy as a TensorDict module: it reads ``observation`` and writes ``action``. As a torch
    module, a policy has the parameters of its actor and, with gradient, :meth:`forward`.

    Args:
        recipe: the recipe of the run.
        run: the run directory.
        checkpoint: as for :func:`sqn_rl.load`.

    Raises:
        RecipeError: a part cannot be built.
        CheckpointError: see :func:`sqn_rl.load`.
    """

    def __init__(self, recipe: Recipe, run: Path, checkpoint: str | int = LAST) -> None:
        super().__init__()
        working_directory = Path.cwd()
        parts = recipe.uncompiled().build(last="loss", num_envs=1)  # first: it refuses what is not trusted
        close(env := parts["env"])
        if Path.cwd() != working_directory:  # changed by the environment
            run = working_directory / run
        path, self.env_steps, weights = read_weights(run / CHECKPOINTS, checkpoint)
        try:
            load_weights(parts["loss"], with_targets(weights, parts["loss"]))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.run, self.title, self.n_actions = recipe.run, recipe.title, env.n_actions
        self.actor = parts["actor"]
        if isinstance(self.actor, Annealed):
            self.actor.anneal(self.env_steps)
        self._q_net, self._make_env = (parts["loss"].q_net,), parts["make_env"]
        self._values = (value_actor(self.actor, parts["loss"].q_net),)
        self._env = (env,)  # in tuples, so that none becomes a submodule
        self.eval()

    # --- acting ---------------------------------------------------------------------------------------------

    def act(self, observation: Any, greedy: bool = True, *, action_mask: Any = None) -> Any:
        """Choose an action for each observation.

        Args:
            observation: one or a batch; see the class.
            greedy: take the best action; else sample the policy, from the actor's own generator.
            action_mask: the allowed actions: bools, ``[A]`` or ``[B, A]``. The others are never chosen. Not
                needed with Dict observations that have it under ``action_mask``.

        Returns:
            For a tensor a tensor, ``[B]`` or scalar: actions from 0. Else for one observation an ``int``, for
            a batch an array ``[B]`` int64: actions as the Gymnasium environment takes them; of MultiDiscrete
            or MultiBinary actions an array, for a batch with ``[B]`` as its first dimension.

        Raises:
            ObservationError: the shape or type of the observation is wrong.
            NumericsError: a number in it is NaN or infinite.
            SettingError: the mask does not fit, or allows no action in a state.
            WiringError: the policy has recurrent networks: act by :meth:`player`.
        """
        return self._act(self.actor.act, observation, greedy, action_mask)

    def player(self, num_envs: int = 1) -> PolicyPlayer:
        """Make a player of ``num_envs`` episodes at a time, with the memory of each if the policy has one."""
        return PolicyPlayer(self._act, self.actor, num_envs)

    def _act(self, choose: Callable[..., Tensor], observation: Any, greedy: bool, action_mask: Any) -> Any:
        batch, single = self._batch_of(observation)
        action_mask = self._mask_of(observation, action_mask)
        options = {} if action_mask is None else {"action_mask": action_mask}
        if options:
            self._network_actor("action_mask")
        action_B = choose(batch, greedy=greedy, **options)
        if isinstance(observation, Tensor):
            return action_B[0] if single else action_B
        actions = self._env[0].actions_outside(action_B.cpu().numpy())
        if not single:
            return actions
        return int(actions[0]) if actions.ndim == 1 else actions[0]

    @torch.no_grad()
    def q_values(self, observation: Any) -> Any:
        """The action values by which it acts, in reward units, with the mean weights. ``[A]`` or ``[B, A]``.

        They are Q₁, or the minimum or mean of the networks if ``actor.policy`` says so. An actor with its own
        policy network, as of ``discrete_sac``, does not act by them: for it, they are Q₁ of the critic.

        Args:
            observation: one or a batch; see the class.

        Returns:
            A tensor for a tensor, else an array.

        Raises:
            ObservationError, NumericsError: see :meth:`act`.
        """
        batch, single = self._batch_of(observation)
        return _like(observation, self._values[0].mean_scores(batch), single)

    @torch.no_grad()
    def probabilities(self, observation: Any, *, action_mask: Any = None) -> Any:
        """The policy π(·|s) from which actions are sampled, with the mean weights. ``[A]`` or ``[B, A]``.

        A Boltzmann policy is softmax(Q/α). An ε-greedy one has 1 − ε for the best action, and ε shared by
        all. A greedy one has 1 for the best action.

        Args:
            observation: one or a batch; see the class.
            action_mask: as for :meth:`act`. Excluded actions have probability 0.

        Returns:
            A tensor for a tensor, else an array.

        Raises:
            ObservationError, NumericsError, SettingError: see :meth:`act`.
        """
        actor = self._network_actor("probabilities")
        batch, single = self._batch_of(observation)
        score_BA = actor.mean_scores(batch)
        action_mask = self._mask_of(observation, action_mask)
        if action_mask is not None:
            score_BA = apply_user_mask(score_BA, action_mask)
        return _like(observation, actor.probabilities(score_BA), single)

    def forward(self, observation: Tensor) -> Tensor:
        """The scores by which it acts, with the mean weights: ``argmax`` is the greedy action.

        ``[B, *S]`` → ``[B, A]``, with gradient: :meth:`q_values`, or the logits of a policy network.
        """
        actor = self.actor if isinstance(self.actor, NetworkActor) else self._values[0]
        return actor.mean_scores(observation)

    @property
    def observation_spec(self) -> ObservationSpec:
        """The shape and dtype of the tensors that it takes."""
        return ObservationSpec(self._env[0].observation_shape, self._env[0].observation_dtype)

    def _batch_of(self, observation: Any) -> tuple[Tensor, bool]:
        """The observations as ``[B, *S]``, and whether only one was given."""
        if not isinstance(observation, Tensor):
            return self._env[0].batch_of(observation)
        batch, single = self.observation_spec.batch(observation)
        numbers, name = batch.detach().float().cpu().numpy(), self._env[0].name
        require_finite("observation", numbers, lambda row: f"given to act in {name}, row {row}")
        return batch, single

    def _mask_of(self, observation: Any, action_mask: Any) -> Any:
        """The mask given, or that in an observation from outside; None if there is none."""
        may_have_mask = action_mask is None and not isinstance(observation, Tensor)
        return self._env[0].mask_of(observation) if may_have_mask else action_mask

    def _network_actor(self, wanted: str) -> NetworkActor:
        """The actor, if it has scores; else it is refused for what is ``wanted``."""
        if isinstance(self.actor, NetworkActor):
            return self.actor
        name = type(self.actor).__name__
        raise SettingError(wanted, name, "an actor with scores: one derived from NetworkActor")

    # --- whole episodes -------------------------------------------------------------------------------------

    def evaluate(
        self,
        env: Any = None,
        episodes: int | None = None,
        *,
        greedy: bool = True,
        seed: int | None = None,
        max_steps: int | None = None,
    ) -> Evaluation:
        """Play full episodes, as the evaluations of the run do: with its number of threads.

        The policy does not change: it samples from a generator that is seeded here.

        Args:
            env: the id of a Gymnasium environment, which gets the run's wrappers, a function that makes one,
                or some of Gymnasium or of this package, which stay open; by default the run's, opened anew.
            episodes: how many; by default as in the run.
            greedy: take the best action instead of sampling.
            seed: of the episodes and the sampling; by default the run's.
            max_steps: cut longer episodes; by default as in the run.

        Raises:
            SettingError: no such environment, or its observations or actions are not those of the policy; or
                ``episodes`` is not positive.
        """
        options: dict[str, Any] = {
            "episodes": self.run.eval_episodes if episodes is None else episodes,
            "seed": self.run.seed if seed is None else seed,
            "greedy": greedy,
            "max_steps": self.run.eval_max_steps if max_steps is None else max_steps,
        }
        with torch_threads(self.run.threads):
            if isinstance(env, BatchedEnv):
                self._require_like(env)
                return evaluate(self.actor, env, **options)
            return evaluate_in_new(self.actor, self._maker(env), **options)

    def film(
        self, path: str | Path, *, greedy: bool = True, longest: int | None = None, dark: bool = False
    ) -> Filmed:
        """Record episodes one after the other; :meth:`evaluate` plays some at a time, with other seeds.

        Args:
            path: the file to write, a ``.gif`` or an ``.mp4``.
            greedy: take the best action instead of sampling.
            longest: the maximum number of frames to record; playing stops there.
            dark: draw for a dark background.

        Raises:
            SettingError: the environment cannot be rendered, or the file format is not supported.
            OSError: the file cannot be written.
        """
        from sqn_rl.plots.film import Play, film, kind_of, no_window

        kind_of(path := as_path("path", path))  # before the environment is opened
        path, run = path.absolute(), self.run  # before an environment goes elsewhere
        options = {"num_envs": 1, "seed": EVALUATION_SEED + run.seed, "training": False}
        with no_window(), torch_threads(run.threads), closing_env(self._make_env(**options)) as env:
            limits = {"episodes": run.eval_episodes, "max_steps": run.eval_max_steps}
            play = Play(self.actor, self._q_net[0], env, greedy=greedy, seed=run.seed, **limits)
            title = f"{self.title} on {env.name}, {self.env_steps:,} steps"
            frames = film(path, title, play, longest, dark=dark)
        return Filmed(play.evaluation, frames)

    def _maker(self, env: Any) -> Callable[..., BatchedEnv]:
        """What makes the environments: the run's maker, or one for a Gymnasium id, function or instance."""
        if env is None:
            return self._make_env
        from sqn_rl.parts.env.gym import GymEnv

        can_make_several, ours = isinstance(env, str) or callable(env), self._env[0]
        options: dict[str, Any] = {"frame_stack": ours.frame_stack}
        if isinstance(env, str) and isinstance(ours, GymEnv):
            options["wrappers"] = ours.wrappers

        def make(*, num_envs: int, seed: int, training: bool) -> BatchedEnv:
            made = GymEnv(id=env, num_envs=num_envs if can_make_several else None, seed=seed, **options)
            try:
                self._require_like(made)
            except SettingError:
                close(made)
                raise
            return made

        return make

    def _require_like(self, env: BatchedEnv) -> None:
        """Refuse an environment with other observations or actions than those of the policy."""

        def shown(env: BatchedEnv) -> str:
            dtype = dtype_name(env.observation_dtype)
            return f"observations {dtype} {list(env.observation_shape)} and {env.n_actions} actions"

        ours, theirs = shown(self._env[0]), shown(env)
        require(ours == theirs, "env", env.name, f"one with {ours}; it has {theirs}")


def _like(observation: Any, value_BA: Tensor, single: bool) -> Any:
    """A result for one observation or a batch: a tensor for tensors, else an array."""
    value = value_BA[0] if single else value_BA
    return value if isinstance(observation, Tensor) else np.asarray(value.cpu())
