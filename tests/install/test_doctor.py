import json
from pathlib import Path

import pytest
from rich.console import Console

from mae_bench import doctor as room
from mae_bench import frameworks
from mae_bench.core import repairs
from mae_bench.doctor import Finding, doctor, examine
from mae_bench.frameworks import Framework

MODULES = {
    "fake_whole": "",
    "fake_broken": "raise ImportError('undefined symbol: _ZN3c10\\nmore of it')",
    "fake_crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "fake_hang": "import time; time.sleep(60)",
    "fake_after": "print('chatter of a package')",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Framework]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("fake_whole", "fake_gone", "fake_never"):
        monkeypatch.setitem(repairs.EXTRA_OF, name, "other" if name == "fake_never" else "fakes")
    monkeypatch.setattr(frameworks, "SIGNS", {"fakes": ("fake_whole",), "other": ("fake_never",)})
    monkeypatch.setattr(room, "SECONDS", 5.0)
    monkeypatch.setattr(room, "DEVICE_PROBE", 'print(\'{"gpus": [], "note": ""}\')')
    return [Framework(name, "a test") for name in (*MODULES, "fake_gone", "fake_never")]


@pytest.mark.slow
def test_each_state(fakes: list[Framework]) -> None:
    looked_at: list[str] = []
    found = {finding.part: finding for finding in examine(fakes, done=looked_at.append)}
    assert sorted(looked_at) == sorted(framework.module for framework in fakes)
    assert found["fake_whole"].state == "ok"
    assert found["fake_after"].state == "ok"  # though three before it in its process failed
    assert (found["fake_broken"].state, found["fake_broken"].detail) == ("broken", "ImportError: undefined symbol: _ZN3c10")
    assert (found["fake_crash"].state, found["fake_crash"].detail) == ("broken", "killed by SIGSEGV")
    assert (found["fake_hang"].state, found["fake_hang"].detail) == ("broken", "took longer than 5 s")
    # Its extra was installed, as `fake_whole` shows, so it has to be there; the other extra never was.
    assert (found["fake_gone"].state, found["fake_gone"].repair) == ("missing", 'pip install "mae-bench[fakes]"')
    assert found["fake_never"].state == "not installed"
    assert (found["device"].version, found["python"].state) == ("cpu", "ok")


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("not installed", 0), ("missing", 4), ("broken", 4)])
def test_exit_code(state: room.State, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # A name that looks like markup, and a detail of the user's machine, are shown as they are.
    finding = Finding("part[/x]", "1", state, "[bold] text", "" if state == "ok" else "pip install part", "extra")
    monkeypatch.setattr(room, "examine", lambda done: [finding])
    assert doctor(console=Console(width=200)) == code
    shown = capsys.readouterr().out
    assert "part[/x]" in shown
    assert state in shown
    assert ("pip install part" in shown) == (state != "ok")

    assert doctor(json=True, console=Console(width=20)) == code
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] == (code == 0)
    assert report["findings"][0]["state"] == state
    assert set(report["findings"][0]) == {"part", "version", "state", "detail", "repair", "extra"}


def test_versions_out_of_range_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        room.metadata, "requires", lambda name: ["rich>=13", "typer>=99", 'lightning!=2.6.2; extra == "contrastive"']
    )
    [finding] = room._requirements()
    assert (finding.state, finding.detail, finding.repair) == ("broken", "out of range: typer>=99", 'pip install "typer>=99"')


def test_every_framework_has_a_repair_and_its_extra_has_signs() -> None:
    for framework in frameworks.FRAMEWORKS:
        assert framework.repair
        assert not framework.extra or frameworks.SIGNS[framework.extra]
    assert frameworks.DETECTRON2.repair == "mae-bench setup detection"
