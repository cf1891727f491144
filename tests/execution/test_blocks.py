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
from plait.execution.blocks import Block, block_rows, plan_blocks, workers_that_fit
from plait.execution.executors import Workforce, dask_client, run_blocks, workforce
from plait.execution.grains import GRAIN
from plait.execution.memory import free_memory, group_headrooms, memory_budget, parse_bytes
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
    many = 100 * 1024
    assert block_rows(1024, 1000, 5 * 1024 * 1000, 1, many) == 5 * 1024
    assert block_rows(1024, 1000, 5 * 1024 * 1000, 2, many) == 2 * 1024
    assert block_rows(1024, 1000, 10**12, 2, many) == 8 * 1024
    with pytest.raises(CapacityError, match=r"2 workers.*raise --memory.*fewer workers"):
        block_rows(1024, 1000, 1024 * 1000, 2, many)
    with pytest.raises(CapacityError, match=r"1 worker take.*raise --memory \(memory=\)\.$"):
        block_rows(1024, 1000, 1000 * 1000, 1, many)


def test_a_small_job_needs_little():
    assert block_rows(1024, 1000, 100 * 1000, 8, 100) == 1024
    assert block_rows(1024, 1000, 2 * 1024 * 1000, 8, 1025) == 1024


def test_as_many_work_as_have_room():
    assert workers_that_fit(1024, 1000, 5 * 1024 * 1000, 16, 10**6) == 5
    assert workers_that_fit(1024, 1000, 5 * 1024 * 1000, 2, 10**6) == 2
    assert workers_that_fit(1024, 1000, 1000, 16, 10**6) == 1
    assert workers_that_fit(1024, 1000, 10**6, 16, 100) == 10


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


def control_groups(root, told, groups):
    """Write what the kernel shows of control groups; sizes are in MiB."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(told)
    for place, files in groups.items():
        folder = root / "sys/fs/cgroup" / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            text = value if isinstance(value, str) else str(value * 2**20)
            (folder / name).write_text(text + "\n")


def test_the_limit_of_a_group_above_counts_and_cached_files_do_not(tmp_path):
    control_groups(
        tmp_path,
        "0::/job/step\n",
        {
            "job/step": {"memory.max": "max", "memory.current": 900},
            "job": {
                "memory.max": 1000,
                "memory.current": 950,
                "memory.stat": f"anon 7\ninactive_file {600 * 2**20}\nactive_file 9",
            },
            "": {"memory.max": 5000, "memory.current": 1000},
        },
    )
    assert [room // 2**20 for room in group_headrooms(tmp_path)] == [650, 4000]


def test_groups_of_the_first_version(tmp_path):
    control_groups(
        tmp_path,
        "5:cpu,cpuacct:/else\n4:memory:/seen/from/outside\n0::/\n",
        {
            "memory": {
                "memory.limit_in_bytes": 100,
                "memory.usage_in_bytes": 90,
                "memory.stat": f"inactive_file 1\ntotal_inactive_file {50 * 2**20}",
            }
        },
    )
    assert [room // 2**20 for room in group_headrooms(tmp_path)] == [60]
    assert group_headrooms(tmp_path / "nothing") == []
    limit = tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert limit.exists()
    limit.write_text("9223372036854771712\n")  # what a group without a limit says
    assert group_headrooms(tmp_path) == []


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
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
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
    with client.get_executor() as futures:
        yield futures
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


def length_of(ballast, block):
    return len(block) + 0 * len(ballast)


def test_a_large_task_goes_to_the_cluster_once(client):
    from functools import partial

    work = partial(length_of, bytes(20 * 2**20))
    assert [n for _, n in run_blocks(work, BLOCKS, workforce(client, "1GB"))] == [*map(len, BLOCKS)]


def test_the_loss_of_every_dask_worker_is_made_up_for(tmp_path):
    from functools import partial

    distributed = pytest.importorskip("distributed")
    marker = str(tmp_path / "died")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        force = workforce(client, "1GB")
        found = list(run_blocks(partial(die_once, marker), BLOCKS, force))
    assert os.path.exists(marker)  # noqa: PTH110
    assert found == [(block, total_of(block)) for block in BLOCKS]


def test_a_cluster_without_workers(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("plait.execution.executors._PATIENCE", 0.2)
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(OptionError, match="has no workers"),
    ):
        workforce(client)


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
