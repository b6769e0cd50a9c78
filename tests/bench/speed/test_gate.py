"""The gate: what it makes comparable, what it lets pass and what it stops."""

import pytest
import torch
from torch import nn

from bench.speed.gate import TOLERANCE, GateError, compare, randomise, snapshot


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)
    ).eval()


def test_randomise_leaves_no_norm_at_its_identity_and_no_layer_scale_at_nothing():
    model = network()
    model.register_parameter("layer_scale", nn.Parameter(torch.full((4,), 1e-6)))
    convolution = model[0].weight.clone()
    randomise(model)
    norm = model[1]
    for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias, model[3].weight):
        assert tensor.unique().numel() == tensor.numel()
    assert norm.running_var.min() > 0.4
    assert model.layer_scale.min() > 0.4
    assert torch.equal(model[0].weight, convolution)
    assert norm.num_batches_tracked == 0


def test_randomise_is_the_same_with_the_same_seed():
    one, other = randomise(network(), 3), randomise(network(), 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    different = randomise(network(), 4)
    assert not torch.equal(one[1].weight, different[1].weight)


def test_snapshot_reaches_into_lists_and_dicts_and_refuses_the_rest():
    ones = torch.ones(2)
    found = snapshot({"maps": [ones, (ones,)], "boxes": torch.tensor([1])})
    assert list(found) == ["output.maps.0", "output.maps.1.0", "output.boxes"]
    assert found["output.boxes"].dtype == torch.int64
    with pytest.raises(TypeError, match=r"`output.1` \(a str\)"):
        snapshot([ones, "label"])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_rounding_passes_in_every_dtype(dtype):
    model, x = randomise(network()), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        reference = snapshot(model(x))
        fused = nn.Sequential(nn.utils.fuse_conv_bn_eval(model[0], model[1]), *model[2:])
        timed = snapshot(fused.to(getattr(torch, dtype))(x.to(getattr(torch, dtype))))
    error = compare(timed, reference, dtype)
    assert 0 < error <= TOLERANCE[dtype]


def dropped_shift(model):
    fused = nn.utils.fuse_conv_bn_eval(model[0], model[1])
    fused.bias = None
    return nn.Sequential(fused, *model[2:])


def skipped_norm(model):
    return nn.Sequential(model[0], *model[2:])


def turned_kernel(model):
    fused = nn.utils.fuse_conv_bn_eval(model[0], model[1])
    fused.weight.data = fused.weight.data.flip(-1)
    return nn.Sequential(fused, *model[2:])


@pytest.mark.parametrize("wrong", [dropped_shift, skipped_norm, turned_kernel])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_wrong_fused_form_is_stopped_in_every_dtype(wrong, dtype):
    model, x = randomise(network()), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        reference = snapshot(model(x))
        timed = snapshot(wrong(model).to(getattr(torch, dtype))(x.to(getattr(torch, dtype))))
    with pytest.raises(GateError, match=f"relative error .* {dtype} allows") as caught:
        compare(timed, reference, dtype)
    assert caught.value.error > TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("timed", "reference", "message"),
    [
        (torch.ones(3), torch.ones(2), r"is \(3,\), in the training form \(2,\)"),
        ([torch.ones(1)], torch.ones(1), "the timed form returns"),
        (torch.tensor([float("nan")]), torch.ones(1), "of the timed form is not finite"),
        (torch.ones(1), torch.tensor([float("inf")]), "of the training form is not finite"),
        (torch.zeros(2), torch.zeros(2), "is void"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "other whole numbers"),
    ],
)
def test_outputs_that_cannot_be_compared_are_stopped(timed, reference, message):
    with pytest.raises(GateError, match=message):
        compare(snapshot(timed), snapshot(reference), "float32")


def test_gradients_are_compared_as_a_whole():
    """One element in a thousand that is all wrong is that of a kink."""
    wanted = torch.ones(1000)
    kink = wanted.clone()
    kink[0] = 0
    timed, reference = snapshot(kink), snapshot(wanted)
    with pytest.raises(GateError):
        compare(timed, reference, "float16")
    assert compare(timed, reference, "float16", gradients=True) == pytest.approx(0.0316, abs=1e-4)
    with pytest.raises(GateError, match=r"float32 allows 0\.001"):
        compare(timed, reference, "float32", gradients=True)


def test_empty_and_equal_whole_number_outputs_pass():
    output = {"boxes": torch.empty(0, 4), "labels": torch.tensor([3, 1])}
    assert compare(snapshot(output), snapshot(output), "float32") == 0
