"""What the tests of perturbations do without until it is used."""

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
{statement}
heavy = {{"anndata", "matplotlib", "numba", "pandas", "polars", "sklearn", "torch", "zarr"}}
print("LOADED", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "statement",
    ["import plait.crt", "from plait.cli.main import main; main(['crt', 'discover', '--help'])"],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement):
    code = _PROGRAM.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
