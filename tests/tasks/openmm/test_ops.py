"""mmcv's compiled calls, answered through torchvision: against loops, forward and backward."""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck

import tasks.openmm.boxes
from tasks.openmm import packages

mmcv_ops = pytest.importorskip("mmcv.ops")
pytestmark = pytest.mark.skipif(
    not packages.WITHOUT_COMPILED, reason="a compiled mmcv answers its own calls"
)


@pytest.fixture
def boxes():
    torch.manual_seed(0)
    low = torch.rand(40, 2) * 20
    return torch.cat([low, low + 1 + torch.rand(40, 2) * 15], dim=1), torch.rand(40)


def iou(a, b, offset=0):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
    return w * h / (sum(areas) - w * h)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms(boxes, offset):
    dets, scores = boxes
    left, kept = sorted(range(len(dets)), key=lambda i: -scores[i]), []
    while left:
        top = left.pop(0)
        kept.append(top)
        left = [i for i in left if iou(dets[top].tolist(), dets[i].tolist(), offset) <= 0.4]
    found, indices = mmcv_ops.nms(dets, scores, 0.4, offset=offset)
    assert indices.tolist() == kept
    assert 3 < len(kept) < 40
    torch.testing.assert_close(found, torch.cat([dets, scores[:, None]], dim=1)[kept])


def test_nms_by_score_and_number(boxes):
    dets, scores = boxes
    whole = mmcv_ops.nms(dets, scores, 0.4)[1]
    few = mmcv_ops.nms(dets, scores, 0.4, score_threshold=0.5, max_num=3)[1]
    assert few.tolist() == [i for i in whole.tolist() if scores[i] > 0.5][:3]


def test_nms_of_half_precision_and_of_nothing(boxes):
    dets, scores = boxes
    wanted = mmcv_ops.nms(dets.half().float(), scores.half().float(), 0.4)[1]
    assert mmcv_ops.nms(dets.half(), scores.half(), 0.4)[1].tolist() == wanted.tolist()
    assert len(mmcv_ops.nms(dets[:0], scores[:0], 0.4)[1]) == 0


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
def test_soft_nms(boxes, method, offset):
    dets, scores = boxes
    left = {i: float(s) for i, s in enumerate(scores)}
    kept = []
    while left:
        top = max(left, key=left.get)
        kept.append((top, left.pop(top)))
        for i in list(left):
            overlap = iou(dets[top].tolist(), dets[i].tolist(), offset)
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / 0.5)
            elif overlap >= 0.3:
                left[i] *= 1 - overlap if method == "linear" else 0
            if left[i] < 0.05:
                del left[i]
    found, indices = mmcv_ops.soft_nms(dets, scores, 0.3, 0.5, 0.05, method, offset)
    assert indices.tolist() == [i for i, _ in kept]
    torch.testing.assert_close(found[:, 4], torch.tensor([s for _, s in kept]))
    torch.testing.assert_close(found[:, :4], dets[indices])


@pytest.mark.parametrize("kind", ["nms", "soft_nms"])
@pytest.mark.parametrize("split", [10000, 10])
def test_batched_nms_keeps_classes_apart(boxes, kind, split):
    dets, scores = boxes
    labels = torch.arange(40) % 3
    config = {"type": kind, "iou_threshold": 0.4, "split_thr": split}
    found, indices = mmcv_ops.batched_nms(dets, scores, labels, config)
    one = mmcv_ops.nms if kind == "nms" else mmcv_ops.soft_nms
    wanted = {}
    for label in range(3):
        own = torch.nonzero(labels == label)[:, 0]
        kept, order = one(dets[own], scores[own], 0.4)
        wanted |= {int(own[i]): float(kept[n, 4]) for n, i in enumerate(order)}
    assert set(indices.tolist()) == set(wanted)
    assert found[:, 4].tolist() == pytest.approx(sorted(wanted.values(), reverse=True), rel=1e-5)


def test_nms_match(boxes):
    dets = torch.cat([boxes[0], boxes[1][:, None]], dim=1)
    left, wanted = sorted(range(40), key=lambda i: -dets[i, 4]), []
    while left:
        top = left.pop(0)
        close = [i for i in left if iou(dets[top].tolist(), dets[i].tolist()) >= 0.4]
        wanted.append([top, *close])
        left = [i for i in left if i not in close]
    assert [group.tolist() for group in mmcv_ops.nms_match(dets, 0.4)] == wanted


