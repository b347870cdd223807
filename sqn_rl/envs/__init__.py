"""Environments: N games stepped together, one plain fast path for our loop and TorchRL's contract on top."""
