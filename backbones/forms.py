"""What SRC of `-m` may be, and the lines about one that is none. No torch is loaded here."""

from collections.abc import Sequence

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError

FORMS = "NAME=SRC or SRC, where SRC is random:ARCH, timm:NAME, hf:ORG/NAME, a checkpoint file, or a folder with model.safetensors"


def unknown_source(source: str, known: Sequence[str]) -> ConfigError:
    """A bare word that is the name of nothing."""
    return ConfigError(f"{source!r} is no file and no architecture ({nearest(source, list(known))}); give {FORMS}")


def unknown_architecture(source: str, name: str, known: Sequence[str]) -> ConfigError:
    """`random:NAME`, and no architecture is called so."""
    return ConfigError(f"{source}: unknown architecture {name!r}; {nearest(name, list(known))}")
