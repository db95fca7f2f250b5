"""How far the cells of an output folder are, read from their files."""

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mae_bench.clock import noted_seconds
from mae_bench.core.plural import counted
from mae_bench.core.progress import FILE
from mae_bench.display import duration
from mae_bench.locks import is_locked
from mae_bench.pretrain_state import find_pretrainings, tell
from results.names import plain
from results.store import StoredCell, read_object, stored_cells

STYLES = {
    "done": "green",
    "failed": "bold red",
    "diverged": "bold red",
    "running": "cyan",
    "interrupted": "yellow",
    "planned": "dim",
}


def show_status(out: Path, console: Console) -> None:
    """One line for each cell that is not done, and how many there are of each state; before them how far pretrainings are."""
    there = _show_pretrainings(out, console)
    cells = stored_cells(out, lambda line: console.print(Text(f"warning: {line}"), soft_wrap=True))
    states = [state_of(cell) for cell in cells]
    for cell, state in zip(cells, states, strict=True):
        if state != "done":
            line = Text(f"{state:<11} ", style=STYLES[state])
            console.print(line + Text(f"{plain(cell.title)}  {details(cell, state)}".rstrip(), style=""), soft_wrap=True)
    counts = Counter(states)
    told = ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])
    if told or not there:
        console.print(Text(told or "no cells yet"), soft_wrap=True)
    if any(state in ("failed", "interrupted", "planned") for state in states):
        console.print(Text(f"mae-bench retry {out} runs what is not done"), soft_wrap=True)


def _show_pretrainings(out: Path, console: Console) -> int:
    """Tell of each pretraining that is not finished, and of the one in the folder itself; gives how many there are."""
    found = find_pretrainings(out)
    finished = [one for one in found if one.state == "finished" and one.folder != out]
    for one in found:
        if one not in finished:
            for line in tell(one):
                console.print(Text(plain(line)), soft_wrap=True)
    if finished:
        console.print(Text(f"{counted(len(finished), 'pretraining')} finished"), soft_wrap=True)
    return len(found)


def state_of(cell: StoredCell) -> str:
    """State of a cell, told apart by whether a process works on it at this moment."""
    if cell.state == "done":
        return "done"
    if is_locked(cell.folder):
        return "running"
    return cell.state if cell.state in ("failed", "diverged", "planned") else "interrupted"


def details(cell: StoredCell, state: str) -> str:
    """A few words about a cell that is not done."""
    if state in ("failed", "diverged"):
        return plain(f"{cell.message} (log: {cell.folder / 'log.txt'})")
    spent = noted_seconds(cell.folder)
    words = [f"{duration(spent)} so far"] if spent is not None else []
    now = read_object(cell.folder / FILE)
    if now:
        words.insert(0, f"{now.get('title')} {now.get('done')}/{now.get('total')} {now.get('note', '')}".rstrip())
    return plain(", ".join(words))
