"""What networks see: the field against brute force, its areas, views up to the page."""

import hashlib
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from torch import nn

from bench import backbones
from bench.analysis import beside, draw, views
from bench.analysis.beside import beside_picture
from bench.analysis.gradcam import deepest_stage, gradcam
from bench.analysis.receptive_field import areas, last_map, receptive_field
from bench.cli import suites
from bench.cli.main import parser
from bench.config.plan import plan
from bench.config.trust import NAMED, VARIABLE
from bench.pictures import overlay_picture
from bench.record import FieldArea, Picture, Record, View, load_all
from bench.store import CELL, Store
from bench.store.export import export
from leaderboard.build import PNG, build
from tasks import ClassificationData, DetectionData, SegmentationData

make = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[2] / "leaderboard" / "leaderboard_records.py"))
)


def net(operator):
    torch.manual_seed(0)
    return backbones.build(
        "test_resnet",
        operator=operator,
        where={"kernel_size": 3, "stages": [3, 4]},
        input_size=(64, 64),
        # a fresh ResNet's blocks start as identities, whatever operator is in them
        host_options={"zero_init_last": False},
    ).eval()


def border(field):
    return torch.cat([field[0], field[-1], field[:, 0], field[:, -1]])


def test_parc_reaches_the_border_and_the_control_does_not():
    images = torch.rand(2, 3, 352, 352)
    fields = {name: receptive_field(last_map(net(name)), [images]) for name in ("conv", "parc")}
    assert border(fields["conv"]).max() == 0
    assert (border(fields["parc"]) > 0).all()
    assert border(fields["parc"]).max() > 0.01 * fields["parc"].max()
    wide = {name: [area.area for area in areas(field)] for name, field in fields.items()}
    assert all(p > 2 * c for p, c in zip(wide["parc"], wide["conv"], strict=True))


@pytest.mark.parametrize("size", [(7, 9), (6, 8), (7, 8)])
def test_field_equals_finite_differences_of_each_pixel(size):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)
    ).double()
    images = torch.rand(2, 2, *size, dtype=torch.float64)

    def central(image):
        maps = model(image[None])[0].clamp(min=0)
        rows, columns = ({(n - 1) // 2, n // 2} for n in size)
        return sum(maps[:, i, j].sum() for i in rows for j in columns).item()

    expected = torch.zeros(size, dtype=torch.float64)
    for image in images:
        for c in range(2):
            for i in range(size[0]):
                for j in range(size[1]):
                    step = torch.zeros_like(image)
                    step[c, i, j] = 1e-6
                    slope = (central(image + step) - central(image - step)) / 2e-6
                    expected[i, j] += abs(slope) / 2
    torch.testing.assert_close(receptive_field(model, [images]), expected, atol=1e-7, rtol=1e-6)
    one_by_one = receptive_field(model, images.split(1))
    torch.testing.assert_close(one_by_one, expected, atol=1e-7, rtol=1e-6)


def test_a_layer_norm_behind_the_last_map_does_not_hide_the_field():
    torch.manual_seed(0)
    net = timm.create_model("unireplknet_a", features_only=True).eval()
    assert receptive_field(last_map(net), [torch.rand(1, 3, 64, 64)]).max() > 1e-4


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (6, 10)])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95, 1.0])
def test_areas_equal_a_search_over_rectangles(size, share):
    field = torch.rand(size, generator=torch.Generator().manual_seed(0)) ** 4
    (found,) = areas(field, [share])
    height, width = size
    for scale in sorted({k / 240 for k in range(1, 241)}):
        held = sum(
            float(field[i, j])
            for i in range(height)
            for j in range(width)
            if abs(i + 0.5 - height / 2) + 0.5 <= scale * height / 2 + 1e-9
            and abs(j + 0.5 - width / 2) + 0.5 <= scale * width / 2 + 1e-9
        )
        if held >= share * float(field.sum()) - 1e-5:
            break
    assert found.area == pytest.approx(scale**2, abs=0.01)
    assert found.height_px / found.width_px == pytest.approx(height / width)


def test_bad_fields_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        receptive_field(nn.Identity(), [])
    with pytest.raises(ValueError, match="of one size"):
        receptive_field(nn.Identity(), [torch.rand(1, 1, 3, 3), torch.rand(1, 1, 3, 4)])
    with pytest.raises(ValueError, match="maps"):
        receptive_field(nn.Flatten(), [torch.rand(1, 1, 3, 3)])
    with pytest.raises(ValueError, match=r"`field`.*> 0"):
        areas(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"`shares` .*\(0, 1\]"):
        areas(torch.ones(3, 3), [1.5])
    with pytest.raises(ValueError, match="a Linear"):
        last_map(nn.Linear(2, 2))(torch.rand(1, 2))


