"""Cached kernels are compiled again when a kernel that they call in another file has changed."""

import subprocess
import sys

from plait.numerics.compiled import digest_of_sources

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
        words = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [int(number) for number in done.stdout.split()]

    assert run(2) == [21, 0]
    assert run(2) == [21, 1]
    assert run(3) == [31, 0]
    assert run(3) == [31, 1]


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
