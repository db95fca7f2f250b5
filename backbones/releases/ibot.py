"""iBOT (arXiv 2111.07832): the teachers of bytedance/ibot, pretrained on ImageNet-1K."""

from backbones.releases import Release

PLACE = "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/"


def _release(folder: str, arch: str) -> Release:
    return Release("ibot", "IN1K", ("iBOT", arch), url=f"{PLACE}{folder}/checkpoint_teacher.pth")


RELEASES = {
    "ibot_vit_small": _release("vits_16", "ViT-S/16"),
    "ibot_vit_base": _release("vitb_16", "ViT-B/16"),
}
