"""What a command line gets wrong in its words alone: told before torch is loaded, which takes seconds.

Everything here is checked again by who uses it; what is not seen here is told later, and as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.forms import unknown_architecture, unknown_source
from backbones.released import releases
from mae_bench.core import find
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.listing import ABLATIONS, DATASETS, OBJECTIVES, architectures

if TYPE_CHECKING:
    from mae_bench.start import Asked
    from mae_bench.start_pretrain import Wanted

KINDS = ("timm", "hf")
"""What stands before the colon of a SRC whose names are elsewhere."""


def refuse_run(asked: "Asked") -> None:
    """Refuse a `run` whose tasks, settings, data or models cannot be.

    Raises:
        MaeBenchError: the first thing that is wrong.
    """
    from mae_bench.choose import ROOM, choose, parse_seeds, task_words, wanted_of
    from mae_bench.start import read_words
    from tasks.handle import open_data

    overrides, grid = read_words(asked)
    if grid is None:
        wanted = wanted_of(task_words(asked.tasks), overrides, parse_seeds(asked.seeds), ROOM)
        data, models = asked.data, asked.models
    else:
        wanted, data, models = grid.wanted(), grid.data, grid.models
    choose(wanted, ROOM)
    for text in dict.fromkeys(data):
        open_data(text)
    for text in dict.fromkeys(models):
        refuse_source(text)


def refuse_pretraining(wanted: "Wanted") -> None:
    """Refuse a `pretrain` whose objective, recipe, settings, architecture or data cannot be.

    Raises:
        MaeBenchError: the first thing that is wrong.
    """
    from tasks.handle import open_data

    overrides = wanted.overrides()
    recipes = find.load(OBJECTIVES, wanted.objective, what="objective").RECIPES
    if wanted.recipe not in recipes:
        raise ConfigError(f"unknown recipe {wanted.objective}:{wanted.recipe}; {nearest(wanted.recipe, list(recipes))}")
    recipes[wanted.recipe].override(overrides, where=wanted.objective)
    refuse_architecture(wanted.arch)
    open_data(wanted.data)


def refuse_ablation(name: str, arch: str, tasks: str, data: str) -> None:
    """Refuse an `ablate` whose name, architecture or tasks are none, or whose data are no image folder.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    from mae_bench.choose import ROOM, choose, task_words, wanted_of

    known = [found.replace("_", "-") for found in find.names(ABLATIONS)]
    if name.replace("_", "-") not in known:
        raise ConfigError(f"unknown ablation {name!r}; {nearest(name, known)}")
    refuse_architecture(arch)
    choose(wanted_of(task_words([tasks]), {}, [0], ROOM), ROOM)
    kind = data.partition("=")[0].partition("+")[0]
    if kind != "folder" and kind in find.names(DATASETS):
        raise ConfigError(f"ablate takes image folders, and {kind} is another kind of data set; give -d folder=PATH")


def refuse_architecture(name: str) -> None:
    """Refuse a name of no architecture, where the files of the zoo write theirs out.

    Raises:
        ConfigError: it is none.
    """
    known = architectures()
    if known is not None and name not in known:
        raise unknown_architecture(f"--arch {name}", name, known)


def refuse_retry(out: Path) -> None:
    """Refuse to run again what is in a folder without cells; nothing is to be written there.

    Raises:
        InputError: no folder, or no cells in it.
    """
    from mae_bench.pretrain_state import command, find_pretrainings
    from results.store import stored_cells

    if stored_cells(out, lambda line: None):
        return
    open_ones = [one for one in find_pretrainings(out) if one.state not in ("finished", "running")]
    words = f"; a pretraining there goes on by: {command(open_ones[0])}" if open_ones and command(open_ones[0]) else ""
    raise InputError(f"{out} holds no cells of a run{words or '; give the folder that was the -o of one'}")


def refuse_scale(name: str) -> None:
    """Refuse a scale of the demo data that is none.

    Raises:
        ConfigError: it is none.
    """
    from tasks.scenes.demo import SCALES

    if name not in SCALES:
        raise ConfigError(f"unknown scale {name!r}; {nearest(name, list(SCALES))}")


def refuse_source(text: str) -> None:
    """Refuse a SRC that can be nothing: an unknown name, or a path at which nothing is.

    Raises:
        ConfigError: an unknown name.
        InputError: there is no such file.
    """
    from backbones.opened import OpenFile

    forms = _forms(text)
    if any(_exists(form) for form in forms) or not forms[-1].isprintable():
        return
    source, known = forms[-1], architectures()
    kind, colon, rest = source.partition(":")
    if colon and kind in KINDS:
        return
    if colon and kind == "random":
        if known is not None and rest not in known:
            raise unknown_architecture(source, rest, known)
    elif "/" in source or Path(source).suffix:
        OpenFile(Path(source))
    elif known is not None and source and source not in known and source not in releases():
        raise unknown_source(source, [*known, *releases()])


def _forms(text: str) -> Sequence[str]:
    """A SRC with and without its NAME and its fragment; the last has neither."""
    bare = text.partition("=")[2] if "=" in text.partition("#")[0] else text
    return [text, bare, text.rpartition("#")[0] or text, bare.rpartition("#")[0] or bare]


def _exists(text: str) -> bool:
    try:
        return Path(text).exists() or Path(text).is_symlink()
    except (OSError, ValueError):
        return False