def test_gradcam_equals_its_formula_and_leaves_the_network_alone():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    images, classes = torch.rand(2, 3, 128, 128), torch.tensor([2, 0])
    stage = deepest_stage(network, (128, 128))
    assert stage == "layer3"
    before = {name: value.clone() for name, value in network.state_dict().items()}
    heat = gradcam(network, images, classes)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.layer3._forward_hooks

    maps = {}
    handle = network.layer3.register_forward_hook(lambda _, args, out: maps.update(f=out))
    logits = network(images)
    handle.remove()
    chosen = logits[torch.arange(2), classes].sum()
    (slopes,) = torch.autograd.grad(chosen, maps["f"])
    plain = (slopes.mean((2, 3), keepdim=True) * maps["f"]).sum(1).relu().detach()
    large = nn.functional.interpolate(plain[:, None], (128, 128), mode="bilinear")[:, 0]
    for one, other in zip(heat, large, strict=True):
        scaled = (other - other.min()) / (other.max() - other.min())
        torch.testing.assert_close(one, scaled, atol=5e-3, rtol=0)


def test_a_network_of_ones_own_is_looked_at_by_its_coarsest_map():
    torch.manual_seed(0)
    own = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)),
    ).eval()
    images = torch.rand(2, 3, 32, 48)
    assert last_map(own)(images).equal(own[:4](images))
    field = receptive_field(last_map(own), [images])
    assert field.shape == (32, 48)
    assert [(side > 0).sum() for side in (field.sum(0), field.sum(1))] == [11, 11]
    assert deepest_stage(own, (32, 48)) == "3"
    assert deepest_stage(own, (16, 16)) == "1"
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    heat = gradcam(own, images)
    assert heat.shape == (2, 32, 48)
    assert (heat.amax((1, 2)) == 1).all()


def test_a_name_full_of_markup_is_drawn_as_it_is(tmp_path):
    overlay_picture(
        torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8), ["$x_{ <b>"], tmp_path / "picture.png"
    )
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


# Views as records, and their place on the page.


def view(arm, folder, *, weights="trained", created="2026-11-22T02:00:00", caption="A field"):
    folder.mkdir(parents=True, exist_ok=True)
    content = PNG + f"{weights}{created}".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / f"erf-{sha256[:12]}.png").write_bytes(content)
    shown = View(
        method="1",
        weights=weights,
        images=16,
        input_size=(224, 224),
        map_size=(7, 7),
        field=[FieldArea(share=0.5, area=0.25, height_px=112, width_px=112)],
        pictures=[Picture(file=f"erf-{sha256[:12]}.png", sha256=sha256, caption=caption)],
    )
    fields = {name: getattr(arm, name) for name in ("entry", "data", "recipe", "machine")}
    record = Record(
        kind="view",
        status="ok",
        view=shown,
        software=arm.software,
        provenance=make.provenance(created),
        **fields,
    )
    record.save(folder)
    return record


@pytest.fixture
def board(tmp_path):
    records = [r for r in make.suite(seeds=(0,)) if r.kind == "accuracy"]
    for record in records:
        record.save(tmp_path / "records")
    return tmp_path, next(r for r in records if r.entry.label == "parc")


def page(folder):
    build(folder / "records", folder / "site")
    (path,) = (folder / "site" / "entries").glob("parc-*.html")
    return path.read_text()


def test_the_newest_view_is_on_the_entrys_page(board):
    folder, arm = board
    old = view(arm, folder / "records", created="2026-11-22T01:00:00")
    new = view(arm, folder / "records", caption="<script>alert(1)</script>")
    fresh = view(arm, folder / "records", weights="fresh")
    text = page(folder)
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert f"../pictures/{new.view.pictures[0].file}" in text
    assert f"../pictures/{fresh.view.pictures[0].file}" in text
    assert f"../pictures/{old.view.pictures[0].file}" not in text
    assert text.index("Trained network") < text.index("Fresh network")
    assert "112 × 112" in text
    copied = folder / "site" / "pictures" / new.view.pictures[0].file
    assert copied.read_bytes().startswith(PNG)
    others = [p for p in (folder / "site" / "entries").glob("*.html") if "parc" not in p.name]
    assert all("../pictures/" not in p.read_text() for p in others)


