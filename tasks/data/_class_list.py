"""The names of the classes of label maps, from the files that people keep them in."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from mae_bench.core.errors import InputError
from tasks.data._label_maps import MOST_CLASSES, Palette

LIST, LINES, RELEASE = "classes.json", "classes.txt", "objectInfo150.txt"
KEYS = ("classes", "palette", "first_label")


class ClassList(NamedTuple):
    """What a file says of the classes."""

    names: tuple[str, ...]
    palette: Palette | None
    first_label: int | None
    """Number that the first class has in the maps; None where the file does not say."""
    path: Path


def read_class_list(folder: Path) -> ClassList | None:
    """Read the file in a folder that names the classes; None where there is none.

    Raises:
        InputError: it cannot be read as what its name says.
    """
    for name, read in ((LIST, _read_json), (LINES, _read_lines), (RELEASE, _read_release)):
        path = folder / name
        if path.is_file():
            found = read(path)
            _check_count(path, found.names)
            return found
    return None


def _check_count(path: Path, names: tuple[str, ...]) -> None:
    if not 1 <= len(names) <= MOST_CLASSES:
        raise InputError(f"{path} names {len(names)} classes; 8-bit label maps have room for 1 to {MOST_CLASSES}")


def _read_json(path: Path) -> ClassList:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if isinstance(data, list):
        data = {"classes": data}
    names = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f'{path} is not a list of names, or {{"classes": [...], "palette": [...]}} with one')
    unknown = sorted(set(data) - set(KEYS))
    if unknown:
        raise InputError(f"{path} has an unknown entry {unknown[0]!r}; known: {', '.join(KEYS)}")
    palette, first = data.get("palette"), data.get("first_label")
    if palette is not None and (len(palette) != len(names) or not all(_is_colour(colour) for colour in palette)):
        raise InputError(f"{path}: the palette is not one [r, g, b] of 0..255 for each of the {len(names)} classes")
    if first not in (None, 0, 1) or isinstance(first, bool):
        raise InputError(f"{path}: first_label is {first!r}; it is 1 where 0 means not labelled, or 0")
    return ClassList(tuple(names), tuple((r, g, b) for r, g, b in palette) if palette else None, first, path)


def _is_colour(colour: Any) -> bool:
    return isinstance(colour, list) and len(colour) == 3 and all(type(value) is int and 0 <= value <= 255 for value in colour)


def _read_lines(path: Path) -> ClassList:
    """One name a line; empty lines are left out."""
    return ClassList(tuple(line.strip() for line in _text(path).splitlines() if line.strip()), None, None, path)


def _read_release(path: Path) -> ClassList:
    """Names from the release's table (Idx, Ratio, Train, Val, Name; tab-separated), the first synonym of each."""
    rows = [line.split("\t") for line in _text(path).splitlines()[1:] if line.strip()]
    if [row[0].strip() for row in rows] != [str(number + 1) for number in range(len(rows))]:
        raise InputError(f"{path}: its rows are not numbered 1, 2, ...; get the file of the release again")
    return ClassList(tuple(row[-1].split(",")[0].strip() for row in rows), None, 1, path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
