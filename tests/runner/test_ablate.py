"""Ablations: rows as the paper names them, every one of which can be pretrained."""

from typing import Any

import pytest

from mae_bench.ablate import Request, pretrainings, run_ablation
from mae_bench.core import find
from mae_bench.core.config import Config
from mae_bench.core.errors import ConfigError
from mae_bench.objectives import mae
from mae_bench.options import Options
from results.layout import load
from results.published import references
from tests.results.sample import Screen
from tests.runner.conftest import write_images

NAMES = find.names("mae_bench.ablations")
NO_TOKENIZER = "reconstruction_target=dVAE_token"


def ablation(name) -> Any:
    return find.load("mae_bench.ablations", name, what="ablation")


def request(name, tmp_path, recipe="paper", **settings):
    return Request(name, "vit_demo_patch8", tmp_path / "images", tmp_path / "out", recipe, ("linear",), (0,), settings)


def test_the_paper_is_covered():
    assert NAMES == [
        "augmentation",
        "decoder_depth",
        "decoder_width",
        "mask_ratio",
        "mask_sampling",
        "mask_token",
        "schedule",
        "target",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_published_ones(name):
    module = ablation(name)
    places = {place for layout in load(module.LAYOUT).LAYOUTS for place in layout.places}
    published = {reference.setting for reference in references() if reference.place in places and reference.metric == "top1"}
    if name == "schedule":
        published = {reference.pretrain_epochs for reference in references() if reference.place == "Fig7"}
    rows = {row.replace("-", "=", 1) for row in module.ROWS}
    assert rows <= published
    subject = next(iter(rows)).partition("=")[0]
    assert {one for one in published if one.partition("=")[0] == subject} - {NO_TOKENIZER} <= rows or name == "schedule"


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_settings_of_mae(name, tmp_path):
    for row in pretrainings(ablation(name), request(name, tmp_path)):
        row.check()
        config: Config = mae.RECIPES["paper"].override(row.settings)
        assert config.epochs == (int(row.name) if name == "schedule" else 800)


def test_rows_at_the_papers_scale_start_from_unnormalised_pixels(tmp_path):
    rows = pretrainings(ablation("decoder_depth"), request("decoder_depth", tmp_path))
    assert [row.settings["norm_pix_loss"] for row in rows] == ["false"] * 5
    demo = pretrainings(ablation("decoder_depth"), request("decoder_depth", tmp_path, "demo"))
    assert all("epochs" not in row.settings for row in demo)


def test_what_a_row_is_about_cannot_be_set(tmp_path):
    wrong = request("decoder_depth", tmp_path, **{"mae.decoder_depth": "3"})
    with pytest.raises(ConfigError, match="varies"):
        pretrainings(ablation("decoder_depth"), wrong)
    with pytest.raises(ConfigError, match="epochs is no setting here; write mae"):
        pretrainings(ablation("decoder_depth"), request("decoder_depth", tmp_path, epochs="3"))
    with pytest.raises(ConfigError, match="names no setting"):
        pretrainings(ablation("decoder_depth"), request("decoder_depth", tmp_path, mae="3"))


@pytest.mark.slow
def test_an_ablation_runs_and_fills_the_papers_table(tmp_path):
    write_images(tmp_path / "images")
    small = {
        "mae.epochs": "1",
        "mae.warmup_epochs": "0",
        "mae.batch_size": "4",
        "mae.image_size": "32",
        "linear.epochs": "2",
        "linear.warmup_epochs": "1",
    }
    screen = Screen()
    assert run_ablation(request("mask-token", tmp_path, "demo", **small), Options(), screen) == 0
    assert "mask_token_in_encoder-yes" in screen.text and "--layout mae-table1" in screen.text
    records = list((tmp_path / "out").glob("mask_token_in_encoder-*/linear-demo/*/seed0/record.json"))
    assert len(records) == 2
