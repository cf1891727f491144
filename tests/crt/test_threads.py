import os

import pytest
import scipy.linalg  # noqa: F401 - a BLAS to be limited
from threadpoolctl import threadpool_info

from plait.crt import limit_threading, prepare_crt_inputs
from plait.errors import OptionError
from tests.crt.screens import small_screen


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_limit_holds_until_it_is_lifted(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = blas_threads()
    limit = limit_threading()
    assert blas_threads() == {1}
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert os.environ["MKL_NUM_THREADS"] == "7"
    limit.lift()
    limit.lift()
    assert blas_threads() == before
    assert "OMP_NUM_THREADS" not in os.environ and os.environ["MKL_NUM_THREADS"] == "7"
    with limit_threading(1):
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_at_least_one_thread():
    with pytest.raises(OptionError, match="at least 1"):
        limit_threading(0)


def test_inputs_limit_threads_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with limit_threading(2):
        prepare_crt_inputs(small_screen(), clamp_threads=False)
        assert blas_threads() == {2}
        inputs = prepare_crt_inputs(small_screen())
        assert blas_threads() == {1}
    assert inputs.R is None and inputs.rank_info is None
