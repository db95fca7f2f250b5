"""Settings: overrides, digests and the lines that explain what is wrong."""

import pytest

from mae_bench.core.config import Config, parse_assignments
from mae_bench.core.errors import ConfigError


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
