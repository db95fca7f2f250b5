"""What README and the pages show exists: commands, options, names, settings, links."""

import re
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.exceptions import TyperException
from typer.main import get_command

from mae_bench.ablate import ROOM as ABLATIONS
from mae_bench.cli import app
from mae_bench.core import find
from mae_bench.core.errors import MaeBenchError
from mae_bench.listing import DATASETS, LAYOUTS, OBJECTIVES, TASKS, listing
from mae_bench.start import recipe_text
from tests.docs.pages import DOCS, LINK, PAGES, ROOT, Command, anchors, blocks, commands, inlines

PROGRAM = "mae-bench"
SHOWN = [command for page in PAGES for command in commands(page, page.read_text(encoding="utf-8"), PROGRAM)]
ARCHITECTURES = {item.name for item in listing("models")}
PLACEHOLDERS = {"TASK", "NAME", "DATASET", "OBJECTIVE", "A", "B", "SRC", "OUT", "T", "M", "ARCH"}


def test_there_are_commands_to_check() -> None:
    assert len([command for command in SHOWN if command.whole]) > 25
    assert {command.page.name for command in SHOWN} >= {"README.md", "tutorial.md", "checkpoints.md", "tables.md"}


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_commands_are_as_shown(shown: Command) -> None:
    check(shown)


@pytest.mark.parametrize(
    "line",
    [
        "mae-bench evaluate vit.pth",
        "mae-bench run -m vit.pth -t knn -d folder=x -o out --sedes 0",
        "mae-bench run -m vit.pth -t knn -d folder=x",
        "mae-bench run -m vit.pth -t nearest -d folder=x -o out",
        "mae-bench run -m vit.pth -t knn,linear:papper -d folder=x -o out",
        "mae-bench run -m vit.pth -t knn -d voc=x -o out",
        "mae-bench run -m random:vit_bas_patch16 -t knn -d folder=x -o out",
        "mae-bench run -m vit.pth -t linear -d folder=x -o out linear.epoch=3",
        "mae-bench pretrain ma --arch vit_base_patch16 -d folder=x -o out",
        "mae-bench pretrain mae --arch vit_base -d folder=x -o out",
        "mae-bench pretrain mae --arch vit_base_patch16 -d folder=x -o out masking=0.5",
        "mae-bench table out --layout table3",
        "mae-bench ls things",
        "mae-bench show recipe knn:papper",
        "mae-bench ckpt convert vit.pth out --to tim",
        "mae-bench data check voc=x",
    ],
)
def test_a_command_that_is_not_is_found(line: str) -> None:
    (found,) = commands(Path("page.md"), f"```\n{line}\n```\n", PROGRAM)
    with pytest.raises((AssertionError, TyperException, MaeBenchError)):
        check(found)


