"""The machine, the versions and the state of the code that a record carries."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mae_bench import __version__
from results.record import Machine

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "pillow",
    "scikit-learn",
    "safetensors",
    "pycocotools",
    "sal-detectron2",
    "detectron2",
    "onedl-mmsegmentation",
    "onedl-mmengine",
    "onedl-mmcv",
    "mmsegmentation",
    "mmengine",
    "mmcv",
    "opencv-python",
    "lightly",
)
"""Distributions that can shape a number."""


def machine(device: str, *, threads: int, precision: str) -> Machine:
    """Describe where this process runs."""
    return Machine(
        device=_device_name(device),
        cpu=_cpu_name(),
        cores=cores(),
        threads=threads,
        precision=precision,
        platform=platform.platform(),
        python=platform.python_version(),
        versions=versions(),
        git=git_state(Path(__file__).resolve().parent.parent),
    )


def versions() -> dict[str, str]:
    """Version by name of what is installed of the packages that matter."""
    found = {"mae-bench": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Cores this process may use: the affinity mask, cut by a container's quota where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):
        return allowed


def git_state(folder: Path) -> str | None:
    """Commit of the checkout that holds the code, `+changes` where it differs; None for an installed copy."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain") else "")


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process in MB.

    Read from the kernel's own count: `getrusage` of a started process includes what its parent had.
    """
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if platform.system() == "Darwin" else 1024)


def peak_gpu_memory_mb(device: str) -> float | None:
    """Largest memory torch held on the accelerator in MB."""
    if device != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated() / 1024**2


def _device_name(device: str) -> str:
    if device != "cuda":
        return device
    import torch

    return torch.cuda.get_device_name()


def _cpu_name() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
