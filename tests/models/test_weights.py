"""Weights: real files load, foreign and hostile ones are refused in one clear line."""

import pickle
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import nn

from ttl_deploy.errors import WeightsError
from ttl_deploy.files import sha256_file
from ttl_deploy.models.backbones import build_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import TruncatedModel, build
from ttl_deploy.models.weights.loading import (
    WeightsNote,
    check_weights,
    load_pretrained,
    load_weights,
    save_weights,
)
from ttl_deploy.models.weights.source import find_weights
from ttl_deploy.records.models import ModelSpec

WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights"
needs_real_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no real weights files here")


def spec(backbone: str, cut: str) -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=64)


def load(backbone: str, cut: str, weights: Path | str) -> tuple[TruncatedModel, WeightsNote]:
    model = build(spec(backbone, cut))
    return model, load_pretrained(model, spec(backbone, cut), str(weights))


@pytest.fixture(scope="session")
def resnet18_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(build_backbone("resnet18", image_size=224).state_dict(), path)
    return path


def edit(source: Path, target: Path, **changes: object) -> Path:
    state = torch.load(source, weights_only=True)
    state.update(changes)
    torch.save({name: value for name, value in state.items() if value is not None}, target)
    return target


class TestRealFiles:
    pytestmark = needs_real_weights

    @pytest.mark.parametrize("cut", ["features.3", "features.13", "full"])
    def test_mobilenet_v2_covers_every_cut(self, cut: str) -> None:
        path = WEIGHTS / "mobilenet_v2-onnxzoo.pth"
        model, note = load("mobilenet_v2", cut, path)
        assert note == WeightsNote(text="mobilenet_v2-onnxzoo.pth covers the trunk", sha256=sha256_file(path))
        original = torch.load(path, weights_only=True)
        trunk = {name: value for name, value in model.trunk.state_dict().items() if name in original}
        assert len(trunk) == len(model.trunk.state_dict())
        assert all(torch.equal(value, original[name]) for name, value in trunk.items())

    def test_squeezenet_keeps_only_its_last_convolution_random(self) -> None:
        torch.manual_seed(0)
        model, _ = load("squeezenet1_1", "full", WEIGHTS / "squeezenet1_1-onnxzoo.pth")
        original = torch.load(WEIGHTS / "squeezenet1_1-onnxzoo.pth", weights_only=True)
        assert torch.equal(
            model.trunk.state_dict()["features.12.squeeze.weight"], original["features.12.squeeze.weight"]
        )
        assert model.head.state_dict()["classifier.1.weight"].shape == (2, 512, 1, 1)

    def test_a_partial_file_names_what_lies_past_the_cut(self) -> None:
        _, note = load("resnet18", "layer2.1", WEIGHTS / "resnet18-conv1_to_layer3.pth")
        assert note.text == (
            "resnet18-conv1_to_layer3.pth covers the trunk; layer4.*, 25 tensors past the cut, are not in the file"
        )

    def test_a_partial_file_is_refused_for_deeper_cuts_with_the_deepest_it_covers(self) -> None:
        with pytest.raises(WeightsError, match=r"layer4\.0\.conv1\.weight is missing.*up to layer3\.1") as raised:
            load("resnet18", "full", WEIGHTS / "resnet18-conv1_to_layer3.pth")
        assert "25 tensors in all" in str(raised.value)

    def test_coverage_is_told_for_all_cuts_at_once(self) -> None:
        cuts = list_cuts("resnet18", image_size=64, classes=2)
        used = check_weights(str(WEIGHTS / "resnet18-conv1_to_layer3.pth"), "resnet18", cuts, image_size=64)
        coverage = used.cuts
        assert [item.cut for item in coverage if not item.covered] == ["layer4.0", "layer4.1", "full"]
        assert all("is missing" in item.reason for item in coverage if not item.covered)

    def test_weights_of_another_network_are_refused_and_recognised(self) -> None:
        with pytest.raises(WeightsError, match="These are weights of mobilenet_v2: give --backbone mobilenet_v2"):
            load("densenet121", "features.transition1", WEIGHTS / "mobilenet_v2-onnxzoo.pth")


