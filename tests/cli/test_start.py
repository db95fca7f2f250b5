"""Starting: everything that can be refused is refused before anything is written, and a signal is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mae_bench import cli
from tests.runner.conftest import write_images

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def data(tmp_path):
    return f"folder={write_images(tmp_path / 'pets')}"


def pretrain(capsys, data, out, *words, objective="mae", arch="vit_demo_patch8"):
    given = ["pretrain", objective, "--arch", arch, "-d", data, "-o", str(out), "--recipe", "demo", "--device", "cpu", *words]
    return cli.main(given), capsys.readouterr().err


REFUSED = [
    ({"objective": "nosuch"}, (), 2, "nosuch"),
    ({"arch": "nosuch"}, (), 2, "nosuch"),
    ({"data": "folder=/nowhere"}, (), 3, "/nowhere"),
    ({}, ("epochs=3", "mae.epochs=4"), 2, "epochs is given twice ('3' and '4')"),
    ({}, ("epohcs=3",), 2, "epochs"),
    ({}, ("--recipe", "nosuch"), 2, "nosuch"),
    ({}, ("--precision", "int8"), 2, "int8"),
]


@pytest.mark.parametrize(("words", "more", "code", "line"), REFUSED, ids=[line for *_, line in REFUSED])
def test_a_refused_pretraining_leaves_nothing(capsys, tmp_path, data, words, more, code, line):
    found, said = pretrain(capsys, words.pop("data", data) if "data" in words else data, tmp_path / "new", *more, **words)
    assert found == code and line in said and len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_refused_pretraining_leaves_a_finished_one_as_it_is(capsys, tmp_path, data):
    out = tmp_path / "out"
    small = ("epochs=1", "warmup_epochs=0", "batch_size=4", "image_size=32")
    assert pretrain(capsys, data, out, *small)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    code, said = pretrain(capsys, data, out, *small, "mask_ratio=0.5")
    assert code == 2 and "holds another pretraining" in said
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert json.loads((out / "status.json").read_text())["state"] == "done"


def call(capsys, *words):
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.apart
def test_a_dry_run_shows_the_plan_and_touches_nothing(capsys, tmp_path, data):
    words = [
        "run",
        "-m",
        "random:vit_demo_patch8",
        "-t",
        "knn:demo",
        "-d",
        data,
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
        "knn.k=3",
    ]
    code, text, _ = call(capsys, *words, "--dry-run", "--seeds", "0,1")
    assert code == 0 and "2 missing" in text and "2 cells to run: about" in text and not (tmp_path / "out").exists()
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"models: [random:vit_demo_patch8]\ntasks: [{{task: 'knn:demo', sweep: {{k: [1, 3]}}}}]\ndata: ['{data}']\n")
    code, text, _ = call(capsys, "run", grid, "-o", tmp_path / "out", "--device", "cpu", "--dry-run")
    assert code == 0 and "2 missing" in text
    grid.write_text(grid.read_text() + "limits: {cells: 1}\n")
    for more in (["--dry-run"], []):
        code, _, said = call(capsys, "run", grid, "-o", tmp_path / "out", "--device", "cpu", *more)
        assert code == 2 and "limits.cells is 1" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-m", "x"), "-m beside"),
        (("knn.k=3",), "KEY=VALUE beside"),
        (("--seeds", "1"), "--seeds beside"),
        (("other.yaml",), "a second grid file beside"),
        (("--time-limit", "soon"), "'soon' is no time"),
    ],
)
def test_u04_a_grid_and_words_that_contradict_it(capsys, tmp_path, words, line):
    (tmp_path / "grid.yaml").write_text("models: [a]\ntasks: [knn]\ndata: [folder=x]\n")
    code, _, said = call(capsys, "run", tmp_path / "grid.yaml", "-o", tmp_path / "out", "--device", "cpu", *words)
    assert code == 2 and line in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_r03_a_signal_while_a_command_is_checked_is_one_line_and_75(tmp_path, number):
    script = f"""
import sys, time
from pathlib import Path
import mae_bench.early
def wait(asked):
    Path({str(tmp_path / "ready")!r}).touch()
    time.sleep(30)
mae_bench.early.refuse_run = wait
from mae_bench import cli
sys.exit(cli.main(["run", "-m", "x", "-t", "knn", "-d", "folder=x", "-o", {str(tmp_path / "out")!r}]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, env=environment)
    while not (tmp_path / "ready").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 75 and len(said.splitlines()) == 1 and number.name in said
    assert not (tmp_path / "out").exists()
