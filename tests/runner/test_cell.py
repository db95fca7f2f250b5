"""One cell: its record, its faults, its time over interruptions."""

import json
import os
import signal
import threading
import time
from collections import Counter

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backbones.save import save_backbone
from backbones.source import open_source
from mae_bench.cell import main
from mae_bench.core import faults
from mae_bench.core.errors import ConfigError, InputError, Stopped
from mae_bench.job import BUSY
from mae_bench.options import Options
from results.record import read_record
from results.request import read_request, write_request
from tests.runner.conftest import held
from tests.runner.fake_suite import steady
from tests.runner.test_plan import plan

pytestmark = pytest.mark.slow


def make(tmp_path, images, **words):
    [one] = plan(tmp_path, images, **words).cells
    write_request(one.folder, one.request)
    return one


def record_of(one):
    return read_record(one.folder / "record.json", pytest.fail)


def status_of(one):
    return json.loads((one.folder / "status.json").read_text())


def test_a_record_says_what_was_measured_and_how(tmp_path, images):
    one = make(tmp_path, images, models=("mine=random:vit_demo_patch8",), tasks=("steady",), overrides={"steady.value": "87.5"})
    assert main([str(one.folder), "--key", one.request.key]) == 0
    record = record_of(one)
    assert record is not None and record.key == one.request.key
    assert list(record.metrics) == ["top1", "top5"] and record.metrics["top1"].value == 87.5
    assert record.metrics["top1"].ci95 is not None and record.metrics["top1"].stderr == pytest.approx(11.69, abs=0.01)
    assert (record.model.name, record.model.source, record.model.arch) == ("mine", "random:vit_demo_patch8", "vit_demo_patch8")
    assert len(record.model.sha256) == 64 and record.protocol.changes == {"value": 87.5}
    assert record.dataset.counts == {"train": 8, "val": 8} and record.dataset.classes == 2
    assert record.cost.sessions == 1 and (record.cost.peak_memory_mb or 0) > 50
    assert record.machine.device == "cpu" and "torch" in record.machine.versions
    assert record.deviations == ("settings other than paper: value=87.5", "paper is not what it was")
    assert status_of(one)["state"] == "done"
    assert read_request(one.folder, pytest.fail) == one.request


def test_t02_a_cell_finished_by_another_process_meanwhile_is_not_measured_again(tmp_path, images):
    one = make(tmp_path, images)
    for words, visits in (((), "x"), ((), "x"), (("--anew",), "xx")):
        assert main([str(one.folder), *words]) == 0
        assert (one.folder / "visits").read_text() == visits


def test_the_native_config_is_left_where_it_is_asked_for(tmp_path, images, monkeypatch):
    def export(source, config, path):
        path.write_text(f"value = {config.value}\n")

    with pytest.raises(ConfigError, match="--export-native: steady has no config of another framework"):
        plan(tmp_path, images, options=Options(export_native=True))
    monkeypatch.setattr(steady, "export_native", export, raising=False)
    [one] = plan(tmp_path, images, options=Options(export_native=True)).cells
    write_request(one.folder, one.request)
    assert main([str(one.folder)]) == 0
    assert (one.folder / "native_config.py").read_text() == "value = 25.0\n"