def test_random_weights_are_noted_as_such() -> None:
    assert load("squeezenet1_1", "features.5", "none")[1] == WeightsNote(text="random initial weights", sha256="")
    cuts = list_cuts("squeezenet1_1", image_size=64, classes=2)
    used = check_weights("none", "squeezenet1_1", cuts, image_size=64)
    assert all(item.covered for item in used.cuts)
    assert (used.note, used.path, used.sha256) == ("random initial weights", "", "")


def test_a_loaded_trunk_computes_what_the_network_of_the_file_does(resnet18_file: Path) -> None:
    network = build_backbone("resnet18", image_size=224).eval()
    network.load_state_dict(torch.load(resnet18_file, weights_only=True))
    model, _ = load("resnet18", "layer4.1", resnet18_file)
    images = torch.randn(2, 3, 64, 64)
    body = nn.Sequential(*list(network.children())[:-2])
    with torch.no_grad():
        assert torch.equal(model.eval().trunk(images), body(images))


def test_a_relative_is_refused_even_where_its_shallow_layers_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(build_backbone("resnet34", image_size=224).state_dict(), path)
    with pytest.raises(WeightsError, match=r"has no layer1\.2\.conv1\.weight .*These are weights of resnet34"):
        load("resnet18", "maxpool", path)


def test_checkpoints_are_unwrapped_and_data_parallel_prefixes_removed(resnet18_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet18_file, weights_only=True)
    expected = load("resnet18", "layer1.1", resnet18_file)[0].trunk.state_dict()
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    for number, content in enumerate((wrapped, {"model": state, "lr": 0.1}, {**state, "steps": 7, 5: "odd"})):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        trunk = load("resnet18", "layer1.1", path)[0].trunk.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in trunk.items())


