"""Started processes import the suite and the tests from this checkout, wherever the tests are started."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Put the checkout on the path of this process and of those it starts."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MAE_BENCH_PARENT", raising=False)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let another process hold a folder."""
    ready = folder.parent / f"{folder.name}-is-held"
    script = f"""
import time
from pathlib import Path
from mae_bench.locks import locked
with locked(Path({str(folder)!r})):
    Path({str(ready)!r}).touch()
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not ready.exists():
            assert holder.poll() is None
            time.sleep(0.02)
        yield
    finally:
        holder.kill()
        holder.wait()


def write_images(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 4, shade: int = 0) -> Path:
    """An image folder of a few small pictures."""
    for which in ("train", "val"):
        for number, name in enumerate(classes):
            (root / which / name).mkdir(parents=True)
            for index in range(count):
                colour = (60 * number, 20 * index, shade)
                Image.new("RGB", (64, 64), colour).save(root / which / name / f"{index}.png")
    return root


@pytest.fixture
def images(tmp_path):
    """A data set for `-d`."""
    return f"folder={write_images(tmp_path / 'data' / 'pets')}"
