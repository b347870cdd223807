"""Property 9: break a single sign, γ, min, mask or gradient stop, and an oracle fails.

Each mutant is applied to a copy of the package, against which the oracle of the broken file then runs. Run as
a program, this file does that: it imports torch once and forks for every mutant. The test starts it.
"""

import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PLUGINS = ["-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider", "-p", "no:logging"]


class Mutant(NamedTuple):
    file: str
    oracle: str
    """What must notice."""
    name: str
    source: str
    """Occurs exactly once in the file."""
    broken: str


# fmt: off
MUTANTS = [Mutant(*files, *mutant) for files, mutants in {
    ("functional.py", "test_functional.py"): [
        ("policy times α", "keepdim=True).detach()) / alpha", "keepdim=True).detach()) * alpha"),
        ("policy prefers the worst", "log_softmax(logits(q_BA, alpha)", "log_softmax(logits(-q_BA, alpha)"),
        ("the offset of Q is divided", "(q_BA - q_BA.amax(-1, keepdim=True).detach())", "q_BA"),
        ("entropy's sign", "return -(log_pi_BA.exp() * log_pi_BA)", "return (log_pi_BA.exp() * log_pi_BA)"),
        ("off-greedy is greedy", "1 - log_pi_BA.amax(-1).exp()", "log_pi_BA.amax(-1).exp()"),
        ("soft value without α in front", "alpha * torch.logsumexp", "torch.logsumexp"),
        ("soft value without the maximum", "q_BA.amax(-1).detach() + alpha", "alpha"),
        ("expected: max over twins", ").sum(-1).amin(0)", ").sum(-1).amax(0)"),
        ("expected: min before the sum", "target_q_NBA).sum(-1).amin(0)", "target_q_NBA.amin(0)).sum(-1)"),
        ("expected_min: max over twins", "target_q_NBA.amin(0)).sum(-1)", "target_q_NBA.amax(0)).sum(-1)"),
        ("expected_mean: sum over twins", "target_q_NBA.mean(0)", "target_q_NBA.sum(0)"),
        ("one action: first twin only", "target_q_NBA.amin(0).gather", "target_q_NBA[0].gather"),
        ("sampled: uniformly", "(logits(q_BA, alpha) - exponential_BA", "(-exponential_BA"),
        ("sampled: Gumbel's sign", "alpha) - exponential_BA.log()", "alpha) + exponential_BA.log()"),
        ("sampled: the improbable", "(logits(q_BA, alpha) - exp", "(-logits(q_BA, alpha) - exp"),
        ("sampled: global generator", "exponential_(generator=generator)", "exponential_()"),
        ("max: min before the max", "target_q_NBA.amax(-1).amin(0)", "target_q_NBA.amin(0).amax(-1)"),
        ("target's sign", "reward_B + discount_B * value_B", "reward_B - discount_B * value_B"),
        ("γ dropped", "reward_B + discount_B * value_B", "reward_B + value_B"),
        ("δ's sign", "return q_NB - target_B", "return target_B - q_NB"),
        ("δ adds the target", "return q_NB - target_B", "return q_NB + target_B"),
        ("sum over the batch", ".mean(-1).sum()", ".sum(-1).sum()"),
        ("mean over twins", ".mean(-1).sum()", ".mean(-1).mean()"),
        ("weights ignored", "else weight_B * loss_NB", "else loss_NB"),
        ("temperature loss negated", "return alpha * (entropy_B", "return -alpha * (entropy_B"),
        ("H̄'s sign", "entropy_B.detach().mean() - target", "entropy_B.detach().mean() + target"),
        ("L_α trains the policy", "entropy_B.detach().mean()", "entropy_B.mean()"),
        ("advantages not centred", " - advantage_BA.mean(-1, keepdim=True)", ""),
    ],
    ("functional.py", "test_discrete_sac.py"): [
        ("policy loss negated", "return ((log_pi_BA.exp()", "return -((log_pi_BA.exp()"),
        ("policy avoids high values", "(alpha * log_pi_BA - (q_BA", "(alpha * log_pi_BA + (q_BA"),
        ("policy avoids entropy", "(alpha * log_pi_BA - (q_BA", "(-alpha * log_pi_BA - (q_BA"),
        ("policy's entropy without α", "(alpha * log_pi_BA - (q_BA", "(log_pi_BA - (q_BA"),
        ("policy's loss without the maximum", "True) - best_B1)", "True))"),
        ("policy's loss at an offset", "(q_BA - best_B1)", "q_BA"),
        ("policy's loss summed", "- best_B1).mean()", "- best_B1).sum()"),
    ],
    ("functional.py", "test_munchausen.py"): [
        ("bonus's sign", "scale * (alpha * log_pi_B)", "scale * (-alpha * log_pi_B)"),
        ("bonus not scaled", "return scale * (alpha", "return (alpha"),
        ("bonus without α", "scale * (alpha * log_pi_B)", "scale * (log_pi_B)"),
        ("bonus's clip without an upper end", ".clamp(lowest, 0)", ".clamp(lowest)"),
        ("bonus's clip without a lower end", ".clamp(lowest, 0)", ".clamp(max=0)"),
        ("bonus's clip from the other side", ".clamp(lowest, 0)", ".clamp(0, -lowest)"),
        ("bonus scaled before its clip", "scale * (alpha * log", "(scale * alpha * log"),
    ],
    ("functional.py", "test_distributions.py"): [
        ("mixture of the wrong sign", "    return weight_NBA", "    return -weight_NBA"),
        ("mixture that does not sum to 1", "(backup(q_NBA).sum(), q_NBA)", "(backup(q_NBA).mean(), q_NBA)"),
    ],
    ("functional.py", "test_categorical.py"): [
        ("positions not clamped", "position_BK.clamp(0, last)", "position_BK"),
        ("positions clamped below only", "position_BK.clamp(0, last)", "position_BK.clamp(0)"),
        ("positions clamped above only", "position_BK.clamp(0, last)", "position_BK.clamp(max=last)"),
        ("shares swapped", "(position_BK - below_BK)", "(1 - position_BK + below_BK)"),
        ("mass to the atom beyond", "below_BK + 1, upper_BK", "below_BK, upper_BK"),
        ("support from its other end", "(atom_BK - support_K[0])", "(atom_BK - support_K[-1])"),
        ("support as if it were of spacing 1", "(last / (support_K[-1] - support_K[0]))", "1"),
        ("mass counted twice", "below_BK, probability_BK - upper_BK)", "below_BK, probability_BK)"),
        ("cross entropy negated", "return -(target_BK * torch", "return (target_BK * torch"),
        ("cross entropy of the mean", "torch.log_softmax(logit_NBK, dim=-1)).sum", "logit_NBK).sum"),
    ],
    ("functional.py", "test_quantile.py"): [
        ("quantiles without their half", "(rank_K + 0.5) / k", "rank_K / k"),
        ("quantiles a half too high", "(rank_K + 0.5) / k", "(rank_K + 1) / k"),
        ("quantiles reversed", "1 - tau_K1, tau_K1)", "tau_K1, 1 - tau_K1)"),
        ("u's sign in its indicator", "where(target_NBKM < quantile", "where(target_NBKM > quantile"),
        ("loss not divided by κ", "kappa)  # L", "kappa) * (kappa or 1)  # L"),
        ("κ is 1", "beta=kappa)", "beta=1.0)"),
        ("κ is 0", "beta=kappa)", "beta=0.0)"),
        ("quantiles averaged", "size_NBKM).mean(-1).sum(-1)", "size_NBKM).mean(-1).mean(-1)"),
    ],
    ("functional.py", "test_every_loss.py"): [
        ("NaN becomes an index", ".clamp(0, last - 1)", ".clamp(max=last - 1)"),
    ],
    ("parts/distributions.py", "test_distributions.py"): [
        ("absolute error", "return td_error_NB.square()", "return td_error_NB.abs()"),
        ("squared priority", "square(), td_error_NB", "square(), td_error_NB.square()"),
        ("target without its reward", "td_target(reward_B,", "td_target(0 * reward_B,"),
    ],
    ("parts/replay/sharded.py", "test_sharded.py"): [
        ("probability ignores the shard's share", "share * (len(share) / batch_size)", "share"),
        ("total not divided by", ".value[batch.place.numpy()] / total", ".value[batch.place.numpy()]"),
        ("shards confused", "(number << PLACE_BITS)", "0"),
        ("points not stratified", "stratified(uniform_B, ends[-1])", "uniform_B * ends[-1]"),
        ("errors of other transitions", "td_error[:, own_B]", "td_error[:, : own_B.sum()]"),
        ("lanes confused", "chunk, lane // self.shards", "chunk, lane % (self.lanes // self.shards)"),
        ("equal shares", "np.cumsum(self._totals)", "np.cumsum(np.sign(self._totals))"),
    ],
    ("parts/rescaling.py", "test_rescaling.py"): [
        ("h's slope subtracted", "+ epsilon * x", "- epsilon * x"),
        ("h without its 1", "((x.abs() + 1).sqrt() + 1)", "((x.abs() + 1).sqrt() - 1)"),
        ("inverse with ε's wrong sign", "+ 1 + epsilon", "+ 1 - epsilon"),
        ("inverse not odd", "y.sign() * (root", "(root"),
        ("inverse without its 1", "(root - 1) * (root + 1)", "root * root"),
        ("values in the unit of h", "return unrescale(prediction", "return (lambda y, _: y)(prediction"),
        ("target in reward units", "h_of_target = rescale(target, self.epsilon)", "h_of_target = target"),
        ("absolute error", "return td_error_NB.square()", "return td_error_NB.abs()"),
    ],
    ("parts/distributions.py", "test_rescaling.py"): [
        ("backup in the unit of h", "backup(self.mean(prediction))", "backup(prediction.squeeze(-1))"),
    ],
    ("parts/distributions.py", "test_categorical.py"): [
        ("mean of logits", "prediction.softmax(-1) @ self", "prediction @ self"),
        ("mixture of logits", "return prediction.softmax(-1)\n", "return prediction\n"),
        ("mixture of the first network", "prediction)).sum((0, 2))", "prediction))[0].sum(1)"),
        ("support not shifted", "atom_BK = reward_B.unsqueeze(-1) + discount", "atom_BK = discount"),
        ("support shifted back", "atom_BK = reward_B", "atom_BK = -reward_B"),
        ("support not shrunk", "discount_B.unsqueeze(-1) * self.support", "self.support"),
        ("δ's sign", "detach()) - target @ self.support", "detach()) + target @ self.support"),
        ("even support without an end", "v_max), atoms)", "v_max), atoms + 1)[:-1]"),
    ],
    ("parts/distributions.py", "test_quantile.py"): [
        ("mean is the lowest", "return prediction.mean(-1)", "return prediction.amin(-1)"),
        ("average of unweighted quantiles", "weight_NBA.unsqueeze(-1) *", "weight_NBA.unsqueeze(-1) +"),
        ("average of the first network", "prediction)).sum((0, 2))", "prediction))[0].sum(1)"),
        ("quantiles not shifted", "return reward_B.unsqueeze(-1) + discount_B", "return discount_B"),
        ("quantiles shifted back", "return reward_B", "return -reward_B"),
        ("quantiles not shrunk", "+ discount_B.unsqueeze(-1) * mixture_BZ", "+ mixture_BZ"),
        ("δ's sign", "mean(-1) - target.mean", "mean(-1) + target.mean"),
        ("κ is 0", "target, self.kappa)", "target, 0.0)"),
        ("action 0 is taken", "device=action_B.device), action_B]", "device=action_B.device), 0 * action_B]"),
    ],
    ("parts/loss/td.py", "test_sqn_loss.py"): [
        ("bonus subtracted", "+ discount_B * bonus", "- discount_B * bonus"),
        ("bonus left out", " + discount_B * bonus", ""),
        ("bonus not discounted", "+ discount_B * bonus", "+ bonus"),
        ("online network in the target", "= self.target_q_net.predict", "= self.q_net.predict"),
        ("mask dropped", "batch.discount * ~batch.terminated", "batch.discount"),
        ("mask inverted", "batch.discount * ~batch.terminated", "batch.discount * batch.terminated"),
        ("γ instead of γ^m", "batch.discount * ~batch.terminated", "self.gamma * ~batch.terminated"),
        ("value of s, not of s'", "target_q_net.predict(next_obs", "target_q_net.predict(batch.obs"),
        ("policy of s, not of s'", "(prediction), next_obs", "(prediction), batch.obs"),
        ("own targets swapped", "in prediction.split(1)]", "in prediction.flip(0).split(1)]"),
        ("own targets are the first's", "target_of(network) for", "target_of(prediction[:1]) for"),
        ("gradient through the target", "@torch.no_grad()\n    def target", "def target"),
        ("weights never reach the loss", "F.td_loss(loss_NB, batch.weight)", "F.td_loss(loss_NB)"),
    ],
    ("parts/loss/td.py", "test_every_loss.py"): [
        ("reported δ has a gradient", "td_error_NB.detach(), _filled", "td_error_NB, _filled"),
        ("α from the second twin's entropy", "F.log_policy(q_NBA[0], self", "F.log_policy(q_NBA[1], self"),
        ("reported Q has a gradient", "mean(prediction.detach())", "mean(prediction)"),
    ],
    ("parts/loss/td.py", "test_loss_module.py"): [
        ("target is the online network", "deepcopy(q_net).requires_grad_(False)", "q_net"),
        ("target is trained", "deepcopy(q_net).requires_grad_(False)", "deepcopy(q_net)"),
        ("number of steps ignored", "discount_B ** steps.reshape(-1)", "discount_B"),
        ("truncated is terminal", 'NestedKey = "terminated"', 'NestedKey = "done"'),
        ("errors with their sign", "terms.td_error.abs().mT", "terms.td_error.mT"),
        ("the first twin's error twice", "terms.td_error.abs().mT", "terms.td_error[[0, 0]].abs().mT"),
        ("weights not read", "None if weight is None else weight.reshape(-1)", "None"),
        ("no noise", "noise.sample(self.generator)", "pass"),
        ("noise of the global generator", "noise.sample(self.generator)", "noise.sample()"),
        ("no noise in the target", ', "target_q_net": Noise(self.target_q_net)}', "}"),
        ("seed ignored", ".manual_seed(seed)", ".manual_seed(0)"),
        ("α not reported", "self.temperature.alpha.clone()", "self.temperature.alpha.log()"),
        ("any γ", "gamma: Probability,", "gamma: float,"),
    ],
    ("parts/loss/sqn.py", "test_sqn_loss.py"): [
        ("bonus is a penalty", "bonus = self.temperature.alpha * F", "bonus = -self.temperature.alpha * F"),
        ("bonus without α", "bonus = self.temperature.alpha * F.entropy", "bonus = F.entropy"),
        ("bonus never left out", " if self.backup_entropy else 0.0", ""),
        ("bonus always left out", "if self.backup_entropy else 0.0", "if False else 0.0"),
        ("policy never from the target", "if self._from_target:", "if False:"),
        ("policy always from the target", "if self._from_target:", "if True:"),
        ("policy of the first target", "REDUCTIONS[self._reduction](target_q_NBA)", "target_q_NBA[0]"),
        ("policy of the first", "next_observation, self._reduction)", 'next_observation, "q1")'),
        ("policy without α", "action_mask), self.temperature.alpha", "action_mask), 1.0"),
        ("entropy never of the mean", '"mean" if self._reduction == "mean" else ', ""),
    ],
    ("parts/reductions.py", "test_sqn_loss.py"): [
        ("policy from the max", "q_NBA.amin(0)", "q_NBA.amax(0)"),
        ("policy never from the min", "q_NBA.amin(0)", "q_NBA[0]"),
        ("policy of the sum", "q_NBA.mean(0)", "q_NBA.sum(0)"),
        ("policy never from the mean", "q_NBA.mean(0)", "q_NBA[0]"),
        ("policy of the second twin", "q_NBA[0]", "q_NBA[1]"),
        ("only the first for the min", "q_net.values(observation)", "q_net.first(observation)[None]"),
    ],
    ("parts/reductions.py", "test_actors.py"): [
        ("acts by the maximum of twins", "q_NBA.amin(0)", "q_NBA.amax(0)"),
        ("acts by the second twin", "q_net.first(observation)", "q_net.values(observation)[1]"),
    ],
    ("parts/loss/dqn.py", "test_dqn_losses.py"): [
        ("the worst action", "return F.maximum, 0.0", "return lambda q_NBA: -F.maximum(-q_NBA), 0.0"),
        ("a bonus", "return F.maximum, 0.0", "return F.maximum, 1.0"),
    ],
    ("parts/loss/double_dqn.py", "test_dqn_losses.py"): [
        ("the target chooses", "self.q_net.first(next_observation)", "target_q_NBA[0]"),
        ("the second twin chooses", "first(next_observation)", "values(next_observation)[-1]"),
        ("the worst action", ".argmax(-1)", ".argmin(-1)"),
        ("a bonus", "action_B=action_B), 0.0", "action_B=action_B), 1.0"),
    ],
    ("parts/loss/munchausen.py", "test_munchausen.py"): [
        ("bonus is a penalty", "return batch.reward + F", "return batch.reward - F"),
        ("reward left out", "return batch.reward + F", "return F"),
        ("policy of s', not of s", "q_net, batch.observation", "q_net, batch.next_observation"),
        ("policy never from the target", "if self._from_target:", "if False:"),
        ("policy always from the target", "if self._from_target:", "if True:"),
        ("policy of the first", "REDUCTIONS[self._reduction](q_NBA)", "q_NBA[0]"),
        ("policy of the first target", "batch.observation, self._reduction)", 'batch.observation, "q1")'),
        ("l₀ above 0", 'require(lowest < 0, "lowest"', 'require(True, "lowest"'),
        ("m above 1", "m: Probability,", "m: float,"),
    ],
    ("parts/loss/discrete_sac.py", "test_discrete_sac.py"): [
        ("policy at the max of the twins", "q_NBA.amin(0), self", "q_NBA.amax(0), self"),
        ("policy at the first twin", "q_NBA.amin(0), self", "q_NBA[0], self"),
        ("bonus is a penalty", "), self.temperature.alpha * F", "), -self.temperature.alpha * F"),
        ("bonus without α", "log_pi_BA), self.temperature.alpha * F.entropy", "log_pi_BA), F.entropy"),
        ("policy of Q_1", "self._logits(observation), act", "q_NBA[0] / self.temperature.alpha, act"),
        ("any actor", "policy_net is None or not isinst", "policy_net is not None and not isinst"),
    ],
    ("parts/loss/discrete_sac.py", "test_loss_module.py"): [
        ("no noise in the policy", 'self._noises["policy_net"] = Noise(policy_net)', "pass"),
        ("L_π not in the out keys", 'return ["loss_policy", *super().out_keys]', "return super().out_keys"),
    ],
    ("training/agent.py", "test_agent.py"): [
        ("the step before the check", "if not math.isfinite(sum(numbers)):", "if False:"),
        ("NaN passes", "not math.isfinite(sum(numbers))", "math.isinf(sum(numbers))"),
        ("gradients are not looked at", "math.isfinite(sum(numbers))", "math.isfinite(sum(numbers[:-1]))"),
        ("targets are trained", "if each.requires_grad and", "if"),
        ("replay gets too little", "terms.td_error)\n        except", "terms.td_error[0])\n        except"),
        ("α decays", '"weight_decay": 0.0', '"weight_decay": 0.1'),
        ("α at the networks' rate", '{"params": alphas, "lr": lr,', '{"params": alphas,'),
        ("replay not annealed", "[self.temperature, actor, replay]", "[self.temperature, actor]"),
    ],
    ("training/agreement.py", "test_agent.py"): [
        ("two γ", "and loss.gamma != returns.gamma", "and loss.gamma == -1"),
        ("two temperatures", "and alpha is not loss.temperature", "and alpha is loss"),
        ("soft returns with a hard loss", "returns.soft and leaves_out", "returns.soft and False"),
    ],
    ("training/update/gradients.py", "test_agent.py"): [
        ("only the first loss", "reduce(add, terms.losses.values())", 'terms.losses["loss_q"]'),
    ],
    ("training/update/descent.py", "test_agent.py"): [
        ("α not refreshed", "follow.append((temperature, temperature.refresh))", "pass"),
        ("targets stay", "follow.append((target_update, target_update.step))", "pass"),
    ],
    ("training/randomness.py", "../parts/test_randomness.py"): [
        ("tuples are passed over", "isinstance(value, list | tuple |", "isinstance(value, list |"),
        ("dicts are passed over", "return value.items()", "return ()"),
        ("modules are passed over", " or isinstance(value, nn.Module)", ""),
        ("noise is not restored", "source.set(value)", "pass"),
        ("earlier names are unknown", "key if key in state else earlier", "key"),
        ("own states are not asked", "not (stateful and", "not (False and"),
    ],
    ("training/plan.py", "../parts/test_training.py"): [
        ("an update within the warm-up", "if self.policy_acts and self.before", "if self.before"),
    ],
    ("parts/temperature/base.py", "test_temperature.py"): [
        ("α not clamped", "self.parameter.clamp_(self._minimum, self._maximum)", "pass"),
        ("α not refreshed", "torch.exp(self.parameter, out=self.alpha)", "pass"),
        ("α itself not refreshed", "self.alpha.copy_(self.parameter)", "pass"),
    ],
    ("parts/temperature/learned.py", "test_temperature.py"): [
        ("H̄ in actions, not nats", "* math.log(n_actions)", "* n_actions"),
    ],
    ("parts/temperature/annealed.py", "test_temperature.py"): [
        ("annealing upwards", "linear(self._start, self._end,", "linear(self._end, self._start,"),
    ],
    ("parts/schedule.py", "test_schedule.py"): [
        ("away from the end", "start + min", "start - min"),
        ("beyond the end", "min(1.0, progress)", "progress"),
    ],
    ("parts/target_update/polyak.py", "test_target_update.py"): [
        ("τ for ρ", "self._online, self.tau)", "self._online, 1 - self.tau)"),
        ("the online network follows", "(self._target, self._online,", "(self._online, self._target,"),
    ],
    ("parts/target_update/periodic.py", "test_target_update.py"): [
        ("copied backwards", "each(self._target, self._online)", "each(self._online, self._target)"),
        ("copied one update late", "self.updates % self.every == 0", "self.updates % self.every == 1"),
    ],
    ("parts/noise.py", "test_noisy.py"): [
        ("f without its sign", ".sqrt_().copysign_(x)", ".sqrt_()"),
        ("f without its root", "x.abs().sqrt_()", "x.abs()"),
        ("noise of the global generator", "self._total, generator=generator,", "self._total,"),
        ("a view has the network's noise", "        layer.set_noise(None)", "        pass"),
        ("a view has its own parameters", "deepcopy(module, memo)", "deepcopy(module)"),
    ],
    ("parts/layers/noisy.py", "test_noisy.py"): [
        ("noise's sign", "in_N1F), out_N1G)", "in_N1F), -out_N1G)"),
        ("no noise of the inputs", "self.sigma(x * in_N1F)", "self.sigma(x)"),
        ("no noise of the outputs", "in_N1F), out_N1G)", "in_N1F), out_N1G ** 0)"),
        ("noise alone", "torch.addcmul(self.mu(x), self", "torch.addcmul(0 * self.mu(x), self"),
        ("σ learns nothing", "self.sigma(x * in_N1F)", "self.sigma(x * in_N1F).detach()"),
        ("one noise for all networks", "noise.view(self._shape)", "noise.view(self._shape)[:1]"),
        ("σ₀ times the root", "sigma / math.sqrt(in_features)", "sigma * math.sqrt(in_features)"),
        ("σ drawn as μ is", "nn.init.constant_(parameter,", "nn.init.uniform_(parameter,"),
    ],
    ("parts/head/dueling.py", "../parts/test_heads.py"): [
        ("centred over the outputs", "self.outputs)).mT for x", "self.outputs)) for x"),
    ],
    ("parts/q_net/q_net.py", "../parts/test_heads.py"): [
        ("values are logits", "return self.distribution.mean(self.p", "return (self.p"),
        ("the last network acts", "observation))[0]", "observation))[-1]"),
    ],
    ("parts/q_net/per_network.py", "../parts/test_per_network.py"): [
        ("one part for all networks", "else [make(layer=partial(layer, members=1)) for", "else [part for"),
        ("features of one network", "zip(self.parts, inputs,", "zip(self.parts, [inputs[0]] * len(inputs),"),
    ],
    ("parts/encoder/images.py", "../parts/test_cnn.py"): [
        ("bytes as they are", ".div_(255)", ""),
        ("linear convolutions", "nn.ReLU(inplace=True)", "nn.Identity()"),
    ],
    ("parts/encoder/impala_cnn.py", "../parts/test_cnn.py"): [
        ("residual subtracted", "return x + self.second", "return x - self.second"),
        ("nothing skipped", "return x + self.second", "return self.second"),
        ("linear before the block", "self.first(torch.relu(x))", "self.first(x)"),
        ("linear within the block", "self.second(torch.relu(self.first", "self.second((self.first"),
        ("linear after the blocks", "[*steps, nn.ReLU()]", "steps"),
    ],
    ("parts/env/pool/pooled.py", "../parts/test_env_pool.py"): [
        ("the true final observation is overwritten", "observation = successor.copy()", "pass"),
        ("terminated is truncated", "score, terminated, truncated,", "score, truncated, terminated,"),
        ("EnvPool's own reset is a transition", "if ended.any():", "if False:"),
        ("all are reset where one ended", "(over)", "(np.arange(self.num_envs, dtype=np.int32))[over]"),
        ("reward's sign", "reward = np.sign(score)", "reward = -np.sign(score)"),
        ("the mask of the next state twice", "self._current.action_mask, following", "following, following"),
        ("no action in a terminal state", "mask_BA[terminated & ~mask_BA.any(-1)] = True", "pass"),
        ("frames of the last episode", "np.zeros_like(self._stacks[rows]) if begins else ", ""),
        ("the same seeds", "seed=self._seeds)", "seed=0)"),
    ],
    ("parts/env/observations.py", "../parts/test_env_pool.py"): [
        ("choices from 0", "numbers - space.start ==", "numbers =="),
    ],
    ("parts/env/football.py", "../parts/test_env_pool.py"): [
        ("a limit of one step more", '{"max_episode_steps": limit - 1}', '{"max_episode_steps": limit}'),
    ],
    ("parts/actor/base.py", "test_actors.py"): [
        ("greedy is the worst", "return score_BA.argmax(-1), ", "return score_BA.argmin(-1), "),
        ("greedy has noise", "            layer.set_noise(None)", "            pass"),
        ("acting has no noise", "sample(generator)\n        obs", "layers\n        obs"),
        ("acting has no noise of its own", "_spec = acting_view(q_net)", "_spec = (q_net)"),
        ("noise of the actor's generator", "(generator)\n        obs", "(self.generator)\n        obs"),
        ("a lent generator is ignored", "(observations, greedy, generator or", "(observations, greedy, 0 or"),
        ("policy for others: noisy", "F.masked(self.mean_scores(obs", "F.masked(self.scores(obs"),
    ],
    ("parts/actor/boltzmann.py", "test_actors.py"): [
        ("recorded without the ladder", "alpha * self._factor_B1).exp()", "alpha).exp()"),
        ("acts by Q times α", "noise[0], alpha if", "noise[0], 1 / alpha if"),
        ("policy for others: the worst", "(score_BA, self.temperature.alpha)", "(-score_BA, 1)"),
    ],
    ("parts/actor/epsilon_greedy.py", "test_actors.py"): [
        ("ε rises", "linear(self._start, self._end,", "linear(self._end, self._start,"),
        ("ε falls over the whole budget", "over * steps", "steps"),
        ("greedy with probability ε", "uniform_B < epsilon", "uniform_B > epsilon"),
        ("the last action is never explored", "torch.randint(actions,", "torch.randint(actions - 1,"),
        ("explores by the worst", "epsilon, random_B,", "epsilon, score_BA.argmin(-1),"),
        ("all explore at once", "torch.rand(states,", "torch.rand(1,"),
    ],
    ("parts/actor/greedy.py", "test_actors.py"): [
        ("the worst action", "score_BA.argmax(-1)", "score_BA.argmin(-1)"),
    ],
    ("parts/actor/policy.py", "test_actors.py"): [
        ("acts by minus the logits", "F.gumbel_max(score_BA,", "F.gumbel_max(-score_BA,"),
        ("log π of minus the logits", "score_BA.log_softmax(-1)", "(-score_BA).log_softmax(-1)"),
        ("learns with acting's noise", "self._logits(self.policy_net, ", "self._logits(self._view[0], "),
        ("no gradient", "(self.policy_net, observation)", "(self.policy_net, observation).detach()"),
    ],
    ("parts/observations.py", "../parts/test_per_key.py::test_every_entry_is_read_from_its_columns"): [
        ("a byte too wide", "numbers = numbers / 255", "numbers = numbers / 256"),
        ("rows as channels", ".movedim(-1, -3)", ".movedim(-3, -1)"),
    ],
    ("parts/observations.py", "../parts/test_observations.py"): [
        ("numbers taken for bytes", "torch.uint8 not in (dtype, self.dtype)", "True"),
        ("other shapes are reshaped", ":] != self.shape:\n            raise", ":] != ():\n            raise"),
        ("one action of a batch", "return observation, single", "return observation, False"),
    ],
    ("parts/scaling.py", "../parts/test_scaling.py"): [
        ("middles rounded down", "np.ceil((low + high)", "np.floor((low + high)"),
        ("formal bounds count", "(high <= BYTE[1]) & ", ""),
        ("codes are scaled", " & (np.maximum(-low, high) > SMALL)", ""),
    ],
    ("functional.py", "test_n_step.py"): [
        ("a step more counts", "return 1 + (~last_BT", "return 2 + (~last_BT"),
        ("steps after the last count", "(~last_BT[:, :-1]).cumprod(-1)", "(~last_BT[:, :-1])"),
        ("only lasts count", "(~last_BT[:, :-1])", "(last_BT[:, :-1])"),
        ("rewards one γ too low", "power_T[:-1] * reward_BT", "power_T[1:] * reward_BT"),
        ("rewards not discounted", "power_T[:-1] * reward_BT", "reward_BT"),
        ("rewards after the last", ".where(counts_BT, 0)", ""),
        ("rewards lack the last", "steps_B.device) < steps_B.uns", "steps_B.device) + 1 < steps_B.uns"),
        ("γ^(m-1)", "power_T[steps_B]", "power_T[steps_B - 1]"),
    ],
    ("functional.py", "test_tree_backup.py"): [
        ("share added", "return value_BZ - taken_BZ", "return value_BZ + taken_BZ"),
        ("share kept", "return value_BZ - taken_BZ", "return value_BZ"),
        ("return after the step not weighted", "coefficient_B.unsqueeze(-1) * target_BZ", "target_BZ"),
        ("own: the sum over actions", "log_pi_BA.exp() * target_q_1BA", "target_q_1BA"),
    ],
    ("parts/distributions.py", "test_tree_backup.py"): [
        ("a trace above one", "torch.minimum(1 / pi_BT", "torch.maximum(1 / pi_BT"),
        ("share of all actions", "weighted_BTAZ.gather(2, taken_BT1Z).squeeze(2)", "weighted_BTAZ.sum(2)"),
        ("share without λ", "taken_BTZ = trace_BT.unsqueeze(-1) * weighted", "taken_BTZ = weighted"),
        ("coefficient without λ", "coefficient_BT = trace_BT * pi_BT", "coefficient_BT = pi_BT"),
        ("coefficient of the first network", "weight.sum(0).unflatten", "weight[0].unflatten"),
        ("value of the first action", "weighted_BTAZ.sum(2)\n", "weighted_BTAZ[:, :, 0]\n"),
        ("the last step is left out", "reward_BT.shape[1] - 1", "max(0, reward_BT.shape[1] - 2)"),
        ("rewards of the last step", "value_BZ, reward_BT[:, t]", "value_BZ, reward_BT[:, last]"),
        ("discounts of the last step", "[:, t], path.discount[:, t]", "[:, t], path.discount[:, last]"),
    ],
    ("parts/loss/td.py", "test_tree_backup.py"): [
        ("bonus left out on paths", "reward_BT + path.discount * bonus_BT", "reward_BT"),
        ("bonus not discounted on paths", "reward_BT + path.discount * bonus_BT", "reward_BT + bonus_BT"),
        ("the first reward only", "path.reward[:, 1:]]", "0 * path.reward[:, 1:]]"),
    ],
    ("parts/returns/retrace.py", "test_tree_backup.py"): [
        ("of the action before", "log_mu.take(following)", "log_mu.take(following - ring.num_envs)"),
    ],
    ("parts/returns/tree_backup.py", "test_tree_backup.py"): [
        ("rows after the end", "torch.minimum(k_T, steps_B1 - 1)", "k_T.expand(len(place), -1)"),
        ("actions of the step before", "ring.action.take(next_place_BT)", "ring.action.take(place_BT)"),
        ("terminals continue", "(~ring.terminated.take(place_BT))", "(ring.reward.take(place_BT) < 99)"),
        ("paths without end", "(k_T + 1 < steps_B1)", "(k_T < steps_B1)"),
        ("λ is 1", "trace=self.lmbda * ", "trace="),
    ],
    ("parts/returns/n_step.py", "test_n_step.py"): [
        ("successor of the first step", "ring.observe_next(end)", "ring.observe_next(place)"),
        ("terminated is the first step's", "index_select(0, end)", "index_select(0, place)"),
        ("entropies subtracted", "reward_BT += self._bonus", "reward_BT -= self._bonus"),
        ("entropy of the first step", "(k_T > 0) & ", ""),
        ("entropy after the last step", "(k_T < steps_B.unsqueeze(-1))", "(k_T <= steps_B.unsqueeze(-1))"),
        ("entropies without α", "self.temperature.alpha * entropy", "entropy"),
        ("entropies with gradient", "    @torch.no_grad()\n", ""),
    ],
    ("parts/replay/ring.py", "test_n_step.py"): [
        ("continues after a terminal or a lost life", "self.terminated.take(place_BT) | ", ""),
        ("continues after a truncated step", "self.truncated.take(place_BT) | ", ""),
        ("continues after cuts and the newest", " | self.is_last(place_BT)", ""),
        ("steps back in time", "(place.unsqueeze(-1) + rows)", "(place.unsqueeze(-1) - rows)"),
        ("another environment's next step", "0, steps * self.num_envs, self.num_envs", "0, steps"),
        ("follows from the newest", "newest | (self.successor.take", "(self.successor.take"),
        ("follows from before a cut", "newest | (self.successor.take(place) > self.places)", "newest"),
        ("the reset is the successor", "self._spill_finals(row.start + ended)", "pass"),
        ("lost lives end episodes", "ended = step.ended.nonzero()", "ended = step.terminated.nonzero()"),
        ("cuts leave successors to be overwritten", "self._spill_finals(place[self", "len(place[self"),
        ("cuts leave stacks whole", "self._episode_age[which] = 0", "pass"),
        ("stacks reach into the episode before", "episode_age[ended] = 0", "pass"),
        ("stacks in reverse", "torch.arange(frame_stack - 1, -1, -1,", "torch.arange(frame_stack,"),
        ("stacks of the future", "- self.num_envs * self._rows_back)", "+ self.num_envs * self._rows_back)"),
        ("stacks one frame short", ".unsqueeze(-1) < self._rows_back", ".unsqueeze(-1) <= self._rows_back"),
        ("stacks one frame long", ".unsqueeze(-1) < self._rows_back", ".unsqueeze(-1) + 1 < self._rows_back"),
        ("stacks do not grow", "max=self.frame_stack - 1", "max=self.frame_stack - 2"),
        ("the next stack is not shifted", "self._stack(place)[:, 1:]", "self._stack(place)[:, :-1]"),
        ("the oldest frame is stored", "observation[:, -1]", "observation[:, 0]"),
        ("the oldest stacks are overwritten", "self._window + frame_stack", "self._window + 1"),
        ("finals dropped a row early", "row_count - 1 - self._window", "row_count - self._window"),
    ],
    ("parts/replay/sum_tree.py", "test_sum_tree.py"): [
        ("parents are maxima", "level.take(index, 0).sum(-1)", "level.take(index, 0).max(-1)"),
        ("of a repeated index the first", "[index] = value\n", "[index[::-1]] = np.flip(value)\n"),
        ("find ends one value early", 'side="right"', 'side="left"'),
        ("find ends one child early", "sums_BC > mass", "sums_BC >= mass"),
        ("mass of the node taken off", "before = sums[node]", "before = sums[node + 1]"),
        ("sum of the row not taken off", "before = np.where", "before = 0 * np.where"),
        ("sum before the first child", "np.where(child, ", "np.where(child + 1, "),
        ("mass beyond the total allowed", "math.nextafter(sums[-1], 0)", "np.inf"),
        ("mass beyond a node allowed", "np.nextafter(sums_BC[:, -1], 0)", "sums_BC[:, -1]"),
        ("last parent of a slice left out", "(end - 1) // WIDTH + 1", "(end - 1) // WIDTH"),
        ("only values are filled", "above.reshape(-1)[begin:end] = level", "_ = level"),
        ("an index outside is written", "or highest >= self.capacity", "or highest > self.capacity"),
        ("old sums are kept", "[index], self._root_sums_valid = value, False", "[index] = value"),
        ("old sums are kept by a slice", ".sum(-1)\n        self._root_sums_valid = False", ".sum(-1)"),
        ("an index below 0 is written", "lowest < 0 or ", ""),
    ],
    ("parts/replay/prioritized.py", "test_prioritized.py"): [
        ("errors keep their sign", "np.abs(td_error_NB)", "td_error_NB"),
        ("ε subtracted", ") + epsilon", ") - epsilon"),
        ("twins summed", "error_NB.sum(0) / len(error_NB)", "error_NB.sum(0)"),
        ("the smaller of the twins'", "error_NB.max(0)", "error_NB.min(0)"),
        ("weights' sign", "** -beta", "** beta"),
        ("scaled by the smallest weight", "value_B.min()", "value_B.max()"),
        ("weights not scaled", "(value_B / value_B.min())", "value_B"),
        ("weights without β", "self.tree.value[place], self.beta)", "self.tree.value[place], 1.0)"),
        ("not stratified", "(np.arange(len(uniform_B)) + uniform_B)", "(len(uniform_B) * uniform_B)"),
        ("segments too wide", "(total / len(uniform_B))", "total"),
        ("ω ignored", "update(place, p**self.omega)", "update(place, p)"),
        ("ω's sign", "update(place, p**self.omega)", "update(place, p**-self.omega)"),
        ("ω ignored for what is new", "self.max_priority**self.omega", "self.max_priority"),
        ("new transitions: lowest priority", "max(self.max_priority", "min(self.max_priority"),
        ("new transitions: last priority", "max(self.max_priority, highest)", "highest"),
        ("β falls", "linear(self._beta, 1.0,", "linear(self._beta, 0.0,"),
        ("β rises at once", "env_steps / self._steps", "env_steps"),
    ],
    ("parts/replay/prioritized.py", "../parts/test_replay_prioritized.py"): [
        ("retired and drawn", "self.tree.fill(ring.retired_row, 0.0)", "pass"),
        ("retired rows get priorities again", "valid &= self.tree.value[place] > 0", "pass"),
        ("late priorities are written", "place, p = place[valid], p[valid]", "pass"),
        ("nothing is ever overwritten", "self.draws.overwrite(ring.retired_row)", "pass"),
        ("draws are not restored", 'if "draws" in state_dict', "if False"),
        ("NaN is a priority", "not np.maximum.reduce(p_B, initial=0.0) <=", "0 *"),
        ("the global generator", "generator=self.generator", "generator=None"),
        ("every seed alike", "manual_seed(seed)", "manual_seed(0)"),
    ],
    ("parts/replay/open_draws.py", "../parts/test_replay_prioritized.py"): [
        ("nothing is ever late", "self._version[row] += 1", "pass"),
        ("versions of the next occupant", "draw.version = self._version[draw.place]", "pass"),
        ("only the newest draw ages", "                break\n", "                return\n"),
        ("saved as if it were late", "if draw.version is None else draw.version\n", "+ 1\n"),
        ("an answer is never over", "self._draws.remove(draw)\n        return", "return"),
        ("parts of a draw are never over", "draw.forget(place[found])", "pass"),
        ("parts belong to every draw", "due &= ~found", "pass"),
        ("parts are never late", "valid[found] = ", "_ = "),
        ("parts have others' versions", "order[self.place.searchsorted(place, sorter=order)]", "order"),
    ],
    ("parts/replay/storage.py", "../parts/test_replay_torchrl.py"): [
        ("a gap is bridged", "(observation != expected)", "(observation != observation)"),
        ("a gap cuts all environments", "ring.cut(reset_N.nonzero().squeeze(-1))", "ring.cut()"),
        ("a gap after extend is missed", "self._is_extended = True", "self._is_extended = False"),
        ("only a gap in all is seen", ".flatten(2).any(-1)", ".flatten(2).all(-1)"),
        ("any stack may begin", "if ring.frame_stack > 1 and", "if False and"),
        ("truncated at the beginning", "(place_B + (steps_B - 1) * ring.num_envs)", "(place_B)"),
        ("truncated a step too late", "(steps_B - 1) * ring", "steps_B * ring"),
        ("truncated is done", "torch.bool) & ~terminated", "torch.bool)"),
        ("done is terminated", "batch.terminated | truncated_B", "batch.terminated"),
        ("environments before steps", "torch.stack(places, -1)", "torch.stack(places)"),
        ("a slice counts places", "ring.place(torch.arange(len", "(torch.arange(len"),
    ],
    ("parts/memory.py", "test_lstm.py"): [
        ("the state outlives its episode", "state * keeps.unsqueeze(-1)", "state"),
        ("the action outlives its episode", "action.where(keeps, torch.tensor(-1))", "action"),
        ("the reward outlives its episode", "reward.where(keeps, 0.0)", "reward"),
        ("packed reward's sign", "self.reward.unsqueeze(-1))", "-self.reward.unsqueeze(-1))"),
        ("nothing is recalled", "if sequences is not None:", "if sequences is None:"),
    ],
    ("parts/actor/base.py", "test_lstm.py"): [
        ("the state is not advanced", "return action_B, recalled.after", "return action_B, memory.state"),
        ("its own generator is drawn from", "steps, greedy, generator or", "steps, greedy, 0 or"),
        ("never greedy", "(recalled.steps, greedy, gen", "(recalled.steps, False, gen"),
    ],
    ("parts/q_net/lstm.py", "test_lstm.py"): [
        ("a burn-in is learned from", "torch.where(burnt_Q1, state.detach(), state)", "state"),
        ("nothing is learned through time", "torch.where(burnt_Q1, state.detach(), state)", "state.detach()"),
        ("only what is not burnt in is cut off", "(sequences.burn_in > 0)", "(sequences.burn_in == 0)"),
        ("cells are outputs", "for half in after], -1)", "for half in after[::-1]], -1)"),
        ("the first action is none", "+ 1)[..., 1:]", "+ 1)[..., :-1] * 0"),
        ("rewards not clamped", "clamp(-LARGEST_REWARD, LARGEST_REWARD)", "clamp(-99, 99)"),
        ("no rewards", "reward_QT.unsqueeze(-1)], -1)", "0 * reward_QT.unsqueeze(-1)], -1)"),
        ("clipped rewards clamped", "reward_QT.sign()", "reward_QT.clamp(-1, 1)"),
        ("the state of another network", "torch.cat(states, -1)", "torch.cat(states[::-1], -1)"),
        ("the last step's features", "index_select(1, observation)", "index_select(1, 0 * observation)"),
    ],
    ("training/player.py", "../parts/test_player.py"): [
        ("all episodes begin", "begins[[*rows]] = True", "begins[:] = True"),
        ("the state is not advanced", "(self._state, action.cpu()", "(self.memory.state, action.cpu()"),
        ("random actions are any", "mask_NA.shape), mask_NA)", "mask_NA.shape), None)"),
        ("the last action is never random", "randint(env.n_actions,", "randint(env.n_actions - 1,"),
    ],
    ("parts/replay/sequence_starts.py", "test_sequences.py"): [
        ("something is remembered at first", "self.kind[place] == FIRST", "self.kind[place] != FIRST"),
        ("beginnings a step late", "(age % self.stride == 0)", "((age - 1) % self.stride == 0)"),
        ("beginnings at every step", " & (age % self.stride == 0)", ""),
        ("burnt in at first", "self.burn_in * ~first", "self.burn_in * (first | ~first)"),
        ("never burnt in", "self.burn_in * ~first", "0 * ~first"),
        ("drawn with nothing to learn from", "self._is_start(age - self.burn_in)", "self._is_start(age)"),
        ("the wrong place is drawn", "(place - self.burn_in *", "(place + self.burn_in *"),
        ("first steps are not drawn", "[place[age == 0], before", "[place[:0], before"),
        ("too few blocks", "rows // stride + 2", "rows // stride - 1"),
        ("ages outlive an end", "age[step.ended.to(age.device)] = 0", "pass"),
        ("ages outlive a cut", "self.age[environments] = 0", "pass"),
        ("beginnings are not loaded", "self.kind[place] = kind\n", "pass\n"),
    ],
    ("parts/replay/ring_state.py", "test_sequences.py"): [
        ("ages are not loaded", 'ring.starts.age.copy_(state["episode_steps"])', "pass"),
    ],
    ("parts/replay/sequences.py", "test_sequences.py"): [
        ("the mean subtracted", "+ (1 - eta) * mean_Q", "- (1 - eta) * mean_Q"),
        ("η, 1 − η swapped", "eta * highest_Q + (1 - eta) * mean_Q", "(1 - eta) * highest_Q + eta * mean_Q"),
        ("sums for means", " / np.bincount(sequence_B)", ""),
        ("errors keep their sign", "np.abs(priority", "(priority"),
        ("burn-in a step too long", "(t_K >= burn_in_Q", "(t_K > burn_in_Q"),
        ("a step beyond the end", "(t_K < self._episode", "(t_K <= self._episode"),
        ("next step's value for n steps", "index_B + steps_B,", "index_B + 1,"),
        ("each step its own place", "place=place_Q[sequence_B]", "place=place_B"),
        ("weights of others", "weight_Q[sequence_B]", "weight_Q[sequence_B - 1]"),
        ("no state", "state=memory.state", "state=0 * memory.state"),
        ("no action before", "[memory.action.unsqueeze(-1)", "[0 * memory.action.unsqueeze(-1)"),
        ("reward before with another sign", "[memory.reward.unsqueeze(-1)", "[-memory.reward.unsqueeze(-1)"),
        ("retired and drawn", "self.retire(ring)", "pass"),
    ],
    ("functional.py", "test_masks.py"): [
        ("masks ignored", "value_BA if allowed_BA is None else", "value_BA if True else"),
        ("masks inverted", "value_BA.masked_fill(~allowed_BA", "value_BA.masked_fill(allowed_BA"),
        ("excluded actions are NaN", "EXCLUDED = -1e20", 'EXCLUDED = -float("inf")'),
    ],
    ("parts/loss/td.py", "test_masks.py"): [
        ("mask left out of the policy of s", "F.masked(q_NBA, batch.action_mask)\n", "q_NBA\n"),
        ("mask left out of the reported Q", "_filled(q_NBA, batch.action_mask)", "q_NBA"),
        ("mask left out of the policy of s'", "next_observation, *_given(mask))", "next_observation)"),
        ("mask left out of the backup", "if mask is not None:\n", "if False:\n"),
        ("mask left out of the bonus", "(batch, F.masked(q_NBA, batch.action_mask))", "(batch, q_NBA)"),
        ("mask of s in the backup", "next_observation, batch.next_a", "next_observation, batch.a"),
        ("masks of other steps", ", path.next_action_mask\n", ", path.next_action_mask.flip(1)\n"),
        ("fractions of log A", "if action_mask is None or self._masked_loss is None:", "if True:"),
    ],
    ("parts/loss/double_dqn.py", "test_masks.py"): [
        ("argmax of all actions", "F.masked(self.q_net.first(", "(lambda q, _: q)(self.q_net.first("),
    ],
    ("parts/loss/sqn.py", "test_masks.py"): [
        ("policy of all actions", "F.masked(q_BA, action_mask)", "q_BA"),
    ],
    ("parts/loss/munchausen.py", "test_masks.py"): [
        ("bonus from all actions", "F.masked(q_BA, batch.action_mask)", "q_BA"),
    ],
    ("parts/loss/discrete_sac.py", "test_masks.py"): [
        ("policy of all actions", "F.masked(self._logits(obs", "(lambda q, _: q)(self._logits(obs"),
        ("policy of all at s'", "F.masked(self._logits(next_", "(lambda q, _: q)(self._logits(next_"),
    ],
    ("parts/temperature/learned.py", "test_masks.py"): [
        ("number, not its logarithm", "action_mask.sum(-1).log()", "action_mask.sum(-1)"),
        ("fraction is 1", "self._fraction * action_mask", "1.0 * action_mask"),
    ],
}.items() for mutant in mutants]
# fmt: on


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_still_applies(mutant: Mutant) -> None:
    count = (REPOSITORY / "sqn_rl" / mutant.file).read_text().count(mutant.source)
    assert count == 1, f"{mutant.name}: {mutant.source!r} occurs {count} times in {mutant.file}"


