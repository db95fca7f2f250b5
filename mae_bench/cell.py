"""One cell in a process of its own: `python -m mae_bench.cell FOLDER` measures what `config.yaml` there asks for."""

import argparse
import sys
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mae_bench.claim import Busy
from mae_bench.clock import Clock
from mae_bench.core import processes
from mae_bench.core.config import Config, build
from mae_bench.core.errors import InputError
from mae_bench.energy import meter_of
from mae_bench.job import log_to_stderr, reporter, warnings_of, work_in
from mae_bench.measured import Spent, make_record, shared_seconds, with_classes
from mae_bench.watched import Watched
from results.keeping import check_readable, has_record, write_record
from results.request import Request, read_request

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.handle import DataHandle

ENGINE = "mae_bench.core.engine"
"""Logger whose warnings a record repeats: what the engine did otherwise than asked, such as smaller micro-batches."""
NATIVE = "native_config.py"
"""The cell as a config of the framework it stands on."""
FEATURES = ".features"
"""Folder of an output folder in which its cells share the features of checkpoints; no model can be called so."""


def main(words: list[str] | None = None) -> int:
    """Measure one cell and give the exit code."""
    parser = argparse.ArgumentParser(prog="mae_bench.cell", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", default="", help="refuse a request of another key")
    parser.add_argument("--anew", action="store_true", help="measure also what has a record")
    given = parser.parse_args(words)
    log_to_stderr()
    request = read_request(given.folder, _to_stderr)
    debug = request is not None and request.debug
    return work_in(given.folder, lambda: measure(given.folder, given.key, anew=given.anew), debug=debug)


def measure(folder: Path, key: str = "", *, anew: bool = False) -> None:
    """Do what the request in the folder asks for and leave the record; where another process has just left it, nothing.

    Of several processes of one cell only the main one writes.

    Raises:
        Busy: the request is not the expected one any more, since another program has replaced it.
        MaeBenchError: the cell cannot be measured.
    """
    request = read_request(folder, _to_stderr)
    if request is None:
        raise InputError(f"{folder} has no readable config.yaml; start the run again")
    if key and request.key != key:
        raise Busy(str(folder))
    check_readable(folder)
    if has_record(folder, request.key) and not anew:
        return
    _limit_threads(request.threads)
    task, config, source, data = _open(request)
    from mae_bench.core.run import Run

    run = Run(
        out=folder,
        seed=request.seed,
        device=request.device,
        precision=request.precision,
        threads=request.threads,
        workers=request.workers,
        save_seconds=request.save_seconds,
        max_skipped=request.max_skipped,
        reporter=reporter(folder),
        cache=folder.parents[3] / FEATURES,
    )
    watched, main_one, count = Watched(source), processes.is_main(), processes.world()
    if request.export_native and main_one:
        wants_data = "handle" in signature(task.export_native).parameters
        task.export_native(source, config, folder / NATIVE, **({"handle": data} if wants_data else {}))
    with Clock(folder, meter_of(run.device, count), keeps=main_one) as clock, run.reporter.live(), warnings_of(ENGINE) as told:
        found = task.evaluate(watched, data, config, run)
        spent = Spent(clock.seconds, clock.sessions, clock.session, clock.joules, count if run.device == "cuda" else 0)
    if not main_one:
        return
    own = (
        *told,
        *_skipped(folder),
        *(task.deviations(request.recipe, config, watched, run) if hasattr(task, "deviations") else ()),
    )
    record = make_record(request, task, watched, data, found, replace(spent, shared=shared_seconds(folder)), own)
    write_record(folder, with_classes(record, task, folder))


def _skipped(folder: Path) -> tuple[str, ...]:
    """A line where training images were left out."""
    from mae_bench.core.samples import FILE, skipped_images

    count = skipped_images(folder)
    return (f"damaged training images left out: {count}, named in {FILE}",) if count else ()


def _open(request: Request) -> tuple[ModuleType, Config, "Source", "DataHandle"]:
    """The task, its settings, the checkpoint and the data, which have to be those the key was made of.

    Raises:
        InputError: one of them, or the code of the task, is not what it was when the cell was planned.
    """
    from backbones.source import open_source
    from mae_bench.choose import load_task, version_of
    from tasks.handle import open_data

    task = load_task(request.task, request.room)
    config = build(task.Config, request.config, where=request.task)
    source, data = open_source(request.source, allow_partial=request.partial), open_data(request.data)
    now = request.model_copy(
        update={
            "sha256": source.sha256,
            "fingerprint": data.fingerprint,
            "config_digest": config.digest(),
            "version": version_of(task),
        }
    )
    changed = [
        words
        for name, words in (
            ("sha256", "the checkpoint"),
            ("fingerprint", "the data set"),
            ("config_digest", "the meaning of the settings"),
            ("version", "the version of the task's code"),
        )
        if getattr(now, name) != getattr(request, name)
    ]
    if changed or now.key_in(request.precision) != request.key:
        what = " and ".join(changed) or "config.yaml"
        raise InputError(f"{what} of {request.title} changed after the run was started; start the same command again")
    return task, config, source, data


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
