"""Where the numbers of independent implementations and the real data are."""

from pathlib import Path

import numpy as np
import pytest

REFERENCE = Path(__file__).parent / "reference"
SHARED = Path(__file__).parents[2] / "shared"


def reference_file(area: str, name: str) -> Path:
    """Return the path of a reference file, in this repository or the shared folder, or skip."""
    for folder in (REFERENCE, SHARED / "reference"):
        path = folder / area / name
        if path.exists():
            return path
    pytest.skip(f"the reference file {area}/{name} is not at hand")


def load(area: str, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a reference file, from this repository or the shared folder."""
    with np.load(reference_file(area, name), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def real_data(area: str, name: str) -> Path:
    """Return the path of a real data set, or skip the test where it is absent."""
    path = SHARED / "data" / area / name
    if not path.exists():
        pytest.skip(f"the data set {area}/{name} is not at hand")
    return path