@pytest.mark.slow
def test_every_mutant_is_killed(tmp_path: Path) -> None:
    check = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


# --- the program -------------------------------------------------------------------------------------------


OF_MANY_ORACLES = ("gymnasium", "rich.progress", "safetensors.torch", "scipy.stats", "torchrl.objectives")
"""What every child would import again."""


def start(copy: Path, *oracles: str) -> int:
    """Run these oracles against the package in ``copy``, in a child; what they say goes to ``copy/log``."""
    if child := os.fork():
        return child
    status = -1
    try:
        status = run_oracles(copy, oracles)
    finally:
        os._exit(status)


def run_oracles(copy: Path, oracles: Iterable[str]) -> int:
    signal.alarm(300)
    log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.path.insert(0, str(copy))
    options = ["-x", "-q", "--tb=line", "--assert=plain", f"--rootdir={REPOSITORY}"]
    brief = [*PLUGINS, "--hypothesis-profile=brief"]
    status = pytest.main([*options, *brief, *(str(HERE / oracle) for oracle in oracles)])
    sys.stdout.flush()
    assert Path(sys.modules["sqn_rl"].__file__ or "").is_relative_to(copy)
    return status


def finish(copies: dict[int, Path]) -> tuple[Path, bool]:
    """Wait for any child: its copy, and whether the oracles passed."""
    child, status = os.wait()
    copy, code = copies.pop(child), os.waitstatus_to_exitcode(status)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{copy.name}: the oracles did not run ({code})\n{(copy / 'log').read_text()}")
    return copy, code == pytest.ExitCode.OK


