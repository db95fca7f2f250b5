"""What `ckpt inspect` shows of a checkpoint, as tables or as data."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backbones.inspection import Inspection
from backbones.ledger import Row
from backbones.source import Source

STYLES = {"trained": "green", "untrained": "yellow", "partly untrained": "red", "broken": "red"}


def as_data(source: Source, seen: Inspection) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        **_facts(source, seen),
        "ledger": source.ledger.summary(),
        "tensors": [asdict(row) for row in source.ledger.rows()],
        "notes": list(source.ledger.notes),
        "settings": dict(source.raw_facts.get("settings", {})),
        "blocks": [asdict(block) for block in seen.blocks],
        "verdict": seen.verdict,
        "findings": list(seen.findings),
    }


def show(source: Source, seen: Inspection, console: Console, *, everything: bool) -> None:
    """Tables: the facts, the training's settings, the ledger, the blocks, the verdict."""
    facts = Table(box=None, show_header=False)
    for _ in ("name", "value"):
        facts.add_column(overflow="fold")
    for name, value in _facts(source, seen).items():
        facts.add_row(name, _text(value))
    console.print(facts)
    settings = source.raw_facts.get("settings", {})
    if settings:
        _say(console, "\nsettings of the training: " + ", ".join(f"{name}={value}" for name, value in settings.items()))
    _ledger(source, console, everything=everything)
    _blocks(seen, console)
    console.print(Text(f"\nweights: {seen.verdict}", style=STYLES[seen.verdict]))
    for line in seen.findings:
        _say(console, f"- {line}")


def _facts(source: Source, seen: Inspection) -> dict[str, Any]:
    spec, raw = source.spec, source.raw_facts
    path = Path(raw["path"]) if raw else None
    height, width = spec.image_size
    return {
        "source": source.text,
        "file": str(path) if path else "none",
        "sha256": raw.get("sha256", source.sha256),
        "family": source.family or "random weights",
        "architecture": spec.name,
        "parameters": seen.parameters,
        "width": spec.embed_dim,
        "depth": spec.depth,
        "heads": getattr(source.arch, "num_heads", None),
        "patch": spec.patch_size,
        "grid": [height // spec.patch_size, width // spec.patch_size],
        "image_size": [height, width],
        "prefix_tokens": spec.num_prefix_tokens,
        "norm_eps": getattr(source.arch, "norm_eps", None),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "method": spec.method,
        "pretrain_data": spec.pretrain_data,
    }


def _ledger(source: Source, console: Console, *, everything: bool) -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in source.ledger.summary().items() if count)
    _say(console, f"\nledger: {counts or 'nothing was read'}")
    table = Table(box=None)
    for title in ("tensor", "became", "shape", "reason"):
        table.add_column(title, overflow="fold")
    rows = source.ledger.rows()
    for name, row in ((row.name, row) for row in rows) if everything else fold(rows):
        shape = "" if row.shape is None else " x ".join(str(side) for side in row.shape) or "1"
        table.add_row(Text(name), row.kind, shape, Text(row.reason))
    if rows:
        console.print(table)
    for note in source.ledger.notes:
        _say(console, f"note: {note}")


def fold(rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """One row for the same tensor of many blocks: `blocks.{0-11}.norm1.weight`."""
    runs: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (re.sub(r"\.\d+\.", ".*.", row.name, count=1), row.kind, row.reason, row.shape)
        runs.setdefault(key, []).append(row)
    return [(_folded([row.name for row in run]), run[0]) for run in runs.values()]


def _folded(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    numbers = sorted(int(match[1]) for name in names if (match := re.search(r"\.(\d+)\.", name)))
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    text = f"{numbers[0]}-{numbers[-1]}" if whole else ",".join(str(number) for number in numbers)
    return re.sub(r"\.\d+\.", f".{{{text}}}.", names[0], count=1)


def _blocks(seen: Inspection, console: Console) -> None:
    scaled = any(block.layer_scale is not None for block in seen.blocks)
    titles = ["block", "qkv std", "qkv kurtosis", "mlp std", "mlp kurtosis", "norm weight", "largest bias"]
    table = Table(*titles, *(["LayerScale"] * scaled), box=None)
    for block in seen.blocks:
        numbers = (block.qkv_std, block.qkv_kurtosis, block.mlp_std, block.mlp_kurtosis, block.norm_weight, block.bias)
        shown = [f"{number:.4f}" for number in numbers] + [f"{block.layer_scale or 0:.3g}"] * scaled
        table.add_row(str(block.index), *shown)
    console.print()
    console.print(table)


def _text(value: Any) -> Text:
    if isinstance(value, list):
        return Text(" x ".join(str(part) for part in value) if all(isinstance(part, int) for part in value) else str(value))
    return Text(f"{value:,}" if isinstance(value, int) and value > 9999 else str(value))


def _say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
