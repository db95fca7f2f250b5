"""Running pip of this environment, with its messages shown and its failure told in one line."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mae_bench.core.errors import EnvironmentFault

OFFLINE = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|ProxyError|Max retries|name resolution|getaddrinfo|unreachable",
    re.IGNORECASE,
)


def run_pip(arguments: Sequence[str | Path], console: Console) -> None:
    """Run pip to its end.

    Raises:
        EnvironmentFault: it failed; what it had begun it has undone itself.
    """
    # Settings of the user that contradict --target, or bind packages that are not asked for, do not count here.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"} | {"PIP_USER": "0"}
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--disable-pip-version-check"]
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip())
            console.print(Text(f"  {said[-1]}", "dim"), soft_wrap=True)
    if process.returncode != 0:
        raise EnvironmentFault(_reason(str(arguments[0]), said))


def _reason(verb: str, said: Sequence[str]) -> str:
    text = "\n".join(said)
    if "No module named pip" in text:
        return "this environment has no pip; run: python -m ensurepip, then this again"
    if "DO NOT MATCH THE HASHES" in text:
        return "the package index gave another file than the known one (its SHA-256 differs); nothing was installed"
    if OFFLINE.search(text):
        return "no connection to the package index, nothing was installed; connect and run this again"
    last = next((line for line in reversed(said) if "error:" in line.lower()), said[-1] if said else "no message")
    return f"pip {verb} failed: {last.strip()}; its messages are above"
