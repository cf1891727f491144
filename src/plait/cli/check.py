"""``plait check``: tells whether the installation works."""

from plait.cli.console import out
from plait.cli.options import Debug, Quiet, Threads
from plait.errors import ConvergenceError


def check(threads: Threads = None, quiet: Quiet = False, debug: Debug = False) -> None:
    """Check the installation: versions, threads, compiled kernels and a small fit.

    Example: plait check

    Exit status 1 or 3 when something does not work.
    """
    import importlib.metadata
    import platform

    import numpy as np

    from plait import __version__
    from plait.cli.console import announce_compilation, session
    from plait.execution.threads import resolve_threads
    from plait.mash import cov_canonical, mash, mash_set_data, simple_sims

    lines = [f"plait {__version__}, Python {platform.python_version()}"]
    for name in ("numpy", "scipy", "numba", "polars", "zarr", "xarray", "matplotlib"):
        try:
            lines.append(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"  {name} not installed")
    with session(threads, quiet):
        announce_compilation(quiet)
        lines.append(f"  threads {resolve_threads(threads)}")
        sim = simple_sims(3, 4, 0.5, seed=1)
        data = mash_set_data(sim["Bhat"], sim["Shat"] * (1 + 0.01 * np.arange(12)[:, None]))
        result = mash(data, cov_canonical(data))
    lfsr = result.lfsr
    if lfsr is None or not np.isfinite(lfsr).all() or not result.converged:
        raise ConvergenceError("the test fit of 12 effects x 4 conditions did not work.")
    lines.append("  test fit of 12 effects x 4 conditions: converged")
    if not quiet:
        out.print("\n".join(lines), markup=False)
