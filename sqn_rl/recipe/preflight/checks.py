"""Checks of single parts; an error names the part at fault, and the place where it was chosen."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl.errors import RecipeError, SqnError, WiringError, explain, is_own
from sqn_rl.protocols import Keyed, Wired
from sqn_rl.recipe.build import Maker
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.graph import require_produced


class Checks:
    """Checks of the parts of a recipe.

    Args:
        parts: by slot, the built part, or its maker.
        recipe: the recipe that they were built from.
    """

    def __init__(self, parts: Mapping[str, Any], recipe: Recipe) -> None:
        self.parts, self.recipe = parts, recipe

    @contextmanager
    def blaming(self, slot: str, doing: str) -> Iterator[None]:
        """Turn any error raised inside into one that says which part failed at what.

        Args:
            slot: the slot to name, unless a user's class in another slot raised the error.
            doing: what failed, as a noun phrase.
        """
        try:
            yield
        except WiringError as error:
            raise error.located(self.recipe.origin) from error
        except SqnError:
            raise
        except (Exception, SystemExit) as error:
            raise self.failure(self._raised_in(error) or slot, doing, error) from error

    def failure(self, slot: str, doing: str, error: BaseException) -> RecipeError:
        """The error that says that the part in a slot failed at something."""
        message = f"{self._class_in(slot)} fails at {doing}: {explain(error)}"
        return RecipeError(message, self.recipe.origin(slot), "", slot)

    def _raised_in(self, error: BaseException) -> str:
        """The slot whose class, of a user's own file, raised an error; empty if none did."""
        frames = [frame for frame, _ in walk_tb(error.__traceback__) if is_own(frame.f_code.co_filename)]
        found = (self._slot_of(frame.f_locals.get("self")) for frame in reversed(frames))
        return next(filter(None, found), "")

    def _slot_of(self, part: object) -> str:
        """The slot that a part, or one that a slot's maker made, is in; empty if in none."""
        for slot, known in self.parts.items():
            makes = isinstance(known, Maker) and inspect.isclass(known.func) and type(part) is known.func
            if slot != "make_env" and (part is known or makes):
                return slot
        return ""

    def expect(self, slot: str, key: str, tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Refuse what the part in a slot gives under a key unless it has this shape and dtype."""
        given, expected = f"a {type(tensor).__name__}", f"{list(shape)} {dtype}"
        if isinstance(tensor, Tensor):
            given = f"{list(tensor.shape)} {tensor.dtype}"
        if given != expected:
            message = f"{self._class_in(slot)} gives {key} as {given}; expected {expected}"
            raise RecipeError(message, self.recipe.origin(slot), "", slot)

    def require_positive(self, slot: str, key: str, number: Tensor) -> None:
        """Refuse a number that is not above 0."""
        if not number > 0:
            message = f"{self._class_in(slot)} gives {key} = {number.item():g}; expected a number above 0"
            raise RecipeError(message, self.recipe.origin(slot), "", slot)

    def require_readable(self, slot: str, produced: Iterable[str], key: str) -> None:
        """Refuse a part whose ``in_keys`` name a key that is not among ``produced``."""
        part = self.parts[slot]
        with self.blaming(slot, "naming its in_keys"):
            keys = part.in_keys if isinstance(part, Keyed) else ()
        require_produced(slot, type(part).__name__, keys, produced, self.recipe.origin(key))

    def consumes(self, slot: str, usual: Sequence[str]) -> Sequence[str]:
        """The keys that the part in a slot declares to read, or else those that such parts usually read."""
        part = self.parts[slot]
        with self.blaming(slot, "naming what it consumes"):
            return part.consumes if isinstance(part, Wired) else usual

    def require_gradient(self, slot: str) -> None:
        """Refuse a part with a parameter that the update left without a gradient."""
        part = self.parts[slot]
        for name, parameter in part.named_parameters() if isinstance(part, nn.Module) else ():
            if parameter.requires_grad and parameter.grad is None:
                inside = name.partition(".")[0]
                at_fault = inside if slot == "q_net" and inside in ("encoder", "head") else slot
                message = f"no gradient of {self._class_in('loss')} reaches its parameter {name}"
                raise RecipeError(message, self.recipe.origin(at_fault), self._works_with(slot), at_fault)

    def _works_with(self, slot: str) -> str:
        """A hint on the parts that the part in a slot works with; empty if it works with all."""
        if slot not in self.recipe.chosen:  # as in a saved recipe
            return ""
        part = self.recipe.part(slot)
        if part not in self.recipe.catalogue.names(slot):  # a class of the user's
            return ""
        limits = self.recipe.catalogue.read(slot, part).works_with.items()
        names = ", ".join(f"{other}={' or '.join(parts)}" for other, parts in limits)
        return f"{slot}={part} works with {names}" if names else ""

    def _class_in(self, slot: str) -> str:
        part = self.parts[slot]
        return part.func.__name__ if isinstance(part, Maker) else type(part).__name__
