"""What parts require of the parts that they are given."""

from sqn_rl.errors import WiringError
from sqn_rl.protocols import Temperature


def features_of(encoder: object, user: str) -> int:
    """The number of features that an encoder outputs.

    Args:
        encoder: the encoder.
        user: what needs to know it: ``the head``.

    Raises:
        WiringError: the encoder does not say it.
    """
    features = getattr(encoder, "out_features", None)
    if not isinstance(features, int):
        needs = f"{type(encoder).__name__} has no `out_features`, which {user} needs to know"
        raise WiringError("encoder", f"encoder: {needs}")
    return features


def require_temperature(
    temperature: Temperature | None, slot: str, part: object, instead: str
) -> Temperature:
    """The temperature that a part needs.

    Args:
        temperature: the temperature, if there is one.
        slot: the slot of the part.
        part: the part.
        instead: what to choose instead, if there shall be none.

    Raises:
        WiringError: there is none.
    """
    if temperature is not None:
        return temperature
    hint = f"choose temperature=learned, fixed or annealed, or {instead}"
    problem = f"{slot}: {type(part).__name__} needs a temperature, and there is none"
    raise WiringError(slot, f"{problem}; {hint}", "temperature")
