"""Schedules of what changes over the budget."""


def linear(start: float, end: float, progress: float) -> float:
    """From ``start`` to ``end``, linearly; ``progress`` above 1 counts as 1."""
    return start + min(1.0, progress) * (end - start)