def test_c13_weights_loaded_in_part_are_asked_for_and_are_another_cell(tmp_path, images):
    whole = open_source("random:vit_demo_patch8")
    path = tmp_path / "part.safetensors"
    save_backbone(path, whole.build(), method="mae", pretrain_data="x")
    state = load_file(path)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    lost = next(name for name in state if name.endswith("mlp.fc1.bias"))
    kept = {name: tensor for name, tensor in state.items() if name != lost}
    save_file({**kept, "adapter.weight": state[lost].clone()}, path, facts)
    with pytest.raises(InputError, match="missing"):
        plan(tmp_path, images, models=(f"part={path}",))
    [one] = plan(tmp_path, images, models=(f"part={path}",), options=Options(allow_partial=True)).cells
    assert one.request.partial and one.request.key != one.request.model_copy(update={"partial": False}).key_in("fp32")
    write_request(one.folder, one.request)
    assert main([str(one.folder)]) == 0
    record = record_of(one)
    assert record is not None and record.model.ledger["missing"] == 1
    assert f"not in the checkpoint and initialised anew: {lost}" in record.deviations
    assert "in the checkpoint, unknown and left out: adapter.weight" in record.deviations
    assert sum("partial load" in note for note in record.model.notes) == 2
    [same] = plan(tmp_path, images, options=Options(allow_partial=True)).cells
    assert same.request.key == plan(tmp_path, images).cells[0].request.key  # nothing is missing there


def test_r10_a_cell_that_ran_out_of_memory_says_how_it_went_on(tmp_path, images, monkeypatch):
    settings = {"epochs": "1", "warmup_epochs": "0", "batch_size": "8", "image_size": "32"}
    overrides = {f"finetune.{name}": value for name, value in settings.items()}
    words = {"tasks": ("finetune:demo",), "overrides": overrides, "room": "tasks.suite"}
    values = []
    for fault in ("", "engine.step:oom:1"):
        monkeypatch.setenv(faults.VARIABLE, fault)
        monkeypatch.setattr(faults, "_visits", Counter())
        [one] = plan(tmp_path / (fault or "none").replace(":", "-"), images, **words).cells
        write_request(one.folder, one.request)
        assert main([str(one.folder)]) == 0
        record = record_of(one)
        assert record is not None
        values.append((record.metrics["top1"].value, [line for line in record.deviations if "no memory" in line]))
    assert values[0][1] == [] and values[1][1] == ["no memory for 8 samples at once; going on with 4"]
    assert values[0][0] == values[1][0]


def test_a_record_names_the_deviations_of_its_task_recipe_and_cell(tmp_path, images):
    one = make(tmp_path, images, tasks=("steady:other",))
    assert main([str(one.folder)]) == 0
    record = record_of(one)
    assert record is not None and record.deviations == ("other is a copy", "vit_demo_patch8 is small")


FAULTS = {
    "nan": (1, "top1 is nan, which is no result"),
    "nothing": (1, "the task gave no number"),
    "error": (3, "this data set is broken; fetch it again"),
    "fault": (1, "ZeroDivisionError: a fault of the suite"),
}


@pytest.mark.parametrize("mode", FAULTS)
def test_r12_a_cell_that_fails_leaves_a_line_and_no_record(tmp_path, images, mode, capfd):
    one = make(tmp_path, images, overrides={"steady.mode": mode})
    code, line = FAULTS[mode]
    assert main([str(one.folder)]) == code
    assert record_of(one) is None
    assert status_of(one)["message"].startswith(line)
    assert status_of(one)["state"] == ("diverged" if mode == "nan" else "failed")
    assert ("Traceback" in capfd.readouterr().err) == (mode == "fault")


def test_debug_keeps_the_traceback(tmp_path, images, capfd):
    one = make(tmp_path, images, overrides={"steady.mode": "error"})
    write_request(one.folder, one.request.model_copy(update={"debug": True}))
    assert main([str(one.folder)]) == 3
    assert "Traceback" in capfd.readouterr().err


def test_a_number_that_metrics_does_not_name_is_kept(tmp_path, images):
    one = make(tmp_path, images, overrides={"steady.mode": "more"})
    assert main([str(one.folder)]) == 0
    record = record_of(one)
    assert record is not None and list(record.metrics) == ["top1", "top5", "extra"]


def test_c18_data_that_changed_since_the_plan_is_refused(tmp_path, images):
    one = make(tmp_path, images)
    (tmp_path / "data" / "pets" / "val" / "cat" / "0.png").rename(tmp_path / "data" / "pets" / "val" / "cat" / "9.png")
    assert main([str(one.folder)]) == 3
    assert status_of(one)["message"].startswith("the data set of ") and "changed after the run" in status_of(one)["message"]


