"""Records: whole, readable again, and never a crash."""

import json
import math

import pytest
from pydantic import ValidationError

from mae_bench.core.errors import EnvironmentFault
from results.keeping import kept, restore, write_record
from results.names import plain, slug
from results.record import FILE, SCHEMA, Score, accuracy_score, read_record
from results.request import cell_key, read_request, write_request
from results.store import cells_in
from tests.results.sample import make_record, make_request, store


def test_round_trip(tmp_path):
    record = make_record(metrics={"top1": 61.25, "top5": 90.0}, deviations=("resized",), changes={"k": 3})
    write_record(tmp_path, record)
    assert json.loads((tmp_path / FILE).read_text())["schema"] == SCHEMA
    assert read_record(tmp_path / FILE, pytest.fail) == record


def test_no_record_is_no_warning(tmp_path):
    assert read_record(tmp_path / FILE, pytest.fail) is None


BROKEN = {
    "empty": "",
    "half": '{"schema": 1, "key": "x"',
    "list": "[1, 2]",
    "no schema": '{"key": "x"}',
    "schema is a word": '{"schema": "one"}',
    "schema is true": '{"schema": true}',
    "newer": '{"schema": 99, "anything": 1}',
    "BOM": "\ufeff{}",
    "NaN": None,
    "infinite": None,
    "unknown field": None,
    "wrong type": None,
    "deep": "[" * 100_000,
}


def spoilt(kind):
    """The text of a record with one fault (T03 of the catalogue)."""
    if BROKEN[kind] is not None:
        return BROKEN[kind]
    data = make_record().model_dump(mode="json", by_alias=True)
    if kind in ("NaN", "infinite"):
        data["metrics"]["top1"]["value"] = math.nan if kind == "NaN" else math.inf
    elif kind == "unknown field":
        data["surprise"] = 1
    else:
        data["metrics"]["top1"]["value"] = "many"
    return json.dumps(data)


@pytest.mark.parametrize("kind", BROKEN)
def test_t03_a_broken_record_is_one_warning(tmp_path, kind):
    path, lines = tmp_path / FILE, []
    path.write_text(spoilt(kind))
    before = path.read_bytes()
    assert read_record(path, lines.append) is None
    assert len(lines) == 1 and str(path) in lines[0] and "\n" not in lines[0]
    assert path.read_bytes() == before


def test_t03_bytes_that_are_no_text(tmp_path):
    lines = []
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    assert read_record(tmp_path / FILE, lines.append) is None
    assert len(lines) == 1


def test_a_value_that_is_no_number_is_no_record():
    with pytest.raises(ValidationError):
        Score(value=math.nan)


def test_r06_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot write"):
        write_record(tmp_path / "file", make_record())


def test_a_broken_request_is_one_warning(tmp_path):
    [folder] = store(tmp_path, make_record())
    for text in ("key: [", "- 1", "key: !!python/object/apply:os.system ['true']", "a: 1"):
        (folder / "config.yaml").write_text(text)
        lines = []
        assert read_request(folder, lines.append) is None
        assert len(lines) == 1
    assert [cell.state for cell in cells_in(folder, lambda line: None)] == ["done"]


def test_wilson_interval():
    score = accuracy_score(80.0, 100)  # scipy.stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert score.stderr == pytest.approx(4.0)
    assert score.ci95 == pytest.approx((71.11708, 86.66331), abs=1e-4)
    low, high = accuracy_score(100.0, 50).ci95 or (0, 0)
    assert high == pytest.approx(100) and low == pytest.approx(92.8652, abs=1e-3)


def test_no_interval_for_what_is_no_share_of_the_samples():
    assert accuracy_score(33.333, 10).ci95 is None
    assert accuracy_score(120.0, 10).stderr is None


NAMES = ("../../x", "con", "x" * 300, "\N{ROCKET}", "a\nb", "-x", ".hidden", "", "a/b", "a\\b", "CON", "é")


@pytest.mark.parametrize("name", NAMES)
def test_u09_any_name_becomes_a_folder_inside_its_parent(name, tmp_path):
    folder = slug(name)
    assert folder and len(folder) < 100 and folder[0] not in ".-" and folder.lower() != "con"
    (tmp_path / folder).mkdir()
    assert (tmp_path / folder).resolve().parent == tmp_path.resolve()


def test_u09_unlike_names_get_unlike_folders():
    assert len({slug(name) for name in NAMES}) == len(NAMES)
    assert slug("mae-vit_b.v1") == "mae-vit_b.v1"


def test_h03_control_characters_are_inert():
    assert plain("a\x1b[31mb\nc\x00") == "a?[31mb c?"


def old_record():
    """A record as schema 1 had it: the precision was no part of its key."""
    data = make_record(precision="bf16").model_dump(mode="json", by_alias=True)
    for name in ("gflops", "input_size"):
        del data["cost"][name]
    return {**data, "schema": 1, "key": "0123456789abcdef"}


def test_t08_a_record_of_an_earlier_schema_is_read_as_one_of_today(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(old_record()))
    record = read_record(tmp_path / FILE, pytest.fail)
    assert record == make_record(precision="bf16")
    assert json.loads((tmp_path / FILE).read_text())["schema"] == 1  # reading changes nothing


@pytest.mark.parametrize("part", ["model", "machine", "protocol", "dataset", "seed"])
def test_t08_half_a_record_of_an_earlier_schema_is_one_warning(tmp_path, part):
    lines = []
    (tmp_path / FILE).write_text(json.dumps({**old_record(), part: None}))
    assert read_record(tmp_path / FILE, lines.append) is None
    assert len(lines) == 1
    (tmp_path / FILE).write_text(json.dumps({name: value for name, value in old_record().items() if name != part}))
    assert read_record(tmp_path / FILE, lines.append) is None
    assert len(lines) == 2


def test_t08_a_request_from_before_the_precision_was_in_the_key_is_of_the_same_cell(tmp_path):
    record = make_record(precision="bf16")
    old = make_request(record, precision="bf16")
    facts = {name: getattr(old, name) for name in ("sha256", "task", "fingerprint", "seed", "version")}
    write_request(tmp_path, old.model_copy(update={"key": cell_key(**facts, digest=old.config_digest, precision=None)}))
    found = read_request(tmp_path, pytest.fail)
    assert found is not None and found.key == record.key


def test_a_record_is_kept_when_another_takes_its_place_and_comes_back(tmp_path):
    first, second = make_record(digest="d1"), make_record(digest="d2")
    for record in (first, second):
        write_record(tmp_path, record)
    assert read_record(kept(tmp_path, first.key), pytest.fail) == first
    assert restore(tmp_path, first.key) and read_record(tmp_path / FILE, pytest.fail) == first
    assert read_record(kept(tmp_path, second.key), pytest.fail) == second
    assert not restore(tmp_path, "of nothing")
