"""`mae-bench ckpt`: exit codes, one-line errors, what is shown."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backbones.vit import initial_weights
from backbones.zoo import vit
from mae_bench import cli
from tests.backbones.conftest import shaken

pytestmark = pytest.mark.slow

ARCH = vit.VARIANTS["vit_demo_patch8"]


@pytest.fixture
def call(capsys, monkeypatch):
    """Exit code, standard output and standard error of a command."""
    monkeypatch.setenv("COLUMNS", "160")

    def calling(*words):
        code = cli.main(["ckpt", *(str(word) for word in words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return calling


@pytest.fixture
def path(tmp_path) -> Path:
    """A file as MAE's training writes it: settings beside the weights, a head that is left out."""
    from argparse import Namespace

    state = {**shaken(initial_weights(ARCH, 0)), "head.weight": torch.ones(3, 128), "head.bias": torch.ones(3)}
    torch.save({"model": state, "epoch": 4, "args": Namespace(mask_ratio=0.75, blr=1.5e-4)}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_inspect_shows_what_the_file_holds(call, path):
    code, text, error = call("inspect", path)
    assert code == 0 and not error
    assert "mask_ratio=0.75" in text and "vit_w128_d4_h2_patch8" in text and "weights: trained" in text
    assert "blocks.{0-3}.attn.qkv.weight" in text and "384 x 128" in text and "classification head" in text
    assert "54 matched, 4 dropped" in text and "blocks.2.attn.qkv.weight" not in text
    assert "blocks.2.attn.qkv.weight" in call("inspect", path, "--all")[1]


def test_inspect_as_json_has_every_tensor_and_block(call, path):
    import hashlib

    code, text, _ = call("inspect", path, "--json")
    found = json.loads(text)
    assert code == 0 and found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["settings"]["blr"] == 1.5e-4 and found["verdict"] == "trained" and len(found["blocks"]) == 4
    assert found["parameters"] == sum(tensor.numel() for tensor in initial_weights(ARCH, 0).values())
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows["head.weight"] == {"name": "head.weight", "kind": "dropped", "reason": "classification head", "shape": [3, 128]}
    assert len(rows) == 54 + 4 and (found["patch"], found["grid"], found["prefix_tokens"]) == (8, [6, 6], 1)


def test_inspect_tells_random_weights_and_partial_files(call, tmp_path):
    assert "weights: untrained" in call("inspect", "random:vit_demo_patch8")[1]
    state = {name: tensor for name, tensor in shaken(initial_weights(ARCH, 0)).items() if not name.startswith("blocks.2.")}
    torch.save(state, tmp_path / "cut.pth")
    code, text, error = call("inspect", tmp_path / "cut.pth")
    assert "12 missing" in text and "blocks 2 have" in text and "partly untrained" in text
    assert code == 3 and "12 missing tensors (blocks.2.norm1.weight, " in error and len(error.splitlines()) == 1


def test_convert_writes_and_says_how_it_is_opened(call, path, tmp_path):
    code, text, error = call("convert", path, tmp_path / "out.safetensors", "--to", "timm")
    assert code == 0 and not error and f"load_file('{tmp_path / 'out.safetensors'}')" in text.replace("\n", "")
    code, _, error = call("convert", path, tmp_path / "out.safetensors", "--to", "timm")
    assert code == 2 and "is there already" in error and len(error.splitlines()) == 1
    assert call("convert", path, tmp_path / "out.safetensors", "--to", "timm", "--overwrite")[0] == 0
    assert call("verify", tmp_path / "out.safetensors")[0] == 0


def test_verify_says_the_difference_of_every_block(call, path):
    code, text, _ = call("verify", path)
    assert code == 0 and "agrees with timm's VisionTransformer" in text and "max |diff| at 48 x 48" in text
    assert "max |diff| at 32 x 56" in text and len([line for line in text.splitlines() if " of " in line]) >= 4
    found = json.loads(call("verify", path, "--json")[1])
    assert found["same"] and len(found["blocks"]) == 8 and found["tolerance"] == 1e-5


def test_verify_of_what_differs_is_1(call, path, monkeypatch):
    from backbones import verification

    monkeypatch.setattr(verification, "TOLERANCE", -1.0)
    code, text, _ = call("verify", path)
    assert code == 1 and "DIFFERS FROM timm's VisionTransformer" in text


def test_verify_without_the_library_is_one_line_and_4(call, path, monkeypatch):
    from backbones.origins import timm as origin

    def absent(_):
        raise ModuleNotFoundError("no", name="transformers")

    monkeypatch.setattr(origin, "network", absent)
    code, _, error = call("verify", path)
    assert code == 4 and "needs transformers, which is not installed; run: pip install" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("inspect /nowhere.pth", 3),
        ("inspect", 2),
        ("inspect random:vit_nothing", 2),
        ("convert random:vit_demo_patch8 /tmp/never.pth --to timm", 2),
        ("convert random:vit_demo_patch8 /tmp/never.pth --to nothing", 2),
        ("convert random:vit_demo_patch8 /tmp/never.pth", 2),
        ("verify /nowhere.pth", 3),
    ],
)
def test_a_wrong_command_is_one_line(call, words, code):
    found, _, error = call(*words.split())
    assert found == code and error.startswith("mae-bench: ") and len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["inspect", "convert", "verify"])
def test_every_command_has_help(call, command):
    code, text, _ = call(command, "-h")
    assert code == 0 and "Usage: mae-bench ckpt" in text


def test_markup_in_a_file_is_shown_as_text(call, tmp_path):
    from argparse import Namespace

    state = shaken(initial_weights(ARCH, 0))
    torch.save({"model": state, "args": Namespace(name="[red]x[/nope]")}, tmp_path / "a[b].pth")
    code, text, _ = call("inspect", tmp_path / "a[b].pth")
    assert code == 0 and "[red]x[/nope]" in text and "a[b].pth" in text


def test_a_large_file_is_not_held_in_memory(tmp_path):
    """What is taken beside the mapped file of 352 MB, and freed or not, is a tenth of it at most: its largest tensors."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    state = {f"blocks.{index}.attn.qkv.weight": torch.randn(3 * 1024, 1024) for index in range(28)}
    torch.save(state, tmp_path / "large.pth")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path / "large.pth")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60_000


WATCHED = """
import sys, threading, time, torch
from backbones.inspection import inspect
def taken():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
state = torch.load(sys.argv[1], mmap=True, weights_only=True)
inspect({"blocks.0.attn.qkv.weight": torch.zeros(4, 4)})
before, most, done = taken(), [0], []
def watch():
    while not done:
        most[0] = max(most[0], taken())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
inspect(state)
done.append(True)
watcher.join()
print(most[0] - before)
"""
