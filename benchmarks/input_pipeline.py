"""From JPEG files to a normalised batch of random crops on one core, against torchvision's two pipelines.

    OMP_NUM_THREADS=1 python benchmarks/input_pipeline.py [--size 500x375] [--images 48] [--rounds 5]

Decode, random resized crop to 224 (20 to 100 % of the area, bicubic), flip, normalise. The suite's loader gives bytes, which the
device normalises, whole batches at a time; `suite, normalised` does that on the core as well. The files are generated. All
contenders draw the same crops, so that normalised means agree within the rounding of the resize. Each is a process of its own on
one thread; they take turns and CPU time is counted. Nothing fails here: the numbers are read. The goals are 2.5 times
torchvision's usual pipeline (ImageFolder with Pillow) and 1.4 times its tensor one (v2 after `decode_image`); at 1600x1200,
reduced, 3.5 and 1.5 times.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.turns import Step, print_ratios, take_turns

CONTENDERS = (
    "torchvision, Pillow",
    "torchvision v2, tensor",
    "suite, Pillow",
    "suite, simplejpeg",
    "suite, reduced",
    "suite, normalised",
)
CROP = (0.2, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_images(root: Path, count: int, size: tuple[int, int]) -> int:
    """Write JPEGs of noise at several scales, as photographs have it, and give their bytes together."""
    rng, total = np.random.default_rng(0), 0
    for split in ("train", "val"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
    for number in range(count):
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (max(2, size[1] // s), max(2, size[0] // s), 3), dtype=np.uint8)).resize(
                    size, Image.Resampling.BICUBIC
                ),
                dtype=np.float32,
            )
            for s in (100, 25, 6, 2)
        ]
        pixels = sum(weight * layer for weight, layer in zip((0.45, 0.3, 0.15, 0.1), layers, strict=True))
        path = root / "train" / "ab"[number % 2] / f"{number}.jpg"
        Image.fromarray(np.asarray(pixels).astype(np.uint8)).save(path, quality=90)
        total += path.stat().st_size
    for label in "ab":
        Image.new("RGB", (8, 8)).save(root / "val" / label / "0.jpg")
    return total


def build(name: str, root: Path) -> Step:
    """A contender's pass over all images; its number is the mean of some pixels of the batch."""
    dataset, finish = suite(name, root) if name.startswith("suite") else torchvision(name, root)

    def step() -> float:
        samples = []
        for index in range(len(dataset)):
            torch.default_generator.manual_seed(index)
            samples.append(dataset[index][0])
        # Of few pixels: a mean of all would be a twentieth of the time, and more for bytes than for numbers.
        return float(finish(torch.stack(samples))[..., ::16, ::16].mean(dtype=torch.float32))

    return step


def torchvision(name: str, root: Path) -> tuple[Any, Any]:
    """ImageFolder with the transforms of torchvision's references and of MAE's published code, or with their v2."""
    from torchvision import datasets, transforms
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import InterpolationMode, v2

    bicubic = InterpolationMode.BICUBIC
    if name.endswith("Pillow"):
        steps = [transforms.RandomResizedCrop(224, scale=CROP, interpolation=bicubic), transforms.RandomHorizontalFlip()]
        whole = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        return datasets.ImageFolder(str(root / "train"), whole), lambda batch: batch
    crop = v2.RandomResizedCrop(224, scale=CROP, interpolation=bicubic, antialias=True)
    whole = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    load: Any = partial(decode_image, mode=ImageReadMode.RGB)
    return datasets.ImageFolder(str(root / "train"), whole, loader=load), lambda batch: batch


def suite(name: str, root: Path) -> tuple[Any, Any]:
    """What `mae-bench pretrain mae` draws from, and what is done to a batch."""
    from backbones.source import open_source
    from mae_bench.objectives import mae
    from mae_bench.objectives._images import load_images
    from mae_bench.objectives._parts import to_input
    from tasks import encoded
    from tasks.handle import open_data

    if name.endswith("Pillow"):
        encoded.simplejpeg = lambda: None  # type: ignore[assignment]
    elif encoded.simplejpeg() is None:
        raise SystemExit('simplejpeg is not installed; run: pip install "mae-bench[fast]"')
    spec = open_source("random:vit_base_patch16").spec
    sample = mae.sample(mae.RECIPES["paper"], spec)
    split = open_data(f"folder={root}").split("train")
    images = load_images(split, sample, "never", reduced=name.endswith("reduced"))
    return images, (lambda batch: to_input(batch, spec)) if name.endswith("normalised") else (lambda batch: batch)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="500x375", help="width and height of the images")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        size = write_images(Path(folder), given.images, (width, height)) / given.images
        results = take_turns(CONTENDERS, partial(build, root=Path(folder)), given.rounds)
    print(f"{given.images} JPEGs of {given.size}, {size / 1000:.0f} KB each, one thread, {given.rounds} rounds")
    print_ratios(results, CONTENDERS[0])
    for name, result in results.items():
        print(f"{name:24}{given.images / statistics.median(result.seconds):8.0f} images/s")


if __name__ == "__main__":
    main()
