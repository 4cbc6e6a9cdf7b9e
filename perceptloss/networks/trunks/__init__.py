"""Trunks with named taps, shared between critics: torchvision's as short layer tables, the large ones from timm."""

from perceptloss.networks.trunks.critic import Features, TrunkCritic, features
from perceptloss.networks.trunks.efficientnet import EfficientNet, efficientnet_rules
from perceptloss.networks.trunks.large import InceptionResNet, VisionTransformer, inception_rules, vit_rules
from perceptloss.networks.trunks.lite import LITE_TAPS, Lite, lite_state
from perceptloss.networks.trunks.plain import alexnet, squeezenet, vgg16, vgg19
from perceptloss.networks.trunks.resnet import ResNet, resnet_children_rules, resnet_rules
from perceptloss.networks.trunks.stages import Stages, TrunkName, lite_stages, staged
from perceptloss.networks.trunks.timm_features import TimmFeatures
from perceptloss.networks.trunks.trunk import HALF, IMAGENET, JoinedTrunk, Keep, Normalisation, Trunk

__all__ = [
    "HALF",
    "IMAGENET",
    "LITE_TAPS",
    "EfficientNet",
    "Features",
    "InceptionResNet",
    "JoinedTrunk",
    "Keep",
    "Lite",
    "Normalisation",
    "ResNet",
    "Stages",
    "TimmFeatures",
    "Trunk",
    "TrunkCritic",
    "TrunkName",
    "VisionTransformer",
    "alexnet",
    "efficientnet_rules",
    "features",
    "inception_rules",
    "lite_stages",
    "lite_state",
    "resnet_children_rules",
    "resnet_rules",
    "squeezenet",
    "staged",
    "vgg16",
    "vgg19",
    "vit_rules",
]
