"""Property 9: break a single sign, γ, min, mask or gradient stop, and an oracle fails.

Each mutant is applied to a copy of the package, against which the oracle of the broken file then runs. Run as
a program, this file does that: it imports torch once and forks for every mutant. The test starts it.
"""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


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
        ("policy times α", "log_softmax(q_BA / alpha", "log_softmax(q_BA * alpha"),
        ("policy prefers the worst", "log_softmax(q_BA / alpha", "log_softmax(-q_BA / alpha"),
        ("entropy's sign", "return -(log_pi_BA.exp() * log_pi_BA)", "return (log_pi_BA.exp() * log_pi_BA)"),
        ("off-greedy is greedy", "1 - log_pi_BA.amax(-1).exp()", "log_pi_BA.amax(-1).exp()"),
        ("soft value without α in front", "alpha * torch.logsumexp", "torch.logsumexp"),
        ("expected: max over twins", ").sum(-1).amin(0)", ").sum(-1).amax(0)"),
        ("expected: min before the sum", "target_q_NBA).sum(-1).amin(0)", "target_q_NBA.amin(0)).sum(-1)"),
        ("expected_min: max over twins", "target_q_NBA.amin(0)).sum(-1)", "target_q_NBA.amax(0)).sum(-1)"),
        ("expected_mean: sum over twins", "target_q_NBA.mean(0)", "target_q_NBA.sum(0)"),
        ("sampled: first twin only", "target_q_NBA.amin(0).gather", "target_q_NBA[0].gather"),
        ("sampled: uniformly", "multinomial(log_pi_BA.exp(),", "multinomial(log_pi_BA.exp() * 0 + 1,"),
        ("sampled: global generator", "1, generator=generator)", "1)"),
        ("max: min before the max", "target_q_NBA.amax(-1).amin(0)", "target_q_NBA.amin(0).amax(-1)"),
        ("target's sign", "reward_t + discount_t * value_t", "reward_t - discount_t * value_t"),
        ("γ dropped", "reward_t + discount_t * value_t", "reward_t + value_t"),
        ("δ's sign", "return q_NB - target_B", "return target_B - q_NB"),
        ("δ adds the target", "return q_NB - target_B", "return q_NB + target_B"),
        ("absolute error", "td_error_NB.square()", "td_error_NB.abs()"),
        ("sum over the batch", ".mean(-1).sum()", ".sum(-1).sum()"),
        ("mean over twins", ".mean(-1).sum()", ".mean(-1).mean()"),
        ("weights ignored", "else weight_B * squared_NB", "else squared_NB"),
        ("α climbs", "return alpha * (entropy_B", "return -alpha * (entropy_B"),
        ("H̄'s sign", "entropy_B.detach().mean() - target", "entropy_B.detach().mean() + target"),
        ("L_α trains the policy", "entropy_B.detach().mean()", "entropy_B.mean()"),
        ("advantages not centred", " - advantage_BA.mean(-1, keepdim=True)", ""),
    ],
    ("losses/sqn.py", "test_sqn_loss.py"): [
        ("bonus subtracted", "value_B + alpha * F.entropy", "value_B - alpha * F.entropy"),
        ("bonus without α", "value_B + alpha * F.entropy", "value_B + F.entropy"),
        ("bonus left out", "value_B + alpha * F.entropy(log_pi_BA)", "value_B"),
        ("bonus never left out", " if self.backup_entropy else value_B", ""),
        ("online network in the target", "= self.target_q_net.values", "= self.q_net.values"),
        ("policy never from the target", "target_q_NBA if self._from_target else ", ""),
        ("policy always from the target", "if self._from_target else", "if True else"),
        ("policy from the max", "policy_q_NBA.amin(0) if", "policy_q_NBA.amax(0) if"),
        ("policy never from the min", "policy_q_NBA.amin(0) if self._from_min else ", ""),
        ("mask dropped", "batch.discount * ~batch.terminated", "batch.discount"),
        ("mask inverted", "batch.discount * ~batch.terminated", "batch.discount * batch.terminated"),
        ("γ instead of γ^m", "batch.discount * ~batch.terminated", "self.gamma * ~batch.terminated"),
        ("number of steps ignored", "discount_B ** steps.reshape(-1)", "discount_B"),
        ("truncated is terminal", 'NestedKey = "terminated"', 'NestedKey = "done"'),
        ("value of s, not of s'", "next_value(batch.next_observation)", "next_value(batch.observation)"),
        ("gradient through the target", "@torch.no_grad()\n    def next_value", "def next_value"),
        ("target is the online network", "deepcopy(q_net).requires_grad_(False)", "q_net"),
        ("target is trained", "deepcopy(q_net).requires_grad_(False)", "deepcopy(q_net)"),
        ("reported policy has a gradient", "q_NBA[0].detach()", "q_NBA[0]"),
        ("α from the second twin's entropy", "q_NBA[0].detach()", "q_NBA[1].detach()"),
        ("priority is the sum", "terms.td_error.abs().mean(0)", "terms.td_error.abs().sum(0)"),
    ],
    ("losses/temperature.py", "test_temperature.py"): [
        ("α not clamped", "self.parameter.clamp_(self._minimum, self._maximum)", "pass"),
        ("α not refreshed", "self.alpha.copy_(self._decode(self.parameter))", "pass"),
        ("H̄ in actions, not nats", "* math.log(n_actions)", "* n_actions"),
        ("annealing upwards", "self._start + progress *", "self._start - progress *"),
    ],
    ("targets/polyak.py", "test_target_update.py"): [
        ("τ for ρ", "self._online, self.tau)", "self._online, 1 - self.tau)"),
        ("the online network follows", "(self._target, self._online,", "(self._online, self._target,"),
    ],
    ("targets/periodic.py", "test_target_update.py"): [
        ("copied backwards", "_copy_(self._target, self._online)", "_copy_(self._online, self._target)"),
        ("copied one update late", "self.updates % self.every == 0", "self.updates % self.every == 1"),
    ],
    ("noise.py", "test_noisy.py"): [
        ("f without its sign", ".sqrt_().copysign_(x)", ".sqrt_()"),
        ("f without its root", "x.abs().sqrt_()", "x.abs()"),
        ("noise of the global generator", "self._total, generator=generator,", "self._total,"),
        ("a view has the network's noise", "        layer.set_noise(None)", "        pass"),
        ("a view has its own parameters", "deepcopy(module, memo)", "deepcopy(module)"),
    ],
    ("nets/noisy_dense.py", "test_noisy.py"): [
        ("noise's sign", "in_N1F), out_N1G)", "in_N1F), -out_N1G)"),
        ("no noise of the inputs", "self.sigma(x * in_N1F)", "self.sigma(x)"),
        ("no noise of the outputs", "in_N1F), out_N1G)", "in_N1F), out_N1G ** 0)"),
        ("noise alone", "torch.addcmul(self.mu(x), self", "torch.addcmul(0 * self.mu(x), self"),
        ("σ learns nothing", "self.sigma(x * in_N1F)", "self.sigma(x * in_N1F).detach()"),
        ("one noise for all networks", "noise.view(self._shape)", "noise.view(self._shape)[:1]"),
        ("σ₀ times the root", "sigma / math.sqrt(in_features)", "sigma * math.sqrt(in_features)"),
        ("σ drawn as μ is", "nn.init.constant_(parameter,", "nn.init.uniform_(parameter,"),
    ],
    ("nets/dueling_head.py", "../parts/test_heads.py"): [
        ("centred over the outputs", "self.outputs)).mT for x", "self.outputs)) for x"),
    ],
    ("nets/q_net.py", "../parts/test_heads.py"): [
        ("values are logits", "return self.distribution.mean(self", "return (self"),
        ("the last network acts", "q_NBA[0].reshape", "q_NBA[-1].reshape"),
    ],
    ("nets/each.py", "../parts/test_each.py"): [
        ("one part for all networks", "else [make(layer=partial(layer, members=1)) for", "else [part for"),
        ("features of one network", "zip(self.parts, inputs,", "zip(self.parts, [inputs[0]] * len(inputs),"),
    ],
    ("nets/images.py", "../parts/test_cnn.py"): [
        ("bytes as they are", "x.div_(255) if", "x if"),
    ],
    ("nets/nature_cnn.py", "../parts/test_cnn.py"): [
        ("linear convolutions", "nn.ReLU(inplace=True)", "nn.Identity()"),
    ],
    ("nets/impala_cnn.py", "../parts/test_cnn.py"): [
        ("residual subtracted", "return x + self.second", "return x - self.second"),
        ("nothing skipped", "return x + self.second", "return self.second"),
        ("linear before the block", "self.first(torch.relu(x))", "self.first(x)"),
        ("linear within the block", "self.second(torch.relu(self.first", "self.second((self.first"),
        ("linear after the blocks", "steps.append(nn.ReLU())", "pass"),
    ],
    ("actors/base.py", "test_actors.py"): [
        ("acts by the maximum of twins", "q_NBA.amin(0)", "q_NBA.amax(0)"),
        ("acts by the second twin", "q_NBA: q_NBA[0]", "q_NBA: q_NBA[1]"),
        ("greedy is the worst", "score_BA.argmax(-1), score_BA", "score_BA.argmin(-1), score_BA"),
        ("greedy has noise", "            layer.set_noise(None)", "            pass"),
        ("acting has no noise", "self._noise.redraw(generator)", "pass"),
        ("acting has the network's noise", "return sharing(network) if", "return network if"),
        ("noise of the actor's generator", "_noise.redraw(generator)", "_noise.redraw(self.generator)"),
        ("a lent generator is ignored", "generator or self.generator", "self.generator"),
        ("prefers the improbable", "(logit_BA - exponential_BA", "(-logit_BA - exponential_BA"),
        ("Gumbel's sign", "(logit_BA - exponential_BA.log())", "(logit_BA + exponential_BA.log())"),
    ],
    ("actors/boltzmann.py", "test_actors.py"): [
        ("acts by Q times α", "score_BA / self.temperature.alpha", "score_BA * self.temperature.alpha"),
        ("policy for others: the worst", "F.log_policy(score_BA,", "F.log_policy(-score_BA,"),
        ("policy for others: noisy", "self.policy_of(self.mean_scores(obs", "self.policy_of(self.scores(obs"),
    ],
    ("actors/epsilon_greedy.py", "test_actors.py"): [
        ("ε rises", "self._start + progress", "self._start - progress"),
        ("ε falls over the whole budget", "over * steps", "steps"),
        ("ε falls for ever", "min(1.0, env_steps / self._over)", "env_steps / self._over"),
        ("greedy with probability ε", "< self.epsilon", "> self.epsilon"),
        ("the last action is never explored", "torch.randint(actions,", "torch.randint(actions - 1,"),
        ("explores by the worst", "explores_B, any_B,", "explores_B, score_BA.argmin(-1),"),
        ("all explore at once", "torch.rand(states,", "torch.rand(1,"),
    ],
    ("actors/greedy.py", "test_actors.py"): [
        ("the worst action", "score_BA.argmax(-1)", "score_BA.argmin(-1)"),
    ],
    ("actors/policy.py", "test_actors.py"): [
        ("acts by minus the logits", "draw_from(score_BA,", "draw_from(-score_BA,"),
        ("log π of minus the logits", "score_BA.log_softmax(-1)", "(-score_BA).log_softmax(-1)"),
        ("learns with acting's noise", "policy_net(observation.to(self.device))[0]", "scores(observation)"),
        ("no gradient", "score_BA.log_softmax(-1)", "score_BA.detach().log_softmax(-1)"),
    ],
}.items() for mutant in mutants]
# fmt: on


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_still_applies(mutant: Mutant) -> None:
    count = (REPOSITORY / "sqn_rl" / mutant.file).read_text().count(mutant.source)
    assert count == 1, f"{mutant.name}: {mutant.source!r} occurs {count} times in {mutant.file}"


