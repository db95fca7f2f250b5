"""What stands after the `#` of SRC: which network of a file is meant, which file it must be, and what no file says."""

import hashlib
from pathlib import Path
from typing import cast

import pytest
import torch

from backbones.arch import VitArch
from backbones.ledger import KINDS
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.errors import ConfigError, InputError


def cls_token(source):
    return vit.weights_of(source.build())["cls_token"]


def other(state):
    return {name: tensor + 1 for name, tensor in state.items()}


def test_C12_one_of_several_networks_is_chosen_by_its_key(saved, timm_state):
    path = saved({"student": timm_state, "teacher": other(timm_state), "epoch": 3}, "dino.pth")
    with pytest.raises(InputError, match=r"several keys \(student, teacher\); choose one: add #ckpt_key=student"):
        open_source(path)
    student, teacher = (open_source(f"{path}#ckpt_key={key}") for key in ("student", "teacher"))
    assert torch.equal(cls_token(student), timm_state["cls_token"])
    assert torch.equal(cls_token(teacher), timm_state["cls_token"] + 1)
    assert (student.name, teacher.name) == ("dino-student", "dino-teacher")
    assert "the network under ckpt_key=teacher of several" in teacher.ledger.notes
    assert "student" in teacher.ledger.dropped
    # Both are of one file, and what is measured of one must not be taken for the other's.
    assert student.sha256 != teacher.sha256
    assert student.raw_facts["sha256"] == teacher.raw_facts["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("module.encoder_k", lambda one, two: {**prefixed(one, "module.encoder_q."), **prefixed(two, "module.encoder_k.")}),
        ("state_dict.b", lambda one, two: {"state_dict": {**prefixed(one, "a."), **prefixed(two, "b.")}}),
        ("nets.b", lambda one, two: {"nets": {"a": one, "b": two}}),
        ("a.b", lambda one, two: {"a": one, "a.b": two}),
    ],
    ids=["names", "key and names", "nested", "a dot in a key"],
)
def test_C12_keys_and_the_beginning_of_names_lead_to_a_network(saved, timm_state, key, content):
    path = saved(content(timm_state, other(timm_state)))
    with pytest.raises(InputError, match="#ckpt_key="):
        open_source(path)
    assert torch.equal(cls_token(open_source(f"{path}#ckpt_key={key}")), timm_state["cls_token"] + 1)


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("key", ["teachr", "student.module", "teacher.x", "optimizer"])
def test_C12_a_key_that_leads_nowhere_is_one_line(saved, timm_state, key):
    path = saved({"student": timm_state, "teacher": timm_state, "optimizer": {"lr": 3}})
    with pytest.raises(InputError, match="ckpt_key=") as caught:
        open_source(f"{path}#ckpt_key={key}")
    assert "\n" not in str(caught.value)


def test_C17_another_file_than_the_pinned_one_is_refused(saved, timm_state):
    path = saved(timm_state)
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    for pin in (found, found[:8], found[:20].upper()):
        assert open_source(f"{path}#sha256={pin}").sha256 == found
    with pytest.raises(InputError, match=f"its SHA-256 is {found}, not 00000000"):
        open_source(f"{path}#sha256={'0' * 64}")
    for pin in (found[:7], "xyz12345", found + "0"):
        with pytest.raises(ConfigError, match="8 to 64 hex digits"):
            open_source(f"{path}#sha256={pin}")


def test_facts_that_no_file_says_are_taken_and_noted(saved, timm_state):
    path = saved(timm_state)
    source = open_source(f"x={path}#num_heads=8&norm_eps=1e-5&mlp=quick_gelu&mean=0.5/0.4/0.3&std=0.5/0.5/0.25")
    arch = cast(VitArch, source.arch)
    assert (source.name, arch.num_heads, arch.norm_eps, arch.mlp) == ("x", 8, 1e-5, "quick_gelu")
    assert (source.spec.mean, source.spec.std) == ((0.5, 0.4, 0.3), (0.5, 0.5, 0.25))
    assert source.text.startswith(f"{path}#num_heads=8")
    assert {"num_heads is 8 because the user says so", "mean is 0.5/0.4/0.3 because the user says so"} <= set(source.ledger.notes)
    assert not any("assumed" in note for note in source.ledger.notes)
    assert source.sha256 != open_source(path).sha256
    assert (
        source.sha256 == open_source(f"{path}#mean=0.5/0.4/0.3&std=0.5/0.5/0.25&mlp=quick_gelu&num_heads=8&norm_eps=1e-5").sha256
    )


def test_C15_the_rectangle_of_the_positions_can_be_said(saved, timm_state):
    timm_state["pos_embed"] = torch.randn(1, 1 + 2 * 8, 128)
    path = saved(timm_state)
    assert open_source(f"{path}#image_size=16x64").spec.image_size == (16, 64)
    # Sixteen rows are a square, too, and then the file is taken at its word.
    assert open_source(path).spec.image_size == (32, 32)
    with pytest.raises(InputError, match="17 position rows"):
        open_source(f"{path}#image_size=16x56")
    timm_state["pos_embed"] = torch.randn(1, 1 + 3 * 5, 128)
    assert open_source(f"{saved(timm_state)}#image_size=24x40").spec.image_size == (24, 40)


