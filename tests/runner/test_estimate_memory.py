"""The memory of a cell before it is run: at least what its backbone takes."""

import os
import subprocess
import sys

import pytest

from backbones.contract import DenseOptions
from backbones.source import open_source
from mae_bench.estimate_memory import Size, at_once, less, measure, memory
from mae_bench.options import Options
from mae_bench.plan import make_plan
from mae_bench.preview import make_estimator
from results.request import write_request
from tests.runner.conftest import ROOT, write_images

pytestmark = pytest.mark.apart

SIZE = Size(weights=100.0, kept=5.0, kept_each=24.0, depth=12)
TUNED = {"drop_path": 0.1, "batch_size": 32}


def test_what_is_trained_takes_gradients_states_and_activations():
    assert memory(SIZE, TUNED, 1000) == 100 * 4 + 5 + 32 * 24
    assert memory(SIZE, {**TUNED, "accumulate": 4}, 1000) == 100 * 4 + 5 + 8 * 24
    assert memory(SIZE, {**TUNED, "blocks": 3}, 1000) == 100 * (1 + 0.25 * 3) + 0.25 * (5 + 32 * 24)
    assert memory(SIZE, {**TUNED, "frozen": True}, 1000) == 100 + 32 * 2


def test_images_at_a_time():
    assert at_once({"k": 20}, 1000) == at_once({"batch_size": 16384, "cached": True, "crop_scale": (0.1, 1)}, 1000) == 64
    assert at_once({"batch_size": 512, "crop_scale": (0.1, 1), "cached": False}, 1000) == 512
    assert at_once(TUNED, 10) == 10
    assert at_once({**TUNED, "accumulate": 2}, 1000, 4) == 4


def test_ways_to_take_less():
    assert less({**TUNED, "accumulate": 1, "image_size": 224}) == ("accumulate", "batch_size", "image_size")
    assert less({**TUNED, "image_size": 224}) == ("batch_size", "image_size")
    assert less({**TUNED, "batch_size": 64}) == ("batch_size",)
    assert less({"k": 20, "image_size": None}) == ("image_size",)
    assert less({"batch_size": 16384, "accumulate": 1, "cached": True, "crop_scale": (0.1, 1)}) == ()


@pytest.mark.slow
def test_a_backbone_is_counted():
    source = open_source("random:vit_demo_patch8")
    found = measure(source, DenseOptions(image_size=(48, 48)))
    model = source.build()
    assert found.weights == 4 * sum(value.numel() for value in model.parameters()) and found.depth == source.spec.depth
    tokens = 4 * source.spec.embed_dim * (36 + source.spec.num_prefix_tokens)
    assert (
        10 * tokens < found.kept_each / found.depth < 25 * tokens
    )  # norms, q, k, v, attention, and four widths twice in the MLP
    again = measure(source, DenseOptions(image_size=(48, 48), checkpointing=True))
    assert again.kept_each < found.kept_each / 4


@pytest.mark.slow
def test_a_cell_takes_about_the_memory_that_was_foretold(tmp_path):
    """Fine-tuning: within a factor of 1.5 of what the process grows by."""
    data = f"folder={write_images(tmp_path / 'data')}"
    changes = {"finetune.epochs": "1", "finetune.batch_size": "8"}
    found = make_plan(
        ["random:vit_tiny_patch16"], ["finetune:demo"], [data], tmp_path, overrides=changes, seeds=[0], options=Options()
    )
    [cell] = found.cells
    estimator = make_estimator(None, "cpu")
    foretold = estimator.estimate(cell).memory
    write_request(cell.folder, cell.request)
    done = subprocess.run(
        [sys.executable, "-m", "tests.runner.memory_cell", str(cell.folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert foretold / 1.5 < float(done.stdout.split()[-1]) < foretold * 1.5
