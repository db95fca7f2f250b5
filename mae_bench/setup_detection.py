"""Install Detectron2, which no package index has in a form that current tools install as it is.

A working one is kept. Otherwise the wheel of its last state, named by version and SHA-256, is unpacked into a folder of our own
beside the installed packages, without its compiled operations (built for another torch; ViTDet needs none of them). Before it is
put in place it has trained a ViTDet for two steps, in a process of its own.
"""

import json
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.files import write_json
from mae_bench.core.repairs import EXTRA_OF
from mae_bench.extension import NOTE, Extension, here
from mae_bench.frameworks import Outcome, run_python
from mae_bench.pip import run_pip


@dataclass(frozen=True)
class Offer:
    """The wheel that is installed when there is no other Detectron2, and the trial it has to pass."""

    requirement: str = "sal-detectron2==0.7.2"
    """Detectron2's main branch of 2024-04-17 (a59f0563), with a `random.sample` that runs on Python 3.11."""
    sha256: str = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
    check: Path | None = None
    """A script that fails or prints `{"version", "where"}`; `tasks/edges/detection_check.py` when not given."""
    seconds: float = 300.0
    """Time the trial may take; it takes 5 s from a warm disk."""


def setup_detection(
    source: str | None = None, undo: bool = False, *, console: Console | None = None, offer: Offer | None = None
) -> None:
    """Make `import detectron2` work in this environment, or take back what this did before.

    Args:
        source: a folder or `git+https://...` to build Detectron2 from with pip, instead of the wheel.
        undo: remove what an earlier call installed, and nothing else.
        console: where progress is told.
        offer: the wheel and the trial, other ones in tests.

    Raises:
        ConfigError: the source is not there.
        EnvironmentFault: a package, the network or a permission is missing, or Detectron2 does not train here; nothing is left.
    """
    setup = _Setup(here(), offer or Offer(), console or Console())
    if undo:
        setup.undo()
    else:
        setup.install(_resolved(source))


class _Setup:
    """One call of `setup_detection`."""

    def __init__(self, place: Extension, offer: Offer, console: Console) -> None:
        self.place, self.offer, self.console = place, offer, console

    def install(self, source: str) -> None:
        _require_helpers()
        self.place.sweep()
        note, where = self.place.note(), locate()
        if where is not None and self._keep(where, note, source):
            return
        if source:
            self._from_source(source)
        else:
            self._from_wheel()

    def undo(self) -> None:
        self.place.sweep()
        note = self.place.note()
        if note.get("kind") == "source":
            self._uninstall(note["distribution"])
        found = self.place.folder.exists() or self.place.pointer.exists()
        self.place.remove()
        self._say(f"removed Detectron2 ({note.get('source', 'unfinished')})" if found else "nothing to undo")

    def _keep(self, where: Path, note: dict[str, str], source: str) -> bool:
        """Whether the Detectron2 that is there is the one wanted and works; one that is not ours to replace is an error."""
        ours = bool(note) and (note["kind"] == "source" or where.is_relative_to(self.place.folder))
        if ours and source and note["source"] != source:
            return False
        verdict = self._check()
        if verdict.ok and (ours or not source):
            self._say(f"Detectron2 {_report(verdict)['version']} in {where} trains a ViTDet; it is kept")
            return True
        if ours and (source or note["kind"] == "wheel"):
            self._say(f"Detectron2 in {where} does not work any more ({verdict.error}); it is installed anew")
            return False
        state = "works already" if verdict.ok else f"does not work ({verdict.error})"
        fix = "mae-bench setup detection --undo" if ours else f"pip uninstall {distribution() or 'detectron2'}"
        raise EnvironmentFault(f"Detectron2 in {where} {state}, and is not replaced; run: {fix}, then this again")

    def _from_wheel(self) -> None:
        with self.place.stage() as stage:
            wanted, unpacked, content = stage / "requirements.txt", stage / "unpacked", stage / "content"
            wanted.write_text(f"{self.offer.requirement} --hash=sha256:{self.offer.sha256}\n", encoding="utf-8")
            # Labelled for Python 3.10, though it holds nothing that depends on the version once the compiled operations are gone.
            labels = ["--only-binary=:all:", "--python-version", "3.10", "--implementation", "cp"]
            run_pip(
                ["install", "--no-deps", "--retries", "2", *labels, "--require-hashes", "-r", wanted, "--target", unpacked],
                self.console,
            )
            content.mkdir()
            _take(unpacked, content)
            verdict = self._check(path=str(content))
            if not verdict.ok:
                raise EnvironmentFault(f"{self.offer.requirement} does not train here: {verdict.error}; it was not installed")
            note = {"kind": "wheel", "source": self.offer.requirement, "version": _report(verdict)["version"]}
            write_json(content / NOTE, note)
            self.place.put(content)
        if locate() is None:
            self.place.remove()
            raise EnvironmentFault(f"Python does not read {self.place.pointer}, so Detectron2 was removed again; use a venv")
        self._say(
            f"Detectron2 {note['version']} is installed in {self.place.folder}; to remove: mae-bench setup detection --undo"
        )

    def _from_source(self, source: str) -> None:
        with self.place.stage():
            pass  # a folder that cannot be written is told before the build, not after it
        run_pip(["install", "--no-build-isolation", "--no-deps", "--force-reinstall", source], self.console)
        name = distribution()
        if not name:
            raise EnvironmentFault(
                f"what pip installed from {source} holds no detectron2; uninstall it and give another --source"
            )
        verdict = self._check()
        if not verdict.ok:
            self._uninstall(name)
            raise EnvironmentFault(f"Detectron2 from {source} does not train here: {verdict.error}; it was uninstalled again")
        self.place.remove()
        version = _report(verdict)["version"]
        write_json(self.place.folder / NOTE, {"kind": "source", "source": source, "version": version, "distribution": name})
        self._say(f"Detectron2 {version} is built from {source}; to remove: mae-bench setup detection --undo")

    def _uninstall(self, name: str) -> None:
        run_pip(["uninstall", "--yes", name], self.console)

    def _check(self, path: str = "") -> Outcome:
        """Two steps of training a tiny ViTDet in a process of its own."""
        script = self.offer.check or _own_check()
        with self.console.status("training a tiny ViTDet for two steps"):
            return run_python([str(script)], seconds=self.offer.seconds, path=path)

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


