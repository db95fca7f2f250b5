"""`status` of a pretraining: how far it is, whether it goes on, and by which command; and what a new start says of an old one."""

import json
import shlex

import pytest
import yaml

from mae_bench import cli
from mae_bench.core import find
from mae_bench.listing import OBJECTIVES
from mae_bench.locks import locked
from mae_bench.pretrain_state import beginning, command, read_state
from tests.cli.test_cli import call
from tests.runner.conftest import write_images

__all__ = ["call"]


def write(folder, *, saved=None, losses=0, status="", record=False, progress=None, **changes):
    """The files of a pretraining in some state."""
    folder.mkdir(parents=True)
    settings = find.load(OBJECTIVES, "mae", what="objective").RECIPES["demo"].override(changes)
    facts = {"objective": "mae", "recipe": "demo", "arch": "vit_demo_patch8", "seed": 3, "precision": "fp32"}
    facts |= {"data": {"name": "folder", "root": "/data/my pets"}, "settings": settings.model_dump(mode="json")}
    (folder / "config.yaml").write_text(yaml.safe_dump(facts))
    if saved is not None:
        (folder / "ckpt" / "last").mkdir(parents=True)
        (folder / "ckpt" / "last" / "manifest.json").write_text(json.dumps({"key": "k", "step": saved, "seconds": saved / 10}))
    lines = [json.dumps({"step": step, "loss": 1 - step / 1000, "lr": 1e-3}) + "\n" for step in range(losses)]
    (folder / "metrics.jsonl").write_text("".join(lines) + ('{"step": 99, "lo' if losses else ""))
    if status:
        (folder / "status.json").write_text(json.dumps({"state": status, "message": "it broke", "exit_code": 1, "time": 5.0}))
    if record:
        (folder / "model.safetensors").touch()
        (folder / "pretrain.json").write_text(json.dumps({"steps": 500, "seconds": 4000.0, "final_loss": 0.25}))
    if progress is not None:
        (folder / "progress.json").write_text(json.dumps(progress))
    return folder


def test_a_running_one_tells_step_epoch_loss_and_time_to_go(call, tmp_path):
    progress = {"total": 500, "done": 249, "time": 5.0}
    folder = write(tmp_path / "mae", saved=200, losses=250, progress=progress, epochs="50")
    with locked(folder):
        # A record lock does not hold off its own process.
        found = read_state(folder, running=True)
    assert found is not None and found.state == "running"
    code, text, _ = call("status", folder)
    assert code == 0 and "mae:demo of vit_demo_patch8 on /data/my pets, seed 3" in text
    assert "step 250 of 500, epoch 25.0 of 50, loss 0.7510" in text


def test_what_is_to_go_is_told_by_the_speed_so_far(tmp_path, monkeypatch, call):
    folder = write(tmp_path / "mae", saved=200, losses=250, progress={"total": 500, "done": 249, "time": 5.0})
    monkeypatch.setattr("mae_bench.pretrain_state.is_locked", lambda path: True)
    text = call("status", folder)[1]
    assert "running: step 250 of 500" in text and "about 25 s to go" in text and "saved at step 200" in text
    assert f"log: {folder / 'log.txt'}; all numbers: {folder / 'metrics.jsonl'}" in text


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_one_that_was_ended_tells_where_it_goes_on_and_how(call, tmp_path, status):
    folder = write(tmp_path / "mae", saved=200, losses=250, status=status, epochs="60")
    text = call("status", tmp_path)[1]
    state = read_state(folder)
    assert state is not None
    assert ("interrupted" if status == "running" else "stopped") + ": step 250" in text
    assert f"goes on from step 200, by the same command: {command(state)}" in text
    words = shlex.split(text[text.index("mae-bench pretrain ") :].splitlines()[0])
    assert words[words.index("-d") + 1] == "folder=/data/my pets" and words[-1] == "epochs=60"
    assert words[words.index("--recipe") + 1] == "demo" and words[words.index("--seed") + 1] == "3"


def test_one_that_has_saved_nothing_begins_anew_and_a_new_start_says_so(call, tmp_path):
    folder = write(tmp_path / "mae", losses=7, status="running")
    assert "goes on from the beginning, since no state was saved yet" in call("status", folder)[1]
    line = beginning(read_state(folder), 60.0)
    assert line.startswith("an earlier start ended at step 7, before its first state was saved: beginning anew")
    assert "every 1:00; --save-every" in line
    assert beginning(read_state(write(tmp_path / "b", saved=3, losses=7)), 60.0) == "going on from the state saved at step 3"
    assert beginning(None, 60.0) == beginning(read_state(write(tmp_path / "c", record=True)), 60.0) == ""


def test_a_finished_one_says_where_its_weights_are_and_a_failed_one_why(call, tmp_path):
    folder = write(tmp_path / "a b", saved=500, losses=3, status="done", record=True)
    text = call("status", folder)[1]
    assert "finished: 500 steps in 1:06:40, loss 0.2500" in text and f"run -m 'a b={folder}' ..." in text
    write(tmp_path / "bad", losses=3, status="failed")
    text = call("status", tmp_path)[1]
    assert "failed: step 3" in text and "because: it broke" in text and "1 pretraining finished" in text
    assert "no cells yet" not in text and call("status", tmp_path / "bad" / "..")[0] == 0


def test_an_empty_folder_has_neither(call, tmp_path):
    assert call("status", tmp_path)[1] == "no cells yet\n"


def test_a_real_one_from_start_to_end(capfd, tmp_path):
    data, out = write_images(tmp_path / "pets"), tmp_path / "out"
    words = ["pretrain", "mae", "--arch", "vit_demo_patch8", "-d", f"folder={data}", "-o", str(out), "--recipe", "demo"]
    words += ["--device", "cpu", "epochs=2", "warmup_epochs=0", "batch_size=4", "image_size=32"]
    assert cli.main([*words, "--save-every", "soon"]) == 2
    assert "'soon' is no time" in capfd.readouterr().err and not out.exists()
    assert cli.main([*words, "--save-every", "1h"]) == 0
    said = capfd.readouterr().out
    assert "finished: " in said and f"weights: {out / 'model.safetensors'}" in said
    steps = json.loads((out / "pretrain.json").read_text())["steps"]
    assert json.loads((out / "progress.json").read_text())["total"] == steps
    assert cli.main(words) == 0 and f"finished: {steps} steps" in capfd.readouterr().out
    (out / "pretrain.json").unlink()
    assert cli.main(words) == 0
    assert f"going on from the state saved at step {steps}" in capfd.readouterr().out