def mutate(mutant: Mutant, unmutated: Path, copy: Path) -> None:
    """Copy the package, by hard links, with what Python has compiled of it, and break one file."""
    shutil.copytree(unmutated / "sqn_rl", copy / "sqn_rl", copy_function=os.link)
    link_trees(copy)
    file = copy / "sqn_rl" / mutant.file
    Path(cache_from_source(str(file))).unlink(missing_ok=True)
    broken = file.read_text().replace(mutant.source, mutant.broken)
    file.unlink()
    file.write_text(broken)


def link_trees(copy: Path) -> None:
    """Put the recipes and parts beside a copy of the package, where it looks for them."""
    for tree in ("components", "recipes"):
        (copy / tree).symlink_to(REPOSITORY / tree)


def warm_up(directory: Path) -> None:
    """Import what every child starts with."""
    import hypothesis

    for module in OF_MANY_ORACLES:
        importlib.import_module(module)

    once = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a dead mutant need not be a small one
    hypothesis.settings.register_profile(
        "brief", max_examples=10, phases=once, derandomize=True, deadline=None, database=None
    )
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    pytest.main(["-q", *PLUGINS, str(directory)])  # there are no tests, but now its plugins are imported
    gc.freeze()


def main(directory: Path) -> None:
    warm_up(directory)
    unmutated = directory / "unmutated"
    shutil.copytree(REPOSITORY / "sqn_rl", unmutated / "sqn_rl", ignore=shutil.ignore_patterns("__pycache__"))
    link_trees(unmutated)
    _, passed = finish({start(unmutated, *dict.fromkeys(mutant.oracle for mutant in MUTANTS)): unmutated})
    if not passed:
        raise SystemExit(f"the oracles fail without any mutation\n{(unmutated / 'log').read_text()}")
    survivors, running, waiting = [], {}, list(enumerate(MUTANTS))
    while waiting or running:
        if waiting and len(running) < (os.cpu_count() or 1):
            number, mutant = waiting.pop(0)
            copy = directory / str(number)
            mutate(mutant, unmutated, copy)
            running[start(copy, mutant.oracle)] = copy
            continue
        copy, passed = finish(running)
        mutant = MUTANTS[int(copy.name)]
        survivors += [f"{mutant.file}: {mutant.name}"] * passed
        failed = (line for line in (copy / "log").read_text().splitlines() if line.startswith("FAILED"))
        print(f"{mutant.file}: {mutant.name}: {next(failed, 'SURVIVED')}", flush=True)
        shutil.rmtree(copy)
    if survivors:
        raise SystemExit(f"no oracle noticed: {', '.join(survivors)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
