"""One budget of threads for BLAS and for plait."""

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import plait
from plait.execution.threads import (
    _libraries,
    beside,
    resolve_threads,
    single_threaded_blas,
    use_threads,
)

SOURCES = Path(plait.__file__).parent

FRESH = """
import sys
from plait.execution.threads import single_threaded_blas
from plait.numerics.ridge import ridge_coefficients
import threadpoolctl
with single_threaded_blas():
    found = [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
print(len(found), set(found))
"""


def test_every_blas_is_limited_also_that_of_scipy():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[1].strip() == "{1}"


def test_who_calls_the_blas_of_scipy_loads_it_first():
    """What is not loaded when the limit is set is not limited by it."""
    called = re.compile(r"^( *)(?:from|import) scipy\.linalg", re.MULTILINE)
    found = {
        str(path.relative_to(SOURCES)): called.findall(path.read_text(encoding="utf-8"))
        for path in SOURCES.rglob("*.py")
    }
    assert len([path for path, indents in found.items() if indents]) > 5
    assert [path for path, indents in found.items() if any(indents)] == []


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def limited():
    with single_threaded_blas():
        return blas_threads()


def test_a_limit_of_the_user_s_own_is_kept_and_does_not_stand_in_the_way():
    """A thread that has limited once must not keep plait from limiting: bits would depend on it."""
    with threadpool_limits(limits=2, user_api="blas"):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(limited).result() == {1}
        assert limited() == {1}
        assert blas_threads() == {2}
        inner = threadpool_limits(limits=1, user_api="blas")
        assert blas_threads() == {1}
        inner.restore_original_limits()
        assert limited() == {1}


def test_libraries_are_looked_for_again_only_after_an_import(monkeypatch):
    limited()
    looked = _libraries.cache_info().misses
    limited()
    assert _libraries.cache_info().misses == looked
    monkeypatch.setitem(sys.modules, "imported_now", ModuleType("imported_now"))
    assert limited() == {1}
    assert _libraries.cache_info().misses == looked + 1


def test_any_thread_can_limit_whoever_did_before():
    """threadpoolctl lets the thread that came first own the limit, as long as it lives."""

    with single_threaded_blas():
        assert blas_threads() == {1}
    before = blas_threads()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for pool in (one, other, one):
            assert pool.submit(limited).result() == {1}
            assert blas_threads() == before
        # The one that comes first leaves first.
        first, second = single_threaded_blas(), single_threaded_blas()
        one.submit(first.__enter__).result()
        other.submit(second.__enter__).result()
        one.submit(first.__exit__, None, None, None).result()
        assert blas_threads() == {1}
        other.submit(second.__exit__, None, None, None).result()
        assert blas_threads() == before


def test_work_beside_is_done_once_on_a_thread_of_its_own_if_there_are_several():
    calls = []

    def work():
        calls.append(threading.get_ident())
        return resolve_threads()

    for threads in (1, 2):
        calls.clear()
        with use_threads(3), beside(threads) as start:
            result = start(work)
            assert (result(), result()) == (3, 3)
        assert len(calls) == 1
        assert (calls[0] == threading.get_ident()) == (threads == 1)
    with beside(2) as start:
        assert start(lambda: 7)() == 7


def test_what_fails_beside_is_told_where_the_result_is_asked_for():
    for threads in (1, 2):
        with beside(threads) as start:
            result = start(lambda: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                result()
