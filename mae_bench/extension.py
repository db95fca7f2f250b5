"""A folder of our own beside the installed packages, for what pip would not install as it is."""

import json
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.files import write_text

FOLDER = "mae_bench_ext"
NOTE = "setup.json"


@dataclass(frozen=True)
class Extension:
    """The folder, and the .pth file that makes Python look into it."""

    site: Path

    @property
    def folder(self) -> Path:
        """Holds Detectron2 and the note on how it came; the note alone when pip installed it from a source."""
        return self.site / FOLDER

    @property
    def pointer(self) -> Path:
        """Read by every Python of this environment as it starts."""
        return self.site / f"{FOLDER}.pth"

    def note(self) -> dict[str, str]:
        """What was installed; empty when nothing was."""
        try:
            return json.loads((self.folder / NOTE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            return {"kind": "wheel", "source": "an unreadable note"}

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A folder on the same disk, gone when the block ends.

        Raises:
            EnvironmentFault: this environment cannot be written.
        """
        try:
            stage = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=self.site))
        except OSError as error:
            fix = "use an environment of your own: python3 -m venv .venv"
            raise EnvironmentFault(f"cannot write into {self.site}: {error.strerror or error}; {fix}") from error
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed runs left of such folders."""
        for left in self.site.glob(f".{FOLDER}-*"):
            shutil.rmtree(left, ignore_errors=True)

    def put(self, content: Path) -> None:
        """Put a finished folder in place of an older one; Python finds it from the last step on."""
        self.remove()
        content.rename(self.folder)
        write_text(self.pointer, f"{FOLDER}\n")

    def remove(self) -> None:
        """Take away what is in place, in the reverse order."""
        if self.folder.exists() or self.pointer.exists():
            with self.stage() as stage:
                self.pointer.unlink(missing_ok=True)
                if self.folder.exists():
                    self.folder.rename(stage / "removed")


def here() -> Extension:
    """The one of this environment."""
    return Extension(Path(sysconfig.get_path("purelib")))
