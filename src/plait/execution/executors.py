"""Who works on the blocks: threads of this process, any executor, or a Dask cluster.

Results come back in the order of the blocks and only a few blocks are under way at a time. A block
reads its own slice and writes its own region, so nothing large travels; it can be worked on again
after its worker was lost.
"""

import json
import logging
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from plait.errors import ModelWarning, OptionError
from plait.execution.blocks import Block
from plait.execution.memory import memory_budget
from plait.execution.threads import resolve_threads, single_threaded_blas, use_threads

Output = TypeVar("Output")

_RETRIES = 3
_PATIENCE = 10.0
"""Seconds to wait for the first worker of a cluster."""
_WARNED_ABOVE = "distributed.admin.large-graph-warning-threshold"
_log = logging.getLogger("plait.execution")


@dataclass(frozen=True, slots=True)
class Workforce:
    """Who works, and with how much memory.

    Attributes
    ----------
    executor : Executor, dask.distributed.Client or None
        None: threads of this process.
    workers : int
        Blocks under way at the same time on one machine.
    memory : int
        Bytes that these blocks may take together.
    threads : int
        Threads inside a block.
    """

    executor: Any
    workers: int
    memory: int
    threads: int = 1


def workforce(
    executor: Any = None, memory: int | str | None = None, threads: int | None = None
) -> Workforce:
    """Find out how many blocks can be under way, and how much memory they have.

    Parameters
    ----------
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Default: as many threads of this process as ``threads`` says.
    memory : int or str, optional
        Bytes for all blocks under way on one machine. Default half of what is free here.
    threads : int, optional
        Default all cores.

    Raises
    ------
    OptionError
        The executor is neither, or a cluster without workers.
    """
    budget = memory_budget(memory)
    if executor is None:
        return Workforce(None, resolve_threads(threads), budget)
    if is_dask(executor):
        per_host: dict[str, int] = {}
        for address, threads_there in _threads_of_workers(executor).items():
            host = address.rsplit(":", 1)[0]
            per_host[host] = per_host.get(host, 0) + int(threads_there)
        return Workforce(executor, max(per_host.values(), default=1), budget)
    if not isinstance(executor, Executor):
        raise OptionError(
            f"executor is a {type(executor).__name__}; give a concurrent.futures.Executor, a "
            "dask.distributed.Client, or None for this process."
        )
    return Workforce(executor, getattr(executor, "_max_workers", resolve_threads()), budget)


def is_dask(executor: Any) -> bool:
    """Tell whether an executor is a client of a Dask cluster."""
    distributed = sys.modules.get("distributed")  # whoever has a client has imported it
    return distributed is not None and isinstance(executor, distributed.Client)


def refuse_forks(executor: Any) -> None:
    """Refuse a pool whose processes are forks, for work that opens files by Polars.

    Polars' threads do not survive a fork: its first call there would wait forever.

    Raises
    ------
    OptionError
        It is such a pool.
    """
    context: Any = getattr(executor, "_mp_context", None)
    if isinstance(executor, ProcessPoolExecutor) and context.get_start_method() == "fork":
        raise OptionError(
            "executor is a pool of forked processes, which cannot read genotypes; give "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')), or None for "
            "threads of this process."
        )


def _threads_of_workers(client: Any) -> dict[str, int]:
    """Return the threads of every worker by its address, after waiting a while for the first."""
    if not client.nthreads():
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise OptionError(
                "the Dask cluster has no workers: start some (or, where they come as they are "
                "needed, ask for at least one)."
            ) from None
    return {str(address): int(count) for address, count in client.nthreads().items()}


