"""Published checkpoints by name: what is said of them agrees with timm's registry and the published tables."""

import csv
import hashlib
from pathlib import Path

import pytest
import timm
import torch

from backbones import hub, released
from backbones.releases import Release
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core import find
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
from tests.backbones.conftest import shaken

ROOT = Path(__file__).resolve().parent.parent.parent
KNOWN = released.releases()
IN_TIMM = [name for name, release in KNOWN.items() if release.timm]


@pytest.fixture
def small(monkeypatch, timm_state, tmp_path):
    """A release whose file has a known hash, with the file."""
    torch.save({"model": timm_state}, tmp_path / "tiny_official.pth")
    digest = hashlib.md5((tmp_path / "tiny_official.pth").read_bytes()).hexdigest()
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    release = Release("mae", "IN1K", "mae", None, url="https://example.org/a/tiny_official.pth", md5=digest[:6], statistics=half)
    monkeypatch.setattr(released, "releases", lambda: {**KNOWN, "tiny_mae": release})
    return tmp_path / "tiny_official.pth"


@pytest.mark.parametrize("name", IN_TIMM)
def test_timm_has_the_release_with_these_facts(name):
    release = KNOWN[name]
    config = timm.get_pretrained_cfg(release.timm)
    assert config is not None and config.hf_hub_id, release.timm
    assert (tuple(config.mean), tuple(config.std)) == release.statistics
    assert config.interpolation == release.interpolation
    assert release.licence == config.license
    if config.url and release.url:
        assert config.url == release.url


def test_names_of_releases_are_no_architectures_and_no_two_are_the_same():
    variants = {name for room in find.names("backbones.zoo") for name in find.load("backbones.zoo", room, what="zoo").VARIANTS}
    count = sum(len(find.load(released.ROOM, file, what="releases").RELEASES) for file in find.names(released.ROOM))
    assert not variants & set(KNOWN) and count == len(KNOWN)


def test_references_are_rows_of_the_published_tables():
    rows = set()
    for path in (ROOT / "results" / "reference").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows |= {(row["method"], row["arch"]) for row in csv.DictReader(file)}
    lacking = {name: release.reference for name, release in KNOWN.items() if release.reference and release.reference not in rows}
    assert not lacking


def test_every_release_says_what_it_is():
    for name, release in KNOWN.items():
        assert release.method and release.pretrain_data and release.licence, name
        assert release.family in find.names("backbones.formats"), name


def test_every_release_can_be_had_somewhere():
    assert all(release.timm or release.url for release in KNOWN.values())
    assert all(release.url.startswith("https://") for release in KNOWN.values() if release.url)


def test_a_local_file_answers_to_the_name(small):
    source = open_source(f"tiny_mae={small}")
    assert (source.name, source.spec.method, source.spec.pretrain_data) == ("tiny_mae", "mae", "IN1K")
    assert source.spec.mean == (0.5, 0.5, 0.5) and not any("mean" in note for note in source.ledger.notes)


def test_a_folder_of_files_is_looked_into(small, monkeypatch):
    monkeypatch.setenv(released.FOLDER, str(small.parent))
    source = open_source("tiny_mae")
    assert source.name == "tiny_mae" and source.sha256 == hashlib.sha256(small.read_bytes()).hexdigest()
    assert open_source("other=tiny_mae").name == "other"
    small.rename(small.with_name("tiny_mae.pth"))
    assert open_source("tiny_mae").spec.method == "mae"
    monkeypatch.setenv(released.FOLDER, str(small.parent / "absent"))
    with pytest.raises(EnvironmentFault, match="is no folder"):
        open_source("tiny_mae")


def test_C17_another_file_under_the_name_is_refused(small, timm_state):
    torch.save({"model": shaken(timm_state)}, small)
    with pytest.raises(InputError, match=r"its MD5 is .*, and that of tiny_official\.pth begins with"):
        open_source(f"tiny_mae={small}")
    assert open_source(f"mine={small}").spec.method == "unknown"


def test_a_release_that_timm_does_not_have_says_where_it_is():
    with pytest.raises(EnvironmentFault, match=r"download https://dl\.fbaipublicfiles\.com/moco-v3/.* -m mocov3_vit_base=PATH"):
        open_source("mocov3_vit_base")


def test_a_release_is_fetched_from_timms_catalogue(monkeypatch, tmp_path):
    import safetensors.torch

    net = timm.create_model("deit_tiny_patch16_224")
    safetensors.torch.save_file(net.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def fetch(repository, file, **_):
        asked.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    source = open_source("deit_tiny")
    assert asked == [("timm/deit_tiny_patch16_224.fb_in1k", "model.safetensors")]
    assert (source.name, source.spec.method, source.spec.pretrain_data) == ("deit_tiny", "supervised", "IN1K")
    assert torch.equal(vit.weights_of(source.build())["cls_token"], net.state_dict()["cls_token"])


def test_a_misspelt_release_gets_a_hint():
    with pytest.raises(ConfigError, match=r"did you mean .*mae_vit_base"):
        open_source("mae_vit_bas")


def test_files_that_several_releases_share_a_name_of_tell_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv(released.FOLDER, str(tmp_path))
    (tmp_path / "checkpoint_teacher.pth").write_bytes(b"x")
    assert released.local_file("ibot_vit_base") is None
    (tmp_path / "ibot_vit_base.pth").write_bytes(b"x")
    assert released.local_file("ibot_vit_base") == tmp_path / "ibot_vit_base.pth"
