"""Layers and parts of the image and sequence models against torch's own modules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from service.spec import Recipe
from service.spec.groups.normalization import NORMALIZATIONS
from workers.plain.cnn import Block
from workers.plain.layers import CHANNEL_NORMS, WeightNormConv2d, no_dropout
from workers.plain.network import Shape, build, initialize
from workers.plain.sequence import POOLING, AttentionLayer, Gru, StepBatchNorm, StepNorm, positions
from workers.stack.dropout import LaneDropout

B, T, C, D = 5, 7, 3, 8


def padded(seed: int = 0, width: int = C) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Series, their lengths (the longest is T), and which steps are real."""
    torch.manual_seed(seed)
    lengths = torch.tensor([7, 1, 4, 6, 2])
    return torch.randn(B, T, width), lengths, torch.arange(T) < lengths[:, None]


def test_the_recurrent_layer_is_torchs_gru_on_packed_series() -> None:
    x, lengths, real = padded()
    theirs, ours = nn.GRU(C, D, batch_first=True), Gru(C, D)
    ours.load_state_dict(theirs.state_dict())
    pack = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed, last = theirs(pack)
    states, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    got = ours(x, real)
    torch.testing.assert_close(got[real], states[real])
    torch.testing.assert_close(got[:, -1], last[0])
    got[:, -1].sum().backward()
    last.sum().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_attention_layer_is_torchs_encoder_layer() -> None:
    x, _, real = padded(width=D)
    theirs = nn.TransformerEncoderLayer(D, 2, 4 * D, 0.0, nn.functional.gelu, batch_first=True, norm_first=True)
    ours = AttentionLayer(D, D, 0, no_dropout, heads=2, activation="gelu", normalization="layer", groups=1)
    pairs = {
        "norm1.own": theirs.norm1,
        "norm2.own": theirs.norm2,
        "merge": theirs.self_attn.out_proj,
        "widen": theirs.linear1,
        "narrow": theirs.linear2,
    }
    for name, module in pairs.items():
        ours.get_submodule(name).load_state_dict(module.state_dict())
    with torch.no_grad():
        ours.query_key_value.weight.copy_(theirs.self_attn.in_proj_weight)
        ours.query_key_value.bias.copy_(theirs.self_attn.in_proj_bias)
    expected = theirs(x, src_key_padding_mask=~real)
    torch.testing.assert_close(ours(x, real)[real], expected[real], rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_the_paper() -> None:
    table = positions(4, 6, torch.device("cpu"))
    for step in range(4):
        for i in range(3):
            angle = step / 10000 ** (2 * i / 6)
            assert table[step, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[step, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert positions(4, 5, torch.device("cpu")).shape == (4, 5)


def test_batch_normalization_of_steps_is_torchs_of_the_real_ones() -> None:
    theirs, ours = nn.BatchNorm1d(D), StepBatchNorm(D)
    for seed in range(3):
        x, _, real = padded(seed, D)
        torch.testing.assert_close(ours(x, real)[real], theirs(x[real]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x, real)[real], theirs(x[real]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalization", ["none", "layer", "group"])
def test_steps_are_normalized_each_by_itself(normalization: str) -> None:
    x, _, real = padded(width=D)
    norm = StepNorm(D, normalization, groups=2)
    reference = {"none": nn.Identity(), "layer": nn.LayerNorm(D), "group": nn.GroupNorm(2, D)}[normalization]
    for b, t in ((0, 0), (3, 5)):
        torch.testing.assert_close(norm(x, real)[b, t], reference(x[b, t][None])[0])


def test_pooling_sees_real_steps_only() -> None:
    x, lengths, real = padded()
    for row, length in enumerate(lengths.tolist()):
        own = x[row, :length]
        torch.testing.assert_close(POOLING["mean"](x, real)[row], own.mean(0))
        torch.testing.assert_close(POOLING["max"](x, real)[row], own.amax(0))
        torch.testing.assert_close(POOLING["last"](x, real)[row], own[-1])
    nothing = torch.zeros(B, T, dtype=torch.bool)
    assert all((POOLING[how](x, nothing) == 0).all() for how in ("mean", "max", "last"))


@pytest.mark.parametrize("normalization", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_padding_changes_nothing(cell: str, normalization: str) -> None:
    """A series has the same output however much padding stands behind it, alone or in a batch."""
    recipe = Recipe(
        {
            "family": "sequence",
            "width": D,
            "depth": 2,
            "cell": cell,
            "normalization": normalization,
            "normalization_groups": 2,
        }
    )
    x, lengths, real = padded()
    x[~real] = torch.nan
    model = build(Shape.of(recipe.effective(), (T, C), 2))
    initialize(model, recipe, 0)
    model.train()
    model(x)  # gives batch normalization its statistics
    model.eval()
    out = model(x)
    assert torch.isfinite(out).all()
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(model(x[row : row + 1, :length])[0], out[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS["cnn"])
def test_normalization_of_channels_is_torchs(normalization: str) -> None:
    references = {
        "batch": nn.BatchNorm2d(4),
        "layer": nn.LayerNorm([4, 6, 5]),
        "group": nn.GroupNorm(2, 4),
        "instance": nn.InstanceNorm2d(4, affine=True),
        "local_response": nn.LocalResponseNorm(5),
    }
    x = torch.randn(3, 4, 6, 5)
    expected = references.get(normalization, nn.Identity())(x)
    torch.testing.assert_close(CHANNEL_NORMS[normalization](4, 2)(x), expected)


def test_weight_normalization_of_a_convolution_is_torchs() -> None:
    ours, theirs = WeightNormConv2d(2, 4, 3, 2), nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3, 2, 1))
    weight = torch.randn(4, 2, 3, 3)
    ours.adopt(weight)
    theirs.weight = weight
    with torch.no_grad():
        theirs.bias.zero_()
    x = torch.randn(3, 2, 6, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    original = theirs.parametrizations["weight"]
    torch.testing.assert_close(ours.weight_g.grad, original.original0.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.weight_v.grad, original.original1.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("halve", ["strided", "max", "average"])
@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_block_halves_any_resolution_rounding_up(shortcuts: bool, halve: str, size: tuple[int, int]) -> None:
    block = Block(3, 6, halve=halve, shortcuts=shortcuts, activation="relu", normalization="group", groups=2)
    assert block(torch.randn(2, 3, *size)).shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))


def test_a_block_without_change_of_shape_starts_from_its_input() -> None:
    block = Block(4, 4, halve=None, shortcuts=True, activation="relu", normalization="none", groups=1)
    with torch.no_grad():
        for parameter in block.conv2.parameters():
            parameter.zero_()
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x.relu())


def test_spatial_dropout_zeroes_whole_channels_at_its_rate() -> None:
    layer = LaneDropout("dropout", channels=True)
    layer.rate.fill_(0.3)
    x = torch.ones(200, 50, 3, 3)
    out = layer(x)
    per_channel = out.flatten(2)
    assert ((per_channel == per_channel[:, :, :1]).all(2)).all()
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert out.max().item() == pytest.approx(1 / 0.7)
    layer.eval()
    assert torch.equal(layer(x), x)


def test_recurrent_weights_start_orthogonal_and_all_from_the_seed() -> None:
    recipe = Recipe({"family": "sequence", "width": D})
    model = build(Shape.of(recipe.effective(), (T, C), 2))
    initialize(model, recipe, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recurrent = next(value for name, value in before.items() if "weight_hh" in name)
    for gate in recurrent.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(D), atol=1e-5, rtol=0)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 9.0)
    initialize(model, recipe, 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
