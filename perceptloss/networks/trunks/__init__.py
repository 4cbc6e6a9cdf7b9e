"""Trunks with named taps, shared between critics: torchvision's as short layer tables, the large ones from timm."""

from perceptloss.networks.trunks.critic import Features, TrunkCritic, features
from perceptloss.networks.trunks.efficientnet import EfficientNet, efficientnet_rules
from perceptloss.networks.trunks.ladder import Ladder
from perceptloss.networks.trunks.large import inception_resnet_v2, inception_rules, vision_transformer, vit_rules
from perceptloss.networks.trunks.plain import alexnet, squeezenet, vgg16, vgg19
from perceptloss.networks.trunks.resnet import ResNet, resnet_rules
from perceptloss.networks.trunks.trunk import HALF, IMAGENET, JoinedTrunk, Keep, Normalisation, Trunk

__all__ = [
    "HALF",
    "IMAGENET",
    "EfficientNet",
    "Features",
    "JoinedTrunk",
    "Keep",
    "Ladder",
    "Normalisation",
    "ResNet",
    "Trunk",
    "TrunkCritic",
    "alexnet",
    "efficientnet_rules",
    "features",
    "inception_resnet_v2",
    "inception_rules",
    "resnet_rules",
    "squeezenet",
    "vgg16",
    "vgg19",
    "vision_transformer",
    "vit_rules",
]
