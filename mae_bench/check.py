"""`data check`: read all of a data set and say what is wrong with it."""

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mae_bench.core.errors import InputError
from mae_bench.core.plural import counted
from mae_bench.job import reporter

MOST_TOLD = 20
"""Bad files that are named; all are counted."""


def check_data(text: str, console: Console) -> int:
    """Validate both splits of `DATASET=PATH` and decode every file of theirs.

    Returns:
        Exit code: 0, or 3 when files cannot be decoded.

    Raises:
        InputError: the layout or the annotations cannot be used.
    """
    from tasks.handle import open_data

    data = open_data(text)
    splits = {"train": data.split("train"), "val": data.split("val")}
    for name, split in splits.items():
        _say(console, f"{name}: {counted(len(split), 'image')}, {counted(len(split.classes), 'class', 'classes')}")
        left_out = split.masked().skipped if getattr(split, "has_masks", False) else getattr(split, "skipped", ())
        for kind, count in Counter(entry["kind"] for entry in left_out).items():
            _say(console, f"{name}: {count} annotations are left out: {kind}")
        if clipped := getattr(split, "clipped", ()):
            _say(console, f"{name}: {len(clipped)} boxes that stick out are cut to their image")
    bad: list[str] = []
    noted: Counter[tuple[str, str]] = Counter()
    files = [(name, Path(path)) for name, split in splits.items() for path in split.files()]
    progress = reporter(data.root)
    with progress.live():
        progress.start("decode", len(files))
        for name, path in files:
            try:
                noted[name, _examine(splits[name], path)] += 1
            except InputError as error:
                bad.append(str(error))
            progress.advance(note=f"{len(bad)} bad" if bad else "")
    for name, kind in sorted(key for key in noted if key[1]):
        _say(console, f"{name}: {noted[name, kind]} {kind}")
    for line in bad[:MOST_TOLD]:
        _say(console, line)
    _say(console, f"{len(files)} files decoded, {len(bad)} bad; fingerprint {data.fingerprint}")
    return InputError.exit_code if bad else 0


def _examine(split: Any, path: Path) -> str:
    """Decode a file; what the split's own look at it found worth counting, if anything."""
    if hasattr(split, "examine"):
        return split.examine(path)
    from tasks.images import read_rgb

    read_rgb(path, exif=False)
    return ""


def _say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
