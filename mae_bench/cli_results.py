"""Commands about numbers: measured ones as tables, and published ones."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mae_bench.cli_words import Outs, warn

Format = Annotated[str, typer.Option("--format", metavar="rich|md|latex|csv|html|json", help="Of the output.")]


def table(
    outs: Annotated[list[Path] | None, typer.Argument(metavar="OUT...", help="Output folders of earlier runs.")] = None,
    layout: Annotated[str, typer.Option(metavar="NAME", help="A published table to fill; see `ls layouts`.")] = "",
    form: Format = "rich",
    everything: Annotated[bool, typer.Option("--all", help="All metrics, not the headline ones alone.")] = False,
) -> None:
    """The transfer table, with the cost of each cell; with --layout a published table, with what was measured in it."""
    from mae_bench.core.errors import ConfigError, InputError
    from results.rendering import asked_sheets, render, render_sheets
    from results.table import build_table

    if not outs and not layout:
        raise ConfigError("no output folder; give one, or a --layout to see a published table")
    found = build_table(outs or [], warn, everything=everything or (bool(layout) and layout != "matrix"))
    if outs and not found.cells:
        folders = " ".join(str(out) for out in outs)
        raise InputError(f"{folders} holds no cells of a run; give the folder that was the -o of one")
    text = render_sheets(asked_sheets(layout, found), form, Console()) if layout else render(found, form, Console())
    if text is not None:
        typer.echo(text, nl=False)


def reference(
    task: Annotated[str, typer.Option(metavar="T", help="A task of the suite, or words of the published protocol.")] = "",
    arch: Annotated[str, typer.Option(metavar="A", help="vit_base_patch16 or ViT-B/16.")] = "",
    method: Annotated[str, typer.Option(metavar="M", help="Such as MAE, or words of the name.")] = "",
    metric: Annotated[str, typer.Option(help="Such as top1, AP_box, mIoU.")] = "",
    dataset: Annotated[str, typer.Option(help="Words of its name.")] = "",
    form: Annotated[str, typer.Option("--format", metavar="rich|md|csv|json", help="Of the output.")] = "rich",
) -> None:
    """Published numbers, each with its source and place."""
    from results.published import references, select
    from results.reference_formats import render

    found = select(references(), task=task, arch=arch, method=method, metric=metric, dataset=dataset)
    text = render(found, form, Console())
    if text is not None:
        typer.echo(text, nl=False)


def compare(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Output folders of earlier runs.")],
    model: Annotated[list[str], typer.Option("-m", "--model", metavar="NAME", help="As tables show it; give two.")],
    form: Annotated[str, typer.Option("--format", metavar="rich|md|csv|json", help="Of the output.")] = "rich",
    everything: Annotated[bool, typer.Option("--all", help="All metrics, not the headline ones alone.")] = False,
) -> None:
    """Is one model better than another? Paired tests on the same cells, corrected for their number."""
    from mae_bench.core.errors import ConfigError
    from mae_bench.core.plural import counted
    from results.compare import compare as compare_models
    from results.compare_formats import render
    from results.table import build_table

    if len(model) != 2:
        raise ConfigError(f"{counted(len(model), 'model')} given; write -m A -m B with the names that tables show")
    first, second = model
    found = compare_models(build_table(outs, warn, everything=everything), first, second)
    text = render(found, first, second, form, Console())
    if text is not None:
        typer.echo(text, nl=False)


def report(
    outs: Outs, path: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")] = Path("report.html")
) -> None:
    """One HTML page: table, cost, losses, pictures, protocols. It loads nothing from the network."""
    from results.report import write_report

    typer.echo(str(write_report(outs, path, warn)))
