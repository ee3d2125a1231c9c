"""Tiny detector folders as transformers saves them. A `lively` one says "cat" of much, whatever it sees; the other is
as random weights are: sure of nothing."""

import json

import torch
from small import shaken

NAMES = {0: "cat", 1: "dog", 2: "mouse", 3: "N/A", 4: "sofa", 5: "apple"}
SHARED = {"id2label": NAMES, "label2id": {name: k for k, name in NAMES.items()}}


def mask2former(transformers, folder, lively=True):
    backbone = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=5, **SHARED,
    )  # fmt: skip
    torch.manual_seed(0)
    model = shaken(transformers.Mask2FormerForUniversalSegmentation(config), 0, 0.05)
    return written(model, folder, model.class_predictor.bias, lively, {"size_divisor": 32})


def detr(transformers, folder, lively=True):
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=5, **SHARED,
    )  # fmt: skip
    torch.manual_seed(0)
    model = shaken(transformers.DetrForObjectDetection(config), 0, 0.05)
    return written(model, folder, model.class_labels_classifier.bias, lively, {})


def written(model, folder, bias, lively, more):
    with torch.no_grad():
        bias.zero_()
        bias[0] = 8.0 if lively else 0.0  # cat
        bias[-1] = 0.0 if lively else 9.0  # nothing
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 96}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "do_normalize": False} | more))
    return folder