def test_r15_a_task_whose_meaning_changed_since_the_plan_is_refused(tmp_path, images, monkeypatch):
    one = make(tmp_path, images)
    monkeypatch.setattr(steady, "VERSION", 2, raising=False)
    assert main([str(one.folder)]) == 3
    assert "version of the task's code" in status_of(one)["message"]
    monkeypatch.undo()
    settings = {**one.request.config, "value": 26.0}  # as if a default had another value now, the digest being of the old one
    write_request(one.folder, one.request.model_copy(update={"config": settings}))
    assert main([str(one.folder)]) == 3
    assert "meaning of the settings" in status_of(one)["message"]
    assert record_of(one) is None


@pytest.mark.parametrize("change", [{"seed": 1}, {"precision": "bf16"}])
def test_a_request_that_contradicts_its_key_is_refused(tmp_path, images, change):
    one = make(tmp_path, images)
    write_request(one.folder, one.request.model_copy(update=change))
    assert main([str(one.folder)]) == 3
    assert record_of(one) is None


def test_t03_a_record_that_cannot_be_read_is_refused_before_the_work(tmp_path, images):
    one = make(tmp_path, images)
    (one.folder / "record.json").write_text('{"schema": 99}')
    assert main([str(one.folder)]) == 3
    assert "newer mae-bench" in status_of(one)["message"] and not (one.folder / "visits").exists()
    assert (one.folder / "record.json").read_text() == '{"schema": 99}'


def test_c15_a_record_says_how_the_weights_were_adapted_and_what_it_cost(tmp_path, images):
    [one] = plan(tmp_path, images, overrides={"steady.size": "64"}).cells
    write_request(one.folder, one.request)
    assert main([str(one.folder)]) == 0
    record = record_of(one)
    assert record is not None and record.model.ledger["resized"] == 1
    assert "resized on loading: pos_embed" in record.deviations
    assert record.cost.input_size == (64, 64) and (record.cost.images_per_second or 0) > 0
    # vit_demo_patch8 by hand, 65 tokens: projection, then per block qkv, scores, sums, output, two layers of the MLP
    source = open_source("random:vit_demo_patch8")
    width, depth, tokens = source.spec.embed_dim, source.spec.depth, 65
    block = 2 * tokens * width * 12 * width + 2 * 2 * tokens * tokens * width
    assert record.cost.gflops == pytest.approx((2 * 64 * 192 * width + depth * block) / 1e9, rel=1e-3)


def test_a_request_that_was_replaced_is_not_run(tmp_path, images):
    one = make(tmp_path, images)
    assert main([str(one.folder), "--key", "of another plan"]) == BUSY
    assert record_of(one) is None


def test_a_folder_without_a_request_is_an_input_error(tmp_path):
    assert main([str(tmp_path)]) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_r02_a_signal_outside_a_training_stops_the_cell(tmp_path, images, number, monkeypatch):
    one = make(tmp_path, images)

    def evaluate(*words):
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        time.sleep(20)

    monkeypatch.setattr("tests.runner.fake_suite.steady.evaluate", evaluate)
    before = signal.getsignal(number)
    assert main([str(one.folder)]) == Stopped.exit_code
    assert signal.getsignal(number) == before
    assert status_of(one)["state"] == "stopped" and record_of(one) is None
    monkeypatch.undo()
    assert main([str(one.folder)]) == 0
    record = record_of(one)
    assert record is not None and record.cost.sessions == 2 and record.cost.seconds >= 0.2


def test_t02_a_cell_in_work_is_left_alone(tmp_path, images):
    one = make(tmp_path, images)
    with held(one.folder):
        assert main([str(one.folder)]) == BUSY
    assert record_of(one) is None
