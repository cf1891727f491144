"""Cached kernels are compiled again when a kernel that they call in another file has changed."""

import subprocess
import sys

from plait.numerics.compiled import digest_of_sources, loads_alone

CALLER = """
from plait.numerics.compiled import njit
from called import inner

@njit(nogil=True, cache=True)
def outer(x):
    return inner(x) + 1
"""
CALLED = """
from plait.numerics.compiled import njit

@njit(nogil=True, cache=True)
def inner(x):
    return x * {factor}
"""
PYTHON = (sys.executable, "-B", "-c")
"""Bytecode that is kept stands for a file of the same size that was changed in the same second."""
PROGRAM = """
from pathlib import Path
from plait.numerics import compiled
compiled._SOURCES = Path.cwd()
from caller import outer
print(outer(10), len(list(outer.stats.cache_hits)))
"""


def test_a_change_in_what_is_called(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)

    def run(factor):
        (tmp_path / "called.py").write_text(CALLED.format(factor=factor))
        words = [*PYTHON, PROGRAM]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [int(number) for number in done.stdout.split()]

    assert run(2) == [21, 0]
    assert run(2) == [21, 1]
    assert run(3) == [31, 0]
    assert run(3) == [31, 1]


def test_a_cache_of_types_that_are_gone(tmp_path):
    """After an upgrade a function can stand at the line of one that took another type."""
    (tmp_path / "called.py").write_text("")
    source = """
from typing import NamedTuple
from plait.numerics.compiled import njit

class {name}(NamedTuple):
    x: int

@njit(nogil=True, cache=True)
def inside(pair):
    return pair.x + 1

def outer(x):
    return inside({name}(x))

outer.stats = inside.stats
"""

    def run(name):
        (tmp_path / "caller.py").write_text(source.format(name=name))
        words = [*PYTHON, PROGRAM]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [int(number) for number in done.stdout.split()]

    assert run("Old") == [11, 0]
    assert run("Old") == [11, 1]
    assert run("New") == [11, 0]
    assert run("New") == [11, 1]


def test_all_compiled_files_count(tmp_path):
    (tmp_path / "a.py").write_text("from plait.numerics.compiled import njit")
    (tmp_path / "b.py").write_text("import os")
    before = digest_of_sources(tmp_path)
    (tmp_path / "b.py").write_text("import sys")
    digest_of_sources.cache_clear()
    assert digest_of_sources(tmp_path) == before
    (tmp_path / "a.py").write_text("from plait.numerics.compiled import njit  # changed")
    digest_of_sources.cache_clear()
    assert digest_of_sources(tmp_path) != before


REGISTRIES = "numba.misc.cffiimpl"
KINDS = """
import numpy as np
from plait.numerics.compiled import njit

@njit(nogil=True, cache=True, forceinline=True)
def half(x):
    return x / 2

@njit(nogil=True, cache=True)
def rows(x, offset):
    kept = [0.0]
    for row in x:
        if row.sum() < 0:
            raise ValueError("a negative row")
        kept.append(half(row.sum()) + (0.0 if offset is None else offset[0]))
    return np.array(kept), len(kept)

@njit(nogil=True, cache=True)
def twice(x):
    return rows(x, (1.0, 2))[0] * 2
"""
LOADING = f"""
import sys
from pathlib import Path
import numpy as np
from plait.numerics import compiled
compiled._SOURCES = Path.cwd()
import kinds
x = np.arange(12.0).reshape(4, 3)
print(kinds.rows(x, None), kinds.rows(x, (5.0, 2)), kinds.rows(np.asfortranarray(x), None))
print(kinds.twice(x))
try:
    kinds.rows(-x, None)
except ValueError as error:
    print(error)
print(sum(kinds.rows.stats.cache_hits.values()), {REGISTRIES!r} in sys.modules, file=sys.stderr)
late = compiled.njit(nogil=True)(lambda x: kinds.twice(x).sum() + np.linalg.norm(x))
print(late(x), kinds.rows(x.astype(np.float32), None), kinds.twice(x))
"""


def test_cached_functions_are_loaded_without_what_compiling_needs(tmp_path):
    (tmp_path / "kinds.py").write_text(KINDS)

    def run():
        words = [*PYTHON, LOADING]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)

    compiling, loading = run(), run()
    assert compiling.stdout == loading.stdout
    assert "a negative row" in loading.stdout
    assert compiling.stderr.split() == ["0", "True"]
    assert loading.stderr.split() == ["3", "False"]


SYMBOLS = """
import llvmlite.binding
from numba.core.registry import cpu_target
from plait.numerics import compiled

target, add, named = cpu_target.target_context, llvmlite.binding.add_symbol, {}

def noted(name, address):
    named[name] = address
    add(name, address)

llvmlite.binding.add_symbol = noted
compiled._name_runtime()
ours = dict(named)
named.clear()
target.refresh()
theirs = {name: at for name, at in named.items() if not name.startswith("_numba_hashsecret_")}
print(len(ours) > 20, ours == theirs)
"""


def test_all_functions_of_the_runtime_have_a_name():
    """The installed Numba is one that was looked at, and names no more than plait does."""
    assert loads_alone()
    words = [sys.executable, "-c", SYMBOLS]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
