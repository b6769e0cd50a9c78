"""What is particular to Shift-Conv: the tables, the strips, the exact split, the sparsity."""

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import operators
from bench.operators.shift_sparsity import (
    cosine_rate,
    exchange,
    filter_saliency,
    random_mask,
    snip_densities,
)
from bench.operators.shift_split import shift_sum, split_strip
from bench.operators.shift_tables import choose, draw
from tasks.sparsity import ShiftSparsity


def make(channels=12, kernel_size=13, name="shift", **options):
    return operators.create(
        name, in_channels=channels, out_channels=channels, kernel_size=kernel_size, **options
    )


def pads(order, big, small):
    """What a kernel's output is padded by before it is added, from where its block lies."""
    return [big // 2 - i * small - (small - 1) for i in order]


def test_golden_draws_of_the_public_networks():
    tables = draw(12, 0.23, blocks=5, edges=4)
    assert tables.ghosts.tolist() == [0, 4, 5, 9]
    places = torch.cat([tables.horizontal, tables.vertical]).argsort(-1)
    assert pads(places[:, 0, 0].tolist(), 13, 3) == [1, -5, -8, -8, 1, -2, -8, -8]
    picks = tables.centre.T[:3] + 5 * torch.arange(3)[:, None]
    assert picks.tolist() == [[0, 0, 0, 2], [9, 7, 8, 7], [14, 12, 11, 11]]
    tables = draw(80, 0.23, blocks=17, edges=4)
    places = torch.cat([tables.horizontal, tables.vertical]).argsort(-1)
    assert pads(places[:, 0, 0].tolist(), 51, 3) == [14, -13, 5, 5, -19, -19, 11, 17]
    assert tables.ghosts.tolist() == [
        4, 8, 9, 23, 29, 31, 37, 43, 44, 53, 58, 59, 62, 64, 69, 72, 75, 77, 78, 79
    ]  # fmt: skip


@pytest.mark.parametrize(("population", "count", "seed"), [(2, 1, 0), (97, 31, 5), (640, 148, 123)])
def test_choice_is_that_of_numpy(population, count, seed):
    ours = choose(population, count, torch.Generator().manual_seed(seed))
    numpys = np.random.RandomState(seed).choice(population, count, replace=False)
    assert ours.tolist() == numpys.tolist()


def test_tables_travel_with_the_weights():
    torch.manual_seed(0)
    first, second = make(), make()
    assert not torch.equal(first.horizontal, second.horizontal)
    assert torch.equal(make(seed=3).vertical, make(seed=3).vertical)
    assert torch.equal(make(official_tables=True).ghosts, torch.tensor([0, 4, 5, 9]))
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 12, 9, 14)
    assert torch.equal(second.eval()(x), first.eval()(x))


def test_ghosts_pass_through_behind():
    op, x = make().eval(), torch.randn(2, 12, 9, 14)
    for form in (op, op.fuse()):
        assert torch.equal(form(x)[:, 8:], x[:, op.ghosts])
    assert sorted([*op.ghosts.tolist(), *op.convolved.tolist()]) == list(range(12))


def test_strips_reach_as_far_as_their_taps():
    """Blocks of one channel at 51 / 3: 55 taps are 51 rounded up, 25 of them before the pixel."""
    op = make(4, 47, ghost_ratio=0.0).eval()
    x = torch.zeros(1, 4, 101, 101, requires_grad=True)
    op(x)[0, :, 50, 50].sum().backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max())) == (50 - 23, 50 + 24)


def test_sizes_of_the_public_networks():
    """SW-T's first stage: 80 channels, 51 / 3; two sets of weights and three norms for 60."""
    op = make(80, 51)
    assert op.params() == 60 * (2 * 17 * 9 + 6)
    assert op.fuse().params() == 60 * (2 * 3 * 51 + 1)
    assert op.fuse().macs(56, 56) == 60 * 2 * 3 * 51 * 56 * 56


