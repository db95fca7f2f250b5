"""Commands about checkpoints."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mae_bench.cli_words import Debug

ckpt_app = typer.Typer(
    help="Look at checkpoints, write them for other programs, check them against the code they come from.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)

Src = Annotated[str, typer.Argument(metavar="SRC", help="As after -m: a file, a folder, timm:NAME, ...")]
Trust = Annotated[str, typer.Option("--trust-pickle", metavar="SHA256", help="Unpickle this very file in full.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
To = Annotated[str, typer.Option("--to", metavar="timm|hf|mae|detectron2|mmseg|mmseg_vit", help="The program to write for.")]


@ckpt_app.command("inspect")
def inspect(
    source: Src,
    as_json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help="A row for each tensor.")] = False,
    trust_pickle: Trust = "",
    debug: Debug = False,
) -> int:
    """What a file holds, what becomes of each tensor, and whether the weights look trained."""
    _refuse(source)
    from mae_bench.ckpt import inspect_source

    return inspect_source(source, as_json=as_json, everything=everything, trust_pickle=trust_pickle, console=Console())


@ckpt_app.command("convert")
def convert(
    source: Src,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New file, or folder for hf.")],
    to: To,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    trust_pickle: Trust = "",
    debug: Debug = False,
) -> int:
    """Write the weights, bit for bit, as another program wants them."""
    _refuse(source)
    from mae_bench.ckpt import convert_source

    return convert_source(source, out, to, overwrite=overwrite, trust_pickle=trust_pickle, console=Console())


@ckpt_app.command("verify")
def verify(source: Src, as_json: Json = False, trust_pickle: Trust = "", debug: Debug = False) -> int:
    """Compare with the code a file comes from, block by block; 0 where they agree, 1 where not."""
    _refuse(source)
    from mae_bench.ckpt import verify_source

    return verify_source(source, as_json=as_json, trust_pickle=trust_pickle, console=Console())


def _refuse(source: str) -> None:
    """Tell of what is nowhere before torch is loaded."""
    from mae_bench.early import refuse_source

    refuse_source(source)
