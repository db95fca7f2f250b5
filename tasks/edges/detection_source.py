"""Trees of Detectron2's lazy calls as Python source."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from detectron2.utils.registry import locate

from mae_bench.core.errors import ConfigError

WIDTH = 100
"""Characters that an expression may have on one line."""


class Writer:
    """Turns values into expressions, and remembers the imports that they need."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def text(self, value: Any, depth: int = 0) -> str:
        """The expression that makes a value, indented for a line at that depth."""
        if is_dataclass(value) and not isinstance(value, type):
            given = {field.name: getattr(value, field.name) for field in fields(value)}
            return self._call(self._name(type(value)), given, depth)
        if isinstance(value, functools.partial):
            self.imports.add("from functools import partial")
            keywords = {"": value.func, **value.keywords}
            return self._call("partial", keywords, depth)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return _wrapped("[", [lambda deep, item=item: self.text(item, deep) for item in value], "]", depth)
        return self._name(value) if callable(value) else repr(value)

    def _mapping(self, value: Mapping[str, Any], depth: int) -> str:
        """A lazy call, a structured value, or a plain dict."""
        kind = getattr(getattr(value, "_metadata", None), "object_type", None)
        if isinstance(kind, type) and is_dataclass(kind):
            return self._call(self._name(kind), value, depth)
        items = {key: _raw(value, key) for key in value}
        target = items.pop("_target_", None)
        if target is None:
            parts = [lambda deep, key=key: f"{key!r}: {self.text(items[key], deep)}" for key in items]
            return _wrapped("{", parts, "}", depth)
        made = locate(target) if isinstance(target, str) else target
        return self._call(f"L({self._name(made)})", items, depth)

    def _call(self, name: str, items: Mapping[str, Any], depth: int) -> str:
        parts = [lambda deep, key=key: (f"{key}=" if key else "") + self.text(items[key], deep) for key in items]
        return _wrapped(f"{name}(", parts, ")", depth)

    def _name(self, thing: Any) -> str:
        """The name of a class or function, imported from where it is defined; a method by its class."""
        owner = thing.__qualname__.partition(".")[0]
        module = inspect.getmodule(thing)
        if module is None:
            raise ConfigError(f"{thing.__qualname__} is in no module that a config could import")
        self.imports.add(f"from {module.__name__} import {owner}")
        return thing.__qualname__


def _wrapped(opening: str, parts: Iterable[Callable[[int], str]], closing: str, depth: int) -> str:
    """Parts between brackets, on one line where they fit."""
    made = list(parts)
    line = opening + ", ".join(part(depth) for part in made) + closing
    if len(line) + 4 * depth <= WIDTH and "\n" not in line:
        return line
    inner = "".join(f"{'    ' * (depth + 1)}{part(depth + 1)},\n" for part in made)
    return f"{opening}\n{inner}{'    ' * depth}{closing}"


def _raw(value: Mapping[str, Any], key: str) -> Any:
    """A value as it stands: interpolations of OmegaConf stay text."""
    node = value._get_node(key) if hasattr(value, "_get_node") else None  # type: ignore[attr-defined]
    text = node._value() if node is not None and not isinstance(node, Mapping | Sequence) else None
    return text if isinstance(text, str) else value[key]
