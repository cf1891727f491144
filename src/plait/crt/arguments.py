"""Arguments of functions, checked at the door."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputTypeError, OptionError


def whole_number(value: Any, name: str, least: int | None = None) -> int:
    """Return a whole number of at least ``least``.

    Raises
    ------
    InputTypeError
        It is no whole number (also a TypeError); True and False are none.
    OptionError
        It is too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputTypeError(f"{name} is {value!r}; give a whole number.")
    if least is not None and value < least:
        raise OptionError(f"{name} is {value}; give at least {least}.")
    return int(value)


def real_number(value: Any, name: str) -> float:
    """Return a number, which may be infinite or NaN.

    Raises
    ------
    InputTypeError
        It is no number (also a TypeError).
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputTypeError(f"{name} is {value!r}; give a number.")
    return float(value)


def number_array(values: Any, name: str) -> NDArray[np.float64]:
    """Return values as float64.

    Raises
    ------
    InputTypeError
        They are no numbers (also a TypeError).
    """
    try:
        found = np.asarray(values)
    except ValueError:  # rows of different lengths
        found = np.asarray(values, dtype=object)
    if found.dtype.kind not in "biufO" or values is None:
        raise InputTypeError(f"{name} holds {found.dtype}; expected numbers.")
    try:
        return found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name} holds values that are no numbers ({error}).") from None


def option_names(given: Mapping[str, Any] | None, known: Any, what: str) -> dict[str, Any]:
    """Return options by name, an empty dictionary for None.

    Raises
    ------
    InputTypeError
        They are no mapping, or one is unknown (also a TypeError).
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputTypeError(f"the options of {what} are {given!r}; give a mapping of names.")
    if unknown := sorted(map(str, set(given) - set(known))):
        raise InputTypeError(
            f"unknown options of {what}: {', '.join(unknown)}; there are {', '.join(known)}."
        )
    return dict(given)
