"""Weights of medical images: torchxrayvision's, wrapped checkpoints, other image sizes, hybrids, the user's own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.errors import WeightsError
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.files import sha256_file
from ttl_deploy.models.backbones import build_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.input_conventions import NAMED, parse_convention
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import TruncatedModel, build
from ttl_deploy.models.weights.loading import check_weights, load_pretrained, save_weights
from ttl_deploy.models.weights.source import find_published
from ttl_deploy.records.models import IMAGENET_INPUT, ModelSpec
from ttl_deploy.training.batches import normalise

SIDE = 64


def spec(backbone: str, cut: str) -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=SIDE)


def load(backbone: str, cut: str, weights: Path | str) -> tuple[TruncatedModel, str]:
    model = build(spec(backbone, cut))
    note = load_pretrained(model, spec(backbone, cut), str(weights)).text
    return model.eval(), note


def build_xrv_densenet() -> nn.Module:
    """Build a DenseNet-121 as torchxrayvision does: one channel, eighteen findings, their thresholds as a buffer."""
    torch.manual_seed(4)
    network: nn.Module = load_torchvision().models.densenet121(weights=None)
    network.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    network.classifier = nn.Linear(1024, 18)
    network.register_buffer("op_threshs", torch.full((18,), float("nan")))
    nn.init.normal_(network.features.conv0.weight, std=0.002)  # its inputs reach from -1024 to 1024
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0.0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def xrv() -> nn.Module:
    return build_xrv_densenet()


@pytest.fixture(scope="module")
def xrv_file(xrv: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("xrv") / "xrv.pth"
    torch.save(xrv.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def grey() -> Tensor:
    """Grey images `(N, 64, 64, 3)` of bytes."""
    pixels = torch.randint(0, 256, (3, SIDE // 4, SIDE // 4, 1), generator=torch.Generator().manual_seed(2))
    return pixels.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8).expand(-1, -1, -1, 3)


def scale_as_xrv_does(images: Tensor) -> Tensor:
    """Normalise the first channel of bytes `(N, H, W, 3)` in the words of torchxrayvision.utils.normalize."""
    return ((2 * (images[..., 0].float() / 255) - 1.0) * 1024)[:, None]


def record(network: nn.Module, path: str, images: Tensor) -> Tensor:
    """Return what a module of the network gives for images in its own form."""
    seen: list[Tensor] = []
    hook = network.get_submodule(path).register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.no_grad():
        network(images)
    hook.remove()
    return seen[0]


def assert_relatively_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


class TestTorchxrayvision:
    @pytest.mark.parametrize("cut", ["features.denseblock1", "features.transition1", "features.denseblock4"])
    def test_a_grey_image_gives_the_features_of_their_network(
        self, xrv: nn.Module, xrv_file: Path, grey: Tensor, cut: str
    ) -> None:
        used = check_weights(str(xrv_file), "densenet121", (), image_size=SIDE)
        model, note = load("densenet121", cut, xrv_file)
        with torch.no_grad():
            found = model.trunk(normalise(grey.permute(0, 3, 1, 2), used.input))
        assert_relatively_equal(found, record(xrv, cut, scale_as_xrv_does(grey)))
        assert note == "xrv.pth covers the trunk; first convolution adapted from 1 to 3 channels"

    @pytest.mark.parametrize("cut", ["features.transition1", pytest.param("full", marks=pytest.mark.slow)])
    def test_the_exported_file_computes_with_their_features(
        self, xrv: nn.Module, xrv_file: Path, grey: Tensor, cut: str, tmp_path: Path
    ) -> None:
        model, _ = load("densenet121", cut, xrv_file)
        used = check_weights(str(xrv_file), "densenet121", (), image_size=SIDE)
        deployable = make_deployable(model, mean=used.input.mean, std=used.input.std)
        write_onnx(deployable, tmp_path / "model.onnx", image_size=SIDE, metadata={})
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(["probabilities"], {"image": grey.numpy()})
        last = "features.norm5" if cut == "full" else cut
        with torch.no_grad():
            theirs = record(xrv, last, scale_as_xrv_does(grey))
            pooled = torch.relu(theirs if cut == "full" else model.head.norm(theirs)).mean((2, 3))
            logits = (model.head.classifier if cut == "full" else model.head.linear)(pooled)
        torch.testing.assert_close(torch.from_numpy(found), logits.softmax(1), rtol=0, atol=1e-5)
        assert float(logits.std()) > 1e-3

    def test_the_record_says_what_was_loaded_from_where_and_how_it_was_fed(self, xrv_file: Path) -> None:
        cuts = list_cuts("densenet121", image_size=SIDE, classes=2)
        used = check_weights(str(xrv_file), "densenet121", cuts, image_size=SIDE)
        assert (used.path, used.url, used.sha256) == (str(xrv_file), "", sha256_file(xrv_file))
        assert used.changes == ("first convolution adapted from 1 to 3 channels",)
        assert used.file_input == NAMED["torchxrayvision"]
        assert used.input.mean == (0.5, 0.5, 0.5)
        assert used.input_in_words.startswith("torchxrayvision: ")
        trunk = build(spec("densenet121", "full")).trunk.state_dict()
        assert used.cuts[-1].tensors == len([name for name in trunk if "num_batches" not in name])
        assert [cut.tensors for cut in used.cuts] == sorted(cut.tensors for cut in used.cuts)

    def test_a_file_of_one_channel_that_bears_no_mark_is_refused_with_the_option(
        self, xrv: nn.Module, tmp_path: Path
    ) -> None:
        path = tmp_path / "grey.pth"
        torch.save({name: value for name, value in xrv.state_dict().items() if name != "op_threshs"}, path)
        with pytest.raises(
            WeightsError, match=r"images of one channel.*give --normalise with one of .*torchxrayvision"
        ):
            check_weights(str(path), "densenet121", (), image_size=SIDE)
        used = check_weights(str(path), "densenet121", (), image_size=SIDE, normalise="0.5/0.25")
        assert used.input == parse_convention("0.5,0.5,0.5/0.25")

    def test_marked_weights_that_were_given_three_channels_are_refused_with_the_option(
        self, xrv: nn.Module, tmp_path: Path
    ) -> None:
        path = tmp_path / "tripled.pth"
        state = xrv.state_dict()
        state["features.conv0.weight"] = state["features.conv0.weight"].repeat(1, 3, 1, 1) / 3
        torch.save(state, path)
        with pytest.raises(WeightsError, match=r"seems to come from torchxrayvision.*give --normalise"):
            check_weights(str(path), "densenet121", (), image_size=SIDE)

    def test_their_resnet_is_found_inside_its_wrapper(self, tmp_path: Path) -> None:
        network = load_torchvision().models.resnet50(weights=None)
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        network.fc = nn.Linear(2048, 18)
        state = {f"model.{name}": value for name, value in network.state_dict().items()}
        torch.save({**state, "op_threshs": torch.zeros(18)}, tmp_path / "xrv.pth")
        model, note = load("resnet50", "layer1.0", tmp_path / "xrv.pth")
        expected = network.conv1.weight.repeat(1, 3, 1, 1) / 3
        assert torch.equal(model.trunk.state_dict()["conv1.weight"], expected.detach())
        assert "adapted from 1 to 3 channels" in note


class TheirDenseNet(nn.Module):
    """Stands for the class of which torchxrayvision pickles whole objects."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 3)


