"""Writing a backbone in the layout of another program (`exports/`: one file a target), so that nobody is locked in."""

import shutil
import tempfile
from pathlib import Path
from typing import cast

from backbones.arch import VitArch
from backbones.eva import EvaArch
from backbones.exports import Layout, Target
from backbones.source import Source
from backbones.zoo import eva, vit
from mae_bench.core import find
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
from mae_bench.core.files import sync_folder

ROOM = "backbones.exports"
TEMPORARY = ".mae-bench-"


def check_out(out: Path, to: str, *, overwrite: bool = False) -> None:
    """Check that a target can be written to a path, before anything heavy is done.

    Raises:
        ConfigError: no such target, an ending that the other program does not read, or something is there already.
    """
    endings = _endings(to)
    if endings and out.suffix not in endings:
        raise ConfigError(f"{out}: --to {to} writes a file that ends in {' or '.join(endings)}; give OUT such a name")
    if not endings and out.suffix in (".pth", ".pt", ".pkl", ".safetensors"):
        raise ConfigError(f"{out}: --to {to} writes a folder; give OUT a name without {out.suffix}")
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise ConfigError(f"{out} is there already; choose another OUT or add --overwrite")
    if out.is_dir() != (not endings):
        raise ConfigError(
            f"{out} is a {'folder' if out.is_dir() else 'file'}, and --to {to} writes the other; choose another OUT"
        )


def export(source: Source, out: Path, to: str, *, overwrite: bool = False) -> Layout:
    """Write a source's weights, as they are, in the layout of another program.

    Args:
        source: a checkpoint; its backbone without dense options is written.
        out: the file, or the folder for `hf`. It is whole or not there.
        to: a file in `exports/`.
        overwrite: whether `out` may be replaced; a folder only if it holds nothing but what was written so before.

    Returns:
        What was written, and how it is opened there.

    Raises:
        ConfigError: an `out` or a target that cannot be.
        InputError: a part of the network that the target cannot hold exactly.
        EnvironmentFault: `out` cannot be written.
    """
    check_out(out, to, overwrite=overwrite)
    target = cast(Target, find.load(ROOM, to, what="target"))
    layout = _layout(source, target)
    # A download that is not what it should be is found when it is hashed.
    _ = source.sha256
    if target.ENDINGS:
        target.write(out, layout)
    else:
        _write_folder(out, layout, target)
    return layout


def _layout(source: Source, target: Target) -> Layout:
    if isinstance(source.arch, VitArch):
        return target.layout(source.arch, source.spec, vit.weights_of(source.build()))
    rotary = getattr(target, "eva_layout", None)
    if isinstance(source.arch, EvaArch) and rotary is not None:
        return rotary(source.arch, source.spec, eva.weights_of(source.build()))
    raise InputError(f"{target.NAME} cannot hold {source.spec.name}: it has rotary positions; choose --to timm")


def _endings(to: str) -> tuple[str, ...]:
    known = find.names(ROOM)
    if to not in known:
        raise ConfigError(f"--to {to}: {nearest(to, known)}")
    return cast(Target, find.load(ROOM, to, what="target")).ENDINGS


def _write_folder(out: Path, layout: Layout, target: Target) -> None:
    """Write a folder beside `out` and let it take its place in one step, so that no reader finds half of it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=out.parent, ignore_cleanup_errors=True) as place:
            fresh, old = Path(place, "new"), Path(place, "old")
            fresh.mkdir()
            target.write(fresh, layout)
            if out.exists():
                _refuse_strangers(out, fresh)
                out.rename(old)
            fresh.rename(out)
            sync_folder(out.parent)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {out}: {error.strerror or error}; free space or choose another OUT") from error


def _refuse_strangers(out: Path, fresh: Path) -> None:
    strangers = {entry.name for entry in out.iterdir()} - {entry.name for entry in fresh.iterdir()}
    if strangers:
        raise ConfigError(f"{out} holds {min(strangers)}, which was not written by convert; choose another OUT")
