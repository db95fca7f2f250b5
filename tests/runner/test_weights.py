"""Tasks that begin from a file with a whole network: what makes such a cell another one, and what its record says of the file."""

from types import SimpleNamespace
from typing import Any

import pytest

from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
from mae_bench.options import Options
from mae_bench.plan import make_plan
from mae_bench.settle import changes
from tasks.suite import detection, segmentation

both = pytest.mark.parametrize("task", [detection, segmentation], ids=["detection", "segmentation"])


@both
def test_another_file_of_weights_is_another_cell_whatever_its_path(task, tmp_path, monkeypatch):
    path, moved = tmp_path / "weights.pth", tmp_path / "moved.pth"
    path.write_bytes(b"one")
    moved.write_bytes(b"one")
    recipe = task.RECIPES["demo"]
    first = recipe.override({"weights": str(path)})
    assert first.digest() != recipe.digest()
    assert first.digest() == recipe.override({"weights": str(moved)}).digest()
    before = first.digest()
    path.write_bytes(b"two")
    assert first.digest() != before
    # Of any folder it is started in, and from any other it is run again in.
    monkeypatch.chdir(tmp_path)
    assert recipe.override({"weights": "weights.pth"}) == first and str(first.weights) == str(path)


@both
def test_weights_that_are_not_there_are_named_before_anything_runs(task, tmp_path):
    config = task.RECIPES["demo"].override({"weights": str(tmp_path / "none.pth")})
    with pytest.raises(InputError, match=r"none\.pth: No such file or directory"):
        config.digest()


@pytest.mark.parametrize(
    ("task", "what"), [(detection, "detector"), (segmentation, "segmentor")], ids=["detection", "segmentation"]
)
def test_a_record_says_which_network_it_began_from(task, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    config = task.RECIPES["demo"].override({"weights": "weights.pth"})
    source: Any = SimpleNamespace(spec=SimpleNamespace(embed_dim=768, depth=12, name="vit_x"))
    (line,) = task.deviations("demo", config, source, Run(tmp_path))
    assert line == f"the {what} began as {path}, sha256 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    # Hours later the file may be another one, or gone: what the cell began with is told still.
    config.digest()
    path.write_bytes(b"three")
    assert task.deviations("demo", config, source, Run(tmp_path)) == (line,)
    path.unlink()
    assert task.deviations("demo", config, source, Run(tmp_path)) == (line,)


@pytest.mark.edge
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
@pytest.mark.parametrize(
    ("task", "dataset", "framework"), [("detection", "coco", "detectron2"), ("segmentation", "ade20k", "mmseg")]
)
def test_a_plan_finds_the_cell_stale_once_the_file_has_changed(task, dataset, framework, tiny_data, tmp_path):
    pytest.importorskip(framework)
    path = tmp_path / "weights.pth"
    settings = {f"{task}.weights": str(path)}

    def request():
        words = ("random:vit_demo_patch8",), (f"{task}:demo",), (f"{dataset}={tiny_data[dataset]}",), tmp_path / "out"
        return make_plan(*words, overrides=settings, seeds=(0,), options=Options()).cells[0].request

    path.write_bytes(b"one")
    first, again = request(), request()
    path.write_bytes(b"two")
    other = request()
    assert first.key == again.key != other.key and first.config == other.config
    model, data = SimpleNamespace(sha256=other.sha256), SimpleNamespace(fingerprint=other.fingerprint)
    protocol = SimpleNamespace(config=first.config, config_digest=first.config_digest, version=other.version)
    record: Any = SimpleNamespace(model=model, dataset=data, protocol=protocol, machine=SimpleNamespace(precision="fp32"))
    assert changes(record, other) == ["a file that its settings name, or what they mean"]
