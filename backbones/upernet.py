"""What UPerNet on mmsegmentation asks of a backbone, as mmseg's MAE has it."""

from backbones.contract import BackboneSpec, DenseOptions


def dense_options(
    image_size: tuple[int, int] | None, drop_path: float, *, relative_table: bool, layer_scale: float | None
) -> DenseOptions:
    """How mmseg builds its MAE backbone: positions resized once, bicubic without antialiasing (`resize_abs_pos_embed`)."""
    return DenseOptions(
        image_size=tuple(image_size) if image_size else None,  # type: ignore[arg-type]  # mmengine gives lists
        antialias=False,
        drop_path=drop_path,
        relative_table=relative_table,
        layer_scale=layer_scale,
    )


def crop_side(side: int, spec: BackboneSpec) -> int:
    """Side in pixels of training crops and test windows: rounded up to whole patches, which cover it exactly."""
    return side + -side % spec.patch_size
