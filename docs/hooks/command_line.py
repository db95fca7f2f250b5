"""Writes the page of the command line from the program itself whenever the site is built, so that it cannot go stale."""

from collections.abc import Iterator, Sequence
from typing import Any

from typer.main import get_command

from mae_bench.cli import app

PAGE = "cli.md"
PROGRAM = "mae-bench"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put every command under the words that the page begins with; mkdocs calls this for each page."""
    return f"{markdown}\n{reference()}" if page.file.src_uri == PAGE else markdown


def reference() -> str:
    """Every command with its arguments and options, as Markdown."""
    return "\n".join(section(path, command) for path, command in commands())


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that call it, sorted."""
    yield from _below(PROGRAM, get_command(app))


def section(path: str, command: Any) -> str:
    """One command: what it does, its usage, a table of its arguments and one of its options."""
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    options = [one for one in shown if one.param_type_name == "option"]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    lines = [f"## {path}", "", command.help or "", "", "```", usage(path, shown), "```", ""]
    for head, some in (("argument", arguments), ("option", options)):
        if some:
            lines += [*_table(head, some), ""]
    return "\n".join(lines)


def usage(path: str, parameters: Sequence[Any]) -> str:
    """The line that shows how a command is called: what is required, and that there is more."""
    needed = [f"{one.opts[0]} {_value(one)}" for one in parameters if one.param_type_name == "option" and one.required]
    given = [_value(one) if one.required else f"[{_value(one)}]" for one in parameters if one.param_type_name == "argument"]
    more = any(one.param_type_name == "option" and not one.required for one in parameters)
    return " ".join([path, *given, *needed, *(["[OPTIONS]"] if more else [])])


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if getattr(child, "commands", None):
            yield from _below(f"{path} {name}", child)
        else:
            yield f"{path} {name}", child


def _table(head: str, parameters: Sequence[Any]) -> list[str]:
    lines = [f"| {head} | what it is |", "|---|---|"]
    for one in parameters:
        name = _value(one) if head == "argument" else ", ".join([*one.opts, *one.secondary_opts])
        value = f" {_value(one)}" if head == "option" and not one.is_flag else ""
        lines.append(f"| {_code(name + value)} | {_cell(one)} |")
    return lines


def _cell(one: Any) -> str:
    notes = [one.help or ""]
    if one.required and one.param_type_name == "option":
        notes.append("Required.")
    if one.default not in (None, False, (), [], "") and not callable(one.default):
        notes.append(f"Without it: {_code(str(one.default))}.")
    return " ".join(note for note in notes if note).replace("|", "\\|")


def _value(one: Any) -> str:
    """What stands for the value: the program's word for it, else the parameter's name."""
    text = (one.metavar or one.name.upper()).strip()
    return text[1:-1] if text.startswith("[") and text.endswith("]") and text.count("[") == 1 else text


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
