"""The transformer against the formulas in float64 numpy, written without looking at torch's layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from published import DINOV2, DINOV3, state_of
from scipy.special import erf
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.models.vit import RopePeriods, ViT, ViTConfig, interpolate_table

Weights = dict[str, np.ndarray]
REGISTERS = replace(DINOV2, registers=4, table_offset=0.0, table_antialias=True)
FUSED = replace(DINOV2, mlp="swiglu_fused", mlp_width=48)


def build(config: ViTConfig) -> ViT:
    network = ViT(config).eval()
    network.load_state_dict(state_of(network))
    return network


def image(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32))


# ---------------------------------------------------------------- the reference


def layer_norm(x: np.ndarray, w: Weights, key: str, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[key + ".weight"] + w[key + ".bias"]


def linear(x: np.ndarray, w: Weights, key: str) -> np.ndarray:
    return x @ w[key + ".weight"].T + w[key + ".bias"]


def cubic(t: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75, torch's bicubic."""
    t, a = np.abs(t), -0.75
    inner = (a + 2) * t**3 - (a + 3) * t**2 + 1
    return np.where(t <= 1, inner, np.where(t < 2, a * (t**3 - 5 * t**2 + 8 * t - 4), 0))


def resampling(n: int, side: int) -> np.ndarray:
    """(n, side): DINOv2's position interpolation, source (i + 0.5) side / (n + 0.1) - 0.5, edges repeated."""
    source = (np.arange(n) + 0.5) * side / (n + 0.1) - 0.5
    matrix = np.zeros((n, side))
    for i, x in enumerate(source):
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            matrix[i, min(max(j, 0), side - 1)] += cubic(np.array(x - j))
    return matrix


def reference(config: ViTConfig, state: dict[str, Tensor], pixels: np.ndarray) -> list[np.ndarray]:
    """Tokens (N, D) of one image after every block, by the published formulas."""
    w = {key: value.double().numpy() for key, value in state.items()}
    p, d, heads = config.patch_size, config.width, config.heads
    h, n_w = pixels.shape[1] // p, pixels.shape[2] // p
    patches = pixels[:, : h * p, : n_w * p].reshape(3, h, p, n_w, p).transpose(1, 3, 0, 2, 4).reshape(h * n_w, -1)
    x = patches @ w["patch_embed.proj.weight"].reshape(d, -1).T + w["patch_embed.proj.bias"]
    cls = w["cls_token"][0]
    if config.position == "table":
        side = config.table_side
        table = w["pos_embed"][0, 1:].reshape(side, side, d)
        if (h, n_w) != (side, side):
            table = np.einsum("ia,jb,abd->ijd", resampling(h, side), resampling(n_w, side), table)
        x, cls = x + table.reshape(h * n_w, d), cls + w["pos_embed"][0, :1]
    x = np.concatenate([cls, w["storage_tokens"][0], x] if config.registers else [cls, x])
    outputs = []
    for i in range(config.depth):
        key = f"blocks.{i}."
        bias = w[key + "attn.qkv.bias"] * w.get(key + "attn.qkv.bias_mask", 1.0)
        qkv = layer_norm(x, w, key + "norm1", config.eps) @ w[key + "attn.qkv.weight"].T + bias
        q, k, v = qkv.reshape(len(x), 3, heads, d // heads).transpose(1, 2, 0, 3)
        if config.position == "rope":
            q, k = (rotated(t, h, n_w, w["rope_embed.periods"]) for t in (q, k))
        weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(d // heads))
        attended = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), d)
        x = x + w[key + "ls1.gamma"] * linear(attended, w, key + "attn.proj")
        y = layer_norm(x, w, key + "norm2", config.eps)
        x = x + w[key + "ls2.gamma"] * mlp(y, w, key + "mlp.")
        outputs.append(x)
    return outputs


def mlp(y: np.ndarray, w: Weights, key: str) -> np.ndarray:
    if key + "fc1.weight" in w:
        hidden = linear(y, w, key + "fc1")
        return linear(hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))), w, key + "fc2")
    if key + "w12.weight" in w:
        gate, value = np.split(linear(y, w, key + "w12"), 2, axis=-1)
    else:
        gate, value = linear(y, w, key + "w1"), linear(y, w, key + "w2")
    return linear(gate / (1 + np.exp(-gate)) * value, w, key + "w3")