@pytest.mark.parametrize(
    ("fragment", "match"),
    [
        ("num_head=4", "unknown key 'num_head' after the '#'; did you mean num_heads"),
        ("teacher", r"'teacher' is not key=value; write for example #ckpt_key=teacher"),
        ("num_heads=", "'num_heads=' is not key=value"),
        ("num_heads=4&", "'' is not key=value"),
        ("num_heads=4&num_heads=8", "num_heads is given twice"),
        ("num_heads=four", "num_heads='four'"),
        ("num_heads=5", "cannot be shared by 5 heads"),
        ("mlp=relu", "mlp='relu'"),
        ("mean=0.5", "mean"),
        ("std=0/0/0", "above 0"),
        ("mean=nan/0/0", "mean"),
        ("image_size=224", "height and width in pixels"),
        ("norm_eps=-1", "norm_eps"),
    ],
)
def test_what_cannot_be_said_is_a_usage_error(saved, timm_state, fragment, match):
    path = saved(timm_state)
    with pytest.raises((ConfigError, InputError), match=match) as caught:
        open_source(f"{path}#{fragment}")
    assert "\n" not in str(caught.value)


def test_nothing_can_be_said_of_random_weights():
    with pytest.raises(ConfigError, match="random weights come from no file"):
        open_source("random:vit_demo_patch8#num_heads=2")


def test_a_file_with_the_sign_in_its_name_is_opened(saved, timm_state):
    for name in ("a#1.pth", "a#num_heads=4.pth"):
        path = saved(timm_state, name)
        assert open_source(path).name == Path(name).stem and open_source(f"x={path}").name == "x"
    assert cast(VitArch, open_source(f"{saved(timm_state, 'b#1.pth')}#num_heads=4").arch).num_heads == 4


def test_C13_a_partial_load_is_allowed_only_when_asked_and_said(saved, timm_state):
    whole = open_source(saved(timm_state))
    cut = {name: tensor for name, tensor in timm_state.items() if not name.startswith("blocks.1.mlp")}
    path = saved({**cut, "blocks.0.adapter.weight": torch.ones(3)}, "cut.pth")
    with pytest.raises(InputError, match=r"missing tensors .*add --allow-partial"):
        open_source(path)
    source = open_source(path, allow_partial=True)
    assert source.ledger.summary()["missing"] == 4 and source.ledger.unexpected == ("blocks.0.adapter.weight",)
    assert any("4 missing tensors drawn from seed 0: blocks.1.mlp.fc1.weight" in note for note in source.ledger.notes)
    assert any("1 unexpected tensor left out: blocks.0.adapter.weight" in note for note in source.ledger.notes)
    drawn, built = vit.initial_weights(cast(VitArch, source.arch), 0), vit.weights_of(source.build(seed=7))
    for name, tensor in built.items():
        assert torch.equal(tensor, drawn[name] if name in source.ledger.missing else timm_state[name])
    assert source.sha256 not in (source.raw_facts["sha256"], whole.sha256)
    # Where nothing is partial, nothing is said of it.
    again = open_source(saved(timm_state), allow_partial=True)
    assert again.ledger == whole.ledger and again.sha256 == whole.sha256


def test_the_ledger_lists_every_tensor_with_its_reason(saved, timm_state):
    content = {f"backbone.{name}": tensor for name, tensor in timm_state.items()}
    content |= {"backbone.norm.weight": timm_state["norm.weight"].half(), "decode_head.conv.weight": torch.ones(2, 3)}
    source = open_source(saved({"state_dict": content, "epoch": 3}))
    rows = {row.name: row for row in source.ledger.rows()}
    assert len(rows) == sum(source.ledger.summary().values()) == len(timm_state) + 2
    assert (rows["norm.weight"].kind, rows["norm.weight"].reason) == ("converted", "cast from float16")
    assert (rows["pos_embed"].kind, rows["pos_embed"].shape) == ("matched", (1, 17, 128))
    part = rows["decode_head.conv.weight"]
    assert (part.kind, part.reason, part.shape) == ("dropped", "part of a segmentor", (2, 3))
    assert rows["epoch"].shape is None and "beside the weights" in rows["epoch"].reason
    assert all(row.kind in KINDS for row in rows.values())
    assert "timm" in source.family


def test_what_the_file_says_is_told_for_inspection(saved, timm_state):
    path = saved({"model": timm_state, "args": {"lr": 0.5}})
    facts = open_source(path).raw_facts
    assert facts["path"] == path and facts["settings"] == {"lr": 0.5} and facts["prefix"] == ""
    assert open_source("random:vit_demo_patch8").raw_facts == {}
