"""iBOT (arXiv 2111.07832): the teachers of bytedance/ibot, pretrained on ImageNet-1K.

Lengths of training: table 2 of the paper; the licence is that of the repository.
"""

from backbones.releases import Release

PLACE = "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/"


def _release(folder: str, arch: str, epochs: int) -> Release:
    url = f"{PLACE}{folder}/checkpoint_teacher.pth"
    return Release("ibot", "IN1K", "ibot", ("iBOT", arch), url=url, epochs=epochs, licence="apache-2.0")


RELEASES = {
    "ibot_vit_small": _release("vits_16", "ViT-S/16", 800),
    "ibot_vit_base": _release("vitb_16", "ViT-B/16", 400),
}
