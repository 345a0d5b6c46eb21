"""A backbone of your own: three parts with strides 4, 8 and 16, here of MobileNetV3."""

import torch
from torchvision.models import mobilenet_v3_small

from stremn import SegmentationConfig, build_model
from stremn.networks.backbones import Backbone


def mobilenet_backbone(weights: str | None = None) -> Backbone:
    """Cut torchvision's MobileNetV3; `weights` "DEFAULT" downloads those of ImageNet."""
    layers = mobilenet_v3_small(weights=weights).features.eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    parts = layers[:2], layers[2:4], layers[4:9]
    return Backbone(*parts, channels=(16, 24, 48), mean=mean, std=std)


if __name__ == "__main__":
    config = SegmentationConfig(memory_encoder="shared-stem", key=32, value=64, update_key=32)
    model = build_model(config, mobilenet_backbone()).eval()  # untrained: `fit` trains it
    query = model.encode_query(torch.rand(1, 3, 128, 160))
    print(sum(p.numel() for p in model.parameters()), tuple(query.key.shape))