@pytest.fixture
def their_package() -> Iterator[None]:
    """Put the class where torchxrayvision has its own."""
    TheirDenseNet.__module__, TheirDenseNet.__qualname__ = "torchxrayvision.models", "DenseNet"
    models = ModuleType("torchxrayvision.models")
    models.DenseNet = TheirDenseNet  # type: ignore[attr-defined] # a module made here
    sys.modules["torchxrayvision"], sys.modules["torchxrayvision.models"] = ModuleType("torchxrayvision"), models
    yield
    del sys.modules["torchxrayvision"], sys.modules["torchxrayvision.models"]


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "old"])
@pytest.mark.usefixtures("their_package")
def test_their_pickled_modules_are_refused_with_the_line_that_converts_them(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "pc.pt"
    torch.save(TheirDenseNet(), path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(WeightsError, match="looks like torchxrayvision's: convert it") as raised:
        load("densenet121", "features.pool0", path)
    assert 'torch.save(xrv.models.DenseNet(weights="densenet121-res224-all").state_dict(), "xrv.pth")' in str(
        raised.value
    )


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nih-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt", "looks like torchxrayvision's"),
        ("mine.pt", "Where you trust it, load it there"),
    ],
)
def test_other_whole_models_are_told_from_theirs_by_the_name(tmp_path: Path, name: str, told: str) -> None:
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3)), tmp_path / name, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="whole pickled model") as raised:
        load("densenet121", "features.pool0", tmp_path / name)
    assert told in str(raised.value)


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "encoder.", "features.", "module.model.net."])
def test_a_prefix_that_all_names_share_is_removed(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    state = build_backbone("resnet18", image_size=SIDE).state_dict()
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "wrapped.pth")
    model, note = load("resnet18", "layer1.1", tmp_path / "wrapped.pth")
    assert torch.equal(model.trunk.state_dict()["layer1.1.conv2.weight"], state["layer1.1.conv2.weight"])
    assert note == "wrapped.pth covers the trunk"


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    state = build_backbone("densenet121", image_size=SIDE).state_dict()
    torch.save({k: v for k, v in state.items() if k.startswith("features.")}, tmp_path / "features.pth")
    assert load("densenet121", "features.transition1", tmp_path / "features.pth")[1] == "features.pth covers the trunk"


