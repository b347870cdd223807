"""A bare part, which has the members of its protocol in ``sqn_rl/protocols`` and no others, works."""

import sys
from pathlib import Path
from typing import Any

import pytest

from sqn_rl import NumericsError, RecipeError, compose
from sqn_rl import protocols as contracts
from sqn_rl.cli import diagnose, graph
from sqn_rl.cli import evaluate as sqn_eval
from sqn_rl.cli import resume as sqn_resume

MODULE = "bare_parts"

SLOTS = {
    "q_net": "QNetwork",
    "temperature": "Temperature",
    "actor": "Actor",
    "loss": "Loss",
    "target_update": "TargetUpdate",
    "replay": "Replay",
}

CLASSES = '''
import sqn_rl
from sqn_rl import protocols as contracts
from torch import nn


def bare(protocol, module):
    """A class with the members of a protocol, each as a part has it; and those of a module, if it is one."""

    def make(self, part):
        nn.Module.__init__(self) if module else None
        self._part = part

    names = [name for name in {**vars(protocol), **protocol.__annotations__} if not name.startswith("_")]
    members = {name: property(lambda self, name=name: getattr(self._part, name)) for name in names}
    for name in names if module else ():
        if hasattr(nn.Module, name):
            del members[name]
    base = nn.Module if module else object
    return type(f"Bare{protocol.__name__}", (base,), {"__init__": make, **members})


Q, T = bare(contracts.QNetwork, True), bare(contracts.Temperature, True)
A, L = bare(contracts.Actor, False), bare(contracts.Loss, False)
U, R = bare(contracts.TargetUpdate, False), bare(contracts.Replay, False)


def q_net(*, encoder, head, layer, observation_shape, n_actions):
    return Q(sqn_rl.QNet(encoder=encoder, head=head, layer=layer, observation_shape=observation_shape,
                         n_actions=n_actions, members=2, shared_encoder=False))


def temperature(*, n_actions):
    return T(sqn_rl.LearnedTemperature(initial=0.5, target_entropy=0.3, target_entropy_fraction=None, lr=1e-3,
                                       minimum=1e-3, maximum=10.0, optimise="alpha", n_actions=n_actions))


def actor(*, q_net, temperature, seed):
    return A(sqn_rl.BoltzmannActor(q_net=q_net, temperature=temperature, policy="q1", seed=seed))


def loss(*, q_net, temperature, gamma, seed):
    return L(sqn_rl.SQNLoss(q_net=q_net, temperature=temperature, gamma=gamma, backup="expected",
                            policy_source="q1", backup_entropy=True, seed=seed))


def target_update(*, loss):
    return U(sqn_rl.Polyak(loss=loss, tau=0.05))


def replay(*, num_envs, observation_shape, observation_dtype, frame_stack, returns, seed, device):
    return R(sqn_rl.UniformReplay(capacity=100, num_envs=num_envs, observation_shape=observation_shape,
                                  observation_dtype=observation_dtype, frame_stack=frame_stack,
                                  returns=returns, seed=seed, device=device))
'''

PROTOCOLS = {
    name: each
    for name, each in vars(contracts).items()
    if getattr(each, "_is_protocol", False) and name != "Protocol"
}
OPTIONAL = {name for name, each in PROTOCOLS.items() if getattr(each, "_is_runtime_protocol", False)}
"""The protocols that a part may implement besides the required ones."""

