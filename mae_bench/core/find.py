"""A folder listing is the registry: a new file in a room is a new name on the command line."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.repairs import repair_line

OURS = ("mae_bench", "backbones", "tasks", "results")


def names(room: str) -> list[str]:
    """Sorted names of the files in a room (`tasks.suite`), read from the folder without importing any."""
    spec = importlib.util.find_spec(room)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{room} is not a package")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_"))


def load(room: str, name: str, *, what: str) -> ModuleType:
    """Import one file of a room by name.

    Args:
        room: package path, such as `tasks.suite`.
        name: file name without its ending.
        what: the word for it in messages, such as `task`.

    Raises:
        ConfigError: there is no such file.
        EnvironmentFault: the file needs a package that is not installed.
    """
    known = names(room)
    if name not in known:
        raise ConfigError(f"unknown {what} {name!r}; {nearest(name, known)}")
    try:
        return importlib.import_module(f"{room}.{name}")
    except ModuleNotFoundError as error:
        raise missing(error, f"{what} {name}") from error


def missing(error: ModuleNotFoundError, needed_by: str) -> Exception:
    """Turn a failed import into the line that repairs it; an import of our own that failed stays as it is."""
    module = (error.name or "").partition(".")[0]
    if not module or module in OURS:
        return error
    return EnvironmentFault(f"{needed_by} needs {module}, which is not installed; run: {repair_line(module)}")
