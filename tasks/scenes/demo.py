"""Writing the demo data: complete or not at all, and the same bytes each time."""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.progress import Reporter, Silent
from tasks.scenes.sizes import GENERATOR, SCALES

MANIFEST = "mae-bench-demo.json"
PLACES = {"folder": "folder", "coco": "coco", "ade20k": "ADEChallengeData2016"}

# A temporary folder older than this was left by a process that was killed; writing takes seconds.
ABANDONED_SECONDS = 3600


def write_demo(root: Path, *, scale: str = "demo", progress: Reporter | None = None) -> dict[str, Path]:
    """Write the three demo data sets into a new folder; a folder that has them already is left as it is.

    Args:
        root: the folder to make.
        scale: `demo`, or `tiny` for tests.
        progress: takes the number of images written.

    Returns:
        Folder of each data set, by its name in `tasks.data`.

    Raises:
        ConfigError: an unknown scale, or `root` holds something else; nothing is touched.
        EnvironmentFault: the folder cannot be written.
    """
    if scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r} of the demo data; {nearest(scale, list(SCALES))}")
    if not _is_finished(root, scale):
        try:
            _write(root, scale, progress or Silent())
        except OSError as error:
            reason = error.strerror or error
            raise EnvironmentFault(f"cannot write {root}: {reason}; free space or choose another folder") from error
    return {name: root / place for name, place in PLACES.items()}


def _is_finished(root: Path, scale: str) -> bool:
    """Whether the data are there; False when there is nothing.

    Raises:
        ConfigError: there is something else, or data of another scale or version, or only part of them.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    manifest = _read_manifest(root)
    if manifest is None:
        raise ConfigError(f"{root} exists and is not demo data; choose another folder")
    if (manifest["generator"], manifest["scale"]) != (GENERATOR, scale):
        raise ConfigError(
            f"{root} holds demo data {manifest['scale']!r}, version {manifest['generator']}, and {scale!r}, version {GENERATOR}, "
            "is asked for; choose another folder or delete it"
        )
    present = sum(path.is_file() for path in root.rglob("*")) - 1
    if present != manifest["files"]:
        raise ConfigError(f"{root} has {present} of the {manifest['files']} files of the demo data; delete it and run this again")
    return True


def _read_manifest(root: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    needed = {"generator", "scale", "files"}
    return manifest if isinstance(manifest, dict) and needed <= manifest.keys() else None


def _write(root: Path, scale: str, progress: Reporter) -> None:
    """Write beside the place and rename: whoever sees the folder sees all of it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_sibling(root) as place:
        sources = _draw_all(place, scale, progress)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        manifest = {
            "generator": GENERATOR,
            "scale": scale,
            "files": len(files),
            "sha256": _digest(place, files),
            "sources": sources,
        }
        (place / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        try:
            place.rename(root)
        except OSError:
            # Another process may have finished the same in the meantime.
            if not _is_finished(root, scale):
                raise


def _draw_all(place: Path, scale: str, progress: Reporter) -> dict[str, list[int]]:
    """Write all images; the digits in each, by its path."""
    from tasks.scenes.draw import open_pools
    from tasks.scenes.layouts import WRITERS

    pools = open_pools()
    sources: dict[str, list[int]] = {}
    progress.start("demo data", SCALES[scale].images)
    for name, write in WRITERS.items():
        for path, numbers in write(place / PLACES[name], pools, SCALES[scale]):
            sources[path.relative_to(place).as_posix()] = numbers
            progress.advance()
    return sources


def _digest(place: Path, files: list[Path]) -> str:
    """SHA-256 over the names and contents of the written files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(place).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def _temporary_sibling(root: Path) -> Iterator[Path]:
    """A folder on the same disk, which is gone afterwards, as are those of processes killed long ago."""
    prefix = f".{root.name}.partial-"
    for old in root.parent.glob(f"{prefix}*"):
        if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=root.parent))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
