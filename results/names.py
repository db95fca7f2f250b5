"""Names of models and data sets as they go into folders, terminals and tables."""

import hashlib
import re
import unicodedata

PER_IMAGE = "per_image.json"
"""In a cell's folder: `{metric: [one value an image, in the order of the evaluation split]}`."""
PER_CLASS = "per_class.json"
"""In a cell's folder: the figures of each class, as the task that leaves it also reads it."""
FEATURES = "features.json"
"""In a cell's folder: `{features: {"seconds": their time, "waited": seconds, "found": whether another cell computed them}}`."""

LONGEST = 64
"""Characters of a folder name."""
PORTS = tuple(f"{word}{number}" for word in ("com", "lpt") for number in range(1, 10))
RESERVED = frozenset({"con", "prn", "aux", "nul", "ckpt", "data", "pretrain", *PORTS})
"""Names that a file system or the suite itself gives another meaning."""


def plain(text: str) -> str:
    """A text on one line without control characters, so that a terminal shows it and does nothing else."""
    return text if text.isprintable() else "".join(_visible(char) for char in text)


def slug(text: str) -> str:
    """A folder name for any text: itself where that is safe, else cleaned and told apart by a hash."""
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip(".-")[:LONGEST] or "x"
    if clean == text and clean.lower() not in RESERVED:
        return clean
    return f"{clean}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _visible(char: str) -> str:
    if char in "\t\r\n":
        return " "
    return "?" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char
