"""Published checkpoints by name (`-m mae_vit_base`): where a name's file is, and what is known of it. No torch is loaded here.

A local file answers to the name as `mae_vit_base=PATH`, or in the folder that `MAE_BENCH_CHECKPOINTS` names, under its official
name or under the release's (`mae_vit_base.pth`).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from backbones.releases import Release
from mae_bench.core import find
from mae_bench.core.errors import EnvironmentFault, InputError

if TYPE_CHECKING:
    from backbones.families import Converted

ROOM = "backbones.releases"
FOLDER = "MAE_BENCH_CHECKPOINTS"


def releases() -> dict[str, Release]:
    """All published checkpoints by name."""
    files = [find.load(ROOM, name, what="file of releases") for name in find.names(ROOM)]
    return {name: release for file in files for name, release in file.RELEASES.items()}


def local_file(name: str) -> Path | None:
    """The file of a release in the user's folder; None where there is none, or no such folder is named.

    Raises:
        EnvironmentFault: the folder that is named is not there.
    """
    folder = os.environ.get(FOLDER, "")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise EnvironmentFault(f"{FOLDER}={folder} is no folder; make it or unset {FOLDER}")
    return next((Path(folder, file) for file in _files(name) if Path(folder, file).exists()), None)


def where_to_get(name: str) -> EnvironmentFault:
    """What is said when a release is neither here nor in timm's catalogue."""
    release = releases()[name]
    return EnvironmentFault(f"{name}: download {release.url} and give its path: -m {name}=PATH (or put it into {FOLDER})")


def check_hash(name: str, path: Path) -> None:
    """See that a local file is the one that its authors publish, where they state a hash.

    Only a file of the official kind is compared: timm's safetensors of the same weights are other bytes.

    Raises:
        InputError: it is another file.
    """
    release = releases()[name]
    if path.is_dir() or not release.file or path.suffix != PurePosixPath(release.file).suffix:
        return
    for kind, digits in (("md5", release.md5), ("sha256", release.sha256)):
        if not digits:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda kind=kind: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if not found.startswith(digits):
            raise InputError(
                f"{path}: its {kind.upper()} is {found}, and that of {release.file} begins with {digits}; download {release.url} "
                "again, or give another file without the name of the release"
            )


def as_released(converted: Converted, name: str) -> Converted:
    """Say of a checkpoint what is known of the release it is."""
    release = releases()[name]
    mean, std = release.statistics
    spec = replace(converted.spec, mean=mean, std=std, method=release.method, pretrain_data=release.pretrain_data)
    spec = replace(spec, interpolation=release.interpolation)
    notes = tuple(note for note in converted.notes if "mean and std are assumed" not in note)
    return replace(converted, spec=spec, notes=notes)


def _files(name: str) -> list[str]:
    """Names that a release's file may have in the folder; an official one that several have, tells nothing."""
    known = releases()
    release, count = known[name], Counter(one.file for one in known.values())
    endings = (".safetensors", "".join(PurePosixPath(release.file).suffixes[-1:]) or ".pth")
    own = [f"{name}{ending}" for ending in dict.fromkeys(endings)]
    return ([release.file] if release.file and count[release.file] == 1 else []) + own