def test_names_of_which_only_some_share_a_prefix_are_refused(tmp_path: Path) -> None:
    state = build_backbone("resnet18", image_size=SIDE).state_dict()
    mixed = {(f"model.{k}" if k.startswith("layer") else k): v for k, v in state.items()}
    torch.save(mixed, tmp_path / "mixed.pth")
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight is missing"):
        load("resnet18", "layer1.1", tmp_path / "mixed.pth")


def test_a_vision_transformer_takes_the_weights_of_another_image_size(tmp_path: Path) -> None:
    with torch.device("meta"):
        structure = build_backbone("vit_b_16", image_size=224)
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.randn(v.shape, generator=generator) * 0.02 for k, v in structure.state_dict().items()}
    torch.save(state, tmp_path / "vit.pth")
    cut = "encoder.layers.encoder_layer_0"
    model, note = load("vit_b_16", cut, tmp_path / "vit.pth")
    own = model.trunk.state_dict()
    grid = state["encoder.pos_embedding"][:, 1:].reshape(1, 14, 14, 768).permute(0, 3, 1, 2)
    fitted = nn.functional.interpolate(grid, size=4, mode="bicubic", align_corners=True)
    torch.testing.assert_close(own["encoder.pos_embedding"][:, 1:], fitted.flatten(2).permute(0, 2, 1))
    assert torch.equal(own["conv_proj.weight"], state["conv_proj.weight"])
    assert note == "vit.pth covers the trunk; encoder.pos_embedding fitted to 64 px"


def test_swins_tables_of_whole_numbers_are_no_reason_to_refuse_it(tmp_path: Path) -> None:
    torch.save(build_backbone("swin_t", image_size=224).state_dict(), tmp_path / "swin.pth")
    assert load("swin_t", "features.1.0", tmp_path / "swin.pth")[1] == "swin.pth covers the trunk"


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("parent") / "resnet50.pth"
    torch.save(build_backbone("resnet50", image_size=224).state_dict(), path)
    return path


