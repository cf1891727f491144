"""Arguments of functions, checked at the door."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputTypeError, OptionError


def whole_number(value: Any, name: str, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number of at least ``least`` and at most ``most``.

    Raises
    ------
    InputTypeError
        It is no whole number (also a TypeError); True and False are none.
    OptionError
        It is too small or too large.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputTypeError(f"{name} is {value!r}; give a whole number.")
    number = int(value)
    if least is not None and number < least:
        raise OptionError(f"{name} is {number}; give at least {least}.")
    if most is not None and number > most:
        raise OptionError(f"{name} is {number}; give at most {most:,}.")
    return number


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


def share(value: Any, name: str, what: str = "a number from 0 to 1") -> float:
    """Return a number from 0 to 1; ``what`` says what it is.

    Raises
    ------
    InputTypeError
        It is no number (also a TypeError).
    OptionError
        It is NaN or out of range.
    """
    if not 0.0 <= real_number(value, name) <= 1.0:
        raise OptionError(f"{name} is {value}; give {what}.")
    return float(value)


def require_made_by(value: Any, name: str, attributes: Iterable[str], maker: str) -> None:
    """Refuse an object of another kind, which would fail wherever it is used first.

    Parameters
    ----------
    value : object
    name : str
        What it is called.
    attributes : iterable of str
        Some of those that it must have.
    maker : str
        The function or class that makes one.

    Raises
    ------
    InputTypeError
        It lacks one of the attributes (also a TypeError).
    """
    if any(not hasattr(value, attribute) for attribute in attributes):
        raise InputTypeError(
            f"{name} is of type {type(value).__name__}; give what {maker} returns."
        )


def number_array(values: Any, name: str, *, copy: bool = True) -> NDArray[np.float64]:
    """Return values as float64; without ``copy`` an array that is that already is not copied.

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
        return found.astype(np.float64, copy=copy)
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
