"""Trunks with named taps, shared between critics: torchvision's as short layer tables, the large ones from timm."""

from perceptloss.backbones.efficientnet import EfficientNet, efficientnet_rules
from perceptloss.backbones.ladder import Ladder
from perceptloss.backbones.large import inception_resnet_v2, inception_rules, vision_transformer, vit_rules
from perceptloss.backbones.plain import alexnet, squeezenet, vgg16, vgg19
from perceptloss.backbones.resnet import ResNet, resnet, resnet_rules
from perceptloss.backbones.trunk import HALF, IMAGENET, JoinedTrunk, Keep, Normalisation, Trunk

__all__ = [
    "HALF",
    "IMAGENET",
    "EfficientNet",
    "JoinedTrunk",
    "Keep",
    "Ladder",
    "Normalisation",
    "ResNet",
    "Trunk",
    "alexnet",
    "efficientnet_rules",
    "inception_resnet_v2",
    "inception_rules",
    "resnet",
    "resnet_rules",
    "squeezenet",
    "vgg16",
    "vgg19",
    "vision_transformer",
    "vit_rules",
]