def locate() -> Path | None:
    """The folder of the Detectron2 that a new Python process imports; nothing is imported."""
    code = "from importlib.util import find_spec; s = find_spec('detectron2'); print(s.origin if s and s.origin else '')"
    found = run_python(["-c", code], seconds=60).output.strip()
    return Path(found).parent if found else None


def distribution() -> str:
    """The name under which pip knows the Detectron2 that is importable; empty when pip does not."""
    code = "from importlib.metadata import packages_distributions as p; print(p().get('detectron2', [''])[0])"
    return run_python(["-c", code], seconds=60).output.strip()


def _resolved(source: str | None) -> str:
    """A source as pip takes it from anywhere: an absolute path, or an address as it is."""
    if not source or "://" in source:
        return source or ""
    if not (Path(source) / "detectron2").is_dir():
        raise ConfigError(f"--source {source} is no copy of Detectron2's repository; give a folder that is, or git+https://...")
    return str(Path(source).resolve())


def _require_helpers() -> None:
    absent = [m for m, extra in EXTRA_OF.items() if extra == "detection" and m != "detectron2" and util.find_spec(m) is None]
    if absent:
        raise EnvironmentFault(f'Detectron2 needs {", ".join(absent)}; run: pip install "mae-bench[detection]", then this again')


def _take(unpacked: Path, content: Path) -> None:
    """Take the package and its licence from a wheel.

    Left behind are its `tools`, which would hide others of that name, and its metadata, which ask for numpy 1.
    """
    (unpacked / "detectron2").rename(content / "detectron2")
    for compiled in (content / "detectron2").glob("_C*"):
        compiled.unlink()
    for text in unpacked.glob("*.dist-info/LICENSE*"):
        text.rename(content / text.name)


def _own_check() -> Path:
    spec = util.find_spec("tasks.edges.detection_check")
    if spec is None or spec.origin is None:
        raise EnvironmentFault("mae-bench is not installed as a whole; run: pip install --force-reinstall --no-deps mae-bench")
    return Path(spec.origin)


def _report(verdict: Outcome) -> dict[str, Any]:
    return json.loads(verdict.output.splitlines()[-1])