@pytest.mark.parametrize(("long", "small"), [(13, 3), (9, 3), (51, 5), (5, 5), (7, 1)])
@pytest.mark.parametrize("dim", [2, 3])
def test_split_is_exact(long, small, dim):
    """A dense strip equals its small kernels, shifted and added; also where N divides M."""
    shape = (4, 1, long, small) if dim == 2 else (4, 1, small, long)
    kernel = torch.randn(shape, dtype=torch.float64)
    x = torch.randn(2, 4, 12, 17, dtype=torch.float64)
    padding = (shape[2] // 2, shape[3] // 2)
    dense = F.conv2d(x, kernel, padding=padding, groups=4)
    weight = split_strip(kernel, small).flatten(0, 1).unsqueeze(1)
    y = F.conv2d(x, weight, padding=small - 1, groups=4).unflatten(1, (4, -1))
    torch.testing.assert_close(shift_sum(y, small, long // 2, dim), dense, rtol=1e-12, atol=1e-12)


def test_split_uses_one_convolution_for_both_directions():
    op = make(4, 9, name="shift_split").eval()
    with torch.no_grad():
        op.mask_vertical.fill_(-1e9)
        op.centre.zero_()
    x = torch.randn(1, 4, 12, 12)
    once = x.clone()
    once[:, :, 0] += 1  # out of reach of the horizontal strip of the last row
    torch.testing.assert_close(op(once)[:, :, -1], op(x)[:, :, -1])


def test_saliency_and_densities():
    weight = torch.arange(8.0).view(2, 1, 2, 2)
    assert filter_saliency(weight, -torch.ones_like(weight)).tolist() == [[6.0], [22.0]]
    layers = [torch.tensor([[5.0, 4.0], [3.0, 2.0]]), torch.tensor([0.1, 0.2, 0.3, 9.0])]
    assert snip_densities(layers, 0.375) == [1.0, 0.25]
    assert snip_densities(layers, 0.0) == [1.0, 1.0]
    assert snip_densities([torch.ones(4), torch.zeros(4)], 0.5) == [1.0, 0.25]
    with pytest.raises(ValueError, match=r"`sparsity` \(=1\)"):
        snip_densities(layers, 1)


def test_exchange_drops_the_smallest_and_regrows_others():
    generator = torch.Generator().manual_seed(0)
    weight = torch.arange(20.0).view(20, 1, 1).expand(20, 3, 3)
    mask = torch.zeros(20, dtype=torch.bool)
    mask[5:15] = True
    new = exchange(weight, mask, 0.3, generator)
    assert new.sum() == 10
    assert not new[5:8].any()
    assert new[8:15].all()
    assert new[:5].sum() + new[15:].sum() == 3
    full = torch.ones(20, dtype=torch.bool)
    assert torch.equal(exchange(weight, full, 0.3, generator), full)
    assert torch.equal(exchange(weight, mask, 0.0, generator), mask)
    assert random_mask((4, 5), 0.7, generator).sum() == 14
    assert cosine_rate(10, float("inf")) == 0.3


class Tiny(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(make(8, 7), nn.Conv2d(8, 8, 1), make(8, 5, paths=1))

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)

    def train_dataloader(self):
        data = torch.randn(24, 8, 6, 6, generator=torch.Generator().manual_seed(1))
        return torch.utils.data.DataLoader(data, batch_size=4)


def fit(callback, tmp_path, epochs, ckpt_path=None):
    model, seen = Tiny(), []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            filters = [pl_module.net[i].weight.abs().sum((-2, -1)) for i in (0, 2)]
            seen.append([f > 0 for f in filters])

    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback, Watch()],
    )  # fmt: skip
    trainer.fit(model, ckpt_path=ckpt_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return model, trainer, seen


@pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",  # Lightning's own use of torch
)
def test_callback_keeps_filters_at_zero_and_exchanges_them(tmp_path):
    callback = ShiftSparsity(every_n_steps=4)
    model, trainer, seen = fit(callback, tmp_path, epochs=2)
    kept = [sum(int(f.sum()) for f in step) for step in seen]
    every = sum(f.numel() for f in seen[0])
    assert len(seen) == 12
    assert kept[0] == round(0.7 * every)
    assert max(kept) == kept[0]
    assert trainer.callback_metrics["train/shift_sparsity"].item() == pytest.approx(
        1 - kept[0] / every
    )
    for step in range(1, 12):
        same = all(torch.equal(a, b) for a, b in zip(seen[step], seen[step - 1], strict=True))
        # a regrown filter leaves zero one step after the exchange
        assert same == (step % 4 not in (0, 3) or step == 11), step
    x = torch.randn(1, 8, 6, 6)
    model.eval()
    torch.testing.assert_close(model.net[0].fuse()(x), model.net[0](x), rtol=1e-4, atol=1e-5)
    again = ShiftSparsity(every_n_steps=4, seed=9)
    _, _, resumed = fit(again, tmp_path, epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert len(resumed) == 6
    assert all(torch.equal(a, b) for a, b in zip(resumed[0], seen[-1], strict=True))
    assert again.exchanged_at == 16


def test_callback_wants_a_shift(tmp_path):
    class Plain(Tiny):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(8, 8, 1)

    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[ShiftSparsity()],
    )  # fmt: skip
    with pytest.raises(ValueError, match="`model` has no shift operator"):
        trainer.fit(Plain())


@pytest.mark.parametrize(
    ("argument", "value"), [("sparsity", 1.0), ("rate", -0.1), ("every_n_steps", 0)]
)
def test_callback_checks_its_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` "):
        ShiftSparsity(**{argument: value})
