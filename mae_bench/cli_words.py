"""The words that several commands share: options and arguments with their help."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

ADVANCED = "Machine"
KINDS = "models|archs|tasks|recipes|objectives|ablations|datasets|formats|layouts"


def _folder(path: Path) -> Path:
    """See that an output folder is not a file."""
    if path.exists() and not path.is_dir():
        from mae_bench.core.errors import ConfigError

        raise ConfigError(f"-o {path} is a file; give a folder, a new one or that of an earlier run")
    return path


Out = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="OUT", callback=_folder, help="Folder for everything; the same one goes on."),
]
Outs = Annotated[list[Path], typer.Argument(metavar="OUT...", help="Output folders of earlier runs.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, such as linear.epochs=10.")]
Data = Annotated[list[str], typer.Option("-d", "--data", metavar="DATASET=PATH", help="Data set; may be given again.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the best there is.", rich_help_panel=ADVANCED)]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; bf16 on a GPU.", rich_help_panel=ADVANCED)]
Threads = Annotated[int | None, typer.Option(help="CPU threads of each job; the cores divided.", rich_help_panel=ADVANCED)]
Workers = Annotated[int | None, typer.Option(help="Data loading processes of each job; none.", rich_help_panel=ADVANCED)]
Jobs = Annotated[int | None, typer.Option(help="Jobs at a time: one a GPU, two on a CPU.", rich_help_panel=ADVANCED)]
Launcher = Annotated[str, typer.Option(metavar="local|slurm", help="Where cells run.", rich_help_panel=ADVANCED)]
Slurm = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Such as partition=gpu.", rich_help_panel=ADVANCED)]
GpusPerCell = Annotated[int, typer.Option(help="GPUs of one cell, by torchrun.", rich_help_panel=ADVANCED)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=ADVANCED)]
SaveEvery = Annotated[str | None, typer.Option(metavar="5m", help="Between two saved states; 60s.", rich_help_panel=ADVANCED)]
MaxSkipped = Annotated[
    float | None,
    typer.Option(min=0, max=1, metavar="0.01", help="Damaged training images left out; 0.001.", rich_help_panel=ADVANCED),
]
Overwrite = Annotated[str, typer.Option(metavar="failed|always", help="Begin those cells anew.", rich_help_panel=ADVANCED)]


def warn(line: str) -> None:
    """Print a warning on standard error."""
    Console(stderr=True).print(Text(f"warning: {line}"), soft_wrap=True)
