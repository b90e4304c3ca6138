"""What timm adds in kinds of layers, narrow and short, without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import timm
from timm.layers import GatedMlp
from timm.models.focalnet import FocalNet
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from torch import nn

CLASSES = 10


def made(name: str, **options: object) -> Callable[[], nn.Module]:
    """A factory of one of timm's networks."""
    return partial(timm.create_model, name, num_classes=CLASSES, **options)


MIXER = partial(MlpMixer, CLASSES, 64, patch_size=16, num_blocks=2, embed_dim=48)

TIMM = {
    "timm vit": made("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=48, num_heads=3),
    "timm vit relative": made("vit_relpos_small_patch16_224", img_size=64, depth=2, embed_dim=48, num_heads=3),
    "timm beit": made("beit_base_patch16_224", img_size=64, depth=2, embed_dim=48, num_heads=3),
    "timm eva02": made("eva02_tiny_patch14_224", img_size=56, depth=2, embed_dim=48, num_heads=3),
    "timm cait": made("cait_xxs24_224", img_size=64, depth=2, embed_dim=48, num_heads=4),
    "timm swin": made(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1), embed_dim=24, num_heads=(2, 4)
    ),
    "timm convnext v2": made("convnextv2_atto", depths=(1, 1, 1, 1), dims=(16, 24, 32, 48)),
    "timm edgenext": made("edgenext_xx_small"),
    "timm mobilevit": made("mobilevit_xxs"),
    "timm ghostnet": made("ghostnet_050"),
    "timm mobilenet v4": made("mobilenetv4_conv_small"),
    "timm tinynet": made("tinynet_e"),
    "timm repvgg": made("repvgg_a0"),
    "timm res2net": made("res2net50_14w_8s", layers=(1, 1, 1, 1)),
    "timm resnest": made("resnest14d", layers=(1, 1, 1, 1)),
    "timm sknet": made("skresnet18", layers=(1, 1, 1, 1)),
    "timm ecanet": made("ecaresnet26t", layers=(1, 1, 1, 1)),
    "timm dla": made("dla46_c"),
    "timm starnet": made("starnet_s1"),
    "timm pvt v2": made("pvt_v2_b0"),
    "timm xcit": made("xcit_nano_12_p16_224", img_size=64, depth=2),
    "timm focalnet": partial(
        FocalNet, num_classes=CLASSES, depths=(1, 1), embed_dim=24, focal_levels=(2, 2), focal_windows=(3, 3)
    ),
    "timm mixer": MIXER,
    "timm resmlp": partial(MIXER, mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine),
    "timm gmlp": partial(MIXER, mlp_ratio=4, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp),
    "timm poolformer": partial(MetaFormer, num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(16, 24, 32, 48)),
}
"""By name."""

SIDE = {"timm eva02": 56}
