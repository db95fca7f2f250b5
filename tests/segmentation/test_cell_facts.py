"""What makes a cell of segmentation another cell, and what its record says of the file it began from."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
from tasks.suite import segmentation


def test_another_file_of_weights_is_another_cell_whatever_its_path(tmp_path, monkeypatch):
    path, moved = tmp_path / "upernet.pth", tmp_path / "moved.pth"
    path.write_bytes(b"one")
    moved.write_bytes(b"one")
    recipe = segmentation.RECIPES["demo"]
    first = recipe.override({"weights": str(path)})
    assert first.digest() != recipe.digest()
    assert first.digest() == recipe.override({"weights": str(moved)}).digest()
    before = first.digest()
    path.write_bytes(b"two")
    assert first.digest() != before
    # Of any folder it is started in, and from any other it is run again in.
    monkeypatch.chdir(tmp_path)
    assert recipe.override({"weights": "upernet.pth"}) == first and str(first.weights) == str(path)


def test_weights_that_are_not_there_are_named_before_anything_runs(tmp_path):
    config = segmentation.RECIPES["demo"].override({"weights": str(tmp_path / "none.pth")})
    with pytest.raises(InputError, match=r"none\.pth: No such file or directory"):
        config.digest()


def test_a_record_says_which_segmentor_it_began_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "upernet.pth").write_bytes(b"one")
    config = segmentation.RECIPES["demo"].override({"weights": "upernet.pth"})
    source = cast(Any, SimpleNamespace(spec=SimpleNamespace(embed_dim=768, depth=12, name="vit_x")))
    (line,) = segmentation.deviations("demo", config, source, Run(tmp_path))
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert line == f"the segmentor began as {tmp_path / 'upernet.pth'}, sha256 {digest}"


@pytest.mark.edge
def test_a_plan_finds_the_cell_stale_once_the_file_has_changed(make_ade, tmp_path):
    pytest.importorskip("mmseg")
    from mae_bench.options import Options
    from mae_bench.plan import make_plan
    from mae_bench.settle import changes

    path, root = tmp_path / "upernet.pth", make_ade()
    settings = {"segmentation.weights": str(path)}

    def request():
        words = ("random:vit_demo_patch8",), ("segmentation:demo",), (f"ade20k={root}",), tmp_path / "out"
        return make_plan(*words, overrides=settings, seeds=(0,), options=Options()).cells[0].request

    path.write_bytes(b"one")
    first, again = request(), request()
    path.write_bytes(b"two")
    other = request()
    assert first.key == again.key != other.key and first.config == other.config
    model, dataset = SimpleNamespace(sha256=other.sha256), SimpleNamespace(fingerprint=other.fingerprint)
    protocol = SimpleNamespace(config=first.config, config_digest=first.config_digest, version=other.version)
    record: Any = SimpleNamespace(model=model, dataset=dataset, protocol=protocol, machine=SimpleNamespace(precision="fp32"))
    assert changes(record, other) == ["a file that its settings name, or what they mean"]
