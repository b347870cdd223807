"""Every test: one thread, and hypothesis draws the same examples each time."""

import hypothesis
import torch

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(1)
