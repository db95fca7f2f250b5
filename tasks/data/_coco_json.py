"""Reading a COCO instances file: what breaks its structure is refused, naming the first offenders."""

import json
import resource
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from mae_bench.core.errors import EnvironmentFault, InputError
from tasks.data import some

PARTS = ("images", "annotations", "categories")
# Measured: 6.4 bytes of memory for a byte of polygons and boxes read and cleaned, at the peak.
MEMORY_PER_BYTE = 7
MOST = 2**63
"""Ids have to fit into 64 bits, as in pycocotools."""


def read(path: Path, name_of: Callable[[dict[str, Any]], object] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Read the three lists of an instances file and check how they refer to each other.

    Args:
        path: the file.
        name_of: gives the file name of an image that has none of its own, or None.

    Raises:
        EnvironmentFault: the file needs more memory than there is.
        InputError: cut or foreign JSON, wrong or duplicate ids, references to nothing, unsafe file names.
    """
    _check_memory(path)
    data = _parse(path)
    _check_shape(path, data)
    for part in PARTS:
        _check_ids(path, part, data[part])
    if name_of is not None:
        for image in data["images"]:
            image.setdefault("file_name", name_of(image))
    _check_categories(path, data["categories"])
    _check_images(path, data["images"])
    _check_references(path, data)
    return {part: data[part] for part in PARTS}


def _check_memory(path: Path) -> None:
    """A file that does not fit would end in a process killed without a word."""
    need, free = path.stat().st_size * MEMORY_PER_BYTE, free_memory()
    if free is not None and need > free:
        raise EnvironmentFault(
            f"{path} has {path.stat().st_size / 2**20:.0f} MB and takes about {need / 2**20:.0f} MB of memory to be read, and "
            f"{free / 2**20:.0f} MB are free; use a machine with more memory, or a part of the annotations"
        )


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine, of its control group, and of its own limit; None if unknown."""
    found = [_meminfo(), _control_group()]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        used = int(_text(Path("/proc/self/statm")).split()[0] or 0) * resource.getpagesize()
        found.append(limit - used)
    known = [number for number in found if number is not None]
    return min(known) if known else None


def _meminfo() -> int | None:
    lines = dict(line.split(":") for line in _text(Path("/proc/meminfo")).splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _control_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What is left of a container's limit; files that are only cached count as left, since the kernel gives them up."""
    limit, used, told = (_text(folder / f"memory.{name}") for name in ("max", "current", "stat"))
    if not (limit.strip().isdigit() and used.strip().isdigit()):
        return None
    stat = dict(line.split() for line in told.splitlines())
    cached = sum(int(stat.get(name, 0)) for name in ("active_file", "inactive_file"))
    return int(limit) - int(used) + cached


def _text(path: Path) -> str:
    """The content of a file of the system; nothing where there is none."""
    return path.read_text() if path.is_file() else ""


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON at line {error.lineno} ({error.msg}); get it again") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); get it again") from error


def _check_shape(path: Path, data: Any) -> None:
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a {type(data).__name__}, not COCO annotations; it needs {', '.join(PARTS)}")
    for part in PARTS:
        items = data.get(part)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{path} has no list {part!r} of objects; COCO instances files need {', '.join(PARTS)}")
    for part in ("images", "categories"):
        if not data[part]:
            raise InputError(f"{path}: {part!r} is empty; there is nothing to train or measure on")


def _check_ids(path: Path, part: str, items: list[dict[str, Any]]) -> None:
    """Ids are whole numbers, as the format says: pycocotools keeps those of annotations in float arrays."""
    ids = [item.get("id") for item in items]
    wrong = [number for number in ids if type(number) is not int or not -MOST <= number < MOST]
    _refuse(path, f"{part} without a whole-number id", wrong, "number them from 1", show=repr)
    repeated = [number for number, count in Counter(ids).items() if count > 1]
    _refuse(path, f"{part} share an id", repeated, "ids have to be unique")


def _check_categories(path: Path, categories: list[dict[str, Any]]) -> None:
    unnamed = [item["id"] for item in categories if not isinstance(item.get("name"), str)]
    _refuse(path, "categories without a name", unnamed, "give each a name")


def _check_images(path: Path, images: list[dict[str, Any]]) -> None:
    unnamed = [item["id"] for item in images if not isinstance(item.get("file_name"), str)]
    _refuse(path, "images without file_name", unnamed, "give each the name of its file")
    unsized = [item["id"] for item in images if not (_is_length(item.get("width")) and _is_length(item.get("height")))]
    _refuse(path, "images without width and height in whole pixels", unsized, "write their sizes")
    leaving = [item["file_name"] for item in images if leaves_folder(item["file_name"])]
    _refuse(path, "file_name leaves the image folder", leaving, "use names below the image folder; nothing was opened", show=repr)


def _check_references(path: Path, data: dict[str, list[dict[str, Any]]]) -> None:
    for key, part in (("category_id", "categories"), ("image_id", "images")):
        known = {item["id"] for item in data[part]}
        orphans = [item["id"] for item in data["annotations"] if not _is_known(item.get(key), known)]
        _refuse(path, f"annotations with an unknown {key}", orphans, f"remove them or add the missing {part}")


def leaves_folder(name: str) -> bool:
    """Whether a file name points out of the folder it is relative to, on any system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or "\0" in name or parts[0] == "/" or ".." in parts or parts[0].endswith(":")


def _is_length(value: object) -> bool:
    return type(value) is int and value > 0


def _is_known(value: object, known: set[int]) -> bool:
    return type(value) is int and value in known


def _refuse(path: Path, what: str, offenders: Iterable[object], fix: str, *, show: Callable[[object], str] = str) -> None:
    found = [show(item) for item in offenders]
    if found:
        raise InputError(f"{path}: {len(found)} {what}: {some(found)}; {fix}")
