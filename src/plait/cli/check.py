"""``plait check``: whether this installation is in order."""

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

LIBRARIES = ("numpy", "scipy", "numba", "polars", "zarr", "xarray", "typer", "rich")
OPTIONAL = {"matplotlib": "figures: pip install 'plait[plot]'"}


def check(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Check the installation: versions, compiled kernels, threads, and a small fit."""
    from plait import __version__
    from plait.execution.threads import resolve_threads

    print(f"plait      {__version__}  ({sys.prefix})")
    print(f"Python     {platform.python_version()} on {platform.system()} {platform.machine()}")
    print("libraries  " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    for name, use in OPTIONAL.items():
        try:
            print(f"optional   {name} {version(name)}")
        except PackageNotFoundError:
            print(f"optional   {name} is not installed ({use})")
    print(f"threads    {resolve_threads()}")
    try:
        print(f"kernels    {_kernels()}")
        print(f"small fit  {_small_fit()}")
    except Exception as error:  # whatever it is: the installation is not in order
        if debug:
            raise
        print(
            f"plait: error: the check failed: {type(error).__name__}: {error}. "
            "--debug shows where.",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None
    print("everything works")


def _kernels() -> str:
    """Say whether kernels are compiled, so that nobody wonders about the first run."""
    from pathlib import Path

    from plait.mash import kernels

    folder = kernels.row_posterior.stats.cache_path
    if folder is not None and any(Path(folder).glob("kernels.*.nbi")):
        return f"compiled, kept in {folder}"
    return "not compiled yet: the first fit does it (once)"


def _small_fit() -> str:
    """Fit 12 effects in 4 conditions on both routes, and check what must hold."""
    import warnings

    import numpy as np

    from plait.errors import PlaitWarning
    from plait.mash import cov_canonical, mash, mash_set_data

    started = time.perf_counter()
    random = np.random.default_rng(1)
    bhat = random.normal(size=(12, 1)) * 3 + random.normal(size=(12, 4))
    for shat in (np.ones((12, 4)), random.uniform(0.5, 1.5, size=(12, 4))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PlaitWarning)
            data = mash_set_data(bhat, shat)
            result = mash(data, cov_canonical(data))
        if result.lfsr is None or not np.all((result.lfsr >= 0) & (result.lfsr <= 1)):
            raise ArithmeticError("local false sign rates are not probabilities")
        if not result.converged:
            raise ArithmeticError("the mixture weights did not converge")
    return f"12 effects x 4 conditions, converged, {time.perf_counter() - started:.1f} s"
