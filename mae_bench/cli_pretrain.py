"""Commands that pretrain: a backbone, the rows of an ablation; and the pictures of masked autoencoders."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mae_bench.cli_words import ADVANCED, Debug, Device, Jobs, Out, Precision, SaveEvery, Settings, Slurm, Threads, Workers


def pretrain(
    objective: Annotated[str, typer.Argument(help="See `ls objectives`.")],
    arch: Annotated[str, typer.Option(help="Architecture; see `ls archs`.")],
    data: Annotated[str, typer.Option("-d", "--data", metavar="folder=PATH", help="Images to learn from.")],
    out: Out,
    settings: Settings = None,
    recipe: Annotated[str, typer.Option(help="Named settings; see `ls recipes`.")] = "paper",
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    stop_after: Annotated[
        str | None, typer.Option(metavar="23h50m", help="Save and stop then; the same command goes on.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show size, memory and cost; write nothing.")] = False,
    devices: Annotated[int | None, typer.Option(min=1, help="Of the cost shown; this many processes.")] = None,
    throughput: Annotated[float | None, typer.Option(min=1e-6, help="Images a second of one device; else measured.")] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Cut weights over the processes of torchrun.", rich_help_panel=ADVANCED)
    ] = False,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    workers: Workers = None,
    launcher: Annotated[str, typer.Option(metavar="local|slurm", help="Where it runs.", rich_help_panel=ADVANCED)] = "local",
    slurm: Slurm = None,
    save_every: SaveEvery = None,
    debug: Debug = False,
) -> int:
    """Train a backbone by itself; OUT/model.safetensors goes into `run -m` as it is."""
    from mae_bench.core.errors import ConfigError, EnvironmentFault
    from mae_bench.job import BUSY, log_to_stderr, started_as_job, work_in
    from mae_bench.options import slurm_settings
    from mae_bench.start_pretrain import Wanted, pretrain_in, show_cost

    if not dry_run and (devices or throughput):
        raise ConfigError("--devices and --throughput say what is estimated; give --dry-run too, or leave them out")
    if started_as_job():
        log_to_stderr()
    wanted = Wanted(
        objective=objective,
        arch=arch,
        data=data,
        out=out,
        words=settings or [],
        recipe=recipe,
        seed=seed,
        device=device,
        precision=precision,
        threads=threads,
        workers=workers,
        sharded=sharded,
        tensorboard=tensorboard,
        stop_after=stop_after,
        save_every=save_every,
        debug=debug,
    )
    settings_of_job = slurm_settings(launcher, slurm)
    if dry_run:
        show_cost(wanted, Console(), devices=devices or 1, throughput=throughput)
        return 0
    if settings_of_job is not None:
        from mae_bench.pretrain_submit import submit

        return submit(wanted, settings_of_job, Console())
    code = work_in(out, pretrain_in(wanted), debug=debug)
    return EnvironmentFault.exit_code if code == BUSY and not started_as_job() else code


def ablate(
    name: Annotated[str, typer.Argument(help="See `ls ablations`.")],
    data: Annotated[str, typer.Option("-d", "--data", metavar="folder=PATH", help="Images to learn from and to measure on.")],
    out: Out,
    settings: Settings = None,
    arch: Annotated[str, typer.Option(help="Architecture; see `ls archs`.")] = "vit_large_patch16",
    recipe: Annotated[str, typer.Option(help="Of pretraining and tasks: paper or demo.")] = "paper",
    task: Annotated[
        str, typer.Option("-t", "--task", metavar="TASK[:RECIPE],...", help="What every row is measured by.")
    ] = "finetune,linear",
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Of the tasks; one cell for each.")] = "0",
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    workers: Workers = None,
    jobs: Jobs = None,
    debug: Debug = False,
) -> int:
    """Pretrain and measure every row of one of the MAE paper's ablations."""
    from mae_bench.choose import parse_seeds
    from mae_bench.core.config import parse_assignments
    from mae_bench.early import refuse_ablation
    from mae_bench.options import make_options
    from tasks.handle import open_data

    refuse_ablation(name, arch, task, data)
    handle, settings_given, seeds_given = open_data(data), parse_assignments(settings or []), parse_seeds(seeds)
    from mae_bench.ablate import Request, run_ablation

    options = make_options(device=device, precision=precision, threads=threads, workers=workers, jobs=jobs, debug=debug)
    request = Request(
        name=name,
        arch=arch,
        data={handle.name_with_options: handle.root},
        out=out,
        recipe=recipe,
        tasks=[word.strip() for word in task.split(",") if word.strip()],
        seeds=seeds_given,
        settings=settings_given,
    )
    return run_ablation(request, options, Console())


def visualize(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder `pretrain mae` left, or MAE file with decoder.")],
    data: Annotated[str, typer.Option("-d", "--data", metavar="folder=PATH", help="Images; those of val are drawn.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG file to write.")] = Path("reconstructions.png"),
    count: Annotated[int, typer.Option(min=1, max=64, help="Images.")] = 8,
    pixels: Annotated[bool, typer.Option("--pixels", help="The file predicts pixels that are not normalised by patch.")] = False,
) -> None:
    """Draw what a masked autoencoder makes of images: masked, reconstruction, original."""
    from mae_bench.early import refuse_source
    from tasks.handle import open_data

    refuse_source(source)
    open_data(data)
    from mae_bench.visualize import draw_reconstructions

    typer.echo(str(draw_reconstructions(source, data, out, count=count, pixels=pixels)))
