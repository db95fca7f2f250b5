"""Opening a checkpoint and building its backbone, against the least that torch can do: a mapped torch.load and load_state_dict.

    python benchmarks/load_checkpoint.py [--arch vit_large_patch16] [--rounds 7] [--cold]

Ours also hashes the file (in a thread of its own), looks for numbers that are not finite, checks names and shapes, and sees that
the file did not change. One thread of torch; the ways take turns; medians of CPU time and wall time, and of the ratios of each
round to the bare way. `new` is a file that was never hashed: without the hash its thread may go on after the build, the others
wait for it. `known` is one whose hash was kept (`backbones/hashes.py`), as in every cell of a run. Nothing fails here: numbers
are read. The goal is a wall time within 1.3 of the bare way.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer

from backbones.opened import OpenFile
from backbones.source import Source, open_source
from backbones.zoo import vit

Way = Callable[[], torch.nn.Module | str | tuple[Source, object]]


def bare(path: Path, arch: vit.Arch) -> torch.nn.Module:
    """The network of timm, made without memory, given it, and filled from the mapped file."""
    with torch.device("meta"):
        net = VisionTransformer(
            img_size=arch.image_size,
            patch_size=arch.patch_size,
            num_classes=0,
            embed_dim=arch.embed_dim,
            depth=arch.depth,
            num_heads=arch.num_heads,
        )
    net.to_empty(device="cpu")
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["model"])
    return net


def ours(path: Path, *, build: bool = True, hashed: bool = True, known: bool = False) -> tuple[Source, object]:
    """Open a file; build its backbone; wait for the hash."""
    if not known:
        shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"], "mae-bench"), ignore_errors=True)
    source = open_source(str(path))
    return source, (source.build() if build else None, source.sha256 if hashed else None)


def timed(work: Way, path: Path, *, cold: bool) -> tuple[float, float]:
    """Seconds of CPU and of wall time."""
    if cold:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cpu, wall = time.process_time(), time.perf_counter()
    kept = work()
    spent = time.process_time() - cpu, time.perf_counter() - wall
    if isinstance(kept, tuple):
        kept[0].sha256  # noqa: B018 - so that no thread of one turn runs in the next
    return spent


def measure(path: Path, arch: vit.Arch, rounds: int, *, cold: bool) -> dict[str, list[tuple[float, float]]]:
    """Seconds (CPU, wall) of each way, in turns, after a round that does not count."""
    ways: dict[str, Way] = {
        "bare torch.load + load_state_dict": lambda: bare(path, arch),
        "open + build, new": lambda: ours(path, hashed=False),
        "open + build + hash, new": lambda: ours(path),
        "open + build + hash, known": lambda: ours(path, known=True),
        "open + hash (inspect), new": lambda: ours(path, build=False),
        "hash alone": lambda: OpenFile(path).sha256,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            spent = timed(work, path, cold=cold)
            time.sleep(0.01)
            if number:
                found[name].append(spent)
    return found


def report(found: dict[str, list[tuple[float, float]]]) -> None:
    """Print a line a way."""
    first = next(iter(found.values()))
    print(f"{'':36}{'CPU s':>8}{'ratio':>8}{'wall s':>8}{'ratio':>8}")
    for name, spent in found.items():
        columns = [
            (
                statistics.median(row[kind] for row in spent),
                statistics.median(row[kind] / base[kind] for row, base in zip(spent, first, strict=True)),
            )
            for kind in (0, 1)
        ]
        print(f"{name:36}" + "".join(f"{seconds:8.3f}{ratio:8.2f}" for seconds, ratio in columns))


def main() -> None:
    """Write a checkpoint of the asked size and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_large_patch16", choices=sorted(vit.VARIANTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="drop the file from the page cache before each turn")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    arch = vit.VARIANTS[asked.arch]
    with tempfile.TemporaryDirectory() as folder:
        path, os.environ["XDG_CACHE_HOME"] = Path(folder) / "weights.pth", folder
        torch.save({"model": vit.initial_weights(arch, 0)}, path)
        os.sync()
        time.sleep(3)  # until its hash may be kept
        size = path.stat().st_size / 2**20
        print(
            f"{asked.arch}, {size:.0f} MiB, {'from disk' if asked.cold else 'cached'}, {asked.rounds} rounds, "
            f"torch {torch.__version__}"
        )
        report(measure(path, arch, asked.rounds, cold=asked.cold))


if __name__ == "__main__":
    main()