@contextmanager
def dask_client(address: str | None) -> Iterator[Any]:
    """Yield the client of a Dask cluster: None, ``"tcp://host:port"``, or ``"local:N"``.

    Raises
    ------
    OptionError
        The address is neither, or no scheduler answers there.
    DependencyError
        Dask is not installed.
    """
    if address is None:
        yield None
        return
    from plait.errors import DependencyError

    try:
        import distributed
    except ModuleNotFoundError as error:
        raise DependencyError(
            "a Dask cluster needs dask.distributed: pip install 'plait[distributed]'."
        ) from error
    if address.startswith("local:"):
        count = address.removeprefix("local:")
        if not count.isdigit() or int(count) < 1:
            raise OptionError(f"--dask {address}: give the number of workers, as in local:4.")
        with (
            distributed.LocalCluster(
                n_workers=int(count), threads_per_worker=1, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise OptionError(
            f"--dask {address}: no scheduler answers there ({error}); give tcp://host:port or "
            "local:N."
        ) from error
    with client:
        yield client


def run_blocks(
    function: Callable[[Block], Output],
    blocks: Iterable[Block],
    force: Workforce,
    label: str = "",
) -> Iterator[tuple[Block, Output]]:
    """Yield ``(block, function(block))`` in the order of the blocks.

    Parameters
    ----------
    function : callable
        Picklable where the executor is another process. What it returns should be small.
    blocks : iterable of Block
    force : Workforce
    label : str
        What is done, for the log.

    Notes
    -----
    A block whose worker is lost is worked on again: by another worker of the cluster, or, where a
    pool of processes breaks for good, by this process. An exception of ``function`` itself is
    raised here, and blocks not begun are dropped.
    """
    task = _Task(function, force.threads, label)
    if force.executor is None:
        with single_threaded_blas(), ThreadPoolExecutor(force.workers) as pool:

            def submit(block: Block) -> Any:
                return pool.submit(copy_context().run, task, block)

            yield from _in_order(submit, blocks, 2 * force.workers)
    elif is_dask(force.executor):
        yield from _on_cluster(task, blocks, force.executor)
    else:
        yield from _on_executor(task, blocks, force)


def _on_cluster(
    task: "_Task[Output]", blocks: Iterable[Block], client: Any
) -> Iterator[tuple[Block, Output]]:
    # The task, which may hold a prior of some MB, goes to the cluster once and from worker to
    # worker. It is itself the result of a task: unlike scattered data it is made again when all
    # workers that had it are lost.
    import dask

    with dask.config.set({_WARNED_ABOVE: "1TiB"}):  # sent once, which is what Dask would advise
        shared = client.submit(_itself, task, retries=_RETRIES, pure=False)

    def send(block: Block) -> Any:
        return client.submit(_call, shared, block, retries=_RETRIES, pure=False)

    at_once = 2 * max(1, sum(_threads_of_workers(client).values()))
    yield from _in_order(send, blocks, at_once)


def _itself(task: "_Task[Output]") -> "_Task[Output]":
    return task


def _call(task: "_Task[Output]", block: Block) -> "tuple[Output, dict[str, Any]]":
    return task(block)


class _Task(Generic[Output]):
    """Runs a function on a block with the threads it may use, and takes the time."""

    def __init__(self, function: Callable[[Block], Output], threads: int, label: str) -> None:
        self.function, self.threads, self.label = function, threads, label

    def __call__(self, block: Block) -> tuple[Output, dict[str, Any]]:
        started = time.perf_counter()
        with use_threads(self.threads), single_threaded_blas():
            output = self.function(block)
        return output, {
            "what": self.label,
            "seconds": time.perf_counter() - started,
            "host": socket.gethostname(),
        }


def _in_order(
    submit: Callable[[Block], Any], blocks: Iterable[Block], at_once: int
) -> Iterator[tuple[Block, Any]]:
    """Keep ``at_once`` blocks under way or waiting to be taken, and yield them in order."""
    pending: deque[tuple[Block, Any]] = deque()
    queue = iter(blocks)
    try:
        while True:
            for block in queue:
                pending.append((block, submit(block)))
                if len(pending) >= at_once:
                    break
            if not pending:
                return
            first, future = pending[0]
            output, about = future.result()
            pending.popleft()
            log_block(first, **about)
            yield first, output
    finally:
        for _, future in pending:
            future.cancel()


def _on_executor(
    task: "_Task[Output]", blocks: Iterable[Block], force: Workforce
) -> Iterator[tuple[Block, Output]]:
    remaining = deque(blocks)
    try:
        work = list(remaining)
        for block, output in _in_order(
            lambda block: force.executor.submit(task, block), work, 2 * force.workers
        ):
            remaining.popleft()
            yield block, output
    except BrokenExecutor:
        warnings.warn(
            f"a worker was lost (out of memory, or killed) and took its pool along: the remaining "
            f"{len(remaining)} blocks are worked on in this process.",
            ModelWarning,
            stacklevel=2,
        )
        alone = Workforce(None, 1, force.memory)
        yield from run_blocks(task.function, remaining, alone, task.label)


def log_block(block: Block, **about: Any) -> None:
    """Log one finished block, with its numbers as ``record.block`` for structured logs."""
    numbers = {"start": block.start, "stop": block.stop, **about}
    _log.info("block %s", json.dumps(numbers), extra={"block": numbers})
