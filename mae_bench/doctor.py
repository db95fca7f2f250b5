"""Does everything the suite stands on work here? One line for each part, with the command that repairs it."""

import json as json_format
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.progress import Bar
from mae_bench.extension import here
from mae_bench.frameworks import FRAMEWORKS, Framework, Trials, promised, run_python
from results.drawing import draw

# A trial that takes longer has failed. The slowest takes about 15 s from a cold disk; many at once on a network disk need more.
SECONDS = 180.0

State = Literal["ok", "missing", "broken", "not installed"]
STYLES: dict[State, str] = {"ok": "green", "missing": "red", "broken": "red", "not installed": "dim"}

# Tries one statement after another; the mark tells its lines from what packages print while they are imported.
MARK = "mae-bench doctor: works:"
CHAIN = f"import sys\nfor i, text in enumerate(sys.argv[1:]): exec(text, {{}}); print({MARK!r}, i, flush=True)"

DEVICE_PROBE = """
import json, warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch
    cuda = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
notes = [str(w.message) for w in seen if "CUDA" in str(w.message)]
if torch.version.cuda is None:
    notes.append("this torch is a build without CUDA")
print(json.dumps({"gpus": [f"{g.name} ({g.total_memory / 2**30:.0f} GiB)" for g in gpus], "note": notes[0] if notes else ""}))
"""


@dataclass(frozen=True)
class Finding:
    """The state of one part."""

    part: str
    version: str
    state: State
    """`missing` is a part of an extra that was installed; `not installed` one of an extra that never was, which is no fault."""
    detail: str = ""
    """For what the part is used, or the first line of the error."""
    repair: str = ""
    """The command that mends it; empty when it is ok."""
    extra: str = ""


def doctor(json: bool = False, *, console: Console | None = None) -> int:
    """Try every part and show what was found.

    Args:
        json: print one JSON object (`ok`, `findings`) instead of the table.
        console: where the result goes; standard output when not given. Progress goes to standard error.

    Returns:
        The exit code: 0 when the core and all that the installed extras promise works, else 4.
    """
    findings = _examine_with_bar()
    healthy = all(finding.state in ("ok", "not installed") for finding in findings)
    screen = console or Console()
    if json:
        screen.out(json_format.dumps({"ok": healthy, "findings": [asdict(f) for f in findings]}, indent=2), highlight=False)
    else:
        draw(_table(findings), screen)
        for finding in findings:
            if finding.repair:
                screen.print(Text(f"{finding.part}: {finding.repair}", STYLES[finding.state]), soft_wrap=True)
        screen.print("everything that is installed works" if healthy else "some parts do not work; run the lines above")
    return 0 if healthy else EnvironmentFault.exit_code


def examine(frameworks: Sequence[Framework] = FRAMEWORKS, *, done: Callable[[str], None] = lambda part: None) -> list[Finding]:
    """Look at every part: the packages of an extra in one process, as many extras at once as there are cores.

    Args:
        frameworks: the packages to try.
        done: called with the name of each part when it has been looked at.
    """
    extras = list(dict.fromkeys(framework.extra for framework in frameworks))
    groups = [[framework for framework in frameworks if framework.extra == extra] for extra in extras]
    trials = Trials()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) as pool:
        try:
            device = pool.submit(_device, trials)
            packages = [finding for group in pool.map(lambda members: _look(members, done, trials), groups) for finding in group]
            device.result()
        except BaseException:  # a signal: whoever waits for the threads would wait for the slowest trial
            trials.stop()
            raise
    interpreter = Finding("python", platform.python_version(), "ok", sys.executable)
    return [interpreter, *packages, *_requirements(), device.result()]


def _examine_with_bar() -> list[Finding]:
    bar = Bar(Console(stderr=True))
    with bar.live():
        bar.start("trying every part", len(FRAMEWORKS))
        return examine(done=lambda part: bar.advance(note=part))


def _look(members: Sequence[Framework], done: Callable[[str], None], trials: Trials) -> list[Finding]:
    errors = _try([member for member in members if member.present], done, trials)
    for member in members:
        if not member.present:
            done(member.module)
    return [_finding(member, errors.get(member.module, "")) for member in members]


def _try(members: Sequence[Framework], done: Callable[[str], None], trials: Trials) -> dict[str, str]:
    """The error of each package that does not work.

    They share a process, since most import torch first; after one has failed the others go on in a process without it.
    """
    errors: dict[str, str] = {}
    left = list(members)
    while left:
        passed: list[str] = []

        def heard(line: str, passed: list[str] = passed, left: list[Framework] = left) -> None:
            if line.startswith(MARK):
                passed.append(left[len(passed)].module)
                done(passed[-1])

        statements = [member.statement for member in left]
        outcome = run_python(["-c", CHAIN, *statements], seconds=SECONDS, heard=heard, trials=trials)
        if len(passed) < len(left):
            errors[left[len(passed)].module] = outcome.error
            done(left[len(passed)].module)
        left = left[len(passed) + 1 :]
    return errors


def _finding(framework: Framework, error: str) -> Finding:
    name, extra = framework.module, framework.extra
    if not framework.present:
        state: State = "missing" if promised(extra) else "not installed"
        return Finding(name, "", state, framework.purpose, framework.repair, extra)
    version = framework.version or (here().note().get("version", "") if name == "detectron2" else "")
    if error:
        return Finding(name, version, "broken", error, _reinstall(framework), extra)
    return Finding(name, version, "ok", framework.purpose, extra=extra)


def _reinstall(framework: Framework) -> str:
    """The command that puts a broken package anew: pip leaves one alone that it believes to be there."""
    if framework.repair.startswith("pip install"):
        name = next(iter(framework.distributions), framework.module)
        return f"pip install --force-reinstall --no-deps {name}=={framework.version}" if framework.version else framework.repair
    return framework.repair


def _requirements() -> list[Finding]:
    """One finding on the installed versions that the suite's own requirements exclude; none when it is not installed by pip."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("mae-bench") or []
    except metadata.PackageNotFoundError:
        return []
    wrong: list[str] = []
    for requirement in map(Requirement, lines):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name}{requirement.specifier}")
    if not wrong:
        return [Finding("requirements", "", "ok", "versions of all of them are in range")]
    repair = "pip install " + " ".join(f'"{line}"' for line in sorted(set(wrong)))
    return [Finding("requirements", "", "broken", f"out of range: {', '.join(sorted(set(wrong)))}", repair)]


def _device(trials: Trials) -> Finding:
    outcome = run_python(["-c", DEVICE_PROBE], seconds=SECONDS, trials=trials)
    if not outcome.ok:
        return Finding("device", "", "broken", outcome.error, "see torch above")
    found = json_format.loads(outcome.output.splitlines()[-1])
    note = found["note"].splitlines()[0] if found["note"] else ""
    return Finding("device", "cuda" if found["gpus"] else "cpu", "ok", ", ".join(found["gpus"]) or note)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("part", "version", "state", "extra", "what"):
        table.add_column(column, overflow="fold", no_wrap=column in ("part", "state"))
    for finding in findings:
        state = Text(finding.state, STYLES[finding.state])
        table.add_row(Text(finding.part), Text(finding.version), state, Text(finding.extra), Text(finding.detail))
    return table
