"""Every number that shapes the demo data. A change of any of them, or of the drawing, needs a new `GENERATOR`."""

from dataclasses import dataclass

# Version of what is drawn; a folder written by another one is not mixed with it.
GENERATOR = 2
SEED = 20211111

# Held out for validation: the digits from this place of load_digits on, and the columns of each photograph from this share of
# its width on. The last digits instead of random ones: neighbours in load_digits are alike, so random ones have near copies in
# train (nearest neighbour on the 64 pixels: 96 % right with consecutive folds, 99 % with shuffled ones).
FIRST_HELD_OUT_DIGIT = 1437
FIRST_HELD_OUT_COLUMN = 0.7

# Pixels.
FOLDER_SIDE = 48
FOLDER_DIGIT = (34, 46)
SCENE_SIDE = 96
SCENE_DIGIT = (28, 46)
LARGEST_CROP = 128
"""Side of the largest piece of a photograph, before it is scaled to the picture's side."""

DIGITS_PER_SCENE = (2, 4)
LEAST_VISIBLE = 0.6
"""Share of a digit's pixels that later digits leave uncovered."""

# Drawing.
LARGEST_ROTATION = 8.0
"""Degrees to either side; 6 and 9 stay apart."""
LARGEST_SHEAR = 0.1
STROKE_THRESHOLD = (0.45, 0.55)
"""Ink level that becomes the stroke's edge: low ones give thick strokes."""
EDGE_PIXELS = 2.0
"""Width over which the alpha matte goes from 0 to 1."""
LARGEST_SATURATION = 0.3
LEAST_VALUE = 0.9
"""Digits have light colours (HSV), and backgrounds are dark: a small network learns such scenes in minutes. Negatives are
the other way round."""
BRIGHTNESS = (0.3, 0.6)
"""Factor on a background's pixels."""
HAZE = (0.4, 0.8)
"""Share of a background's contrast that is left."""
BLUR_PIXELS = 3.0
"""Deviation of the blur of a background, which lies out of focus behind the digits."""

NEGATIVES = 0.5
"""Share of the pictures that are turned into their negatives. Without them a linear map of the pixels of a digit that is cut out
and centred tells its class, so that a random backbone detects digits as well as a trained one (74 % of the held-out ones in the
scenes are told from its features by ridge regression; 59 % with negatives)."""

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Scale:
    """How many images are made."""

    folder_train: int
    """Images a class."""
    folder_val: int
    scenes_train: int
    """Scenes of the COCO data set, and as many others of the ADE20K one."""
    scenes_val: int

    @property
    def images(self) -> int:
        """All images together."""
        return 10 * (self.folder_train + self.folder_val) + 2 * (self.scenes_train + self.scenes_val)


SCALES = {
    "demo": Scale(folder_train=360, folder_val=90, scenes_train=400, scenes_val=100),
    "tiny": Scale(folder_train=20, folder_val=8, scenes_train=24, scenes_val=12),
}
