"""Where commands print."""

from rich.console import Console


class Screen(Console):
    """Rich's console, which leaves it to us how a command ends that nobody reads."""

    def on_broken_pipe(self) -> None:
        """Called while a ``BrokenPipeError`` is handled, which goes on."""
        raise
