"""An environment of its own for each test, with a pip that reaches no network and a wheel that stands for Detectron2's."""

import hashlib
import json
import os
import subprocess
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import mae_bench

REPOSITORY = Path(mae_bench.__file__).parents[1]
PACKAGES = Path(sysconfig.get_path("purelib"))
CHECK = """
import json, detectron2
if detectron2.__version__ == "broken":
    raise RuntimeError("the loss is nan\\nand more of it")
print(json.dumps({"version": detectron2.__version__, "where": detectron2.__path__[0]}))
"""
CALL = """
import json, sys
from pathlib import Path
from rich.console import Console
from mae_bench.core.errors import MaeBenchError
from mae_bench.setup_detection import Offer, setup_detection
wanted = json.loads(sys.argv[1])
try:
    setup_detection(wanted["source"], wanted["undo"], console=Console(width=1000),
                    offer=Offer(sha256=wanted["sha256"], check=Path(wanted["check"])))
except MaeBenchError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@dataclass
class Environment:
    """A venv that sees the packages of this one, except Detectron2, by links."""

    root: Path

    @property
    def site(self) -> Path:
        return next((self.root / "venv" / "lib").glob("python*")) / "site-packages"

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    def wheel(self, version: str) -> str:
        """Put a stand-in for Detectron2's wheel where pip looks; `broken` is a version that does not train."""
        self.wheels.mkdir(exist_ok=True)
        info = "sal_detectron2-0.7.2.dist-info"
        files = {
            "detectron2/__init__.py": f"__version__ = {version!r}\n",
            "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "for another torch",
            "tools/__init__.py": "",
            f"{info}/LICENSE": "a licence",
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 0.7.2\nRequires-Dist: numpy<2\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: cp310-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        target = self.wheels / "sal_detectron2-0.7.2-cp310-none-any.whl"
        with zipfile.ZipFile(target, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return hashlib.sha256(target.read_bytes()).hexdigest()

    def call(
        self, sha256: str = "", *, source: Path | None = None, undo: bool = False, index: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Call `setup_detection` in the venv."""
        check = self.root / "check.py"
        check.write_text(CHECK)
        wanted = {"source": str(source) if source else None, "undo": undo, "sha256": sha256, "check": str(check)}
        pip = {"PIP_INDEX_URL": index} if index else {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        environment = clean | pip | {"PYTHONPATH": str(REPOSITORY), "PIP_CONFIG_FILE": os.devnull}
        command = [str(self.root / "venv/bin/python"), "-P", "-c", CALL, json.dumps(wanted)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def tree(self) -> list[str]:
        """What lies in the venv's site-packages, compiled files aside."""
        return sorted(str(path.relative_to(self.site)) for path in self.site.rglob("*") if "__pycache__" not in path.parts)

    def foreign(self, version: str) -> None:
        """Put a Detectron2 there that the user installed in some way."""
        (self.site / "detectron2").mkdir()
        (self.site / "detectron2/__init__.py").write_text(f"__version__ = {version!r}\n")


def make_environment(root: Path, without: tuple[str, ...] = ()) -> Environment:
    venv.create(root / "venv", symlinks=True, with_pip=False)
    environment = Environment(root)
    linked = root / "linked"
    linked.mkdir()
    hidden = ("detectron2", "sal_detectron2", "mae_bench", "_editable_impl_mae_bench", "__editable__", *without)
    for entry in PACKAGES.iterdir():
        if not entry.name.startswith(hidden):
            (linked / entry.name).symlink_to(entry)
    (environment.site / "linked.pth").write_text(f"{linked}\n")
    return environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return make_environment(tmp_path)
