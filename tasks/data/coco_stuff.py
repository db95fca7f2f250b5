"""COCO-Stuff 164k: COCO 2017's images with its stuffthingmaps, in the folders mmsegmentation asks for.

The maps (stuffthingmaps_trainval2017.zip) hold the number of a label less one, from 0 to 181; eleven of the 182 labels occur in
no annotation, which leaves 171 classes (github.com/nightrome/cocostuff, labels.md). 255 is ignored. What mmseg's converter adds
beside them (`*_labelTrainIds.png`) is not needed and not read.
"""

from pathlib import Path

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, need_folder
from tasks.data._label_maps import (
    IGNORED,
    SUFFIXES,
    UNKNOWN,
    SegmentationSplit,
    check_headers,
    check_labels,
    check_present,
    images_in,
)

INFO = Info(
    name="coco_stuff",
    kind="segmentation",
    description="COCO-Stuff 164k, 171 classes of things and stuff",
    layout="images/train2017/*.jpg\nimages/val2017/*.jpg\nannotations/train2017/*.png\nannotations/val2017/*.png",
    licence="COCO-Stuff annotations CC BY 4.0; images under Flickr's terms",
)

THINGS = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, parking meter, "
    "bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, "
    "frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, "
    "wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, "
    "chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, "
    "toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
)
STUFF = (
    "banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, "
    "cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, "
    "floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, "
    "house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, "
    "plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, "
    "skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable, "
    "wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, "
    "window-blind, window-other, wood"
)
CLASSES = tuple(f"{THINGS}, {STUFF}".split(", "))

LABELS = 182
ABSENT = frozenset((11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90))
"""Numbers in the maps of labels without an annotation: street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door,
blender, hair brush."""


def check(root: Path) -> None:
    """Raise InputError unless the four folders are there."""
    for side in ("images", "annotations"):
        need_folder(root / side, INFO.layout)
        for which in ("train2017", "val2017"):
            need_folder(root / side / which, INFO.layout)


def load(root: Path, which: Which) -> SegmentationSplit:
    """Read and validate one split.

    Raises:
        InputError: wrong layout, maps that are missing, of another size or not of COCO-Stuff's labels.
    """
    check(root)
    images, maps = root / "images" / f"{which}2017", root / "annotations" / f"{which}2017"
    pairs = [(path, maps / f"{path.stem}.png") for path in images_in(images)]
    if not pairs:
        raise InputError(f"{images} holds no image ({', '.join(sorted(SUFFIXES))})")
    check_present(pairs, maps)
    check_headers(pairs, maps)
    split = SegmentationSplit(pairs, CLASSES, None, _lookup())
    check_labels(split, maps)
    return split


def _lookup() -> bytes:
    used = [number for number in range(LABELS) if number not in ABSENT]
    lookup = bytearray([UNKNOWN] * 256)
    for number, stored in enumerate(used):
        lookup[stored] = number
    lookup[IGNORED] = IGNORED
    return bytes(lookup)
