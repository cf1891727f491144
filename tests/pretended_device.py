"""A device whose arrays have shapes and no values, PyTorch's "meta": where no GPU is to be had.

What would be an error on a GPU, arrays of two places in one operation, is found there too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

PLACE = torch.device("meta")


class _Generator:
    """Of random numbers on a device, which "meta" does not have."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def manual_seed(self, seed: int) -> "_Generator":
        assert 0 <= seed < 2**63
        return self


class _Sent:
    """An array on its way back: half everywhere, or ones of integers."""

    def __init__(self, array: torch.Tensor) -> None:
        self.array = array

    def numpy(self) -> Any:
        shape = tuple(self.array.shape)
        return np.full(shape, 0.5) if self.array.is_floating_point() else np.ones(shape, np.int64)


class _Places(TorchDispatchMode):
    """Watches where the arrays of each operation are; single numbers may come from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.mixed = 0, set[str]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = tree_flatten((args, kwargs or {}))[0]
        arrays = [value for value in given if isinstance(value, torch.Tensor)]
        on = {array.device for array in arrays if array.dim() > 0}
        self.operations += PLACE in on
        # What sends an array there has two places, and is meant to.
        if len(on) > 1 and "copy" not in str(function):
            self.mixed.add(str(function))
        return function(*args, **(kwargs or {}))


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Places]:
    """Let ``PLACE`` stand for a GPU, and yield what was seen of the arrays there."""
    rand = torch.rand

    def drawn(shape: Any, generator: _Generator, device: torch.device) -> torch.Tensor:
        assert generator.device == device
        return rand(shape, device=device)

    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr(torch, "rand", drawn)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda array: _Sent(array))
    with _Places() as seen:
        yield seen
