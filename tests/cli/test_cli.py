"""The command line: names, exit codes, errors on one line."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mae_bench import cli
from mae_bench.core.errors import EnvironmentFault, InputError, Stopped
from tests.results.sample import make_record, store, store_failed

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = [
    "demo",
    "pretrain",
    "run",
    "status",
    "retry",
    "table",
    "reference",
    "compare",
    "report",
    "ls",
    "data demo",
    "data check",
    "show recipe",
    "doctor",
]
COMMANDS.append("setup detection")


@pytest.fixture
def call(capsys):
    """Exit code, standard output and standard error of a command."""

    def calling(*words):
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return calling


@pytest.fixture
def out(tmp_path):
    store(tmp_path / "out", make_record("a"), make_record("b", metrics={"top1": 25.0}))
    store_failed(tmp_path / "out", make_record("c"), "it broke")
    return tmp_path / "out"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(call, command, flag):
    code, text, error = call(*command.split(), flag)
    assert code == 0 and "Usage: mae-bench" in text and not error


USAGE = [
    "runn",
    "run --nonsense",
    "run -m random:vit_demo_patch8",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never linear.epochs=3",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never word",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never knn.k=1 knn.k=2",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never --seeds x",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never --overwrite sometimes",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never --jobs 0",
    "run -m random:vit_demo_patch8 -t knn -d flder=/tmp -o /tmp/never",
    "run -m random:vit_demo_patch8 -t knn -d folder=/tmp -o /tmp/never their_config.py",
    "table",
    "ls",
    "ls nonsense",
    "show recipe nothing:demo",
    "show recipe knn:nothing",
    "data check nonsense",
    "data demo --scale huge /tmp/never",
]


@pytest.mark.parametrize("words", USAGE)
def test_u01_u04_a_wrong_command_line_is_one_line_and_2(call, words):
    code, _, error = call(*words.split())
    assert code == 2
    assert error.startswith("mae-bench: ") and len(error.splitlines()) == 1 and "Traceback" not in error


def test_a_missing_folder_is_one_line_and_3(call, tmp_path):
    for words in (["table", tmp_path / "x"], ["status", tmp_path / "x"], ["report", tmp_path / "x"], ["retry", tmp_path / "x"]):
        code, _, error = call(*words)
        assert code == 3 and len(error.splitlines()) == 1
    code, _, error = call("data", "check", f"folder={tmp_path}")
    assert code == 3 and len(error.splitlines()) == 1


@pytest.mark.parametrize("error", [EnvironmentFault("no [red]space[/nope]\nleft"), InputError("bad"), Stopped("later")])
def test_errors_have_their_codes_and_one_line(call, monkeypatch, error):
    def fail(*words, **more):
        raise error

    monkeypatch.setattr("mae_bench.status.show_status", fail)
    code, _, said = call("status", "x")
    assert code == error.exit_code and len(said.splitlines()) == 1
    assert "Traceback" not in said and ("[red]space[/nope] left" in said) == isinstance(error, EnvironmentFault)


def test_debug_shows_the_traceback(call, tmp_path):
    _, _, error = call("retry", tmp_path / "x", "--device", "cpu", "--debug")
    assert "Traceback" in error and error.splitlines()[-1].startswith("mae-bench: ")


def test_a_fault_of_the_suite_keeps_its_traceback(monkeypatch):
    def fail(*words, **more):
        raise ZeroDivisionError

    monkeypatch.setattr("mae_bench.status.show_status", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["status", "x"])


def test_table_in_every_format(call, out):
    assert "failed" in call("table", out)[1]
    assert "| b | 25.00 |" in call("table", out, "--format", "md")[1]
    rows = list(csv.DictReader(io.StringIO(call("table", out, "--format", "csv")[1])))
    assert [row["mean"] for row in rows] == ["50.0", "25.0"]
    assert len(json.loads(call("table", out, "--format", "json")[1])["scores"]) == 2
    code, _, error = call("table", out, "--format", "doc")
    assert code == 2 and "known: csv, html, json, latex, md, rich" in error


def test_published_tables_and_numbers(call, out):
    assert "[85.9]" in call("table", "--layout", "mae-table3", "--format", "md")[1].replace("\\", "")
    assert "| a | " in call("table", out, "--layout", "matrix", "--format", "md")[1]
    assert "\\toprule" in call("table", out, "--format", "latex")[1]
    code, _, error = call("table", "--layout", "mae-tabel3")
    assert code == 2 and "mae-table3" in error
    code, text, _ = call("reference", "--task", "finetune", "--arch", "vit_base_patch16", "--method", "MAE", "--format", "json")
    assert code == 0 and 83.6 in [one["value"] for one in json.loads(text)] and all(one["source"] for one in json.loads(text))
    assert "arXiv 2111.06377 Table 5" in call("reference", "--task", "segmentation", "--format", "csv")[1]
    assert "published numbers" in call("reference", "--metric", "mCE")[1]
    code, _, error = call("reference", "--task", "knitting")
    assert code == 2 and len(error.splitlines()) == 1


def test_a_broken_record_is_a_warning_line(call, out):
    next(out.glob("a/*/*/*/record.json")).write_text("{")
    code, text, error = call("table", out, "--format", "md")
    assert code == 0 and "| b | 25.00 |" in text
    assert error.startswith("warning: ") and len(error.splitlines()) == 1


def test_status_and_report(call, out, tmp_path):
    code, text, _ = call("status", out)
    assert code == 0 and "2 done, 1 failed" in text and "it broke" in text
    code, text, _ = call("report", out, "-o", tmp_path / "page.html")
    assert code == 0 and text.strip() == str(tmp_path / "page.html") and (tmp_path / "page.html").stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("models", ("vit_base_patch16", "timm:NAME")),
        ("tasks", ("knn", "finetune", "detection", "segmentation")),
        ("objectives", ("mae", "simclr", "supervised")),
        ("datasets", ("folder", "coco", "ade20k")),
        ("formats", ("mae",)),
        ("layouts", ("mae-table1", "mae-table7", "fig5", "fig7", "fig9", "robustness", "matrix", "sweep")),
        ("archs", ("vit_base_patch16", "vit_demo_patch8")),
        ("recipes", ("knn:paper", "mae:demo", "detection:demo", "partial:paper-0.5")),
    ],
)
def test_ls(call, what, names):
    code, text, _ = call("ls", what)
    listed = [line.split()[0] for line in text.splitlines()]
    assert code == 0 and set(names) <= set(listed)


def test_show_recipe(call):
    code, text, _ = call("show", "recipe", "knn:paper")
    assert code == 0 and "temperature: 0.07" in text
    assert "mask_ratio: 0.75" in call("show", "recipe", "mae:paper")[1]


def test_e06_a_terminal_without_some_characters_shows_the_rest(tmp_path):
    store(tmp_path, make_record("\N{ROCKET}", seed=0), make_record("\N{ROCKET}", seed=1, metrics={"top1": 51.0}))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "COLUMNS": "40", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "mae_bench.cli", "table", str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "50.50 ?" in done.stdout and "\x1b" not in done.stdout


def test_version(call):
    assert call("--version")[1].strip() == cli.__version__


@pytest.mark.slow
def test_data_demo_and_check(call, tmp_path):
    code, text, _ = call("data", "demo", tmp_path / "my data", "--scale", "tiny")
    assert code == 0
    for line in text.splitlines():
        if line.startswith("-d "):
            code, said, _ = call("data", "check", shlex.split(line)[1])
            assert code == 0 and "0 bad; fingerprint " in said
    bad = next((tmp_path / "my data" / "folder" / "train").rglob("*.png"))
    bad.write_bytes(b"no picture")
    code, said, _ = call("data", "check", f"folder={tmp_path / 'my data' / 'folder'}")
    assert code == 3 and str(bad) in said and "1 bad" in said


def test_an_output_folder_that_is_a_file_is_told_with_the_fix(call, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = call("run", "-m", "random:vit_demo_patch8", "-t", "knn", "-d", "folder=x", "-o", tmp_path / "file")
    assert (
        code == 2
        and error == f"mae-bench: -o {tmp_path / 'file'} is a file; give a folder, a new one or that of an earlier run\n"
    )


def test_nothing_of_a_line_is_cut_or_folded_in_a_pipe(call, tmp_path):
    long = "a-very-long-name-of-a-model-that-no-window-of-eighty-columns-has-room-for-beside-all-the-rest"
    store_failed(tmp_path, make_record(long), f"it broke because of {'many ' * 30}things")
    (line, *_) = call("status", tmp_path)[1].splitlines()
    assert line.startswith("failed ") and long in line and "many things" in line and "log.txt)" in line
    text = call("reference", "--task", "detection", "--method", "MAE")[1]
    assert "…" not in text and "[1] arXiv" in text and "published numbers" in text