def test_every_mutant_is_killed(tmp_path: Path) -> None:
    check = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


# --- the program -------------------------------------------------------------------------------------------


def oracles_pass(copy: Path, *oracles: str) -> bool:
    """Whether these oracles pass against the package in ``copy``; what they say goes to ``copy/log``."""
    child = os.fork()
    if not child:
        status = -1
        try:
            status = run_oracles(copy, oracles)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{copy.name}: the oracles did not run ({status})\n{(copy / 'log').read_text()}")
    return status == pytest.ExitCode.OK


def run_oracles(copy: Path, oracles: Iterable[str]) -> int:
    signal.alarm(300)
    log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path.insert(0, str(copy))
    options = ["-x", "-q", "--tb=line", "--assert=plain", "-p", "no:cacheprovider", f"--rootdir={REPOSITORY}"]
    brief = ["-p", "_hypothesis_pytestplugin", "--hypothesis-profile=brief"]
    status = pytest.main([*options, *brief, *(str(HERE / oracle) for oracle in oracles)])
    sys.stdout.flush()
    assert Path(sys.modules["sqn_rl"].__file__ or "").is_relative_to(copy)
    return status


def copy_package(to: Path) -> Path:
    shutil.copytree(REPOSITORY / "sqn_rl", to / "sqn_rl", ignore=shutil.ignore_patterns("__pycache__"))
    return to


def main(directory: Path) -> None:
    import hypothesis  # warm up: every child starts with these
    import torchrl.objectives  # noqa: F401

    once = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a dead mutant need not be a small one
    hypothesis.settings.register_profile(
        "brief", max_examples=10, phases=once, derandomize=True, deadline=None, database=None
    )
    gc.freeze()
    unmutated = copy_package(directory / "unmutated")
    if not oracles_pass(unmutated, *dict.fromkeys(mutant.oracle for mutant in MUTANTS)):
        raise SystemExit(f"the oracles fail without any mutation\n{(unmutated / 'log').read_text()}")
    survivors = []
    for number, mutant in enumerate(MUTANTS):
        copy = copy_package(directory / str(number))
        file = copy / "sqn_rl" / mutant.file
        file.write_text(file.read_text().replace(mutant.source, mutant.broken))
        if oracles_pass(copy, mutant.oracle):
            survivors.append(mutant.name)
        failed = (line for line in (copy / "log").read_text().splitlines() if line.startswith("FAILED"))
        print(f"{mutant.name}: {next(failed, 'SURVIVED')}", flush=True)
    if survivors:
        raise SystemExit(f"no oracle noticed: {', '.join(survivors)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