@pytest.mark.parametrize("offset", [0, 1])
def test_box_overlaps(boxes, offset):
    a, b = boxes[0][:5], boxes[0][5:12]
    found = torch.zeros(5, 7)
    tasks.openmm.boxes.bbox_overlaps(a, b, found, mode=0, aligned=False, offset=offset)
    wanted = [[iou(x, y, offset) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(found, torch.tensor(wanted))
    line = torch.zeros(5)
    tasks.openmm.boxes.bbox_overlaps(a, b[:5], line, mode=0, aligned=True, offset=offset)
    torch.testing.assert_close(line, found.diagonal()[:5])
    tasks.openmm.boxes.bbox_overlaps(a, a, line, mode=1, aligned=True, offset=offset)
    torch.testing.assert_close(line, torch.ones(5))


ROIS = torch.tensor([[0, 1.0, 2.0, 9.0, 11.0], [1, -3.0, 0.5, 6.2, 30.0], [1, 4.0, 4.0, 5.0, 4.5]])


def bilinear(plane, y, x):
    h, w = plane.shape
    if y < -1 or y > h or x < -1 or x > w:
        return plane.new_zeros(())
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    v, u = y - top, x - left
    return (
        plane[top, left] * (1 - v) * (1 - u)
        + plane[top, right] * (1 - v) * u
        + plane[bottom, left] * v * (1 - u)
        + plane[bottom, right] * v * u
    )


def roi_align_by_loops(maps, rois, size, scale, ratio, aligned):
    out = []
    for roi in rois.tolist():
        shift = 0.5 if aligned else 0.0
        x1, y1, x2, y2 = (edge * scale - shift for edge in roi[1:])
        least = 0 if aligned else 1
        w, h = max(x2 - x1, least), max(y2 - y1, least)
        rows = ratio or math.ceil(h / size)
        columns = ratio or math.ceil(w / size)
        for channel in maps[int(roi[0])]:
            for i, j in itertools.product(range(size), repeat=2):
                points = [
                    bilinear(
                        channel,
                        y1 + (i + (r + 0.5) / rows) * h / size,
                        x1 + (j + (c + 0.5) / columns) * w / size,
                    )
                    for r in range(rows)
                    for c in range(columns)
                ]
                out.append(torch.stack(points).mean())
    return torch.stack(out).view(len(rois), maps.shape[1], size, size)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(aligned, ratio):
    torch.manual_seed(0)
    maps = torch.randn(2, 2, 8, 7, dtype=torch.float64, requires_grad=True)
    rois = ROIS.double()
    found = mmcv_ops.roi_align(maps, rois, 3, 0.5, ratio, "avg", aligned)
    wanted = roi_align_by_loops(maps, rois, 3, 0.5, ratio, aligned)
    torch.testing.assert_close(found, wanted)
    seed = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, maps, seed)[0], torch.autograd.grad(wanted, maps, seed)[0]
    )


def test_roi_align_with_maxima_needs_a_compiled_mmcv():
    with pytest.raises(tasks.openmm.boxes.CompiledOpError, match="roi_align with pool_mode='max'"):
        mmcv_ops.roi_align(torch.zeros(1, 1, 4, 4), ROIS[:1], 2, 1.0, 0, "max", True)


def test_roi_pool():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 9, 8, requires_grad=True)
    scale, (rows, columns) = 0.5, (3, 2)
    wanted = []
    for roi in ROIS.tolist():
        x1, y1, x2, y2 = roi[1] * scale, roi[2] * scale, (roi[3] + 1) * scale, (roi[4] + 1) * scale
        for channel in maps[int(roi[0])]:
            for i, j in itertools.product(range(rows), range(columns)):
                h, w = (y2 - y1) / rows, (x2 - x1) / columns
                top, bottom = math.floor(i * h + y1), math.ceil((i + 1) * h + y1)
                left, right = math.floor(j * w + x1), math.ceil((j + 1) * w + x1)
                part = channel[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
                wanted.append(part.max() if part.numel() else maps.new_zeros(()))
    wanted = torch.stack(wanted).view(3, 3, rows, columns)
    found = mmcv_ops.roi_pool(maps, ROIS, (rows, columns), scale)
    torch.testing.assert_close(found, wanted)
    assert (found == 0).any()
    seed = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, maps, seed)[0], torch.autograd.grad(wanted, maps, seed)[0]
    )


