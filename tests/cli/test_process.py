"""What the program does about memory, in processes of their own."""

import ctypes
import gc
import subprocess
import sys

import pytest

THREADS = """
import ctypes, gc, sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import numpy as np
if sys.argv[2] == "settled":
    from plait.cli.process import settle
    settle()
together = Barrier(4)

def take(_):
    kept = [np.empty(50_000, np.int8) for _ in range(20)]
    together.wait()
    return len(kept)

with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(take, range(4))) == [20] * 4
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, stream)
libc.fclose(stream)
print(gc.get_threshold()[0])
"""


def heaps(tmp_path, *how, **environment):
    """Return how many heaps four threads have, and after how many objects garbage is looked for."""
    words = [sys.executable, "-c", THREADS, str(tmp_path / "heaps.xml"), *how]
    found = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return (tmp_path / "heaps.xml").read_text().count("<heap nr="), int(found.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_info"),
    reason="the GNU C library tells about its heaps",
)
def test_all_threads_have_one_heap(tmp_path):
    assert heaps(tmp_path, "settled") == (1, 500_000)
    many, threshold = heaps(tmp_path, "not")
    assert many > 1
    assert threshold == gc.get_threshold()[0] < 500_000
    assert heaps(tmp_path, "settled", MALLOC_ARENA_MAX="3")[0] > 1


PATIENCE = """
import os, sys
from plait.cli import main
assert "numpy" not in sys.modules
main.main = lambda: print(os.environ["OPENBLAS_THREAD_TIMEOUT"]) or 0
main.run()
"""


@pytest.mark.parametrize(("given", "left"), [({}, "20"), ({"OPENBLAS_THREAD_TIMEOUT": "8"}, "8")])
def test_idle_threads_sleep_soon(given, left):
    """OpenBLAS reads it when it is loaded, with NumPy."""
    line = [sys.executable, "-c", PATIENCE]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=given)
    assert done.stdout.split() == [left]


PROGRAM = """
import atexit, gc, sys
from plait.cli import main
atexit.register(lambda: print("left", gc.get_freeze_count() > 10_000))
sys.argv = ["plait", *sys.argv[1:]]
main.run()
"""


@pytest.mark.parametrize(("words", "status"), [(["--version"], 0), (["gwas", "scan"], 2)])
def test_the_program_ends_as_ever(words, status):
    line = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "left True"
