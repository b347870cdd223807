"""Acting and training import ``torch._dynamo`` only if something compiles; it still receives all marks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ACTS = f"""
import sys
import sqn_rl
policy = sqn_rl.load({str(ROOT / "zoo" / "cartpole")!r})
assert policy.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
assert "torch._dynamo" not in sys.modules, "something imported it"
"""

TRAINS = """
import sys
import tempfile
import sqn_rl
small = ["steps=60", "num_envs=2", "warmup_steps=20", "hidden=[8]", "batch_size=4", "eval_episodes=1"]
with tempfile.TemporaryDirectory() as out:
    sqn_rl.compose("sqn", *small, "checkpoint_every=20", "compile=never", f"out={out}/run").train()
assert "torch._dynamo" not in sys.modules, "something imported it"
"""

MARKS = """
import torch, tensordict, torchrl.data, torchrl.objectives
from tensordict import TensorDict
from torch._dynamo import trace_rules
from torchrl.data import LazyTensorStorage

allowed = trace_rules._allowed_callable_ids.function_ids
for name in ("utils._add_batch_dim_c", "base._foreach_copy_compiled"):
    module, _, function = name.partition(".")
    assert id(getattr(getattr(tensordict, module), function)) in allowed, name
assert tensordict.utils._lock_warn._dynamo_marked_constant

def double(values):
    return torch.vmap(lambda each: each.apply(lambda value: 2 * value))(values)

values = TensorDict({"a": torch.arange(3.0)}, [3])
compiled = torch.compile(double, backend="eager", fullgraph=True)(values)
assert compiled["a"].tolist() == [0, 2, 4]

storage = LazyTensorStorage(3)
storage.set(range(3), values)
assert storage.get(range(3))["a"].tolist() == [0, 1, 2]
"""

TWICE = """
import sys
from sqn_rl.parts.lazy_dynamo import without_dynamo
with without_dynamo():
    import torch._dynamo
    assert torch._dynamo is sys.modules["torch._dynamo"]
    assert torch._dynamo.config.verbose is False  # the stand-in has no config: the module is imported
import torch._dynamo
assert torch._dynamo.__file__
with without_dynamo():
    assert torch._dynamo is sys.modules["torch._dynamo"]
    assert torch._dynamo.__file__
"""


SCRIPTS = {
    "a policy acts first": ACTS + MARKS,
    "a run trains first": TRAINS + MARKS,
    "without sqn_rl": MARKS,
    "imported inside": TWICE,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_torch_dynamo_is_imported_lazily_and_keeps_every_mark(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
