"""The packages the suite stands on: what each is for, how to try it, and how to try it without harm to this process."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from mae_bench.core.repairs import EXTRA_OF, repair_line


@dataclass(frozen=True)
class Framework:
    """One package, by its import name."""

    module: str
    purpose: str
    distributions: tuple[str, ...] = ()
    """Names under which pip may know it, when they differ from the module."""
    probe: str = ""
    """The statement that shows the parts the suite uses to be there; `import MODULE` when empty."""

    @property
    def extra(self) -> str:
        """The extra that brings it; empty for the light core."""
        return EXTRA_OF.get(self.module, "")

    @property
    def repair(self) -> str:
        """The command that installs it."""
        return repair_line(self.module)

    @property
    def statement(self) -> str:
        """What to run to see it work."""
        return self.probe or f"import {self.module}"

    @property
    def present(self) -> bool:
        """Whether Python finds it; nothing is imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Installed version, read without importing it; empty when pip knows nothing of it."""
        for name in self.distributions or (self.module,):
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return ""


DETECTRON2 = Framework(
    "detectron2",
    "object detection (ViTDet)",
    ("detectron2", "sal-detectron2"),
    "from detectron2.modeling import SimpleFeaturePyramid, ViT",
)

FRAMEWORKS: tuple[Framework, ...] = (
    Framework("torch", "everything", probe="import torch; torch.zeros(2) @ torch.zeros(2)"),
    Framework("torchvision", "image transforms", probe="import torchvision.transforms.v2"),
    Framework("timm", "Vision Transformers", probe="from timm.models.vision_transformer import VisionTransformer"),
    Framework("accelerate", "devices and precision", probe="from accelerate import Accelerator"),
    Framework("pandas", "tables"),
    Framework("sklearn", "logistic regression", ("scikit-learn",), "from sklearn.linear_model import LogisticRegression"),
    DETECTRON2,
    Framework("pycocotools", "COCO average precision", probe="import pycocotools.cocoeval, pycocotools.mask"),
    Framework("mmengine", "semantic segmentation", ("onedl-mmengine", "mmengine"), "from mmengine.config import Config"),
    Framework("mmcv", "semantic segmentation", ("onedl-mmcv", "mmcv", "mmcv-lite"), "import mmcv.cnn"),
    Framework(
        "mmseg",
        "semantic segmentation (UPerNet)",
        ("onedl-mmsegmentation", "mmsegmentation"),
        "from mmseg.models.decode_heads import UPerHead",
    ),
    Framework("lightly", "contrastive objectives", probe="import lightly.loss, lightly.transforms"),
    Framework("jinja2", "HTML report"),
    Framework("plotly", "HTML report", probe="import plotly.graph_objects"),
)

# An extra counts as installed when one of these is there. Each is a package that hardly anything else brings along; the other
# requirements of the extras (jinja2 of torch, omegaconf of lightly) say nothing about what the user asked for.
SIGNS: Mapping[str, tuple[str, ...]] = {
    "detection": ("fvcore", "iopath", "pycocotools", "detectron2"),
    "segmentation": ("mmengine", "mmcv", "mmseg"),
    "contrastive": ("lightly",),
    "report": ("plotly",),
}


def promised(extra: str) -> bool:
    """Whether an extra was installed, so that its parts have to work; the light core always was."""
    return not extra or any(importlib.util.find_spec(module) is not None for module in SIGNS[extra])


@dataclass(frozen=True)
class Outcome:
    """How a trial in a Python process of its own ended."""

    ok: bool
    output: str
    error: str
    """One line; empty when it went well."""


class Trials:
    """Python processes that run at a time, in threads; `stop` ends all of them, and none begins after it."""

    def __init__(self) -> None:
        self._lock, self._running, self._stopped = threading.Lock(), set[subprocess.Popen[str]](), False

    def begin(self, process: "subprocess.Popen[str]") -> None:
        """Count a process that has just begun; it is ended at once where all have been stopped."""
        with self._lock:
            self._running.add(process)
            if self._stopped:
                process.kill()

    def end(self, process: "subprocess.Popen[str]") -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._running.discard(process)

    def stop(self) -> None:
        """End what runs."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def run_python(
    arguments: Sequence[str],
    *,
    seconds: float,
    path: str = "",
    heard: Callable[[str], None] = lambda line: None,
    trials: Trials | None = None,
) -> Outcome:
    """Run this Python anew, so that a crash or a hang of what it imports stays there.

    Args:
        arguments: what follows `python`, such as `-c CODE`.
        seconds: after this time it is stopped and has failed.
        path: a folder whose packages come before the installed ones.
        heard: called with each line of its standard output as it comes.
        trials: may end it from another thread.
    """
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-P", "-W", "ignore", *arguments]
    lines: list[str] = []
    trials = trials or Trials()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace", env=environment) as process,
    ):
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), process.kill()))
        timer.start()
        trials.begin(process)
        try:
            for line in process.stdout or ():
                lines.append(line)
                heard(line.strip())
            code = process.wait()
        except BaseException:  # a signal, say: nobody waits for the rest
            process.kill()
            raise
        finally:
            timer.cancel()
            trials.end(process)
        errors.seek(0)
        error = f"took longer than {seconds:g} s" if late.is_set() else _reason(code, errors.read())
    return Outcome(code == 0, "".join(lines), error)


def _reason(code: int, stderr: str) -> str:
    """The first line of the error that ended a process, below its last traceback; empty when there was none."""
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    start = max((i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")), default=None)
    if start is not None:
        return next((line for line in lines[start + 1 :] if not line[0].isspace()), lines[-1])
    return lines[-1].strip() if lines else f"ended with exit code {code}"
