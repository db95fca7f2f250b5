"""The command line, nothing else: words to calls, errors to one line and an exit code."""

import errno
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from typer.exceptions import TyperException

from mae_bench import __version__
from mae_bench.cli_ckpt import ckpt_app
from mae_bench.cli_pretrain import ablate, pretrain, visualize
from mae_bench.cli_results import compare, reference, report, table
from mae_bench.cli_tools import HELP, data_app, doctor, setup_app, show_app
from mae_bench.cli_usage import usage_line
from mae_bench.cli_words import (
    KINDS,
    Debug,
    Device,
    GpusPerCell,
    Jobs,
    Launcher,
    MaxSkipped,
    Out,
    Overwrite,
    Precision,
    SaveEvery,
    Settings,
    Slurm,
    Threads,
    Workers,
)
from mae_bench.core.errors import ConfigError, EnvironmentFault, MaeBenchError
from mae_bench.job import stop_at_once

app = typer.Typer(
    name="mae-bench",
    help="Transfer tables for Vision Transformer checkpoints, as the MAE paper prints them.",
    context_settings=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _name, _part in (("ckpt", ckpt_app), ("data", data_app), ("show", show_app), ("setup", setup_app)):
    app.add_typer(_part, name=_name)
for _name, _call in (
    ("doctor", doctor),
    ("compare", compare),
    ("report", report),
    ("table", table),
    ("reference", reference),
    ("pretrain", pretrain),
    ("ablate", ablate),
    ("visualize", visualize),
):
    app.command(_name)(_call)


@app.command()
def demo(
    settings: Settings = None,
    out: Out = Path("demo"),
    scale: Annotated[str, typer.Option(metavar="demo|tiny", help="tiny: seconds a step, numbers without meaning.")] = "demo",
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    jobs: Jobs = None,
    debug: Debug = False,
) -> int:
    """The main job on embedded data: pretrain, transfer to every task, print the table. Minutes on two CPU cores."""
    from mae_bench.core.config import parse_assignments
    from mae_bench.early import refuse_scale
    from mae_bench.options import make_options

    overrides = parse_assignments(settings or [])
    refuse_scale(scale)
    from mae_bench.demo import run_demo

    options = make_options(device=device, precision=precision, threads=threads, jobs=jobs, debug=debug)
    return run_demo(out, scale=scale, overrides=overrides, options=options, console=Console())


@app.command()
def run(
    out: Out,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GRID.yaml] [KEY=VALUE]...", help="A grid file; settings, such as linear.epochs=10."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option("-m", "--model", metavar="[NAME=]SRC", help="See `ls models`.")] = None,
    task: Annotated[list[str] | None, typer.Option("-t", "--task", metavar="TASK[:RECIPE],...", help="See `ls recipes`.")] = None,
    data: Annotated[list[str] | None, typer.Option("-d", "--data", metavar="DATASET=PATH", help="May be given again.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="One cell for each; 0.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run and what it would cost.")] = False,
    time_limit: Annotated[str | None, typer.Option(metavar="1h30m", help="For each cell; the next run goes on.")] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Start what a checkpoint lacks at random.")] = False,
    export_native: Annotated[bool, typer.Option("--export-native", help="Leave the config of the task's framework too.")] = False,
    launcher: Launcher = "local",
    slurm: Slurm = None,
    gpus_per_cell: GpusPerCell = 1,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    workers: Workers = None,
    jobs: Jobs = None,
    overwrite: Overwrite = "",
    save_every: SaveEvery = None,
    max_skipped: MaxSkipped = None,
    debug: Debug = False,
) -> int:
    """Measure checkpoints on tasks; what is finished is skipped, what was stopped goes on."""
    from mae_bench.early import refuse_run
    from mae_bench.options import check_words, make_options
    from mae_bench.start import Asked, run_asked

    asked = Asked(model or [], task or [], data or [], words or [], seeds)
    check_words(device, precision, threads, workers, jobs, overwrite, (time_limit, save_every))
    refuse_run(asked)
    options = make_options(
        device=device,
        precision=precision,
        threads=threads,
        workers=workers,
        jobs=jobs,
        debug=debug,
        overwrite=overwrite,
        save_every=save_every,
        max_skipped=max_skipped,
        allow_partial=allow_partial,
        export_native=export_native,
        time_limit=time_limit,
        launcher=launcher,
        slurm=slurm or (),
        gpus_per_cell=gpus_per_cell,
    )
    return run_asked(asked, out, options, Console(), dry_run=dry_run)


@app.command()
def status(out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.")]) -> None:
    """What is done, runs, failed or is missing."""
    from mae_bench.status import show_status

    show_status(out, Console())


@app.command()
def retry(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.")],
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    workers: Workers = None,
    jobs: Jobs = None,
    overwrite: Overwrite = "",
    save_every: SaveEvery = None,
    max_skipped: MaxSkipped = None,
    debug: Debug = False,
) -> int:
    """Run what was asked for and is not done: failed, stopped or never started."""
    from mae_bench.early import refuse_retry
    from mae_bench.options import make_options

    refuse_retry(out)
    from mae_bench.runner import retry as run_again

    options = make_options(
        device=device,
        precision=precision,
        threads=threads,
        workers=workers,
        jobs=jobs,
        debug=debug,
        overwrite=overwrite,
        save_every=save_every,
        max_skipped=max_skipped,
    )
    return run_again(out, options, Console())


@app.command("ls")
def list_names(what: Annotated[str, typer.Argument(metavar=KINDS, help="Kind of thing.")]) -> None:
    """The names there are."""
    from mae_bench.listing import listing

    items = listing(what)
    width = max((len(item.name) for item in items), default=0)
    for item in items:
        typer.echo(f"{item.name:<{width}}  {item.text}".rstrip())


@app.callback(invoke_without_command=True)
def version_of(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Transfer tables for Vision Transformer checkpoints, as the MAE paper prints them."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main(words: list[str] | None = None) -> int:
    """Run the command line and give the exit code; errors are one line on standard error."""
    given = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without some character shows the rest
    try:
        with stop_at_once():  # also while a command is being checked; jobs that run are stopped with more care
            code = int(app(args=given, prog_name="mae-bench", standalone_mode=False) or 0)
            sys.stdout.flush()
            return code
    except MaeBenchError as error:
        if "--debug" in given:
            traceback.print_exc()
        _say(str(error))
        return error.exit_code
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise  # of a file, not of what this command prints
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not tried again at the end
        if error.errno == errno.ENOSPC:
            _say("cannot write what this command prints: no space is left; free some, or send it elsewhere")
        return EnvironmentFault.exit_code
    except TyperException as error:
        said = error.format_message() if hasattr(error, "format_message") else "stopped"
        if said:  # without any words the help has been shown already
            _say(usage_line(error, said, given))
        return int(getattr(error, "exit_code", ConfigError.exit_code))


def _say(line: str) -> None:
    Console(stderr=True).print(Text(f"mae-bench: {' '.join(line.split())}"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
