"""`mae-bench ckpt`: look at a checkpoint, write it for other programs, check it against the code it comes from."""

import importlib
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backbones.export import check_out, export
from backbones.inspection import inspect
from backbones.origins import Network, Origin
from backbones.source import Source, open_source
from backbones.verification import TOLERANCE, Compared, compare
from mae_bench import ckpt_show
from mae_bench.core import find
from mae_bench.core.errors import EnvironmentFault

# The first that knows the names in a file; timm's are those of many programs, so it is asked last.
ORIGINS = (
    "backbones.adapters.origin_detectron2",
    "backbones.adapters.origin_mmseg",
    "backbones.origins.hf",
    "backbones.origins.timm",
)


def inspect_source(text: str, *, as_json: bool, everything: bool, trust_pickle: str, console: Console) -> int:
    """Show what is in a checkpoint.

    Args:
        text: SRC.
        as_json: one JSON object instead of tables.
        everything: a row for each tensor instead of one for the same tensor of all blocks.
        trust_pickle: see `open_source`.
        console: where to.

    Raises:
        InputError: a file that cannot be read, or, when all of it was shown, one with tensors missing or unexplained.
    """
    source = open_source(text, allow_partial=True, trust_pickle=trust_pickle)
    seen = inspect(source.weights())
    if as_json:
        print(json.dumps(ckpt_show.as_data(source, seen), indent=2, default=str))  # noqa: T201
    else:
        ckpt_show.show(source, seen, console, everything=everything)
    source.ledger.check(source.raw_facts.get("path", text), source.spec.name)
    return 0


def convert_source(text: str, out: Path, to: str, *, overwrite: bool, trust_pickle: str, console: Console) -> int:
    """Write a checkpoint in the layout of another program, and say how it is opened there."""
    check_out(out, to, overwrite=overwrite)
    source = open_source(text, trust_pickle=trust_pickle)
    layout = export(source, out, to, overwrite=overwrite)
    for line in (
        f"{out}: {len(layout.tensors)} tensors of {source.spec.name}",
        *layout.notes,
        layout.how.replace("OUT", str(out)),
    ):
        console.print(Text(line), soft_wrap=True)
    return 0


def origin_of(source: Source) -> Origin:
    """The library that a checkpoint's names are of.

    Raises:
        EnvironmentFault: there is none to compare with.
    """
    for name in ORIGINS:
        origin = cast(Origin, importlib.import_module(name))
        if origin.fits(source):
            return origin
    raise EnvironmentFault(f"{source.text}: no library here has code to compare {source.family} with")


def verify_source(text: str, *, as_json: bool, trust_pickle: str, console: Console) -> int:
    """Compare a checkpoint with the code it comes from, block by block.

    Returns:
        0 where all blocks agree, 1 else.

    Raises:
        EnvironmentFault: the library is not installed.
    """
    source = open_source(text, trust_pickle=trust_pickle)
    origin = origin_of(source)
    with warnings.catch_warnings():
        # Of other libraries about themselves, while they are imported and run.
        warnings.simplefilter("ignore")
        try:
            network = origin.network(source)
        except ModuleNotFoundError as error:
            raise find.missing(error, f"ckpt verify of {source.family}") from error
        rows = list(compare(source, network))
    same = all(row.same for row in rows)
    if as_json:
        print(json.dumps(_verified(source, network, rows, same), indent=2))  # noqa: T201
    else:
        _show_verified(source, network, rows, same, console)
    return 0 if same else 1


def _verified(source: Source, network: Network, rows: list[Compared], same: bool) -> dict[str, Any]:
    facts = {"source": source.text, "sha256": source.sha256, "against": network.what, "tolerance": TOLERANCE, "same": same}
    facts["assumed"] = _assumed(source)
    return {**facts, "blocks": [{**asdict(row), "relative": row.relative, "same": row.same} for row in rows]}


def _assumed(source: Source) -> list[str]:
    """What both sides took from the same guess, so that the comparison says nothing of it."""
    return [note for note in source.ledger.notes if " assumed" in note]


def _show_verified(source: Source, network: Network, rows: list[Compared], same: bool, console: Console) -> None:
    found = list(dict.fromkeys(row.size for row in rows))
    table = Table("block", *(f"max |diff| at {height} x {width}" for height, width in found), box=None)
    for block in sorted({row.block for row in rows}):
        cells = [next(row for row in rows if (row.size, row.block) == (size, block)) for size in found]
        table.add_row(
            str(block), *(Text(f"{row.difference:.2e} of {row.scale:.3g}{'' if row.same else '  differs'}") for row in cells)
        )
    console.print(table)
    worst = max(row.relative for row in rows)
    words = "agrees with" if same else "DIFFERS FROM"
    line = (
        f"{source.text} {words} {network.what}: largest difference {worst:.2e} of the scale (at least 1); allowed {TOLERANCE:.0e}"
    )
    console.print(Text(line), soft_wrap=True)
    for note in _assumed(source):
        console.print(Text(f"not checked by this: {note}"), soft_wrap=True)
