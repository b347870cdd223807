"""One fake step through the parts of a recipe: each part is checked, and what flows between them is noted."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import EnvError, NumericsError, RecipeError
from sqn_rl.parts.collect.base import Actors, Sharded
from sqn_rl.parts.distributions import Scalar
from sqn_rl.parts.env.opening import close, closing_env
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.parts.memory import recalling
from sqn_rl.parts.q_net.q_net import QNet
from sqn_rl.protocols import Policy, SizedReplay, submodule
from sqn_rl.recipe.auto import precision_of
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.graph import Graph, watch_outputs
from sqn_rl.recipe.preflight.checks import Checks
from sqn_rl.recipe.resources import needs, stores_here
from sqn_rl.training.agent import AGENT_PARTS, Agent
from sqn_rl.training.agreement import require_batch, require_members, require_memory
from sqn_rl.training.evaluation import MAX_ENVS, evaluation_env
from sqn_rl.training.player import Player, n_actions_if_recorded
from sqn_rl.types import BATCH_KEYS, MASK_KEYS, Batch, Step

TRANSITION = ("observation", "action", "next.observation", "next.reward", "next.terminated", "next.truncated")
EVALUATE_AFTER = "set eval_every=0, which evaluates after training, or lower num_envs"


class Walk:
    """Builds the parts, passes one fake step through them, and collects the wiring.

    Args:
        recipe: a composed recipe.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.run = recipe, recipe.run
        self.parts = recipe.build()
        self.checks = Checks(self.parts, recipe)
        recorded = n_actions_if_recorded(self.parts["env"], self.parts["returns"])
        with self.checks.blaming("returns", "looking at the actor"):
            require_members(self.parts)
            self.player = Player(self.parts["actor"], self.run.num_envs, recorded)
        self.wiring = Graph()

    def graph(self) -> Graph:
        """The wiring of the parts.

        Raises:
            RecipeError: a part does not fit.
        """
        env_bytes, requests, replay = self._evaluation(), 0, self.parts["replay"]
        observation, step = self._env()
        with self.checks.blaming("q_net", "looking at the other parts"):
            require_memory(self.parts["actor"], self.parts["loss"], replay)
        batch = self._replay(observation, step)
        self._q_net(batch)
        self._actor(observation, step.action_mask)
        if isinstance(actors := self.parts["collect"], Actors):
            with self.checks.blaming("collect", "looking at the other parts"):
                actors.require(replay, self.parts["actor"])
            self.wiring.notes += actors.notes(self.run.num_envs, self.run.update_ratio)
            shards = replay.shards if isinstance(replay, Sharded) else 0
            env_bytes += (actors.actors + shards) * actors.actor_bytes
            requests = actors.actors * actors.depth
        agent = self._update(batch)
        self._logger()
        self.wiring.require_written(self.recipe.origin)
        with self.checks.blaming("loss", "giving its state"):
            here = stores_here(self.run, replay, actors)
            self.wiring.needs = needs(self.run, agent, env_bytes, requests, stored_here=here)
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
        most = min(run.eval_episodes, MAX_ENVS)
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
        self.checks.expect("env", "observation", first, (1, *env.observation_shape), env.observation_dtype)
        observation = first.expand(n, *env.observation_shape)
        if mask is not None:
            self.checks.expect("env", "action_mask", mask, (1, env.n_actions), torch.bool)
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
        if isinstance(replay, SizedReplay) and run.batch_size > replay.capacity:
            raise RecipeError(
                f"expected at most the replay's capacity, {replay.capacity}",
                self.recipe.origin("batch_size"),
                f"lower it, or raise replay.capacity ({self.recipe.origin('replay.capacity')})",
                f"batch_size = {run.batch_size}",
            )
        with self.checks.blaming("replay", "sampling one fake step"):
            replay.store(observation, *self._acted(observation, step))
            batch = replay.draw(run.batch_size)
            require_batch(batch, type(replay).__name__)
        self._expect_batch(batch, observation, step.action_mask)
        reads, writes = list(TRANSITION), dict(zip(BATCH_KEYS, batch, strict=False))
        if batch.sequences is not None:
            observed = batch.sequences.observation
            writes |= {"batch.observation": observed, "batch.next_observation": observed}
            reads.append("memory")
        if step.action_mask is not None:
            writes |= dict(zip(MASK_KEYS, (batch.action_mask, batch.next_action_mask), strict=True))
            reads += ["action_mask", "next.action_mask"]
        self.wiring.add("replay", replay, reads, {"transitions": batch.place})
        self.wiring.add(
            "returns", self.parts["returns"], self.checks.consumes("returns", ["transitions"]), writes
        )
        return batch

    def _acted(self, observation: Tensor, step: Step) -> tuple[Tensor, Step]:
        """Actions that are allowed, and the fake step with what the player records of them."""
        action = torch.zeros(self.run.num_envs, dtype=torch.int64)
        if step.action_mask is not None:
            action = step.action_mask.int().argmax(-1)
        if self.player.is_recurrent:
            self.player.act(observation)
        return action, self.player.record(action, step)

    def _expect_batch(self, batch: Batch, observation: Tensor, mask: Tensor | None) -> None:
        """Check the observations and masks of a batch; ``observation`` and ``mask`` are those stored."""
        shape, observed = (self.run.batch_size, *observation.shape[1:]), batch.observation
        if batch.sequences is not None:
            observed = batch.sequences.observation
            shape = (self.run.batch_size, observed.shape[1], *observation.shape[1:])
        self.checks.expect("replay", "observation", observed, shape, observation.dtype)
        if mask is not None:
            shape = (self.run.batch_size, mask.shape[-1])
            for key in MASK_KEYS:
                given = getattr(batch, key.removeprefix("batch."))
                self.checks.expect("returns", key, given, shape, torch.bool)

    def _q_net(self, batch: Batch) -> None:
        q_net, env, observation = self.parts["q_net"], self.parts["env"], batch.observation
        self.checks.require_readable("q_net", ["observation"], "q_net.in_keys")
        with watch_outputs(q_net, ("encoder", "head")) as outputs:
            try:
                with recalling(batch.sequences, q_net):
                    q_NBA = q_net.values(observation)
            except Exception as error:
                self._expect_features(outputs.get("encoder"))
                failed = next((slot for slot, output in outputs.items() if output is None), "q_net")
                given = f"observation {list(observation.shape)} {observation.dtype}"
                raise self.checks.failure(failed, f"Q(s, ·) on {given}", error) from error
        members = len(q_NBA) if isinstance(q_NBA, Tensor) and q_NBA.dim() else 1
        self._members = q_net.members if isinstance(q_net, QNet) else members
        shape = (self._members, len(observation), env.n_actions)
        self._expect_features(outputs.get("encoder"))
        predicted = "q_values" if (scalar := isinstance(q_net.distribution, Scalar)) else "prediction"
        if (output := outputs.get("head")) is not None:
            wanted = shape if scalar else (*shape, output.shape[-1])
            self.checks.expect("head", predicted, output, wanted, torch.float32)
        self.checks.expect("q_net", "Q(s, ·)", q_NBA, shape, torch.float32)
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
            self.checks.expect("encoder", "features", features, wanted, dtype)

    def _actor(self, observation: Tensor, mask: Tensor | None) -> None:
        actor, temperature = self.parts["actor"], self.parts["temperature"]
        if temperature is not None:
            reads = self.checks.consumes("temperature", [])
            self.checks.expect("temperature", "alpha", temperature.alpha, (), torch.float32)
            self.checks.require_positive("temperature", "alpha", temperature.alpha)
            self.wiring.add("temperature", temperature, reads, {"alpha": temperature.alpha})
        self.checks.require_readable("actor", ["observation"], "actor")
        options = {} if mask is None else {"action_mask": mask}
        with self.checks.blaming("actor", "an action"):
            action = self.player.act(observation, **options)
        self.checks.expect("actor", "action", action, (self.run.num_envs,), torch.int64)
        writes = {"action": action}
        if self.player.memory is not None:
            writes["memory"] = self.player.memory.packed()
        asked = {*self.checks.consumes("returns", []), *self.checks.consumes("loss", [])}
        if isinstance(actor, Policy) and "log_policy" in asked:
            writes["log_policy"] = actor.log_policy(observation, **options)
        self.wiring.add("actor", actor, [*self.checks.consumes("actor", ["observation"]), *options], writes)

    def _update(self, batch: Batch) -> Agent:
        loss = self.parts["loss"]
        self.checks.require_readable("loss", TRANSITION, "loss")
        with self.checks.blaming("optimizer", "parameter groups"):
            agent = Agent(**{name: self.parts[name] for name in AGENT_PARTS})
        if masks := MASK_KEYS if batch.action_mask is not None else ():
            with self.checks.blaming("loss", "reading action masks"):
                agent.require_reads_masks()
        with self.checks.blaming("loss", "one update on a fake batch"):
            terms = agent.update(batch)
            agent.metrics()
        self.checks.expect(
            "loss", "td_error", terms.td_error, (self._members, len(batch.action)), torch.float32
        )
        for slot in ("q_net", "actor"):
            self.checks.require_gradient(slot)
        usual = ["action_value", *BATCH_KEYS, *([] if loss.temperature is None else ["alpha"])]
        writes = {**terms.losses, "td_error": terms.td_error}
        if terms.log_pi is not None:
            writes["entropy"] = F.entropy(terms.log_pi)
        self.wiring.add("loss", loss, [*self.checks.consumes("loss", usual), *masks], writes)
        parameters = torch.cat([parameter.detach().flatten() for parameter in loss.q_net.parameters()])
        self.wiring.add("optimizer", agent.optimizer, terms.losses, {"parameters": parameters})
        self.wiring.add(
            "target_update", self.parts["target_update"], ["parameters"], {"target_parameters": parameters}
        )
        return agent

    def _logger(self) -> None:
        with self.checks.blaming("logger", "a run directory"), TemporaryDirectory() as directory:
            logger = self.parts["logger"](directory=Path(directory))
            if not isinstance(logger, Reporter):
                message = f"{type(logger).__name__} is not derived from sqn_rl.Reporter, as loggers must be"
                raise RecipeError(message, self.recipe.origin("logger"), "", "logger")
            logger.close()
