"""Numbers with their words."""


def counted(count: int, word: str, words: str = "") -> str:
    """A number with its word: `1 image`, `2 images`; `words` is the plural where it is not made by an s."""
    return f"{count} {word if count == 1 else words or f'{word}s'}"


def are(count: int) -> str:
    """The verb behind a number of things: 1 `is`, 2 `are`."""
    return "is" if count == 1 else "are"
