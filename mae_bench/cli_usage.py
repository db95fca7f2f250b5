"""What is wrong with the words of a command line, on one line with the nearest word there is and where to read on."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

JARGON = {
    r"Input should be a valid integer.*": "give a whole number",
    r"Input should be a valid number.*": "give a number",
}
"""What the parser's own words mean."""


def usage_line(error: Exception, said: str, given: Sequence[str]) -> str:
    """The line about a command line that cannot be parsed.

    Args:
        error: raised by typer; its context, where it has one, knows the command and its words.
        said: its message.
        given: the words of the command line, for an error that knows no command.
    """
    context: Any = getattr(error, "ctx", None)
    text = re.sub(r"\s*\(?(Did you mean|Possible options).*$", "", " ".join(said.split())).rstrip(". ")
    for theirs, ours in JARGON.items():
        text = re.sub(theirs, ours, text)
    found = re.match(r"No such (?:command '|option: )([^']+)", text)
    close = get_close_matches(found[1], _words(context), n=1, cutoff=0.5) if found and context is not None else []
    hint = f"; did you mean {close[0]}?" if close else ""
    named = " ".join(["mae-bench", *(word for word in given[:1] if word.isalpha())])
    return f"{text}{hint}; see {named if context is None else context.command_path} --help"


def _words(context: Any) -> list[str]:
    """Commands and options that could stand there."""
    command = context.command
    return [*getattr(command, "commands", {}), *(word for one in command.params for word in (*one.opts, *one.secondary_opts))]
