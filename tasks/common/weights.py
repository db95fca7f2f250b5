"""Settings that name a file with a whole network of a framework to begin from."""

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from mae_bench.core import config as core


class WeightsConfig(core.Config):
    """Settings with a file of weights: its content is a part of what they are."""

    changing_nothing: ClassVar[tuple[str, ...]] = ()
    """Names of settings that no number depends on, such as those of speed and memory."""
    weights: str | None = Field(default=None, min_length=1)
    """File with a whole network to begin from, its path absolute."""

    @field_validator("weights")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        """The whole path, so that the cell can be run again from anywhere."""
        return path if path is None else str(Path(path).expanduser().absolute())

    def digest(self) -> str:
        """The same of the settings with the content of the file in place of its path: another file is another cell.

        Settings that change no number are taken as they are by default: with others a record stands, and a training goes on.

        Raises:
            InputError: there is no such file.
        """
        values = {name: type(self).model_fields[name].get_default() for name in self.changing_nothing}
        if self.weights is not None:
            values["weights"] = f"sha256:{content_of(self.weights)}"
        return core.Config.digest(self.model_copy(update=values))


def begun_with(path: str) -> str:
    """SHA-256 of a file as it was when settings that name it were digested last, whatever has become of it since.

    Raises:
        InputError: nobody has digested such settings, and there is no such file.
    """
    told = [sha256 for facts, sha256 in _HASHED.items() if facts[0] == path]
    return told[-1] if told else content_of(path)


def content_of(path: str) -> str:
    """SHA-256 of a file; one that has not changed is hashed once in a process.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    from backbones.opened import OpenFile

    file = OpenFile(Path(path))
    about = os.fstat(file.handle)
    facts = path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
    if facts not in _HASHED:
        _HASHED[facts] = file.sha256
    return _HASHED[facts]


_HASHED: dict[tuple[str, int, int, int, int], str] = {}
"""What was hashed, by what tells that a file has not changed: settings are digested several times, and files have gigabytes."""
