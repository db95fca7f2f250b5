"""Tasks that train a classifier, killed in every step, end in the numbers and weights of an unbroken training."""

import pytest

from backbones.source import open_source
from tasks.handle import open_data
from tasks.suite import finetune, linear, partial
from tests.core.killing import STOPS, assert_kills_change_nothing

SHORT = {"epochs": 5, "warmup_epochs": 1, "batch_size": 4}
TASKS = {
    "linear": (linear, linear.RECIPES["paper"].override(SHORT)),
    "finetune": (finetune, finetune.RECIPES["paper"].override(SHORT)),
    "partial": (partial, partial.RECIPES["paper"].override(SHORT)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("task", TASKS)
def test_R01_killed_in_each_of_25_steps(own_colours, tmp_path, task):
    """With 0, 2 and 4 data workers in turns; the augmentation, mixing and stochastic depth of the published recipes included."""
    module, config = TASKS[task]
    source, data = open_source("random:vit_demo_patch8"), open_data(f"folder={own_colours(7)}")

    def work(run):
        return module.evaluate(source, data, config, run)

    assert len(assert_kills_change_nothing(work, tmp_path)) >= STOPS