def test_pictures_are_checked_before_they_are_published(board):
    folder, arm = board
    record = view(arm, folder / "records")
    picture = folder / "records" / record.view.pictures[0].file
    good = picture.read_bytes()
    picture.write_bytes(good + b"!")
    with pytest.raises(ValueError, match="other hash"):
        page(folder)
    picture.unlink()
    assert "is not beside the record" in page(folder)


def test_what_is_no_png_is_not_published(board):
    folder, arm = board
    record = view(arm, folder / "records")
    text = b"<script>alert(1)</script>"
    bad = record.view.pictures[0].model_copy(
        update={"file": "evil.png", "sha256": hashlib.sha256(text).hexdigest()}
    )
    shown = record.view.model_copy(update={"pictures": [bad]})
    record.model_copy(update={"view": shown}).save(folder / "records")
    (folder / "records" / "evil.png").write_bytes(text)
    with pytest.raises(ValueError, match="no PNG"):
        page(folder)


@pytest.mark.parametrize("name", ["../x.png", "a/b.png", "x.svg", ".png", "x.png.html", "a\n.png"])
def test_a_pictures_name_cannot_lead_elsewhere(name):
    with pytest.raises(ValueError, match="file"):
        Picture(file=name, sha256="0" * 64, caption="")


def test_a_view_changes_no_identity_but_its_own(board):
    folder, arm = board
    trained, fresh = (view(arm, folder, weights=weights) for weights in ("trained", "fresh"))
    assert len({arm.identity, trained.identity, fresh.identity}) == 3
    assert trained.beside == {trained.view.pictures[0].file: trained.view.pictures[0].sha256}
    with pytest.raises(ValueError, match="needs view"):
        Record(**{**trained.model_dump(), "view": None})


def test_views_need_a_cell_that_is_done_or_a_word_for_fresh_ones(tmp_path):
    with pytest.raises(ValueError, match="--fresh"):
        list(views.look([], tmp_path, "convboard erf"))
    with pytest.raises(ValueError, match=r"`--images` \(=0\)"):
        list(views.look([], tmp_path, "convboard erf", images=0))
    with pytest.raises(ValueError, match=r"`--size` \(=3\)"):
        list(views.look([], tmp_path, "convboard erf", size=3))


class Still(nn.Module):
    """Stands for a network: knows where it is, and says the same of every image."""

    device = torch.device("cpu")

    def __init__(self, said):
        super().__init__()
        self.said = said

    def predict(self, images, **size):
        return self.said(images, **size)


KNOBS = {"train": 16, "val": 8, "classes": 2}
BOXES = {
    "boxes": torch.tensor([[2.0, 2, 20, 20]] * 9),
    "scores": torch.linspace(0.01, 0.09, 9),
    "labels": torch.ones(9, dtype=torch.int64),
}