def deform_conv_by_loops(x, offset, weight, bias, stride, padding, dilation, groups, parts, mask):
    batch, channels, _, _ = x.shape
    out_channels, _, kh, kw = weight.shape
    oh, ow = offset.shape[-2:]
    out = []
    for n, o, i, j in itertools.product(range(batch), range(out_channels), range(oh), range(ow)):
        total = x.new_zeros(()) if bias is None else bias[o]
        group = o // (out_channels // groups)
        for c, a, b in itertools.product(range(channels // groups), range(kh), range(kw)):
            source = group * (channels // groups) + c
            part = source // (channels // parts)
            place = part * kh * kw + a * kw + b
            y = i * stride - padding + a * dilation + offset[n, 2 * place, i, j]
            z = j * stride - padding + b * dilation + offset[n, 2 * place + 1, i, j]
            value = x.new_zeros(())
            top, left = math.floor(y.detach()), math.floor(z.detach())
            for r, s in itertools.product((top, top + 1), (left, left + 1)):
                if 0 <= r < x.shape[2] and 0 <= s < x.shape[3]:
                    value = value + x[n, source, r, s] * (1 - (y - r).abs()) * (1 - (z - s).abs())
            if mask is not None:
                value = value * mask[n, place, i, j]
            total = total + weight[o, c, a, b] * value
        out.append(total)
    return torch.stack(out).view(batch, out_channels, oh, ow)


@pytest.mark.parametrize(("groups", "parts", "stride"), [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("modulated", [False, True])
def test_deform_conv(groups, parts, stride, modulated):
    torch.manual_seed(0)
    side, kernel, padding, dilation = 6, 3, 1, 1
    out = (side + 2 * padding - kernel) // stride + 1

    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, weight = leaf(2, 4, side, side), leaf(4, 4 // groups, kernel, kernel)
    offset, mask = leaf(2, parts * 18, out, out), leaf(2, parts * 9, out, out)
    bias = leaf(4)
    leaves = [x, offset, weight]
    if modulated:
        leaves += [mask, bias]
        found = mmcv_ops.modulated_deform_conv2d(
            x, offset, mask, weight, bias, stride, padding, dilation, groups, parts
        )
    else:
        found = mmcv_ops.deform_conv2d(x, offset, weight, stride, padding, dilation, groups, parts)
    wanted = deform_conv_by_loops(
        x, offset, weight, bias if modulated else None, stride, padding, dilation, groups, parts,
        mask if modulated else None,
    )  # fmt: skip
    torch.testing.assert_close(found, wanted)
    seed = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves, seed),
        torch.autograd.grad(wanted, leaves, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_half_precision():
    """torchvision has no kernels for it on a CPU, and autocast makes it."""
    torch.manual_seed(0)
    x, offset = torch.randn(1, 2, 6, 6).bfloat16(), torch.randn(1, 18, 6, 6).bfloat16()
    weight = torch.randn(2, 2, 3, 3).bfloat16()

    def run(convert):
        leaves = [convert(t).requires_grad_() for t in (x, offset, weight)]
        maps = mmcv_ops.deform_conv2d(*leaves, 1, 1)
        out = mmcv_ops.roi_align(maps, ROIS[:1], 3, 0.5, 0, "avg", True)
        return [out, *torch.autograd.grad(out.sum(), leaves)]

    for mine, wanted in zip(run(torch.clone), run(torch.Tensor.float), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), wanted, rtol=0.05, atol=0.1)


def sigmoid_focal_by_loops(x, target, gamma, alpha, weight):
    rows = []
    for logits, label in zip(x, target.tolist(), strict=True):
        for c, z in enumerate(logits):
            p = torch.sigmoid(z)
            if c == label:
                loss = -alpha * (1 - p) ** gamma * torch.log(p)
            else:
                loss = -(1 - alpha) * p**gamma * torch.log(1 - p)
            if weight is not None:
                loss = loss * (weight[label] if label < len(weight) else 0)
            rows.append(loss)
    return torch.stack(rows).view_as(x)


def softmax_focal_by_loops(x, target, gamma, alpha, weight):
    rows = []
    for logits, label in zip(x, target.tolist(), strict=True):
        p = (logits - torch.logsumexp(logits, 0)).exp()[max(label, 0)]
        loss = -alpha * (1 - p) ** gamma * torch.log(p)
        if weight is not None:
            loss = loss * weight[label]
        rows.append(loss if label >= 0 else loss * 0)
    return torch.stack(rows)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_focal_loss(kind, weighted, reduction):
    torch.manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    # The last label is the background of the sigmoid form and ignored in the softmax form.
    target = torch.tensor([0, 3, 1, 2, 2, 4 if kind == "sigmoid" else -1])
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    function = mmcv_ops.sigmoid_focal_loss if kind == "sigmoid" else mmcv_ops.softmax_focal_loss
    reference = sigmoid_focal_by_loops if kind == "sigmoid" else softmax_focal_by_loops
    found = function(x, target, 2.0, 0.25, weight, reduction)
    wanted = reference(x, target, 2.0, 0.25, weight)
    if reduction != "none":
        wanted = wanted.sum() / (len(x) if reduction == "mean" else 1)
    torch.testing.assert_close(found, wanted)
    if reduction == "none" and kind == "softmax":
        # mmcv multiplies (N, C) gradients by the (N) seed, which torch cannot broadcast.
        return
    seed = torch.rand_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, seed)[0], torch.autograd.grad(wanted, x, seed)[0]
    )


def test_focal_loss_without_focus_stays_finite():
    x = torch.tensor([[80.0, -80.0], [-80.0, 80.0]], requires_grad=True)
    for function in (mmcv_ops.sigmoid_focal_loss, mmcv_ops.softmax_focal_loss):
        loss = function(x, torch.tensor([0, 0]), 0.5, 0.25, None, "sum")
        assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


@pytest.mark.filterwarnings("ignore:This overload of addmm:UserWarning")
def test_masked_conv():
    torch.manual_seed(0)
    features, weight, bias = torch.randn(1, 3, 6, 7), torch.randn(4, 3, 3, 3), torch.randn(4)
    mask = (torch.rand(1, 6, 7) > 0.5).float()
    found = mmcv_ops.masked_conv2d(features, mask, weight, bias, 1)
    wanted = torch.nn.functional.conv2d(features, weight, bias, padding=1) * mask[:, None]
    torch.testing.assert_close(found, wanted)


def test_multi_scale_deformable_attention():
    torch.manual_seed(0)
    shapes = torch.tensor([[4, 5], [2, 3]])
    heads, channels, queries, points = 2, 3, 4, 2
    value = torch.randn(2, 26, heads, channels, dtype=torch.float64, requires_grad=True)
    places = torch.rand(2, queries, heads, 2, points, 2, dtype=torch.float64) * 1.2 - 0.1
    places.requires_grad_()
    weights = torch.rand(2, queries, heads, 2, points, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([0, 20])
    apply = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    found = apply(value, shapes, start, places, weights, 64)

    wanted = []
    for n, q, m in itertools.product(range(2), range(queries), range(heads)):
        total = value.new_zeros(channels)
        for level, (h, w) in enumerate(shapes.tolist()):
            plane = value[n, start[level] : start[level] + h * w, m].view(h, w, channels)
            for p in range(points):
                x, y = (
                    places[n, q, m, level, p, 0] * w - 0.5,
                    places[n, q, m, level, p, 1] * h - 0.5,
                )
                sample = value.new_zeros(channels)
                top, left = math.floor(y.detach()), math.floor(x.detach())
                for r, s in itertools.product((top, top + 1), (left, left + 1)):
                    if 0 <= r < h and 0 <= s < w:
                        sample = sample + plane[r, s] * (1 - (y - r).abs()) * (1 - (x - s).abs())
                total = total + weights[n, q, m, level, p] * sample
        wanted.append(total)
    wanted = torch.stack(wanted).view(2, queries, heads * channels)
    torch.testing.assert_close(found, wanted)
    pytorch_form = mmcv_ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    torch.testing.assert_close(found, pytorch_form(value, shapes, places, weights))
    seed, leaves = torch.randn_like(found), (value, places, weights)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves, seed),
        torch.autograd.grad(wanted, leaves, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    rois = ROIS[:1].double()
    assert gradcheck(lambda maps: mmcv_ops.roi_align(maps, rois, 2, 0.5, 2, "avg", True), (x,))
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2])
    assert gradcheck(
        lambda z: mmcv_ops.sigmoid_focal_loss(z, target, 2.0, 0.25, None, "sum"), (logits,)
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: mmcv_ops.box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5)),
        lambda: mmcv_ops.carafe(torch.zeros(1, 4, 4, 4), torch.zeros(1, 9, 8, 8), 3, 1, 2),
        lambda: mmcv_ops.min_area_polygons(torch.zeros(1, 18)),
    ],
)
def test_other_calls_name_what_they_need(call):
    with pytest.raises(tasks.openmm.boxes.CompiledOpError, match="needs a compiled mmcv"):
        call()
