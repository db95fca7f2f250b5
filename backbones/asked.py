"""What `-m` asks for, in its parts: `NAME=SRC#key=value`, where a path may have `=` and `#` in it, too."""

import re
from dataclasses import dataclass

from backbones import fragment
from backbones.forms import FORMS
from backbones.fragment import Fragment
from mae_bench.core.errors import ConfigError

NAME_BYTES = 80


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, in its parts."""

    name: str | None
    source: str
    """SRC without its fragment."""
    text: str
    """SRC as it was given."""
    told: Fragment
    allow_partial: bool
    trust_pickle: str


def parse(text: str, *, allow_partial: bool = False, trust_pickle: str = "") -> Asked:
    """Read what the command line says.

    Raises:
        ConfigError: text of no known form, or a name that cannot be one.
    """
    name, source, tail = _split(text)
    whole = f"{source}#{tail}" if tail else source
    return Asked(name, source, whole, fragment.parse(source, tail), allow_partial, trust_pickle)


def _split(text: str) -> tuple[str | None, str, str]:
    """Part NAME from SRC and SRC from its fragment. A path may have `=` and `#` in it: what exists as it stands is a path."""
    if not text.isprintable() or not text.strip():
        raise ConfigError(f"{text!r} is no model; give {FORMS}")
    whole, tail = fragment.split(text)
    name, equals, source = whole.partition("=")
    if not equals or fragment.exists(whole):
        return None, whole, tail
    _check_name(name)
    source, tail = fragment.split(text.partition("=")[2])
    if not source:
        raise ConfigError(f"{text!r} names no model after the '='; give {FORMS}")
    return name, source, tail


def _check_name(name: str) -> None:
    """A name becomes a folder, so it must be able to be one and stay inside its parent."""
    if not name or name != name.strip() or name.startswith((".", "-")) or re.search(r'[/\\:*?"<>|]', name):
        raise ConfigError(
            f"{name!r} cannot name a model: it becomes a folder, so no '/', no leading '.' or '-', no spaces around it"
        )
    if len(name.encode()) > NAME_BYTES:
        raise ConfigError(f"the model name {name[:20]!r}... is longer than {NAME_BYTES} bytes; give a shorter NAME=")


def default_name(text: str) -> str:
    """A name made of a file's or model's own, with everything replaced that a folder cannot have."""
    clean = re.sub(r'[/\\:*?"<>|]', "_", text).strip().lstrip(".-") or "model"
    return clean.encode()[:NAME_BYTES].decode(errors="ignore")
