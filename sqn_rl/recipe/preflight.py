"""Preflight: find every mistake that can be found before the first environment step.

The parts are built once for this purpose and thrown away, so that the parts trained afterwards are untouched.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import EnvError, NumericsError, RecipeError, SettingError, SqnError, WiringError, explain
from sqn_rl.parts import machine
from sqn_rl.parts.collect.base import Actors, Sharded
from sqn_rl.parts.distributions import Scalar
from sqn_rl.parts.env.opening import close, closing_env
from sqn_rl.parts.memory import recalling
from sqn_rl.parts.q_net.q_net import QNet
from sqn_rl.protocols import Keyed, Policy, Sized, Wired, submodule
from sqn_rl.recipe.auto import compiling, precision_of
from sqn_rl.recipe.build import Maker
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.graph import Graph, require_produced, watch_outputs
from sqn_rl.recipe.resources import forget_peak, needs, require_room
from sqn_rl.training.agent import AGENT_PARTS, Agent
from sqn_rl.training.agreement import require_batch, require_members, require_memory
from sqn_rl.training.evaluation import AT_ONCE, evaluation_env
from sqn_rl.training.player import Player, recorded_actions
from sqn_rl.training.random_state import RandomState
from sqn_rl.training.torch_modes import default_float32
from sqn_rl.types import BATCH_KEYS, MASK_KEYS, Batch, Step

TRANSITION = ("observation", "action", "next.observation", "next.reward", "next.terminated", "next.truncated")
EVALUATE_AFTER = "set eval_every=0, which evaluates after training, or lower num_envs"


@default_float32()
def preflight(recipe: Recipe) -> Graph:
    """Build every part, and send one fake batch through actor, replay, loss, backward and the updates.

    Args:
        recipe: a composed recipe.

    Returns:
        The wiring, with the shapes and dtypes that were seen.

    Raises:
        RecipeError: something does not fit; says where, what was expected, and how to fix it.
    """
    run = recipe.run
    forget_peak()
    if not machine.has_device(run.device):
        message, subject = "torch cannot use it here", f"device = {run.device!r}"
        raise RecipeError(message, recipe.origin("device"), "set device=cpu", subject)
    _require_compiler(recipe)
    require_room(recipe)
    with RandomState(run.seed, run.device):
        walk = _Walk(recipe)
        with closing_env(walk.parts["env"]):
            _require_compiler(recipe, walk.parts["q_net"])
            return walk.graph()


def _require_compiler(recipe: Recipe, q_net: object = None) -> None:
    try:
        compiling(recipe.run, q_net)
    except SettingError as error:
        raise error.located("compile", recipe.origin) from error


class _Walk:
    """Builds the parts, passes one fake step through them, and collects the wiring."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.run = recipe, recipe.run
        self.parts = recipe.build()
        recorded = recorded_actions(self.parts["env"], self.parts["returns"])
        with self._blame("returns", "looking at the actor"):
            require_members(self.parts)
            self.player = Player(self.parts["actor"], self.run.num_envs, recorded)
        self.wiring = Graph()

    def graph(self) -> Graph:
        env_bytes, requests, stored_elsewhere = self._evaluation(), 0, False
        observation, step = self._env()
        with self._blame("q_net", "looking at the other parts"):
            require_memory(self.parts["actor"], self.parts["loss"], self.parts["replay"])
        batch = self._replay(observation, step)
        self._q_net(batch)
        self._actor(observation, step.action_mask)
        if isinstance(actors := self.parts["collect"], Actors):
            with self._blame("collect", "looking at the other parts"):
                actors.require(self.parts["replay"], self.parts["actor"])
            self.wiring.notes += actors.notes(self.run.num_envs, self.run.update_ratio)
            env_bytes += actors.actors * actors.actor_bytes
            requests = actors.actors * actors.depth
            stored_elsewhere = actors.elsewhere and isinstance(self.parts["replay"], Sharded)
        agent = self._update(batch)
        self._logger()
        self.wiring.require_written(self.recipe.origin)
        self.wiring.needs = needs(self.run, agent, env_bytes, requests, stored_elsewhere=stored_elsewhere)
        self.wiring.notes.insert(0, f"memory        {self.wiring.needs}")
        return self.wiring

    def _evaluation(self) -> int:
        """Open as many environments as the run will have at once, and return the bytes that they take."""
        env, run, between = self.parts["env"], self.run, self.run.evaluates_between
        if not between:
            close(env)  # as the run does before its only evaluation
        try:
            eval_env = evaluation_env(self.parts["make_env"], run.eval_episodes, run.seed)
        except RecipeError as error:
            if not between:
                raise
            beside = f"while the {run.num_envs} of the training are open ({error.message})"
            message = f"expected 0, as no other {env.name} opens {beside}"
            origin, subject = self.recipe.origin("eval_every"), f"eval_every = {run.eval_every}"
            raise RecipeError(message, origin, EVALUATE_AFTER, subject) from error
        with closing_env(env), closing_env(eval_env):
            pass
        most = min(run.eval_episodes, AT_ONCE)
        if eval_env.num_envs < most:
            self.wiring.notes.append(f"evaluation    in 1 environment, as {most} of {env.name} do not open")
        sizes = (int(env.played_bytes), int(eval_env.played_bytes))
        return sum(sizes) if between else max(sizes)

    def _env(self) -> tuple[Tensor, Step]:
        env, n = self.parts["env"], self.run.num_envs
        with closing_env(self.parts["make_env"](num_envs=1, seed=self.run.seed, training=True)) as single_env:
            try:
                first = single_env.begin()  # beginning all of them would take too long
            except (EnvError, NumericsError) as error:
                raise RecipeError(str(error), self.recipe.origin("env"), "", "env") from error
            mask = single_env.action_mask
        self._expect("env", "observation", first, (1, *env.observation_shape), env.observation_dtype)
        observation = first.expand(n, *env.observation_shape)
        if mask is not None:
            self._expect("env", "action_mask", mask, (1, env.n_actions), torch.bool)
            mask = mask.expand(n, env.n_actions)
        step = Step(
            observation=observation,
            next_observation=observation,
            reward=torch.ones(n),
            terminated=torch.zeros(n, dtype=torch.bool),
            truncated=torch.zeros(n, dtype=torch.bool),
            ended=torch.zeros(n, dtype=torch.bool),
            score=torch.ones(n),
            action_mask=mask,
            next_action_mask=mask,
        )
        answers = (observation, step.next_observation, step.reward, step.terminated, step.truncated)
        keys = (key for key in TRANSITION if key != "action")
        writes = dict(zip(keys, answers, strict=True))
        if mask is not None:
            writes |= {"action_mask": mask, "next.action_mask": mask}
        self.wiring.add("env", env, ["action"], writes)
        return observation, step

    def _replay(self, observation: Tensor, step: Step) -> Batch:
        replay, run = self.parts["replay"], self.run
        if isinstance(replay, Sized) and run.batch_size > replay.capacity:
            raise RecipeError(
                f"expected at most the replay's capacity, {replay.capacity}",
                self.recipe.origin("batch_size"),
                f"lower it, or raise replay.capacity ({self.recipe.origin('replay.capacity')})",
                f"batch_size = {run.batch_size}",
            )
        with self._blame("replay", "sampling one fake step"):
            action = torch.zeros(run.num_envs, dtype=torch.int64)
            if step.action_mask is not None:
                action = step.action_mask.int().argmax(-1)
            if self.player.is_recurrent:
                self.player.act(observation)
            step = self.player.record(action, step)
            replay.store(observation, action, step)
            batch = replay.draw(run.batch_size)
            require_batch(batch, type(replay).__name__)
        reads, writes = list(TRANSITION), dict(zip(BATCH_KEYS, batch, strict=False))
        shape, observed = (run.batch_size, *observation.shape[1:]), batch.observation
        if batch.sequences is not None:
            observed = batch.sequences.observation
            shape = (run.batch_size, observed.shape[1], *observation.shape[1:])
            writes |= {"batch.observation": observed, "batch.next_observation": observed}
            reads.append("memory")
        self._expect("replay", "observation", observed, shape, observation.dtype)
        if step.action_mask is not None:
            shape = (run.batch_size, step.action_mask.shape[-1])
            for key in MASK_KEYS:
                writes[key] = getattr(batch, key.removeprefix("batch."))
                self._expect("returns", key, writes[key], shape, torch.bool)
            reads += ["action_mask", "next.action_mask"]
        self.wiring.add("replay", replay, reads, {"transitions": batch.place})
        self.wiring.add("returns", self.parts["returns"], self._consumes("returns", ["transitions"]), writes)
        return batch

    def _q_net(self, batch: Batch) -> None:
        q_net, env, observation = self.parts["q_net"], self.parts["env"], batch.observation
        self._require_readable("q_net", ["observation"], "q_net.in_keys")
        with watch_outputs(q_net, ("encoder", "head")) as outputs:
            try:
                with recalling(batch.sequences, q_net):
                    q_NBA = q_net.values(observation)
            except Exception as error:
                self._expect_features(outputs.get("encoder"))
                failed = next((slot for slot, output in outputs.items() if output is None), "q_net")
                given = f"observation {list(observation.shape)} {observation.dtype}"
                raise self._failure(failed, f"Q(s, ·) on {given}", error) from error
        members = len(q_NBA) if isinstance(q_NBA, Tensor) and q_NBA.dim() else 1
        self._members = q_net.members if isinstance(q_net, QNet) else members
        shape = (self._members, len(observation), env.n_actions)
        self._expect_features(outputs.get("encoder"))
        predicted = "q_values" if (scalar := isinstance(q_net.distribution, Scalar)) else "prediction"
        if (output := outputs.get("head")) is not None:
            wanted = shape if scalar else (*shape, output.shape[-1])
            self._expect("head", predicted, output, wanted, torch.float32)
        self._expect("q_net", "Q(s, ·)", q_NBA, shape, torch.float32)
        self._add_networks(outputs, {"encoder": "features", "head": predicted}, q_NBA)

    def _add_networks(self, outputs: Mapping[str, Any], keys: Mapping[str, str], q_NBA: Tensor) -> None:
        """Add the Q-network and, before it, those of its parts whose outputs are known, in a chain."""
        q_net, upstream = self.parts["q_net"], ["observation", "batch.observation", "batch.next_observation"]
        for slot, key in keys.items():
            if slot in outputs:
                part, output = submodule(q_net, slot), outputs[slot]
                output = output[0] if isinstance(output, tuple) else output  # an LSTM also returns its state
                if isinstance(each := submodule(part, "parts"), nn.ModuleList):  # one for each network
                    part = each[0]
                self.wiring.add(slot, part, upstream, {key: output})
                upstream = [key]
        self.wiring.add("q_net", q_net, upstream, {"action_value": q_NBA})

    def _expect_features(self, features: Any) -> None:
        if isinstance(features, Tensor):
            q_net = self.parts["q_net"]
            wanted = (*features.shape[:-1], q_net.encoder.out_features)
            is_bf16 = precision_of(q_net) == "bf16" and features.dtype == torch.bfloat16
            dtype = torch.bfloat16 if is_bf16 else torch.float32
            self._expect("encoder", "features", features, wanted, dtype)

    def _actor(self, observation: Tensor, mask: Tensor | None) -> None:
        actor, temperature = self.parts["actor"], self.parts["temperature"]
        if temperature is not None:
            reads = self._consumes("temperature", [])
            self.wiring.add("temperature", temperature, reads, {"alpha": temperature.alpha})
        self._require_readable("actor", ["observation"], "actor")
        options = {} if mask is None else {"action_mask": mask}
        with self._blame("actor", "an action"):
            action = self.player.act(observation, **options)
        self._expect("actor", "action", action, (self.run.num_envs,), torch.int64)
        writes = {"action": action}
        if self.player.memory is not None:
            writes["memory"] = self.player.memory.packed()
        asked = {*self._consumes("returns", []), *self._consumes("loss", [])}
        if isinstance(actor, Policy) and "log_policy" in asked:
            writes["log_policy"] = actor.log_policy(observation, **options)
        self.wiring.add("actor", actor, [*self._consumes("actor", ["observation"]), *options], writes)

    def _update(self, batch: Batch) -> Agent:
        loss = self.parts["loss"]
        self._require_readable("loss", TRANSITION, "loss")
        with self._blame("optimizer", "parameter groups"):
            agent = Agent(**{name: self.parts[name] for name in AGENT_PARTS})
        if masks := MASK_KEYS if batch.action_mask is not None else ():
            with self._blame("loss", "reading action masks"):
                agent.require_reads_masks()
        with self._blame("loss", "one update on a fake batch"):
            terms = agent.update(batch)
            agent.metrics()
        self._expect("loss", "td_error", terms.td_error, (self._members, len(batch.action)), torch.float32)
        for slot in ("q_net", "actor"):
            self._require_gradient(slot)
        usual = ["action_value", *BATCH_KEYS, *([] if loss.temperature is None else ["alpha"])]
        writes = {**terms.losses, "td_error": terms.td_error}
        if terms.log_pi is not None:
            writes["entropy"] = F.entropy(terms.log_pi)
        self.wiring.add("loss", loss, [*self._consumes("loss", usual), *masks], writes)
        parameters = torch.cat([parameter.detach().flatten() for parameter in loss.q_net.parameters()])
        self.wiring.add("optimizer", agent.optimizer, terms.losses, {"parameters": parameters})
        self.wiring.add(
            "target_update", self.parts["target_update"], ["parameters"], {"target_parameters": parameters}
        )
        return agent

    def _require_gradient(self, slot: str) -> None:
        part = self.parts[slot]
        for name, parameter in part.named_parameters() if isinstance(part, nn.Module) else ():
            if parameter.requires_grad and parameter.grad is None:
                message = f"no gradient of {self._class_in('loss')} reaches its parameter {name}"
                raise RecipeError(message, self.recipe.origin(slot), self._works_with(slot), slot)

    def _works_with(self, slot: str) -> str:
        """A hint on the parts that the part in a slot works with; empty if it works with all."""
        if slot not in self.recipe.chosen:  # as in a saved recipe
            return ""
        part = self.recipe.part(slot)
        limits = self.recipe.catalogue.read(slot, part).works_with.items()
        names = ", ".join(f"{other}={' or '.join(parts)}" for other, parts in limits)
        return f"{slot}={part} works with {names}" if names else ""

    def _require_readable(self, slot: str, produced: Iterable[str], key: str) -> None:
        """Refuse a part whose ``in_keys`` name a key that is not among ``produced``."""
        part = self.parts[slot]
        with self._blame(slot, "naming its in_keys"):
            keys = part.in_keys if isinstance(part, Keyed) else ()
        require_produced(slot, type(part).__name__, keys, produced, self.recipe.origin(key))

    def _consumes(self, slot: str, usual: Sequence[str]) -> Sequence[str]:
        """The keys that the part in a slot declares to read, or else those that such parts usually read."""
        part = self.parts[slot]
        with self._blame(slot, "naming what it consumes"):
            return part.consumes if isinstance(part, Wired) else usual

    def _logger(self) -> None:
        with self._blame("logger", "a run directory"), TemporaryDirectory() as directory:
            self.parts["logger"](directory=Path(directory)).close()

    def _expect(
        self, slot: str, key: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        given, expected = f"a {type(tensor).__name__}", f"{list(shape)} {dtype}"
        if isinstance(tensor, Tensor):
            given = f"{list(tensor.shape)} {tensor.dtype}"
        if given != expected:
            message = f"{self._class_in(slot)} gives {key} as {given}; expected {expected}"
            raise RecipeError(message, self.recipe.origin(slot), "", slot)

    @contextmanager
    def _blame(self, slot: str, doing: str) -> Iterator[None]:
        """Turn any error raised inside into one that says which part failed at what."""
        try:
            yield
        except WiringError as error:
            raise error.located(self.recipe.origin) from error
        except SqnError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failure(slot, doing, error) from error

    def _failure(self, slot: str, doing: str, error: BaseException) -> RecipeError:
        message = f"{self._class_in(slot)} fails at {doing}: {explain(error)}"
        return RecipeError(message, self.recipe.origin(slot), "", slot)

    def _class_in(self, slot: str) -> str:
        part = self.parts[slot]
        return part.func.__name__ if isinstance(part, Maker) else type(part).__name__
