"""torchvision's families, narrow and short, without weights."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision import models as tv
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.maxvit import MaxVit
from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.segmentation.lraspp import LRASPP
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer

CLASSES = 10


def resnet(block: type[BasicBlock | Bottleneck] = BasicBlock, **options: int) -> nn.Module:
    return ResNet(block, [1, 1, 1, 1], num_classes=CLASSES, **options)


def vgg(batch_norm: bool = False) -> nn.Module:
    network = VGG(make_layers([16, "M", 32, "M", 32, "M"], batch_norm), num_classes=CLASSES)
    network.avgpool = nn.AdaptiveAvgPool2d(2)
    network.classifier[0], network.classifier[3] = nn.Linear(32 * 4, 64), nn.Linear(64, 64)
    network.classifier[6] = nn.Linear(64, CLASSES)
    return network


def densenet() -> nn.Module:
    return DenseNet(8, (2, 2, 2, 2), 16, num_classes=CLASSES)


def mobilenet_v3() -> nn.Module:
    settings, last = _mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.5)
    return MobileNetV3(settings, last, num_classes=CLASSES)


def efficientnet() -> nn.Module:
    settings = [
        MBConvConfig(1, 3, 1, 16, 8, 1),
        MBConvConfig(4, 3, 2, 8, 16, 2),
        MBConvConfig(4, 5, 2, 16, 24, 2),
    ]
    return EfficientNet(settings, dropout=0.2, num_classes=CLASSES, last_channel=64)


def efficientnet_v2() -> nn.Module:
    settings = [FusedMBConvConfig(1, 3, 1, 16, 16, 1), FusedMBConvConfig(4, 3, 2, 16, 24, 2)]
    last = [MBConvConfig(4, 3, 2, 24, 32, 2)]
    return EfficientNet([*settings, *last], dropout=0.2, num_classes=CLASSES, last_channel=64)


def regnet(se_ratio: float | None = None) -> nn.Module:
    settings = BlockParams.from_init_params(depth=4, w_0=24, w_a=16.0, w_m=2.2, group_width=8, se_ratio=se_ratio)
    return RegNet(settings, num_classes=CLASSES)


def convnext() -> nn.Module:
    return ConvNeXt(
        [CNBlockConfig(16, 32, 2), CNBlockConfig(32, 48, 2), CNBlockConfig(48, None, 1)], 0.1, 1e-6, CLASSES
    )


def swin(**options: object) -> nn.Module:
    return SwinTransformer(
        [4, 4],
        24,
        [2, 2],
        [2, 4],
        [4, 4],
        stochastic_depth_prob=0.1,
        num_classes=CLASSES,
        **options,  # type: ignore[arg-type]
    )


def vit() -> nn.Module:
    return VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=CLASSES)


def maxvit() -> nn.Module:
    return MaxVit((64, 64), 32, 2, [64, 128], [1, 1], 32, 0.1, num_classes=CLASSES)


def shufflenet() -> nn.Module:
    return ShuffleNetV2([2, 2, 2], [16, 24, 48, 96, 128], num_classes=CLASSES)


def squeezenet() -> nn.Module:
    return tv.squeezenet1_1(num_classes=CLASSES)


def googlenet() -> nn.Module:
    return tv.googlenet(num_classes=CLASSES, init_weights=False, aux_logits=False)


def inception() -> nn.Module:
    return tv.inception_v3(num_classes=CLASSES, init_weights=False, aux_logits=False)


def alexnet() -> nn.Module:
    network = tv.alexnet(num_classes=CLASSES)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier[1], network.classifier[4] = nn.Linear(256, 64), nn.Linear(64, 64)
    network.classifier[6] = nn.Linear(64, CLASSES)
    return network


def deeplab() -> nn.Module:
    backbone = create_feature_extractor(resnet(), {"layer4": "out"})
    return DeepLabV3(backbone, DeepLabHead(512, CLASSES, (2, 4)))


def fcn() -> nn.Module:
    backbone = create_feature_extractor(resnet(), {"layer4": "out"})
    return FCN(backbone, FCNHead(512, CLASSES))


def lraspp() -> nn.Module:
    settings, _ = _mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.5, dilated=True)
    features = MobileNetV3(settings, 64).features
    backbone = create_feature_extractor(features, {"4": "low", "12": "high"})
    return LRASPP(backbone, 24, 288, CLASSES, 32)


SIDE = {"vit": 32, "inception_v3": 96}

TORCHVISION = {
    "alexnet": alexnet,
    "vgg": vgg,
    "vgg_bn": partial(vgg, True),
    "resnet": resnet,
    "resnet_bottleneck": partial(resnet, Bottleneck),
    "resnext": partial(resnet, Bottleneck, groups=8, width_per_group=4),
    "wide_resnet": partial(resnet, Bottleneck, width_per_group=128),
    "densenet": densenet,
    "squeezenet": squeezenet,
    "googlenet": googlenet,
    "inception_v3": inception,
    "mobilenet_v2": partial(tv.mobilenet_v2, width_mult=0.35, num_classes=CLASSES),
    "mobilenet_v3": mobilenet_v3,
    "mnasnet": partial(tv.MNASNet, 0.35, num_classes=CLASSES),
    "shufflenet_v2": shufflenet,
    "efficientnet": efficientnet,
    "efficientnet_v2": efficientnet_v2,
    "regnet_x": regnet,
    "regnet_y": partial(regnet, 0.25),
    "convnext": convnext,
    "vit": vit,
    "swin": swin,
    "swin_v2": partial(swin, block=SwinTransformerBlockV2),
    "maxvit": maxvit,
    "deeplab_v3": deeplab,
    "fcn": fcn,
    "lraspp": lraspp,
}
"""Families of classifiers and of segmentation, by name."""
