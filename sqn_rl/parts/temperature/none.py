"""No temperature."""


def no_temperature() -> None:
    """None: for losses and actors that have no temperature."""
