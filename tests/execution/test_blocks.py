"""Blocks, budgets and executors."""

import logging
import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from plait.errors import CapacityError, ModelWarning, OptionError
from plait.execution.blocks import Block, block_rows, plan_blocks
from plait.execution.executors import Workforce, dask_client, run_blocks, workforce
from plait.execution.grains import GRAIN
from plait.execution.memory import free_memory, memory_budget, parse_bytes
from plait.execution.threads import resolve_threads, single_threaded_blas
from plait.io.stored_arrays import chunk_rows


@given(
    st.integers(1, 50_000),
    st.integers(1, 5).map(lambda units: 1024 * units),
    st.sets(st.integers(0, 48)),
)
def test_blocks_cover_what_is_not_finished_once(n_items, rows, units):
    cut = [Block(u * 1024, min((u + 1) * 1024, n_items)) for u in units if u * 1024 < n_items]
    covered = np.zeros(n_items, dtype=int)
    blocks = plan_blocks(n_items, rows, cut)
    for block in [*blocks, *cut]:
        covered[block.rows] += 1
    assert (covered == 1).all()
    assert all(len(block) <= rows and block.start % 1024 == 0 for block in blocks)
    assert blocks == sorted(blocks)


@given(st.integers(1, 10**6))
def test_a_unit_is_whole_grains_and_grows_with_width(bytes_per_row):
    rows = chunk_rows(bytes_per_row)
    assert rows % GRAIN == 0
    assert rows & (rows - 1) == 0
    assert rows == GRAIN or rows * bytes_per_row <= 2**23


def test_blocks_follow_the_budget():
    assert block_rows(1024, 1000, 5 * 1024 * 1000, 1) == 5 * 1024
    assert block_rows(1024, 1000, 5 * 1024 * 1000, 2) == 2 * 1024
    assert block_rows(1024, 1000, 10**12, 2) == 8 * 1024
    with pytest.raises(CapacityError, match="raise memory"):
        block_rows(1024, 1000, 1024 * 1000, 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2GB", 2 * 10**9), ("512 MiB", 2**29), ("1.5g", 1_500_000_000), (2**21, 2**21)],
)
def test_amounts_of_memory(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "two", "2XB", "-1GB", "10", 5])
def test_what_is_not_an_amount_of_memory(text):
    with pytest.raises(OptionError, match="such as '2GB'"):
        parse_bytes(text)


def test_the_default_budget_is_half_of_what_is_free():
    assert 0.3 * free_memory() < memory_budget(None) < 0.7 * free_memory()


def test_blas_stays_limited_until_the_last_thread_leaves():
    def limits():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = limits()
    outer, inner = single_threaded_blas(), single_threaded_blas()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert limits() == {1}
    inner.__exit__(None, None, None)
    assert limits() == before


BLOCKS = plan_blocks(10_000, 1024)


def total(block):
    assert resolve_threads() == 1
    return sum(range(block.start, block.stop))


def fail_late(block):
    if block.start > 3000:
        raise ZeroDivisionError
    return block.start


def die_once(marker, block):
    if block.start == 2048 and not os.path.exists(marker):  # noqa: PTH110
        with open(marker, "w"):  # noqa: PTH123
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return total(block)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def executors(client):
    yield None
    with ThreadPoolExecutor(3) as threads:
        yield threads
    with ProcessPoolExecutor(2) as processes:
        yield processes
    yield client


def test_every_executor_gives_the_same_in_order(client):
    expected = [(block, total_of(block)) for block in BLOCKS]
    for executor in executors(client):
        force = workforce(executor, "1GB", 2)
        assert force.workers >= 2
        assert list(run_blocks(total, BLOCKS, force)) == expected


def total_of(block):
    return sum(range(block.start, block.stop))


def test_an_error_comes_back_and_stops_the_rest(client):
    for executor in executors(client):
        outputs = run_blocks(fail_late, BLOCKS, workforce(executor, "1GB", 2))
        assert [next(outputs)[1] for _ in range(3)] == [0, 1024, 2048]
        with pytest.raises(ZeroDivisionError):
            next(outputs)


def test_a_lost_process_is_made_up_for(tmp_path):
    from functools import partial

    marker = str(tmp_path / "died")
    with ProcessPoolExecutor(2) as pool:
        force = workforce(pool, "1GB")
        with pytest.warns(ModelWarning, match="a worker was lost"):
            found = list(run_blocks(partial(die_once, marker), BLOCKS, force))
    assert found == [(block, total_of(block)) for block in BLOCKS]


def test_a_lost_dask_worker_is_made_up_for(client, tmp_path):
    from functools import partial

    marker = str(tmp_path / "died")
    found = list(run_blocks(partial(die_once, marker), BLOCKS, workforce(client, "1GB")))
    assert os.path.exists(marker)  # noqa: PTH110
    assert found == [(block, total_of(block)) for block in BLOCKS]


def test_every_block_is_logged(caplog):
    with caplog.at_level(logging.INFO, "plait.execution"):
        list(run_blocks(total_of, BLOCKS, Workforce(None, 1, 2**30)))
    logged = [record.block for record in caplog.records if hasattr(record, "block")]
    assert [block["start"] for block in logged] == [block.start for block in BLOCKS]
    assert all(block["seconds"] >= 0 for block in logged)


def test_what_is_not_an_executor():
    with pytest.raises(OptionError, match="give a concurrent"):
        workforce("cluster")
    for address in ("local:", "local:0", "local:two"):
        with pytest.raises(OptionError, match="number of workers"), dask_client(address):
            pass
