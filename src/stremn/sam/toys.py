"""Configurations of toys: each kind of SAM model, with a million weights and 64x64 pixels."""

from __future__ import annotations

from typing import Any

TOY_SIDE = 64
"""Sides, in pixels, of the square that a toy sees."""

_MEMORY: dict[str, Any] = {
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 32,
    "memory_fuser_num_layers": 1,
}
_PROMPT: dict[str, Any] = {
    "hidden_size": 128,
    "image_size": TOY_SIDE,
    "patch_size": 16,
    "mask_input_channels": 8,
}
_DECODER: dict[str, Any] = {
    "hidden_size": 128,
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
_FPN: dict[str, Any] = {
    "fpn_hidden_size": 128,
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
}


def toy_config(family: str, **changes: Any) -> Any:
    """Return the configuration of a toy of one of `FAMILIES`; `changes` are arguments of it."""
    import transformers as t

    if family == "sam2_video":
        return t.Sam2VideoConfig(
            vision_config=_hiera(),
            prompt_encoder_config=_PROMPT,
            mask_decoder_config=_DECODER,
            image_size=TOY_SIDE,
            memory_attention_feed_forward_hidden_size=32,
            **_MEMORY | changes,
        )
    if family == "edgetam_video":
        return t.EdgeTamVideoConfig(
            vision_config=_hiera(),
            prompt_encoder_config=_PROMPT,
            mask_decoder_config=_DECODER,
            image_size=TOY_SIDE,
            memory_attention_mlp_hidden_size=32,
            memory_attention_rope_k_sizes=[2, 2],
            perceiver_resampler_num_latents=4,
            perceiver_resampler_num_latents_2d=4,
            perceiver_resampler_hidden_size=64,
            perceiver_resampler_mlp_intermediate_size=16,
            perceiver_resampler_attention_head_dim=64,
            perceiver_resampler_num_layers=1,
            **_MEMORY | changes,
        )
    return t.Sam3TrackerVideoConfig(
        vision_config={
            "model_type": "sam3_vision_model",
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": TOY_SIDE,
                "pretrain_image_size": TOY_SIDE,
                "patch_size": 16,
                "window_size": 2,
                "global_attn_indexes": [0],
            },
            **_FPN,
        },
        prompt_encoder_config=_PROMPT,
        mask_decoder_config=_DECODER,
        memory_attention_feed_forward_hidden_size=32,
        **_MEMORY | {"image_size": TOY_SIDE} | changes,
    )


def _hiera() -> dict[str, Any]:
    return {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [TOY_SIDE, TOY_SIDE],
            "blocks_per_stage": [1, 1, 1, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 2, 2, 2],
            "global_attention_blocks": [],
            "window_positional_embedding_background_size": [2, 2],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        **_FPN,
    }
