"""Published numbers: every one has its source, and a filter finds what it names."""

import pytest

from mae_bench.core.errors import ConfigError
from results.published import arch_of, references, select, task_of


def test_every_number_has_a_source_a_place_and_a_metric():
    found = references()
    assert len(found) > 2000
    for one in found:
        assert one.source and one.place and one.metric and one.method and one.task and one.dataset and one.unit, one
        assert one.text == one.text.strip() and float(one.text) == one.value
    assert sum(not one.verified for one in found) == 2  # as the README says


def test_every_file_is_named_in_the_readme():
    from importlib.resources import files

    text = (files("results") / "reference" / "README.md").read_text(encoding="utf-8")
    for file in {one.file for one in references()}:
        assert f"{file}.csv" in text


def test_no_number_is_there_twice():
    keys = [
        (
            one.place,
            one.method,
            one.arch,
            one.task,
            one.dataset,
            one.protocol,
            one.setting,
            one.metric,
            one.file,
            one.notes,
            one.pretrain_data,
            one.pretrain_epochs,
        )
        for one in references()
    ]
    assert len(set(keys)) == len(keys)


# Read in the paper, arXiv 2111.06377: Table 3, Table 4, Table 5, Table 12.
KNOWN = [
    ("finetune", "vit_base_patch16", "top1", "T3", 83.6),
    ("finetune", "ViT-H/14", "top1", "T3", 86.9),
    ("linear", "ViT-L/16", "top1", "T12", 75.8),
    ("detection", "ViT-L/16", "AP_box", "T4", 53.3),
    ("detection", "ViT-B/16", "AP_mask", "T4", 44.9),
    ("segmentation", "ViT-B/16", "mIoU", "T5", 48.1),
]


@pytest.mark.parametrize(("task", "arch", "metric", "place", "value"), KNOWN)
def test_numbers_of_the_paper(task, arch, metric, place, value):
    found = select(references(), task=task, arch=arch, metric=metric, method="MAE")
    assert value in [one.value for one in found if one.place == place]


def test_a_filter_that_finds_nothing_names_what_is_near():
    with pytest.raises(ConfigError, match=r"--method 'DINOO'.*DINO"):
        select(references(), method="DINOO")
    with pytest.raises(ConfigError, match="--task 'knitting'"):
        select(references(), task="knitting")


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ({"task": "x"}, "detection.*knn"),
        ({"task": "detect"}, "did you mean detection"),
        ({"method": "MA"}, "MAE"),
        ({"arch": "ViT-B/1"}, "ViT-B/16"),
        ({"dataset": "COC"}, "COCO"),
    ],
)
def test_a_part_of_a_word_is_refused_with_the_names_near_it(asked, near):
    with pytest.raises(ConfigError, match=near):
        select(references(), **asked)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"task": "k-nn"}, "k-NN"),
        ({"task": "ViTDet"}, "ViTDet Mask R-CNN, no relative position"),
        ({"task": "fine-tune"}, "fine-tune 50ep"),
        ({"method": "moco"}, "MoCo v3"),
        ({"method": "MoCoV3"}, "MoCo v3"),
        ({"dataset": "imagenet"}, "ImageNet-1K val"),
        ({"arch": "vit_base"}, "ViT-B/16"),
    ],
)
def test_whole_words_of_a_name_find_it(asked, text):
    assert text in {word for one in select(references(), **asked) for word in (one.protocol, one.method, one.dataset, one.arch)}


def test_architectures_in_both_spellings():
    assert [arch_of(name) for name in ("vit_base_patch16", "vit_huge_patch14", "vit_demo_patch8", "ViT-L/16")] == [
        "ViT-B/16",
        "ViT-H/14",
        "vit_demo_patch8",
        "ViT-L/16",
    ]
    assert arch_of("vit_base") == "ViT-B"


def test_tasks_of_the_suite_have_published_numbers():
    assert {task_of(one) for one in references()} >= {"knn", "linear", "finetune", "partial", "detection", "segmentation"}