TINY = ["warmup_steps=20", "steps=60", "hidden=[8]", "batch_size=4", "num_envs=2", "eval_episodes=1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with one bare part for each slot."""
    for slot in SLOTS:
        path = tmp_path / "components" / slot / "bare.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(f"# Bare.\n_target_: {MODULE}.{slot}\n")
    (tmp_path / f"{MODULE}.py").write_text(CLASSES)
    monkeypatch.setenv("SQN_RL_PATH", str(tmp_path))
    monkeypatch.setenv("SQN_RL_TRUST", MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return tmp_path


def test_every_required_protocol_has_a_bare_part() -> None:
    assert {*SLOTS.values()} == PROTOCOLS.keys() - OPTIONAL - {"Distribution"}


@pytest.fixture(scope="module")
def everything() -> list[Any]:
    """The parts of some recipes, which together implement every optional protocol."""
    small = ("env=cartpole", "hidden=[8]", "replay_capacity=30")
    rainbow = compose("sqn_rainbow", "temperature=annealed", *small).recipe.build()
    dqn = compose("dqn", *small).recipe.build()
    retrace = compose("sqn", "returns=retrace", *small).recipe.build()
    recurrent = compose("sqn_r2d2", "env=cartpole", "replay_capacity=200").recipe.build()
    parts = [part for built in (rainbow, dqn, retrace, recurrent) for part in built.values()]
    return [*parts, compose("discrete_sac", *small).recipe.build()["actor"]]


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_an_optional_protocol_is_implemented_by_a_part_and_documented(
    name: str, everything: list[Any]
) -> None:
    assert any(isinstance(part, PROTOCOLS[name]) for part in everything)
    members = [member for member in vars(PROTOCOLS[name]) if not member.startswith("_")]
    members += PROTOCOLS[name].__annotations__
    assert members
    page = (Path(__file__).parents[2] / "docs" / "walkthroughs" / "own_parts.md").read_text()
    assert [member for member in members if f"`{member}" not in page] == []


@pytest.mark.parametrize("slot", [*SLOTS, "all"])
def test_a_bare_part_trains_evaluates_and_resumes_unless_it_has_no_state_dict(
    slot: str, folder: Path, capsys: Any
) -> None:
    chosen = [f"{each}=bare" for each in (SLOTS if slot == "all" else [slot])]
    run = folder / "run"
    assert graph.main([*TINY, *chosen]) == 0
    stop = iter([False] * 15 + [True] * 9)
    experiment = compose("sqn", *TINY, *chosen, f"out={run}")
    assert experiment.train(should_stop=lambda: next(stop))["status"] == "stopped"
    resumed = sqn_resume.main([str(run)])
    errors = capsys.readouterr().err
    if slot in ("replay", "all"):
        assert resumed != 0
        assert "BareReplay has no state_dict" in errors
    else:
        assert resumed == 0
    assert sqn_eval.main([str(run), "--stochastic"]) == 0


@pytest.mark.parametrize("slot", [*SLOTS, "all"])
def test_a_nan_with_a_bare_part_is_reported(slot: str, folder: Path, capsys: Any) -> None:
    chosen = [f"{each}=bare" for each in (SLOTS if slot == "all" else [slot])]
    run = folder / "run"
    with pytest.raises(NumericsError, match="loss"):
        compose("sqn", *TINY, *chosen, "optimizer.lr=1e30", "compile=never", f"out={run}").train()
    assert diagnose.main([str(run)]) == 4
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize("slot", ["q_net", "temperature"])
def test_a_q_network_or_temperature_that_is_not_a_module_is_refused(slot: str, folder: Path) -> None:
    path = folder / f"{MODULE}.py"
    path.write_text(path.read_text().replace(", True)", ", False)"))
    with pytest.raises(RecipeError, match=rf"{slot}=bare: Bare\w+ is no nn.Module"):
        compose("sqn", *TINY, f"{slot}=bare").preflight()


METHODS = [
    (slot, name)
    for slot, protocol in SLOTS.items()
    for name, member in vars(PROTOCOLS[protocol]).items()
    if callable(member) and not name.startswith("_")
]
LATER = [("q_net", "first"), ("replay", "cut")]
"""The methods that preflight does not call."""


@pytest.mark.parametrize(("slot", "method"), METHODS)
@pytest.mark.parametrize("mistake", ["raises", "is no method"])
def test_preflight_names_the_part_whose_method_fails(
    slot: str, method: str, mistake: str, folder: Path
) -> None:
    path = folder / f"{MODULE}.py"
    broken = "5" if mistake == "is no method" else "broken"
    path.write_text(f"""{path.read_text()}

def broken(self, *_, **__):
    raise RuntimeError("own mistake")


setattr({{"q_net": Q, "temperature": T, "actor": A, "loss": L, "target_update": U, "replay": R}}["{slot}"],
        "{method}", {broken})
""")
    experiment = compose("sqn", *TINY, f"{slot}=bare")
    if (slot, method) in LATER and mistake == "raises":
        experiment.preflight()
        return
    with pytest.raises(RecipeError, match=rf"^command line: {slot}=bare: ") as caught:
        experiment.preflight()
    assert ("own mistake" if mistake == "raises" else f"`{method}`") in str(caught.value)
