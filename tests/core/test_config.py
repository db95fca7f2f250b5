"""Settings: overrides, digests and the lines that explain what is wrong."""

import pytest
from timm.data.auto_augment import rand_augment_transform

from mae_bench.core.config import Config, parse_assignments
from mae_bench.core.errors import ConfigError
from mae_bench.core.values import Betas, CropScale, RandAugment


class Inner(Config):
    rate: float = 0.1
    on: bool = False


class Outer(Config):
    inner: Inner = Inner()
    steps: int = 3
    name: str = "x"
    sizes: tuple[int, ...] = (1, 2)


def test_U06_text_takes_the_type_of_the_setting():
    changed = Outer().override({"inner.rate": "1e-4", "inner.on": "off", "steps": "7", "name": "12", "sizes": "[4, 5]"})
    assert changed == Outer(inner=Inner(rate=1e-4, on=False), steps=7, name="12", sizes=(4, 5))


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("stepz", "1", "unknown setting 'stepz' of t; did you mean steps"),
        ("inner.ratio", "1", "unknown setting 'ratio' of t.inner; did you mean rate"),
        ("steps.x", "1", "has no parts"),
        ("steps", "many", "t.steps='many'"),
        ("inner.rate", "nan", "t.inner.rate"),
    ],
)
def test_U01_U02_wrong_settings(key, value, match):
    with pytest.raises(ConfigError, match=match):
        Outer().override({key: value}, where="t")


def test_U05_yaml_is_never_executed():
    with pytest.raises(ConfigError):
        Outer().override({"steps": "!!python/object/apply:os.getcwd []"})


def test_digest_follows_the_values():
    assert Outer().digest() == Outer(steps=3).digest() != Outer(steps=4).digest()


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Outer().steps = 5


@pytest.mark.parametrize("words", [["steps"], ["=3"], ["a=1", "a=2"]])
def test_U04_wrong_words(words):
    with pytest.raises(ConfigError):
        parse_assignments(words)


def test_nothing_after_the_equals_is_empty_text():
    assert Outer().override({"name": ""}).name == ""


def test_what_looks_like_a_date_and_is_none_is_text():
    assert Outer().override({"name": "2024-13-45"}).name == "2024-13-45"


class Kinds(Config):
    betas: Betas = (0.9, 0.999)
    crop: CropScale = (0.08, 1.0)
    policy: RandAugment = ""


@pytest.mark.parametrize("policy", ["", "rand-m9-mstd0.5-inc1", "rand-m7-n2-p0.3", "rand-mstd1-tweights"])
def test_policies_that_timm_reads(policy):
    assert Kinds().override({"policy": policy}).policy == policy
    assert not policy or rand_augment_transform(policy, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("betas", "[2, 3]"),
        ("betas", "[0.9, 1.0]"),
        ("crop", "[-1, 5]"),
        ("crop", "[1.0, 0.2]"),
        ("crop", "[0, 1]"),
        ("policy", "foo"),
    ],
)
def test_U03_values_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"setting {key}"):
        Kinds().override({key: value})
