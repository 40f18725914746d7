"""Data-parallel training through Ray Train: one process for each worker, the same recipe in each.

Ray Train places the workers and joins them to a process group; the recipe finds itself in it as it does under
`accelerate launch`. The first worker prints and writes, so OUT has to lie where it and the driver both see it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import WorkerGroupError

from tracemill import cluster
from tracemill.errors import ClusterError, TracemillError
from tracemill.train.settings import TrainSettings

WATCH_SECONDS = 0.3
S = TypeVar("S", bound=TrainSettings)


def run(recipe: Callable[[S], Path], settings: S) -> Path:
    """Run the recipe in `settings.workers` processes, on GPUs where the cluster has any, and return its folder.

    Raises what the recipe raises, and ClusterError if a worker dies: the same command goes on from the last checkpoint.
    """
    from tracemill.train.run import hold

    hold(settings.out).close()  # a folder that another process holds is refused before Ray is started; then the first worker holds it
    ours = not ray.is_initialized()
    print(f"Starting Ray for {settings.workers} workers …", flush=True)
    cluster.start(cpus=max(settings.workers, os.cpu_count() or 1))
    gpus = cast("Any", ray).cluster_resources().get("GPU", 0) >= settings.workers
    alone = settings.model_copy(update={"workers": 1})
    with tempfile.TemporaryDirectory() as storage, _relayed(settings.out) as told:
        trainer = TorchTrainer(
            _work,
            # By name: what is pickled is imported by Ray's controller too, which has no use for torch.
            train_loop_config={"recipe": (recipe.__module__, recipe.__name__), "settings": alone, "told": told, "where": Path.cwd()},
            scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=gpus),
            run_config=RunConfig(storage_path=storage),
        )
        try:
            trainer.fit()
        except WorkerGroupError as reason:
            raise _cause(reason) from None
        finally:
            if ours:
                ray.shutdown()
    return settings.out


def _work(config: dict[str, Any]) -> None:
    """In each worker."""
    from tracemill.train.run import is_main

    module, name = config["recipe"]
    recipe = getattr(importlib.import_module(module), name)
    told = config["told"] if is_main() else Path(os.devnull)
    # Folders may be given from where the driver runs; Ray Train moves its workers elsewhere.
    with told.open("a", buffering=1) as lines, contextlib.redirect_stdout(lines), contextlib.chdir(config["where"]):
        recipe(config["settings"])


def _cause(reason: WorkerGroupError) -> TracemillError:
    """The recipe's own refusal; else a worker that died, and what it died of."""
    for error in reason.worker_failures.values():
        cause = getattr(error, "cause", error)
        if isinstance(cause, TracemillError):
            return cause
    return ClusterError(
        "a worker of the training ended: run the same command again to go on from the last checkpoint",
        [f"worker {rank}: {' '.join(str(error).split())[-300:]}" for rank, error in reason.worker_failures.items()],
    )


@contextlib.contextmanager
def _relayed(out: Path) -> Iterator[Path]:
    """A file of OUT, of which is printed what the first worker writes into it, as it writes it."""
    done, told = threading.Event(), out.resolve() / ".told"
    with told.open("w+") as lines:  # what a killed training has left there is told already

        def relay() -> None:
            while True:
                last = done.wait(WATCH_SECONDS)
                print(lines.read(), end="", flush=True)
                if last:
                    return

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            yield told
        finally:
            done.set()
            thread.join()
            told.unlink(missing_ok=True)  # a second command, which was refused, was here too
