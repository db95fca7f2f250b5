"""Commands about masked autoencoders: their ablations and their pictures."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mae_bench.cli_words import Debug, Device, Jobs, Out, Precision, Settings, Threads, Workers


def ablate(
    name: Annotated[str, typer.Argument(help="See `ls ablations`.")],
    data: Annotated[str, typer.Option("-d", "--data", metavar="folder=PATH", help="Images to learn from and to measure on.")],
    out: Out,
    settings: Settings = None,
    arch: Annotated[str, typer.Option(help="Architecture; see `ls models`.")] = "vit_large_patch16",
    recipe: Annotated[str, typer.Option(help="Of pretraining and tasks: paper or demo.")] = "paper",
    task: Annotated[
        str, typer.Option("-t", "--task", metavar="TASK,...", help="What every row is measured by.")
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
    from mae_bench.ablate import Request, run_ablation
    from mae_bench.choose import parse_seeds
    from mae_bench.core.config import parse_assignments
    from mae_bench.options import make_options
    from tasks.handle import open_data

    options = make_options(device=device, precision=precision, threads=threads, workers=workers, jobs=jobs, debug=debug)
    request = Request(
        name=name,
        arch=arch,
        data=open_data(data).root,
        out=out,
        recipe=recipe,
        tasks=[word.strip() for word in task.split(",")],
        seeds=parse_seeds(seeds),
        settings=parse_assignments(settings or []),
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
    from mae_bench.visualize import draw_reconstructions

    typer.echo(str(draw_reconstructions(source, data, out, count=count, pixels=pixels)))
