"""The demo's jobs: a pretraining counts when it is the very one asked for, and nothing hides what failed."""

import json
from dataclasses import replace

import pytest

from mae_bench import demo as demos
from mae_bench.core.errors import ConfigError, EnvironmentFault, Stopped
from mae_bench.core.run import Run
from mae_bench.options import Options
from mae_bench.pretrain import pretrain
from mae_bench.runner import Failure
from tasks.handle import open_data
from tests.results.sample import Screen
from tests.runner.conftest import write_images

SETTINGS = {"pretrain.epochs": "1", "pretrain.warmup_epochs": "0", "pretrain.batch_size": "4", "pretrain.image_size": "32"}


def make(out, folder, options):
    return demos.make_chain(out, {"folder": folder}, SETTINGS, options, Screen())


@pytest.fixture
def demo(tmp_path):
    folder = write_images(tmp_path / "data")
    return make(tmp_path / "out", folder, Options())


def finish(demo, objective="mae"):
    """Pretrain as the job does."""
    run = Run(demo.out / "pretrain" / objective)
    own = demos.pretraining(objective, SETTINGS).settings
    pretrain(objective, demos.ARCH, open_data(f"folder={demo.data['folder']}"), dict(own), run, recipe=demos.RECIPE)
    return run.out


def prepared(demo, **settings):
    return demo.job(demos.pretraining("mae", {**SETTINGS, **settings})).prepare()


def test_a_pretraining_counts_for_its_settings_only(demo):
    assert prepared(demo) == "run"
    folder = finish(demo)
    assert prepared(demo) == "done"
    for _ in range(2):  # what was refused once is not taken for done the second time
        with pytest.raises(ConfigError, match="mask_ratio"):
            prepared(demo, **{"mae.mask_ratio": "0.5"})
    assert prepared(demo) == "done"
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert prepared(demo) == "run"


def test_debug_reaches_the_pretraining(demo):
    mae = demos.pretraining("mae", SETTINGS)
    assert "--debug" not in demo.job(mae).command
    assert "--debug" in replace(demo, options=Options(debug=True)).job(mae).command


def test_settings_of_one_objective_win_over_those_for_all():
    settings = {"mae.epochs": "3", "pretrain.epochs": "1", "simclr.epochs": "5", "linear.epochs": "9"}
    assert demos.pretraining("mae", settings).settings == {"epochs": "3"}
    assert demos.pretraining("supervised", settings).settings == {"epochs": "1"}


def test_a_report_that_cannot_be_written_hides_no_failure(demo, monkeypatch):
    def fail(*words):
        raise EnvironmentFault("the report needs plotly; run: pip install plotly")

    monkeypatch.setattr(demos, "write_report", fail)
    demo.out.mkdir()
    assert demos._conclude(demo, [Failure("a cell", "it broke")]) == 1
    assert "a cell: it broke" in demo.console.text and "report: the report needs plotly" in demo.console.text


def test_a_signal_during_the_report_is_no_failure_of_it(demo, monkeypatch):
    def stop(*words):
        raise Stopped("later")

    monkeypatch.setattr(demos, "write_report", stop)
    with pytest.raises(Stopped):
        demos._conclude(demo, [])


def test_the_record_of_a_pretraining_names_what_shaped_it(demo):
    assert json.loads((finish(demo) / "pretrain.json").read_text())["objective"] == "mae"
