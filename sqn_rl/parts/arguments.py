"""Functions whose arguments are checked against their annotations."""

import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from sqn_rl.errors import SettingError, is_bool, is_whole

Function = TypeVar("Function", bound=Callable[..., Any])


class Range(NamedTuple):
    """The numbers that an annotation accepts: ``Annotated[float, Range(lambda value: value > 1, "…")]``."""

    fits: Callable[[Any], bool]
    expected: str
    """For the error's message: "a number above 1"."""

    def __repr__(self) -> str:
        """As ``help`` shows it inside an annotation: ``Annotated[float, 'a number above 1']``."""
        return repr(self.expected)


SHOWN = 4
"""The most members of a protocol that an error names."""

PLAIN = (type, type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set)
"""The types whose objects are no parts."""

Count = Annotated[int, Range(lambda value: value >= 1, "a whole number, at least 1")]
NotNegativeInt = Annotated[int, Range(lambda value: value >= 0, "a whole number, at least 0")]
Probability = Annotated[float, Range(lambda value: 0 <= value <= 1, "a number in [0, 1]")]
Chance = Annotated[float, Range(lambda value: 0 <= value < 1, "a probability in [0, 1)")]
Fraction = Annotated[float, Range(lambda value: 0 < value <= 1, "a number in (0, 1]")]
Positive = Annotated[float, Range(lambda value: 0 < value < math.inf, "a positive number")]
NotNegative = Annotated[float, Range(lambda value: 0 <= value < math.inf, "a number, at least 0")]


def typed(function: Function) -> Function:
    """Check the arguments of every call against their annotations, and a :class:`Range` in them.

    Checked are numbers, bools, texts, lists of these, callables, classes, and of protocols that the object
    is not one of :data:`PLAIN`. Other annotations accept everything.

    Raises:
        SettingError: in a call, an argument is not what its annotation says.
    """

    @functools.cache
    def contract() -> tuple[inspect.Signature, Mapping[str, "_Kind"]]:  # at the first call: imports are over
        hints = {name: _kind(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
        return inspect.signature(function), {name: kind for name, kind in hints.items() if kind}

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        signature, kinds = contract()
        try:
            given = signature.bind(*arguments, **keywords).arguments
        except TypeError:  # one is missing, or unknown: Python says so in the call
            given = {}
        for name, value in given.items():
            if name in kinds and not kinds[name].fits(value):
                raise SettingError(name, value, kinds[name].expected + kinds[name].remark(value))
        return function(*arguments, **keywords)

    return checked  # type: ignore[return-value]  # it has the signature of ``function``


class _Kind(NamedTuple):
    """What an annotation accepts."""

    fits: Callable[[Any], bool]
    expected: str
    plural: str = ""
    remark: Callable[[Any], str] = lambda _: ""
    """What an error adds to ``expected``, from the value."""


def _kind(annotation: Any) -> _Kind | None:
    """What an annotation accepts; None if it is not checked."""
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _within(_kind(arguments[0]), arguments[1])
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Sequence:
        return _sequence(_kind(arguments[0]))
    if origin is Callable:
        return _Kind(callable, "a class or a function")
    if origin is Mapping:
        return _Kind(lambda value: isinstance(value, Mapping), "a dict")
    if not isinstance(annotation, type) or annotation is Any:
        return None
    return _protocol(annotation) if getattr(annotation, "_is_protocol", False) else _class(annotation)


def _within(kind: _Kind | None, limits: Range) -> _Kind:
    plural = re.sub(r"^an? ((\w+ )*?number)", r"\1s", limits.expected)
    return _Kind(
        lambda value: (kind is None or kind.fits(value)) and limits.fits(value), limits.expected, plural
    )


def _union(annotations: Collection[Any]) -> _Kind | None:
    if torch.device in annotations:
        annotations = [each for each in annotations if each is not str]  # a spelling of it
    kinds = [_kind(each) for each in annotations]
    known = [kind for kind in kinds if kind]
    if len(known) < len(kinds):
        return None
    return _Kind(
        lambda value: any(kind.fits(value) for kind in known),
        (", or " if any("," in kind.expected for kind in known) else " or ").join(
            kind.expected for kind in known
        ),
        remark=lambda value: "".join(kind.remark(value) for kind in known),
    )


def _sequence(element: _Kind | None) -> _Kind:
    def fits(value: Any) -> bool:
        is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return is_list and (element is None or all(map(element.fits, value)))

    return _Kind(fits, f"a list of {element.plural}" if element and element.plural else "a list")


def _class(kind: type) -> _Kind:
    return _Kind(lambda value: isinstance(value, kind), _with_article(kind))


def _protocol(protocol: type) -> _Kind:
    """Accepts every object that is no plain value and no class: a part needs only what is used of it."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False)]
    members = {name for base in bases for name in (*vars(base), *inspect.get_annotations(base))}
    names = sorted(name for name in members if not name.startswith("_"))

    def remark(value: object) -> str:
        if isinstance(value, type):
            return f", not the class {value.__name__}"
        return f", which has {', '.join(names[:SHOWN])}, …"

    return _Kind(lambda value: not isinstance(value, PLAIN), _with_article(protocol), remark=remark)


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _is_device(value: Any) -> bool:
    try:
        return not isinstance(value, int) and bool(torch.device(value))
    except (TypeError, RuntimeError):
        return False


def _is_whole(value: object) -> bool:
    return is_whole(value) and -(2**63) <= int(value) < 2**63


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() < 1024
    return isinstance(value, Real)


_SIMPLE: Mapping[Any, _Kind] = {
    int: _Kind(_is_whole, "a whole number", "whole numbers"),
    float: _Kind(_is_number, "a number", "numbers"),
    bool: _Kind(is_bool, "True or False"),
    torch.device: _Kind(_is_device, "a device, such as 'cpu'"),
    str: _Kind(lambda value: isinstance(value, str), "a text", "texts"),
    type(None): _Kind(lambda value: value is None, "null"),
}
