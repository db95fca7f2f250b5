"""Puts pages that `mkdocs.yml` does not name at the end of the navigation, so that a new page is never out of reach."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Add what is missing; mkdocs calls this before anything is built."""
    named = set(_paths(config.nav))
    others = sorted(page.name for page in Path(config.docs_dir).glob("*.md") if page.name not in named)
    if others:
        config.nav.append({"More": others})
    return config


def _paths(entry: Any) -> list[str]:
    """Pages below an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    return [path for part in below for path in _paths(part)]
