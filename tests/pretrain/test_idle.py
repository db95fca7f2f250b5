"""Settings that would have no effect are refused where someone gives them, and not where a recipe has them."""

import pytest

from mae_bench.core import find
from mae_bench.core.errors import ConfigError
from mae_bench.objectives import dino, mae, simclr

IDLE = [
    ({"optimizer": "sgd", "betas": "[0.9, 0.95]"}, "betas", "they are of adamw, and the optimizer is sgd"),
    ({"optimizer": "lars", "betas": "[0.9, 0.999]"}, "betas", "they are of adamw, and the optimizer is lars"),
    ({"augmentation": "none", "crop_scale": "[0.2, 1]"}, "crop_scale", "augmentation=none has no crop of random size"),
    ({"augmentation": "none", "flip": "0.5"}, "flip", "augmentation=none has no flip"),
    (
        {"augmentation": "fixed_crop", "crop_scale": "[0.5, 1]"},
        "crop_scale",
        "augmentation=fixed_crop has no crop of random size",
    ),
    ({"pca_dims": "8"}, "pca_dims", "it is of target=pca, and the target is pixels"),
]


@pytest.mark.parametrize(("given", "name", "why"), IDLE, ids=[" ".join(given) for given, *_ in IDLE])
def test_what_has_no_effect_is_refused(given, name, why):
    for recipe in mae.RECIPES.values():
        with pytest.raises(ConfigError) as caught:
            recipe.override(given, where="mae")
        assert str(caught.value) == f"setting mae.{name} has no effect: {why}; leave it out"
        rest = {key: value for key, value in given.items() if key != name}
        assert recipe.override(rest) == recipe.override({}).model_copy(update=rest)


def test_what_has_an_effect_is_taken():
    for given in (
        {"optimizer": "adamw", "betas": "[0.8, 0.9]"},
        {"augmentation": "fixed_crop", "flip": "0.1"},
        {"augmentation": "random_crop_colour", "crop_scale": "[0.5, 1]", "flip": "0"},
        {"target": "pca", "norm_pix_loss": "false", "pca_dims": "8"},
    ):
        mae.RECIPES["paper"].override(given)
    with pytest.raises(ConfigError, match="setting betas has no effect"):
        simclr.RECIPES["demo"].override({"optimizer": "sgd", "betas": "[0.8, 0.9]"})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"local_crops": "0", "local_scale": "[0.1, 0.3]"}, "local_scale"),
        ({"local_crops": "0", "local_share": "0.3"}, "local_share"),
        ({"teacher_temperature_epochs": "0", "teacher_temperature_start": "0.05"}, "teacher_temperature_start"),
        ({"clip_grad": "null", "clip_each": "false"}, "clip_each"),
    ],
)
def test_dino_has_no_settings_of_what_it_leaves_out(given, name):
    with pytest.raises(ConfigError, match=f"setting dino.{name} has no effect"):
        dino.RECIPES["paper"].override(given, where="dino")


@pytest.mark.parametrize("objective", ["byol", "mocov3", "dino"])
def test_a_teacher_is_the_only_average(objective):
    recipes = find.load("mae_bench.objectives", objective, what="objective").RECIPES
    with pytest.raises(ConfigError, match="the teacher is a moving average of the weights already; leave average_decay out"):
        recipes["paper"].override({"average_decay": "0.99"}, where=objective)
    recipes["paper"].override({"average_decay": "null"})