def check(shown: Command) -> None:
    """Parse a command without running it, and look up every name in it."""
    command, words = leaf(shown.words)
    if not shown.whole:
        options = {word for one in command.params for word in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= options
        if command.name == "pretrain" and words and words[0] in find.names(OBJECTIVES):
            settings("pretrain", {"objective": words[0], "settings": [word for word in words if re.match(r"[a-z_.]+=", word)]})
        return
    values = command.make_context(PROGRAM, list(words)).params
    for one in command.params:
        if one.param_type_name == "option" and re.fullmatch(r"[a-z0-9_]+(\|[a-z0-9_]+)+", one.metavar or ""):
            known(one.opts[-1], many(values[one.name]), one.metavar.split("|"))
    look_up(command.name, values)


def leaf(words: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """The command that is called, and the words it is given."""
    command: Any = get_command(app)
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def look_up(name: str, values: dict[str, Any]) -> None:
    """Every name that a command is given is one that it takes."""
    known("data set", [word.partition("=")[0].partition("+")[0] for word in many(values.get("data"))], find.names(DATASETS))
    for task in [word for text in many(values.get("task")) for word in text.split(",") if word]:
        if name == "reference" or task in PLACEHOLDERS:
            continue
        recipe_text(task if ":" in task else f"{task}:paper")
    for source in many(values.get("model")):
        if ":" in source and source.rpartition("=")[2].startswith("random:"):
            known("architecture", [source.rpartition(":")[2]], ARCHITECTURES)
    settings(name, values)
    if name in ("pretrain", "ablate"):
        known("architecture", many(values.get("arch")), ARCHITECTURES)
    known("layout", many(values.get("layout")), [item.replace("_", "-") for item in find.names(LAYOUTS)])
    if name == "pretrain":
        recipe_text(f"{values['objective']}:{values['recipe']}")
    elif name == "ablate":
        known("ablation", [values["name"]], [item.replace("_", "-") for item in find.names(ABLATIONS)])
    elif name == "ls":
        listing(values["what"])
    elif name == "recipe" and values["name"] != "TASK:RECIPE":
        recipe_text(values["name"])


def settings(name: str, values: dict[str, Any]) -> None:
    """Every `key=value` changes a setting that there is."""
    words = [word for word in many(values.get("settings") or values.get("words")) if "=" in word]
    for word in words:
        key = word.partition("=")[0]
        setting(f"{values['objective']}.{key}" if name == "pretrain" else key)


def setting(dotted: str) -> None:
    """A task or an objective has a setting of that name."""
    owner, _, key = dotted.partition(".")
    place = find.load(TASKS if owner in find.names(TASKS) else OBJECTIVES, owner, what="task").RECIPES["paper"]
    for part in key.split("."):
        assert part in type(place).model_fields, f"{owner} has no setting {key}"
        place = getattr(place, part)


def known(kind: str, names: Iterable[str], there: Iterable[str]) -> None:
    unknown = set(names) - set(there) - PLACEHOLDERS
    assert not unknown, f"no such {kind}: {unknown}"


def many(value: Any) -> list[str]:
    return [] if not value else [value] if isinstance(value, str) else [str(one) for one in value]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_and_settings_named_in_sentences_exist(page: Path) -> None:
    """`linear:paper` and `finetune.epochs=50` between backquotes."""
    tasks = {*find.names(TASKS), *find.names(OBJECTIVES)}
    for text in inlines(page.read_text(encoding="utf-8")):
        owner, colon, recipe = text.partition(":")
        if colon and owner in tasks and re.fullmatch(r"[a-z0-9-]+", recipe):
            recipe_text(text)
        for word in text.split():
            if re.fullmatch(r"[a-z]+\.[a-z_.0-9]+=\S*", word) and word.partition(".")[0] in tasks:
                setting(word.partition("=")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, place = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if page.parent == DOCS and path:
            assert DOCS in file.resolve().parents, f"{page.name} links to {target}, which is outside of the site"
        if place and file.suffix == ".md":
            assert place in anchors(file.read_text(encoding="utf-8")), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_files_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [line for block in blocks(text) for line in block.splitlines()]
    for line in [*lines, *inlines(text)]:
        if found := re.match(r"make ([a-z]+)\b", line):
            assert re.search(rf"^{found[1]}:", makefile, re.MULTILINE), f"{page.name}: {line}"
        for file in re.findall(r"^(?:backbones|tasks|mae_bench|results|tests|benchmarks)/[\w/.-]+\.(?:py|md|csv)$", line):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


def test_the_page_of_the_command_line_has_everything() -> None:
    page = runpy.run_path(str(DOCS / "hooks" / "command_line.py"))["reference"]()
    walked = dict(walk((), get_command(app)))
    assert len(walked) >= 20
    for path, command in walked.items():
        title = f"## {PROGRAM} {' '.join(path)}\n"
        assert title in page
        section = page.partition(title)[2].partition("\n## ")[0]
        for one in command.params:
            for word in one.opts if one.param_type_name == "option" else []:
                assert re.search(rf"{re.escape(word)}[ `,]", section), f"{path} {word}"
            assert not one.help or one.help.replace("|", "\\|") in section


def walk(path: tuple[str, ...], command: Any) -> Iterable[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None)
    if not below:
        yield path, command
    for name, child in (below or {}).items():
        yield from walk((*path, name), child)
