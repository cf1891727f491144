"""Memory that was freed goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
from plait.cli.process import settle
from plait.execution.memory import give_back

def resident():
    with open("/proc/self/statm") as status:
        return int(status.read().split()[1]) * 4096 / 1e6

settle()
pieces = [bytearray(100_000) for _ in range(1000)]
kept = pieces[-1]  # lies above the others
del pieces
held = resident()
give_back()
print(held - resident())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="the GNU C library can be asked to",
)
def test_what_lies_below_something_used_is_given_back():
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 80
