"""No temperature, for losses and actors that have none."""


def no_temperature() -> None:
    """Return None, for losses and actors that have no temperature."""