@pytest.mark.parametrize(
    ("data", "said", "name"),
    [
        (ClassificationData, lambda _: torch.tensor([[0.3, 0.7]]), "Classification"),
        (DetectionData, lambda _, sizes: [BOXES], "Detection"),
        (SegmentationData, lambda _, size: torch.ones(1, *size, dtype=torch.int64), "Segmentation"),
    ],
)
def test_what_is_predicted_stands_below_the_truth(data, said, name, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(cache))
    monkeypatch.setattr(f"tasks.{name}", Still)
    shown = data(image_size=48, batch_size=4, options=KNOBS)
    beside_picture(Still(said), shown, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (3 * 320 + 12, 2 * 320 + 6))
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    truth, predicted = pixels[:320], pixels[326:]
    assert np.abs(truth - predicted).max() > 60
    beside_picture(Still(said), shown, tmp_path / "b.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_large_images_are_shrunk_with_their_truth():
    image = torch.zeros(3, 640, 960, dtype=torch.uint8)
    boxes, mask = torch.tensor([[0.0, 0, 960, 640]]), torch.zeros(640, 960, dtype=torch.int64)
    mask[:, 480:] = 1
    small, truth = beside._shrunk(image, {"boxes": boxes, "mask": mask})
    assert small.shape == (3, 320, 480)
    assert truth["boxes"].tolist() == [[0, 0, 480, 320]]
    assert truth["mask"].float().mean() == 0.5


def test_as_many_boxes_are_drawn_as_are_asked_for_the_surest_first():
    drawn = draw.detections(torch.zeros(3, 64, 64, dtype=torch.uint8), BOXES, (48, 48), "ab", 0, 2)
    assert drawn.words == "b 0.09, b 0.08"


def test_pictures_that_fail_fail_nothing(tiny, tmp_path, monkeypatch, capsys):
    cells = [SimpleNamespace(title="first"), SimpleNamespace(title="second")]
    seen = []

    def see(store, cell, run, command, **how):
        seen.append(cell.title)
        if cell.title == "first":
            raise RuntimeError("[no] network")

    monkeypatch.setattr("bench.store.Store", lambda folder: None)
    monkeypatch.setattr(views, "unseen", lambda planned, store: [(cell, None) for cell in cells])
    monkeypatch.setattr(views, "see", see)
    options = parser()[0].parse_args(["bench", str(tiny), "--runs", str(tmp_path / "runs")])
    options.line = "convboard bench tiny"
    suites._draw(options)
    assert seen == ["first", "second"]
    assert "no picture of first: RuntimeError: [no] network" in capsys.readouterr().out


OWN = """
from torch import nn
from parts_of_own_net import layer

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(layer(3, 8, 2), layer(8, 8, 2), layer(8, 16, 2))
"""
PARTS = """
from torch import nn

def layer(cin, cout, stride):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1), nn.BatchNorm2d(cout), nn.ReLU())
"""


def test_a_host_of_code_is_seen_where_it_is_trusted(tiny, tmp_path, convboard, monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")  # so that what the command sets ends with the test
    monkeypatch.setenv(NAMED, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "parts_of_own_net.py").write_text(PARTS)
    suite = yaml.safe_load(tiny.read_text())
    host = f"{tmp_path / 'own_net.py'}:Net"
    suite["boards"][0] |= {"hosts": [{"host": host, "label": "own"}], "where": {"stages": [1]}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    line = ["erf", tmp_path / "own.yaml", "--runs", tmp_path / "runs", "--fresh", "--images", 2]
    line += ["--only", "operator=acb", "--size", 64]
    assert "say --trust" in convboard(*line, status=2, at_once=True).stderr
    assert "parts_of_own_net" not in sys.modules
    told = convboard(*line, "--trust", at_once=True).stdout
    assert "does not fit" not in told
    assert any(row.split()[1:5] == ["own", "acb", "0", "fresh"] for row in told.splitlines())
    export(Store(tmp_path / "runs"), tmp_path / "records")
    (record,) = load_all(tmp_path / "records")
    assert record.view.weights == "fresh"
    assert record.provenance.reproduce.endswith("--images 2 --size 64 --fresh")
    assert "--trust" in record.provenance.reproduce


@pytest.mark.slow
def test_views_and_predictions_from_the_command_to_the_page(tiny, tmp_path, convboard, monkeypatch):
    runs, records, site = tmp_path / "runs", tmp_path / "records", tmp_path / "site"
    only = ["--only", "operator=dwconv"]
    convboard("run", tiny, "--runs", runs, *only)
    told = convboard("erf", tiny, "--runs", runs, "--images", 4)
    assert "1 cells were left out" in told.stdout
    told = convboard("erf", tiny, "--runs", runs, "--images", 2, "--fresh")
    assert told.stdout.count("fresh") == 2

    store = Store(runs)
    (done,) = store.kept().values()  # a fresh view does not make a cell look started
    cells = plan(str(tiny))
    assert views.unseen(cells, store) == []
    fresh = {k: v for k, v in done.metrics.items() if not k.startswith("view/trained")}
    monkeypatch.setattr(store, "kept", lambda: {done.cell: replace(done, metrics=fresh)})
    ((unseen, _),) = views.unseen(cells, store)  # of a fresh network alone
    assert unseen.hash == done.cell
    monkeypatch.undo()
    names = {a.path for a in store.client.list_artifacts(done.run_id, "records")}
    assert sum(name.endswith(".png") for name in names) == 4
    assert sum(name.endswith(".jpg") for name in names) == 1
    assert store.client.get_run(done.run_id).data.tags[CELL] == done.cell
    assert 0 < done.metrics["view/trained_area_50"] <= 1

    convboard("export", "--runs", runs, "--records", records)
    seen = [r for r in load_all(records) if r.kind == "view"]
    assert sorted((r.entry.label, r.view.weights) for r in seen) == [
        ("acb", "fresh"),
        ("dwconv", "fresh"),
        ("dwconv", "trained"),
    ]
    for record in seen:
        held = [area.area for area in record.view.field]
        assert held == sorted(held)
        assert min(record.view.map_size) >= 7
    convboard("site", "--records", records, "--out", site)
    (entry,) = (site / "entries").glob("dwconv-*.html")
    trained = next(r for r in seen if r.view.weights == "trained")
    for picture in trained.view.pictures:
        assert f"../pictures/{picture.file}" in entry.read_text()
        assert (site / "pictures" / picture.file).is_file()
    schema = json.loads((site / "schema-1.json").read_text())
    assert "View" in schema["$defs"]