def rotated(x_hNd: np.ndarray, h: int, n_w: int, periods: np.ndarray) -> np.ndarray:
    """Patch tokens turned pairwise, channel k with k + d/2: the first quarter of angles is the row's, the next the
    column's, then both again."""
    prefix, half = x_hNd.shape[1] - h * n_w, x_hNd.shape[2] // 2
    out = x_hNd.copy()
    for token in range(h * n_w):
        y, x = 2 * (token // n_w + 0.5) / h - 1, 2 * (token % n_w + 0.5) / n_w - 1
        angle = np.concatenate([2 * np.pi * y / periods, 2 * np.pi * x / periods])
        a, b = x_hNd[:, prefix + token, :half], x_hNd[:, prefix + token, half:]
        out[:, prefix + token, :half] = a * np.cos(angle) - b * np.sin(angle)
        out[:, prefix + token, half:] = b * np.cos(angle) + a * np.sin(angle)
    return out


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize(
    ("config", "height", "width"),
    [
        (DINOV3, 80, 112),
        (DINOV3, 85, 63),  # rows and columns beyond the last whole patch are left out
        (DINOV2, 70, 112),
        (replace(DINOV2, table_side=5), 70, 70),  # the table's own size
        (FUSED, 42, 84),
    ],
    ids=["dinov3", "dinov3-odd", "dinov2", "dinov2-own-size", "dinov2-swiglu"],
)
def test_every_block_equals_the_formulas(config: ViTConfig, height: int, width: int) -> None:
    network, pixels = build(config), image(height, width)
    with torch.inference_mode():
        last, taps = network(pixels, range(config.depth))
    assert torch.equal(last, taps[-1])
    for index in range(2):
        expected = reference(config, network.state_dict(), pixels[index].double().numpy())
        for ours, theirs in zip(taps, expected, strict=True):
            np.testing.assert_allclose(ours[index].numpy(), theirs, rtol=2e-4, atol=2e-5)


def test_taps_come_in_the_order_asked_for() -> None:
    network, pixels = build(DINOV2), image(28, 28)
    with torch.inference_mode():
        _, (third, first) = network(pixels, (3, 1))
        _, every = network(pixels, range(6))
    assert torch.equal(third, every[3])
    assert torch.equal(first, every[1])


@pytest.mark.parametrize("offset", [0.1, 0.0])
def test_position_table_is_sampled_by_scale_factor(offset: float) -> None:
    """By factor and by size are different tables: taking one for the other moved published depths by up to 31 %."""
    config = replace(DINOV2, table_offset=offset, table_side=9)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 81, 4)).astype(np.float32))
    ours = interpolate_table(table, 5, 12, config)[0].double().numpy().reshape(5, 12, 4)
    by_factor = np.einsum(
        "ia,jb,abd->ijd", resampling(5, 9), resampling(12, 9), table[0].double().numpy().reshape(9, 9, 4)
    )
    difference = np.abs(ours - by_factor).max()
    assert (difference < 1e-5) == (offset > 0)
    if not offset:
        assert difference > 0.02


def test_register_models_interpolate_by_size_with_antialiasing() -> None:
    network = build(REGISTERS)
    assert network.register_tokens.shape == (1, 4, 32)
    grid = network.pos_embed[:, 1:].detach().unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(3, 5), mode="bicubic", antialias=True)
    ours = interpolate_table(network.pos_embed.detach()[:, 1:], 3, 5, REGISTERS)
    torch.testing.assert_close(ours, expected.flatten(2).transpose(1, 2))
    with torch.inference_mode():
        tokens = network(image(42, 70))[0]
    assert tokens.shape == (2, 5 + 15, 32)


def test_rope_periods_are_stored_values() -> None:
    """The published files hold 100^(k/16) as bfloat16 rounded it; they are weights, and keep float32 in any network."""
    published = [1, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5, 10, 13.3125, 17.75, 23.75, 31.625, 42.25,
                 56.25, 75]  # fmt: skip
    rope = RopePeriods(64)
    assert rope.periods.tolist() == published
    rope.load_state_dict({"periods": torch.arange(1, 17) + 0.123456})
    for dtype in (torch.bfloat16, torch.float16):
        rope.to(dtype)
        assert rope.periods.dtype == torch.float32
        assert torch.equal(rope.periods, torch.arange(1, 17) + 0.123456)


def test_stored_periods_and_bias_mask_change_the_result() -> None:
    network, pixels = build(DINOV3), image(64, 64)
    with torch.inference_mode():
        before = network(pixels)[0]
        network.rope_embed.periods.mul_(1.003)
        assert (network(pixels)[0] - before).abs().max() > 1e-4
        network.rope_embed.periods.div_(1.003)
        for block in network.blocks:
            block.attn.qkv.bias_mask.fill_(1)
        assert (network(pixels)[0] - before).abs().max() > 1e-2
        for block in network.blocks:
            block.attn.qkv.bias_mask.zero_()
            block.attn.qkv.bias.fill_(1e3)
        masked = network(pixels)[0]
        for block in network.blocks:
            block.attn.qkv.bias.zero_()
        assert torch.equal(network(pixels)[0], masked)


def test_a_new_network_masks_the_key_bias_alone() -> None:
    mask = ViT(DINOV3).blocks[0].attn.qkv.bias_mask
    assert mask.tolist() == [1.0] * 32 + [0.0] * 32 + [1.0] * 32


def test_many_tokens_pass_the_mlp_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, pixels = build(DINOV2), image(70, 70)
    with torch.inference_mode():
        whole = network(pixels)[0]
        monkeypatch.setattr("metricanything.models.vit._MLP_TOKENS", 7)
        torch.testing.assert_close(network(pixels)[0], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads", [0, 3, 1.5, "4", None])
def test_impossible_heads(heads: object) -> None:
    with pytest.raises(InputError, match="num_heads must divide the token width 32"):
        replace(DINOV2, heads=heads)  # type: ignore[arg-type]


def test_rotary_heads_need_a_multiple_of_four_channels() -> None:
    with pytest.raises(InputError, match="multiple of 4 channels, got 2"):
        replace(DINOV3, heads=16)
