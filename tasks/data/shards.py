"""Tar shards as webdataset has them: `train-000000.tar`, ... with `key.jpg` and `key.cls` or `key.json` for each image."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, some
from tasks.data._index import Arrays, indexed, pack, unpack
from tasks.data._tar_images import TarImages
from tasks.data._tars import Member, TarReader, members
from tasks.data.folder import SUFFIXES

INFO = Info(
    name="shards",
    kind="classification",
    description="tar shards of images with labels, as the webdataset package reads and writes them",
    layout="train-000000.tar, ...\nval-000000.tar, ... (also validation-)\nclasses.txt (may be absent: one class name a line)",
    licence="that of the images",
)

SHARD = re.compile(r"(?:.*[-_.])?(train|val|validation)[-_](\d+)\.tar")
CLASSES = "classes.txt"
LABEL_KEYS = ("label", "cls")
"""Where a `.json` may say what the class is."""
WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
VERSION = 1
"""Raised when the index of equal shards comes out different."""


def check(root: Path) -> None:
    """Raise InputError unless there are shards of both splits, with no number missing."""
    for which in ("train", "val"):
        shards(root, which)


def load(root: Path, which: Which) -> TarImages:
    """List one split; the shards are read through the first time, and an index of them is kept (`_index.indexed`).

    Raises:
        InputError: a shard is cut off or missing, an image has no label, a key comes twice, or there is no image.
    """
    found: dict[str, Arrays] = {side: _index(root, side) for side in ("train", "val")}
    labels, classes = _classes(root, {side: unpack(arrays["labels"]) for side, arrays in found.items()})
    names = root / CLASSES
    return TarImages(
        shards(root, which),
        found[which]["places"],
        unpack(found[which]["names"]),
        labels[which],
        classes,
        (names,) if names.exists() else (),
    )


def shards(root: Path, which: str) -> list[Path]:
    """The shards of a split by their numbers.

    Raises:
        InputError: there is none, or one between others is missing.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(root.glob("*.tar")):
        match = SHARD.fullmatch(path.name)
        if match is None or match[1][:3] != which[:3]:
            continue
        number = int(match[2])
        if number in numbered:
            raise InputError(f"{root}: {numbered[number].name} and {path.name} are both shard {number} of {which}; keep one")
        numbered[number] = path
    if not numbered:
        raise InputError(f"{root} has no {which}-*.tar; the layout is {'; '.join(INFO.layout.splitlines())}")
    absent = sorted(set(range(max(numbered))) - set(numbered) - set(range(min(numbered))))
    if absent:
        raise InputError(f"{root}: shards {some(absent)} of {which} are missing; fetch them")
    return [numbered[number] for number in sorted(numbered)]


def _index(root: Path, which: str) -> Arrays:
    paths = shards(root, which)

    def build() -> Arrays:
        samples = [sample for number, path in enumerate(paths) for sample in _samples(number, path)]
        if not samples:
            raise InputError(f"{root}: no image in the shards of {which}; images end in {', '.join(sorted(SUFFIXES))}")
        return {
            "places": np.array([sample.place for sample in samples], np.int64),
            "names": pack(sample.name for sample in samples),
            "labels": pack(sample.label for sample in samples),
        }

    return indexed(root, which, paths, VERSION, build)


@dataclass(frozen=True)
class _Sample:
    place: tuple[int, int, int]
    name: str
    label: str


def _samples(number: int, path: Path) -> Iterator[_Sample]:
    """The labelled images of a shard."""
    reader = TarReader()
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    for member in list(members(path)):  # listed to the end, which is seen to be there before anything is read
        folder, _, name = member.name.rpartition("/")
        key, _, ending = name.partition(".")
        key, ending = f"{folder}/{key}", ending.lower()
        if not name or name.startswith("."):
            continue
        if f".{ending}" in SUFFIXES:
            if key in images:
                raise InputError(f"{path}: {images[key].name} and {member.name} have the same key; give each image its own")
            images[key] = member
        elif ending == "cls" or (ending == "json" and key not in labels):
            label = _label(path, member, reader.read(path, member.offset, member.size), ending)
            labels |= {} if label is None else {key: label}
    without = [member.name for key, member in images.items() if key not in labels]
    if without:
        raise InputError(
            f"{path}: no label for {some(without)}; add a .cls with the number of the class, or a .json with a {LABEL_KEYS[0]!r}"
        )
    for key, member in images.items():
        yield _Sample((number, member.offset, member.size), member.name, labels[key])


def _label(path: Path, member: Member, content: bytes, ending: str) -> str | None:
    """The class that a member names; None where a `.json` is about something else."""
    try:
        text = content.decode().strip()
        if ending == "json":
            facts = json.loads(text)
            value = next((facts[key] for key in LABEL_KEYS if key in facts), None) if isinstance(facts, dict) else None
            if value is None or isinstance(value, bool) or not isinstance(value, int | str):
                return None
            text = str(value)
    except ValueError as error:
        raise InputError(f"{path}: {member.name} is no label ({error}); write the number of the class into it") from error
    if not text or "\0" in text:
        raise InputError(f"{path}: {member.name} is empty; write the number of the class into it")
    return text


def _classes(root: Path, texts: dict[str, list[str]]) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Labels of both splits as numbers, and the names of the classes."""
    names = root / CLASSES
    listed = names.read_text().splitlines() if names.exists() else None
    given = sorted({text for side in texts.values() for text in side})
    numbers = [text for text in given if WHOLE_NUMBER.fullmatch(text)]
    if len(numbers) == len(given):
        labels = {side: [int(text) for text in found] for side, found in texts.items()}
        count = len(listed) if listed else 1 + max(max(found) for found in labels.values())
        beyond = sorted({label for found in labels.values() for label in found if label >= count})
        if beyond:
            raise InputError(f"{names} names {count} classes, and there are labels {some(beyond)}; they count from 0")
    else:
        if numbers and not listed:
            named = sorted(set(given) - set(numbers))
            raise InputError(f"{root}: labels {some(numbers)} are numbers and {some(named)} names; make them one of both")
        known = listed or sorted(set(texts["train"]))
        places = {name: number for number, name in enumerate(known)}
        unknown = sorted(set(given) - set(places))
        if unknown:
            raise InputError(
                f"{root}: labels {some(unknown)} are no classes of {CLASSES if listed else 'train'}; make them agree"
            )
        labels, count = {side: [places[text] for text in found] for side, found in texts.items()}, len(known)
        listed = list(known)
    present = set(labels["train"])
    if len(present) < count:
        absent = [number for number in range(min(count, len(present) + 6)) if number not in present]
        more = "" if len(absent) == count - len(present) else " and others"
        raise InputError(f"{root}: train has no image of class {some(absent)}{more}, of {count}; labels are to be 0, 1, 2, ...")
    if count == 1:
        raise InputError(f"{root}: only one class; a classification task needs at least two")
    return labels, tuple(listed) if listed else tuple(str(number) for number in range(count))
