"""Demo data made on the spot: handwritten digits on photographs, as an image folder, as COCO and as ADE20K.

The scenes let every task of the suite run end to end without a download: classification, detection, instance and semantic
segmentation, pretraining. They are small enough for a CPU and hard enough that a pretrained backbone is told from a random
one; their numbers say nothing about other data and are never set beside published ones. The written folders have the
official layouts, and the readers in `tasks.data` know nothing of where they come from.

Ingredients ship with scikit-learn: `load_digits` (1797 digits of 8x8 pixels, UCI) and the two photographs of
`load_sample_images`. The digits of the last fifth of `load_digits` and the right 30 % of each photograph are held out: only
`val` splits use them, in all three data sets. So no digit and no piece of background is in a `train` and a `val` split, also
not across the data sets (pretraining on one and measuring on another is clean). Train splits share the train digits among
themselves, and val splits the held-out ones.
"""

from tasks.scenes.demo import write_demo

__all__ = ["write_demo"]