def test_half_precision_safetensors_become_single_precision(resnet18_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet18_file, weights_only=True)
    path = tmp_path / "half.safetensors"
    safetensors.torch.save_file({name: value.half() for name, value in state.items()}, path)
    weight = load("resnet18", "maxpool", path)[0].trunk.state_dict()["conv1.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["conv1.weight"].half().float())


def test_weights_of_a_truncated_model_start_a_shallower_one(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    deep = build(spec("resnet18", "layer3.1"))
    save_weights(deep, path)
    shallow, _ = load("resnet18", "layer1.1", path)
    assert torch.equal(shallow.trunk.state_dict()["conv1.weight"], deep.trunk.state_dict()["conv1.weight"])


def test_densenets_published_names_from_before_the_renaming_fit(tmp_path: Path) -> None:
    state = build_backbone("densenet121", image_size=224).state_dict()
    old = {}
    for name, value in state.items():
        for layer in ("norm", "relu", "conv"):
            for number in "12":
                name = name.replace(f".{layer}{number}.", f".{layer}.{number}.") if "denselayer" in name else name
        if "num_batches_tracked" not in name:
            old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    path = tmp_path / "old.pth"
    torch.save(old, path)
    trunk = load("densenet121", "features.denseblock2", path)[0].trunk.state_dict()
    name = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(trunk[name], state[name])


def test_auxiliary_classifiers_of_the_published_files_are_ignored(tmp_path: Path) -> None:
    published = load_torchvision().models.googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    assert any(name.startswith("aux1.") for name in published)
    path = tmp_path / "googlenet.pth"
    torch.save(published, path)
    assert load("googlenet", "full", path)[1].text == "googlenet.pth covers the trunk"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"conv1.weight": None}, "conv1.weight is missing"),
        ({"conv1.weight": torch.zeros(64, 2, 7, 7)}, r"no conv1.weight of shape \(64, 2, 7, 7\)"),
        ({"conv1.weight": torch.full((64, 3, 7, 7), float("nan"))}, "conv1.weight holds values that are not finite"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)}, "conv1.weight holds torch.int8"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_named(
    resnet18_file: Path, tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(WeightsError, match=expected):
        load("resnet18", "layer1.0", edit(resnet18_file, tmp_path / "edited.pth", **changes))


def test_a_changed_classifier_does_not_matter(resnet18_file: Path, tmp_path: Path) -> None:
    path = edit(resnet18_file, tmp_path / "tuned.pth", **{"fc.weight": torch.zeros(3, 512), "fc.bias": None})
    assert load("resnet18", "full", path)[1].text == "tuned.pth covers the trunk"


class Payload:
    """Touches a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


def test_a_pickle_payload_is_refused_and_never_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for path, save in ((tmp_path / "zip.pth", torch.save), (tmp_path / "plain.pt", dump)):
        save({"conv1.weight": Payload(canary)}, path)
        with pytest.raises(WeightsError, match="holds more than tensors") as raised:
            load("resnet18", "maxpool", path)
        assert "weights_only" not in str(raised.value)
    assert not canary.exists()
    Payload(canary).__reduce__()[0](canary)  # type: ignore[operator] # what unpickling would do
    assert canary.exists()  # it would have worked


def dump(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"these are no weights", b"PK\x03\x04 broken", b"\x80\x02}q\x00.", b"\xff" * 64]
)
def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=str(path)):
        load("resnet18", "maxpool", path)


def test_a_truncated_weights_file_is_refused(resnet18_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    content = resnet18_file.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load("resnet18", "maxpool", path)


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--weights takes imagenet, none or the path of a file"):
        load("resnet18", "maxpool", tmp_path / "absent.pth")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(WeightsError, match=r"must end in \.pth, \.pt, \.safetensors"):
        load("resnet18", "maxpool", tmp_path / "weights.h5")


def test_a_failed_download_names_the_file_the_folder_and_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_args: object, **_options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(WeightsError) as raised:
        load("resnet18", "maxpool", "imagenet")
    for part in ("resnet18-f37072fd.pth", str(tmp_path / "hub" / "checkpoints"), "--weights FILE", "--weights none"):
        assert part in str(raised.value)


def test_imagenet_weights_come_from_the_cache_and_are_checked_against_their_name(
    resnet18_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(resnet18_file.read_bytes())
    with pytest.raises(WeightsError, match="is damaged: its SHA-256 is not the one in its name"):
        load("resnet18", "maxpool", "imagenet")
    monkeypatch.setattr("ttl_deploy.models.backbones.downloads._HASH_IN_NAME", re.compile("never"))
    model, note = load("resnet18", "maxpool", "imagenet")
    assert note == WeightsNote(text="resnet18-f37072fd.pth covers the trunk", sha256=sha256_file(resnet18_file))
    expected = torch.load(resnet18_file, weights_only=True)["conv1.weight"]
    assert torch.equal(model.trunk.state_dict()["conv1.weight"], expected)


def test_one_file_is_read_once_and_again_when_it_changed(
    resnet18_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    original = torch.load
    monkeypatch.setattr("torch.load", lambda *args, **options: reads.append(args[0]) or original(*args, **options))
    path = tmp_path / "weights.pth"
    path.write_bytes(resnet18_file.read_bytes())
    first = find_weights(str(path), "resnet18")
    assert find_weights(str(path), "resnet18") is first
    assert reads == [path]
    edit(resnet18_file, path, **{"fc.bias": None})
    assert find_weights(str(path), "resnet18") is not first


def test_saved_weights_come_back_exactly_also_from_channels_last(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    model = build(spec("densenet121", "features.denseblock1.denselayer3")).to(memory_format=torch.channels_last)
    model(torch.randn(2, 3, 64, 64))  # moves the running statistics
    sha256 = save_weights(model, path)
    again = build(spec("densenet121", "features.denseblock1.denselayer3"))
    assert load_weights(again, path) == sha256 == sha256_file(path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_saved_weights_of_another_cut_or_a_damaged_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(build(spec("resnet18", "layer1.0")), path)
    with pytest.raises(WeightsError, match="holds the weights of another model"):
        load_weights(build(spec("resnet18", "layer1.1")), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(build(spec("resnet18", "layer1.0")), path)
