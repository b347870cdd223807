"""Collecting in the training loop: it acts, and learns while its environments step."""


class LocalCollect:
    """The training loop has the environments, and acts with the newest weights at every step."""
