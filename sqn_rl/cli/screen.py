"""Where commands print."""

from typing import Any

from rich.console import Console
from rich.text import Text

from sqn_rl.recipe.reading import printable


class Screen(Console):
    """Rich's console, for strings that are what they say: no markup, no emoji, nothing that acts on it.

    It leaves it to us how a command ends that nobody reads.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string passes here, in tables too."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Called while a ``BrokenPipeError`` is handled, which goes on."""
        raise