class TestSlimHybrids:
    backbone = "slim:resnet50?keep=layer2.3"

    def test_what_is_kept_comes_from_the_parents_file_and_the_rest_is_random(self, resnet50_file: Path) -> None:
        torch.manual_seed(8)
        untouched = build(spec(self.backbone, "layer3.0")).trunk.state_dict()
        torch.manual_seed(8)
        model, note = load(self.backbone, "layer3.0", resnet50_file)
        parent = torch.load(resnet50_file, weights_only=True)
        for name, value in model.trunk.state_dict().items():
            assert torch.equal(value, untouched[name] if name.startswith("layer3") else parent[name]), name
        kept = [k for k in parent if not k.startswith(("layer3", "layer4", "fc")) and "num_batches" not in k]
        assert note == f"resnet50.pth gave {len(kept)} tensors of the trunk, the rest starts random"

    def test_a_cut_below_the_narrow_part_is_the_parents(self, resnet50_file: Path) -> None:
        assert load(self.backbone, "layer2.3", resnet50_file)[1] == "resnet50.pth covers the trunk"

    def test_coverage_counts_the_same_tensors_from_the_kept_part_on(self, resnet50_file: Path) -> None:
        cuts = list_cuts(self.backbone, image_size=SIDE, classes=2)
        used = check_weights(str(resnet50_file), self.backbone, cuts, image_size=SIDE)
        count = {cut.cut: cut.tensors for cut in used.cuts}
        assert all(cut.covered for cut in used.cuts)
        assert count["layer1.2"] < count["layer2.3"] == count["layer3.5"] == count["full"]

    def test_weights_of_another_network_than_the_parent_are_refused(self, tmp_path: Path) -> None:
        torch.save(build_backbone("resnet101", image_size=224).state_dict(), tmp_path / "weights.pth")
        with pytest.raises(WeightsError, match="These are weights of resnet101"):
            load(self.backbone, "layer2.3", tmp_path / "weights.pth")

    def test_published_weights_are_the_parents(self) -> None:
        published = find_published(self.backbone)
        assert published is not None
        assert "resnet50" in published.source


def fill(value: float) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU())
        network = nn.Sequential(*network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        for parameter in network.parameters():
            nn.init.constant_(parameter, value)
        return network

    return make


@pytest.fixture
def own() -> Iterator[str]:
    module = ModuleType("mine")
    module.net = fill(0.125)  # type: ignore[attr-defined] # a module made here
    sys.modules["mine"] = module
    yield "mine:net"
    del sys.modules["mine"]


class TestOwnNetworks:
    def test_without_a_file_they_keep_the_values_their_function_gave_them(self, own: str) -> None:
        model, note = load(own, list_cuts(own, image_size=SIDE, classes=2)[1].name, "none")
        assert note == "as built by mine:net"
        assert all(bool((value == 0.125).all()) for value in model.trunk.state_dict().values())
        assert check_weights("none", own, (), image_size=SIDE).note == "as built by mine:net"

    def test_a_grey_one_gets_the_mean_of_imagenets_statistics(self, own: str) -> None:
        used = check_weights("none", own, (), image_size=SIDE)
        assert used.input.mean == pytest.approx((0.449,))
        assert used.input.std == pytest.approx((0.226,))

    def test_its_own_file_needs_a_convention(self, own: str, tmp_path: Path) -> None:
        torch.save(fill(0.5)().state_dict(), tmp_path / "mine.pth")
        with pytest.raises(WeightsError, match="give --normalise"):
            check_weights(str(tmp_path / "mine.pth"), own, (), image_size=SIDE)
        used = check_weights(str(tmp_path / "mine.pth"), own, (), image_size=SIDE, normalise="zero-one")
        assert used.input == NAMED["zero-one"]


def test_weights_of_a_search_bring_the_convention_they_were_trained_with(tmp_path: Path) -> None:
    model = build(spec("resnet18", "layer1.1"))
    convention = parse_convention("0.5,0.4,0.3/0.2")
    save_weights(model, tmp_path / "best.safetensors", convention=convention)
    used = check_weights(str(tmp_path / "best.safetensors"), "resnet18", (), image_size=SIDE)
    assert used.input == convention
    save_weights(model, tmp_path / "plain.safetensors")
    assert check_weights(str(tmp_path / "plain.safetensors"), "resnet18", (), image_size=SIDE).input == IMAGENET_INPUT


def test_a_given_convention_beats_the_one_that_is_known(xrv_file: Path) -> None:
    used = check_weights(str(xrv_file), "densenet121", (), image_size=SIDE, normalise="minus-one-one")
    assert used.input.std == (0.5, 0.5, 0.5)
