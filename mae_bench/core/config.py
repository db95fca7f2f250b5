"""Settings as frozen values: unknown keys are errors, every value can be overridden and digested."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mae_bench.core.errors import ConfigError
from mae_bench.core.wording import explain, nearest

__all__ = ["Config", "build", "nearest", "parse_assignments"]

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every settings class: frozen, with no room for a key that nothing reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    def override(self, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Give a copy with some values changed.

        Args:
            values: new values by key; dots reach into nested settings, and text is read as YAML.
            where: what the settings belong to, for error messages (`linear`, `detection:paper`).

        Raises:
            ConfigError: for an unknown key (with the nearest known one) or a value of the wrong type.
        """
        data = self.model_dump()
        for key, value in values.items():
            _put(data, type(self), key, value, where)
        return build(type(self), data, where=where)

    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the settings, equal exactly when they are."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def build(kind: type[C], data: Mapping[str, Any], *, where: str = "") -> C:
    """Make a config from plain data, with one line for everything that is wrong with it."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError("; ".join(explain(kind, data, fault, where) for fault in error.errors())) from None


def parse_assignments(words: list[str]) -> dict[str, str]:
    """Split `key=value` words of a command line; a word without `=`, or a key given twice, is an error."""
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not key=value; write for example linear.epochs=10")
        if key in values:
            raise ConfigError(f"{key} is given twice ({values[key]!r} and {value!r}); keep one")
        values[key] = value
    return values


def _put(data: dict[str, Any], kind: type[BaseModel], key: str, value: Any, where: str) -> None:
    """Set `a.b.c` in nested plain data, checking each step of the way against the config classes."""
    head, _, rest = key.partition(".")
    if head not in kind.model_fields:
        place = f" of {where}" if where else ""
        raise ConfigError(f"unknown setting {head!r}{place}; {nearest(head, list(kind.model_fields))}")
    inner = kind.model_fields[head].annotation
    if not rest:
        data[head] = _read(value)
        # Where a number is wanted, true and false would be taken for 1 and 0.
        if isinstance(data[head], bool) and not _takes(inner, bool) and (_takes(inner, int) or _takes(inner, float)):
            raise ConfigError(f"setting {f'{where}.' if where else ''}{key}={value}: give a number")
        return
    if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        raise ConfigError(f"setting {head!r} of {where} has no parts, so {key!r} names nothing; write {head}=VALUE")
    _put(data[head], inner, rest, value, f"{where}.{head}" if where else head)


def _read(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    try:
        return yaml.safe_load(value)
    # Not only YAML's own: what looks like a date and is none ends in a ValueError.
    except (yaml.YAMLError, ValueError):
        return value


def _takes(annotation: Any, kind: type) -> bool:
    """Whether values of a kind are among those of an annotation."""
    return annotation is kind or any(_takes(part, kind) for part in get_args(annotation))
