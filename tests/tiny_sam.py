"""Tiny SAM models of transformers with random weights, and what their own sessions answer."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

SIDE = 64
FAMILIES = ("sam2_video", "edgetam_video", "sam3_tracker_video")

_MEMORY = {
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
_PROMPT = {"hidden_size": 128, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8}
_DECODER = {
    "hidden_size": 128,
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
_FPN = {"fpn_hidden_size": 128, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}


def tiny_sam(family: str = "sam2_video", seed: int = 0, **changes: object) -> torch.nn.Module:
    """Return a model of one to two million weights, none of them zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _filled(_build(family, **changes), seed)


def _build(family: str, **changes: object) -> torch.nn.Module:
    import transformers as t

    if family == "sam2_video":
        config = t.Sam2VideoConfig(
            vision_config=_hiera(),
            prompt_encoder_config=_PROMPT,
            mask_decoder_config=_DECODER,
            image_size=SIDE,
            memory_attention_feed_forward_hidden_size=32,
            **_MEMORY | changes,
        )
        return t.Sam2VideoModel(config)
    if family == "edgetam_video":
        config = t.EdgeTamVideoConfig(
            vision_config=_hiera(),
            prompt_encoder_config=_PROMPT,
            mask_decoder_config=_DECODER,
            image_size=SIDE,
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
        return t.EdgeTamVideoModel(config)
    config = t.Sam3TrackerVideoConfig(
        vision_config={
            "model_type": "sam3_vision_model",
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "pretrain_image_size": SIDE,
                "patch_size": 16,
                "window_size": 2,
                "global_attn_indexes": [0],
            },
            **_FPN,
        },
        prompt_encoder_config=_PROMPT,
        mask_decoder_config=_DECODER,
        image_size=SIDE,
        memory_attention_feed_forward_hidden_size=32,
        **_MEMORY | changes,
    )
    return t.Sam3TrackerVideoModel(config)


def _hiera() -> dict[str, object]:
    return {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [SIDE, SIDE],
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


def _filled(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            scale = 0.1 if value.dim() < 2 else 1.5 * value[0].numel() ** -0.5
            noise = torch.randn(value.shape, generator=generator) * scale
            value.copy_(value + noise if value.dim() < 2 else noise)
    return model.eval()


def noisy_square(frame: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Return a frame: noise of its own, and a bright square that moves."""
    image = np.random.default_rng(frame).integers(0, 120, (height, width, 3), dtype=np.uint8)
    left = 4 + frame * 3 % (width - 24)
    image[12:32, left : left + 20] += 120
    return image


def square_mask(frame: int, object_id: int = 1, height: int = 48, width: int = 80) -> np.ndarray:
    """Return the mask of that square."""
    mask = np.zeros((height, width), np.uint8)
    left = 4 + frame * 3 % (width - 24)
    mask[12:32, left : left + 20] = object_id
    return mask


class OwnSession:
    """transformers' own streaming inference of a model: all of the past, frame by frame.

    EdgeTAM gets a session an object: its code fails where only some objects have a mask.
    """

    def __init__(self, model: torch.nn.Module, device: str = "cpu") -> None:
        from stremn.sam.models import of_network

        self.source = of_network(model)
        self.model = model
        self.device = torch.device(device)
        self.alone = model.config.model_type == "edgetam_video"
        self.sessions: dict[int, object] = {}
        self.frame = -1

    def _session(self, name: int) -> object:
        from stremn.sam.reading import session_class

        key = name if self.alone else 0
        if key not in self.sessions:
            self.sessions[key] = session_class(self.model)(
                inference_device=self.device,
                inference_state_device=self.device,
                video_storage_device=self.device,
                dtype=torch.float32,
            )
        return self.sessions[key]

    def step(self, image: np.ndarray, mask: np.ndarray | None = None) -> torch.Tensor:
        """Return the logits of all objects at the frame's size."""
        from stremn.sam.prompts import mask_prompt

        self.frame += 1
        pixels = self.source.pixels(torch.from_numpy(image).to(self.device), torch.float32)
        for name in [] if mask is None else [int(i) for i in np.unique(mask) if i]:
            session = self._session(name)
            given = mask_prompt(mask == name, self.source.size, self.device)["mask"]
            session.add_mask_inputs(session.obj_id_to_idx(name), self.frame, given)
            session.obj_with_new_inputs.append(name)
        with torch.inference_mode():
            answers = [
                self.model(inference_session=session, frame=pixels, frame_idx=self.frame)
                for session in self.sessions.values()
            ]
        size = tuple(image.shape[:2])
        logits = torch.cat([answer.pred_masks.float() for answer in answers])
        return F.interpolate(logits, size, mode="bilinear")[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the session holds on to."""
        return held_bytes(self.sessions)


def held_bytes(x: object) -> int:
    """Return the bytes of all tensors' storages that are reachable, each counted once."""
    found: dict[int, int] = {}
    queue, seen = [x], set()
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            queue += item.values()
        elif isinstance(item, list | tuple):
            queue += item
        elif not isinstance(item, torch.nn.Module) and hasattr(item, "__dict__"):
            queue += vars(item).values()
    return sum(found.values())
