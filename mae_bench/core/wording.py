"""What is wrong with a setting and how to mend it, in the suite's words: pydantic speaks of inputs, types and validation."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

LONGEST = 80
"""Characters of a value that a message repeats."""

NAMED = "give settings by name, such as {name: value}"
LISTED = "give a list, such as [1, 2]"
ADVICE = {
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "dict_type": NAMED,
    "finite_number": "give a finite number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "greater_than": "give a number greater than <gt>",
    "greater_than_equal": "give at least <ge>",
    "int_from_float": "give a whole number",
    "int_parsing": "give a whole number",
    "int_parsing_size": "give a smaller whole number",
    "int_type": "give a whole number",
    "less_than": "give less than <lt>",
    "less_than_equal": "give at most <le>",
    "list_type": LISTED,
    "mapping_type": NAMED,
    "model_attributes_type": NAMED,
    "model_type": NAMED,
    "multiple_of": "give a multiple of <multiple_of>",
    "string_too_long": "give at most <max_length> characters",
    "string_too_short": "give some text",
    "string_type": "give text",
    "tuple_type": LISTED,
}
"""Advice by pydantic's name of the fault; what stands in <> it knows."""
FILES = (".yaml", ".yml", ".pth", ".pt", ".npz", ".pkl", ".safetensors", ".bin")
"""Endings by which a place is a file and no setting."""


def nearest(name: str, known: Sequence[str], otherwise: str = "") -> str:
    """The hint that ends a message about an unknown name: the nearest known ones, else `otherwise`, else all of them."""
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else otherwise or f"known: {', '.join(sorted(known)) or 'none'}"


def explain(kind: type[BaseModel], data: Mapping[str, Any], fault: Mapping[str, Any], where: str) -> str:
    """One fault of settings on one line.

    Args:
        kind: the settings' class.
        data: what it was to be made of.
        fault: one of pydantic's `errors()`.
        where: what the settings belong to: a task, an objective, a file; may be empty.
    """
    path: tuple[str | int, ...] = tuple(fault["loc"])
    if not path:  # Of the settings together, which are too many to repeat.
        return f"{where or 'settings'}: {_advice(fault)}"
    last, owner = path[-1], _place(where, path[:-1])
    if fault["type"] == "extra_forbidden":
        known = list(_model(kind, path[:-1]).model_fields)
        return f"unknown setting {str(last)!r}{f' of {owner}' if owner else ''}; {nearest(str(last), known)}"
    if fault["type"] == "missing" and isinstance(last, str):
        return f"{_place(where, path)} is missing; give it"
    if isinstance(last, str):
        return f"setting {_place(where, path)}={shown(fault['input'])}: {_advice(fault)}"
    whole = f"setting {owner}={shown(_at(data, path[:-1]))}"
    if fault["type"] == "missing":
        return f"{whole}: value {last + 1} is missing; give it"
    return f"{whole}: value {last + 1} is {shown(fault['input'])}; {_advice(fault)}"


def shown(value: Any) -> str:
    """A value as a person writes it on the command line or in a grid file, cut where it is long."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _advice(fault: Mapping[str, Any]) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in ("value_error", "assertion_error"):  # Our own words, of a validator.
        return str(context.get("error", "it cannot be"))
    if kind == "literal_error":
        return nearest(str(fault["input"]), re.findall(r"'([^']*)'", str(context["expected"])))
    if kind in ("too_long", "too_short"):
        most, count = kind == "too_long", context["max_length" if kind == "too_long" else "min_length"]
        return f"give at {'most' if most else 'least'} {count} {'value' if count == 1 else 'values'}"
    advice = ADVICE.get(kind, "this setting takes no such value")
    for name, value in context.items():
        advice = advice.replace(f"<{name}>", f"{value:g}" if isinstance(value, float) else str(value))
    return advice


def _place(where: str, path: Sequence[str | int]) -> str:
    """Where a setting stands: `linear.epochs`, or in a file `grid.yaml: tasks, entry 2: seeds`."""
    found = where
    for part in path:
        if isinstance(part, int):
            found += f", entry {part + 1}"
        elif not found:
            found = part
        else:
            found += f".{part}" if re.fullmatch(r"[\w.]*\w", found) and not found.endswith(FILES) else f": {part}"
    return found


def _at(data: Any, path: Sequence[str | int]) -> Any:
    """What stands at a place in plain data."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _model(kind: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """The class of nested settings."""
    for part in path:
        if isinstance(part, str) and part in kind.model_fields:
            kind = _first_model(kind.model_fields[part].annotation) or kind
    return kind


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _first_model(part)) is not None), None)
