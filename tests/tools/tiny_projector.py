"""Writes a tiny vision projector for SmolLM2-135M: `python tests/tools/tiny_projector.py OUT.gguf [WIDTH]`.

Random weights from a fixed seed, so answers about images are nonsense; the way of an image through the real engine
is real: decoding, resizing, the vision tower, the projection into the text model's embeddings (WIDTH, 576 for SmolLM2).
No model with meaningful vision is small enough to come with a test.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, Keys
from numpy.typing import NDArray

IMAGE, PATCH, HIDDEN, FEED_FORWARD, BLOCKS, HEADS = 64, 16, 64, 128, 2, 4
SEED = 135
Tensor = NDArray[np.float32]


def tensors(width: int) -> dict[str, Tensor]:
    """All weights by llama.cpp's names; shapes are (out, in), as numpy keeps what GGUF counts the other way round."""
    random = np.random.default_rng(SEED)
    found: dict[str, Tensor] = {}

    def layer(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = (random.standard_normal(shape) * 0.02).astype(np.float32)
        found[f"{name}.bias"] = np.zeros(shape[0], dtype=np.float32)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = np.ones(HIDDEN, dtype=np.float32)
        found[f"{name}.bias"] = np.zeros(HIDDEN, dtype=np.float32)

    layer("v.patch_embd", HIDDEN, 3, PATCH, PATCH)
    found["v.position_embd.weight"] = (random.standard_normal(((IMAGE // PATCH) ** 2, HIDDEN)) * 0.02).astype(
        np.float32
    )
    for block in range(BLOCKS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            layer(f"v.blk.{block}.{part}", HIDDEN, HIDDEN)
        layer(f"v.blk.{block}.ffn_up", FEED_FORWARD, HIDDEN)
        layer(f"v.blk.{block}.ffn_down", HIDDEN, FEED_FORWARD)
        norm(f"v.blk.{block}.ln1")
        norm(f"v.blk.{block}.ln2")
    norm("v.post_ln")
    layer("mm.0", width, HIDDEN)
    layer("mm.2", width, width)
    return found


def write(path: Path, width: int = 576) -> None:
    """Write the projector for a text model with embeddings of `width`."""
    writer = GGUFWriter(path, "clip")
    writer.add_bool(Keys.Clip.HAS_VISION_ENCODER, val=True)
    writer.add_string(Keys.Clip.PROJECTOR_TYPE, "mlp")
    writer.add_vision_use_gelu(value=True)
    writer.add_vision_projection_dim(width)
    writer.add_vision_image_size(IMAGE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(HIDDEN)
    writer.add_vision_feed_forward_length(FEED_FORWARD)
    writer.add_vision_block_count(BLOCKS)
    writer.add_vision_head_count(HEADS)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    for name, tensor in tensors(width).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:]))
