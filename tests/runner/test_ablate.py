"""Ablations: rows as the paper names them, every one of which can be pretrained."""

from dataclasses import replace
from typing import Any

import pytest

from backbones.source import open_source
from mae_bench.ablate import Request, pretrainings, run_ablation, with_recipes
from mae_bench.chain import Chain, Pretraining
from mae_bench.core import find
from mae_bench.core.config import Config
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.objectives import mae
from mae_bench.options import Options
from results.layout import load
from results.published import references
from tests.results.sample import Screen
from tests.runner.conftest import write_images

NAMES = find.names("mae_bench.ablations")
PLACES = ("folder", "folder+links")
NO_TOKENIZER = "reconstruction_target=dVAE_token"


def ablation(name) -> Any:
    return find.load("mae_bench.ablations", name, what="ablation")


def request(name, tmp_path, recipe="paper", **settings):
    data = {"folder": tmp_path / "images"}
    return Request(name, "vit_demo_patch8", data, tmp_path / "out", recipe, ("linear",), (0,), settings)


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


SIZES = {
    "vit_base_patch16": "paper",
    "vit_large_patch16": "paper-large",
    "vit_huge_patch14": "paper-huge",
    "vit_demo_patch8": "paper",
}


@pytest.mark.parametrize("arch", SIZES)
def test_a_task_takes_the_recipe_of_the_networks_size(arch, tmp_path):
    asked = replace(request("mask_ratio", tmp_path), arch=arch, tasks=("finetune", "linear", "knn", "partial"))
    spec, own = open_source(f"random:{arch}").spec, SIZES[arch]
    # The other two have one recipe for all sizes.
    assert with_recipes(asked, spec) == [f"finetune:{own}", f"linear:{own}", "knn:paper", "partial:paper"]
    named = replace(asked, tasks=("finetune:paper", "linear:cached", "linear"))
    assert with_recipes(named, spec) == ["finetune:paper", "linear:cached", f"linear:{own}"]
    assert named.task_names == ["finetune", "linear"]
    assert with_recipes(replace(named, recipe="demo"), spec) == ["finetune:paper", "linear:cached", "linear:demo"]


def test_a_row_leaves_out_what_it_has_no_use_for(tmp_path):
    rows = pretrainings(
        ablation("augmentation"), request("augmentation", tmp_path, **{"mae.crop_scale": "[0.5, 1]", "mae.flip": "0"})
    )
    own = [{"crop_scale", "flip"} & set(row.settings) for row in rows]
    assert own == [set(), {"flip"}, {"crop_scale", "flip"}, {"crop_scale", "flip"}]
    for row in rows:
        row.check()


def test_what_no_row_has_a_use_for_is_refused(tmp_path):
    unused = request("mask_ratio", tmp_path, **{"mae.pca_dims": "8"})
    with pytest.raises(ConfigError, match="pca_dims has no effect"):
        pretrainings(ablation("mask_ratio"), unused)[0].check()
    used = replace(unused, settings={**unused.settings, "mae.target": "pca"})
    for row in pretrainings(ablation("mask_ratio"), used):
        assert row.settings["pca_dims"] == "8"
        row.check()


def test_options_of_the_data_reach_pretraining_and_cells(tmp_path):
    """Links that lead out of the folder are followed where that was asked for, and refused where not."""
    write_images(tmp_path / "elsewhere")
    root = tmp_path / "images"
    for which in ("train", "val"):
        (root / which).mkdir(parents=True)
        for name in ("cat", "dog"):
            (root / which / name).symlink_to(tmp_path / "elsewhere" / which / name)
    asked = {name: Chain(tmp_path / "out", {name: root}, ["knn:demo"], {}, {}, [0], Options(), Screen()) for name in PLACES}
    row = Pretraining("row", "mae", "vit_demo_patch8", "demo", {})
    linked = asked["folder+links"]
    assert f"folder+links={root}" in linked.job(row).command
    assert linked._ready(row, linked.folder(row)) == "run"
    (cell,) = linked.plan("random:vit_demo_patch8").cells
    assert cell.request.data == f"folder+links={root}"
    with pytest.raises(InputError, match="links"):
        asked["folder"].plan("random:vit_demo_patch8")


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
