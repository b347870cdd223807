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
ORACLES = {
    "functional.py": "test_functional.py",
    "losses/sqn.py": "test_sqn_loss.py",
    "losses/temperature.py": "test_temperature.py",
    "targets/polyak.py": "test_target_update.py",
    "targets/periodic.py": "test_target_update.py",
}


class Mutant(NamedTuple):
    name: str
    file: str
    source: str
    """Occurs exactly once in the file."""
    broken: str


# fmt: off
MUTANTS = [Mutant(name, file, source, broken) for file, mutants in {
    "functional.py": [
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
    "losses/sqn.py": [
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
    "losses/temperature.py": [
        ("α not clamped", "self.parameter.clamp_(self._minimum, self._maximum)", "pass"),
        ("α not refreshed", "self.alpha.copy_(self._decode(self.parameter))", "pass"),
        ("H̄ in actions, not nats", "* math.log(n_actions)", "* n_actions"),
        ("annealing upwards", "self._start + progress *", "self._start - progress *"),
    ],
    "targets/polyak.py": [
        ("τ for ρ", "self._online, self.tau)", "self._online, 1 - self.tau)"),
        ("the online network follows", "(self._target, self._online,", "(self._online, self._target,"),
    ],
    "targets/periodic.py": [
        ("copied backwards", "_copy_(self._target, self._online)", "_copy_(self._online, self._target)"),
        ("copied one update late", "self.updates % self.every == 0", "self.updates % self.every == 1"),
    ],
}.items() for name, source, broken in mutants]
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
    if not oracles_pass(unmutated, *set(ORACLES.values()), "test_tabular.py"):
        raise SystemExit(f"the oracles fail without any mutation\n{(unmutated / 'log').read_text()}")
    survivors = []
    for number, mutant in enumerate(MUTANTS):
        copy = copy_package(directory / str(number))
        file = copy / "sqn_rl" / mutant.file
        file.write_text(file.read_text().replace(mutant.source, mutant.broken))
        if oracles_pass(copy, ORACLES[mutant.file]):
            survivors.append(mutant.name)
        failed = (line for line in (copy / "log").read_text().splitlines() if line.startswith("FAILED"))
        print(f"{mutant.name}: {next(failed, 'SURVIVED')}", flush=True)
    if survivors:
        raise SystemExit(f"no oracle noticed: {', '.join(survivors)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
