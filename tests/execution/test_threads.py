"""One budget of threads for BLAS and for plait."""

import subprocess
import sys

FRESH = """
import sys
from plait.execution.threads import single_threaded_blas
print("scipy" in sys.modules)
with single_threaded_blas():
    import scipy.linalg, threadpoolctl
    found = [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
print(len(found), set(found))
"""


def test_every_blas_is_limited_also_that_of_scipy():
    """What is not loaded when the limit is set is not limited by it."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    before, found = done.stdout.splitlines()
    assert before == "False"
    assert found.split(maxsplit=1)[1] == "{1}"
