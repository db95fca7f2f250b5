"""Data sets that Hugging Face's `datasets` saved on disk (`DatasetDict.save_to_disk`)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mae_bench.core.errors import InputError
from mae_bench.core.find import missing
from tasks.data import Info, Which, some
from tasks.encoded import Encoded

SPLITS = {"train": ("train",), "val": ("validation", "val", "valid", "test")}
"""Names that the splits may have; of several the first that is there is taken."""
ABOUT = "dataset_info.json"

INFO = Info(
    name="hf",
    kind="classification",
    description="a data set of Hugging Face `datasets` on disk: `load_dataset(...).save_to_disk(PATH)`",
    layout="dataset_dict.json\ntrain/ with *.arrow\nvalidation/ with *.arrow (or val/, valid/, test/)",
    licence="that of the data set; see its card",
)


@dataclass(frozen=True, eq=False)
class HfSplit:
    """Images and labels of one split, read from its Arrow files in any order."""

    folder: Path
    rows: Any
    """The `datasets.Dataset`, whose images are given as they are stored."""
    column: str
    """Of the images."""
    labels: list[int]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def encoded(self, index: int) -> Encoded:
        """One image as it is stored.

        Raises:
            InputError: the row has no image.
        """
        found, name = self.rows[index][self.column], f"{index} in {self.folder}"
        if found is None or (found["bytes"] is None and found["path"] is None):
            raise InputError(f"image {name} is empty; remove the row")
        return Encoded(found["bytes"] if found["bytes"] is not None else Path(found["path"]), name)

    def image(self, index: int) -> Image.Image:
        """Decode one image; the orientation tag is not obeyed, as in the ImageNet protocols."""
        return self.encoded(index).image()

    def files(self) -> Iterable[Path]:
        """The Arrow files."""
        return sorted(self.folder.glob("*.arrow"))

    def texts(self) -> Iterable[Path]:
        """The description, which names the classes."""
        return (self.folder / ABOUT,)


def check(root: Path) -> None:
    """Raise InputError unless both splits are there."""
    for which in ("train", "val"):
        _folder(root, which)


def load(root: Path, which: Which) -> HfSplit:
    """Open one split.

    Raises:
        InputError: it cannot be opened, its columns do not say which the image and the label are, or a label is missing.
        EnvironmentFault: `datasets` is not installed.
    """
    folder = _folder(root, which)
    rows = _open(folder)
    image, label = _column(rows, folder, "Image"), _column(rows, folder, "ClassLabel")
    labels = rows.select_columns([label]).with_format("arrow")[:][label].to_pylist()
    classes = tuple(rows.features[label].names)
    bad = [number for number, value in enumerate(labels) if value is None or not 0 <= value < len(classes)]
    if bad:
        raise InputError(f"{folder}: no label for images {some(bad)}; remove them, or take a split that has labels")
    if not labels:
        raise InputError(f"{folder} has no image; save the data set anew")
    if len(classes) < 2:
        raise InputError(f"{folder}: only one class ({some(classes)}); a classification task needs at least two")
    from datasets import Image as Feature

    return HfSplit(folder, rows.select_columns([image]).cast_column(image, Feature(decode=False)), image, labels, classes)


def _folder(root: Path, which: str) -> Path:
    layout = "; ".join(INFO.layout.splitlines())
    if not (root / "dataset_dict.json").is_file():
        one = ": it is one split, save them together as a DatasetDict" if (root / ABOUT).exists() else ""
        raise InputError(f"{root} has no dataset_dict.json{one}; the layout is {layout}")
    found = next((root / name for name in SPLITS[which] if (root / name).is_dir()), None)
    if found is None:
        raise InputError(f"{root} has no folder {SPLITS[which][0]}/; the layout is {layout}")
    return found


def _open(folder: Path) -> Any:
    try:
        from datasets import load_from_disk
        from pyarrow import ArrowException
    except ModuleNotFoundError as error:
        raise missing(error, "data set hf") from error
    try:
        return load_from_disk(str(folder))
    except (ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder} cannot be opened ({reason}); save the data set anew") from error


def _column(rows: Any, folder: Path, kind: str) -> str:
    """The one column of a type."""
    import datasets

    found = [name for name, feature in rows.features.items() if isinstance(feature, getattr(datasets, kind))]
    if len(found) != 1:
        there = ", ".join(f"{name}: {type(feature).__name__}" for name, feature in rows.features.items())
        what = f"columns {some(found)} are all of type {kind}" if found else f"no column of type {kind} ({there})"
        raise InputError(f"{folder}: {what}; keep or cast exactly one")
    return found[0]
