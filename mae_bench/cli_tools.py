"""Commands about data, recipes and the installation."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

HELP = {"help_option_names": ["-h", "--help"]}

data_app = typer.Typer(help="Make demo data, or check a data set.", context_settings=HELP, no_args_is_help=True)
show_app = typer.Typer(help="Show one thing in full.", context_settings=HELP, no_args_is_help=True)
setup_app = typer.Typer(help="Install what pip alone cannot.", context_settings=HELP, no_args_is_help=True)


@show_app.command("recipe")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="TASK[:RECIPE]", help="Of a task or an objective; paper where none is named.")],
) -> None:
    """Every setting of a recipe."""
    from mae_bench.start import recipe_text

    typer.echo(recipe_text(name), nl=False)


@data_app.command("demo")
def data_demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the data.")],
    scale: Annotated[str, typer.Option(metavar="demo|tiny", help="How many images.")] = "demo",
) -> None:
    """Write the embedded scenes as an image folder, as COCO and as ADE20K."""
    from mae_bench.job import reporter
    from tasks.scenes.demo import write_demo

    progress = reporter(folder)
    with progress.live():
        places = write_demo(folder, scale=scale, progress=progress)
    for name, place in places.items():
        typer.echo(f"-d {shlex.quote(f'{name}={place}')}")


@data_app.command("check")
def data_check(data: Annotated[str, typer.Argument(metavar="DATASET=PATH", help="As after -d.")]) -> int:
    """Read all of a data set and say what is wrong with it."""
    from mae_bench.check import check_data

    return check_data(data, Console())


def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> int:
    """Does everything that is installed work? One line for each part, with the command that repairs it."""
    from mae_bench.doctor import doctor as examine

    return examine(as_json)


@setup_app.command("detection")
def setup_detection(
    source: Annotated[str | None, typer.Option(metavar="PATH|git+URL", help="Build Detectron2 from there.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what this installed.")] = False,
) -> None:
    """Make Detectron2 importable, which pip alone cannot."""
    from mae_bench.setup_detection import setup_detection as install

    install(source, undo)
