"""Cuts: names people know, one per step of depth, found alike in every family."""

from itertools import pairwise

import pytest

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.backbones import backbone_names
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.models.graph.measured import measure_backbone
from ttl_deploy.models.graph.tracing import trace_backbone
from ttl_deploy.models.places import find_places
from ttl_deploy.records.models import Cut

SIDE = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 56}
SIDE |= {name: 224 for name in backbone_names() if name.startswith("cbr:")}
# How many cuts, besides `full`, a network has where every residual block, or every convolution
# outside of one, ends in one.
DEPTHS = {
    "resnet18": 9,
    "resnet50": 17,
    "mobilenet_v2": 32,
    "efficientnet_b0": 38,
    "vgg16": 13,
    "shufflenet_v2_x1_0": 18,
    "regnet_y_400mf": 17,
    "convnext_tiny": 22,
    "googlenet": 12,
}


def names(backbone: str, size: int = 64) -> list[str]:
    return [cut.name for cut in list_cuts(backbone, image_size=size, classes=2)]


def stages(backbone: str, size: int = 224) -> list[str]:
    return [cut.name for cut in list_cuts(backbone, image_size=size, classes=2) if cut.stage]


@pytest.mark.parametrize("backbone", DEPTHS)
def test_each_step_of_depth_is_one_cut(backbone: str) -> None:
    assert len(names(backbone)) == DEPTHS[backbone] + 1


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet18", ["maxpool", "layer1.0", "layer4.1", "full"]),
        ("mobilenet_v2", ["features.0", "features.4", "features.18"]),
        ("mobilenet_v3_small", ["features.4", "features.12"]),
        ("vgg11_bn", ["features.3", "features.28"]),
        ("squeezenet1_1", ["features.2", "features.3", "features.12"]),
        ("googlenet", ["maxpool1", "inception4c", "inception5b"]),
        ("shufflenet_v2_x0_5", ["maxpool", "stage3.3", "conv5.2"]),
        ("regnet_y_400mf", ["stem", "trunk_output.block1", "trunk_output.block3.block3-2"]),
        ("convnext_tiny", ["features.0", "features.2.1", "features.5.4"]),
        ("efficientnet_b0", ["features.4.2", "features.8"]),
        ("mnasnet0_5", ["layers.8.0", "layers.16"]),
        ("alexnet", ["features.2", "features.12"]),
        ("densenet121", ["features.pool0", "features.transition2", "features.denseblock4"]),
    ],
)
def test_cuts_have_the_names_of_the_modules_people_know(backbone: str, expected: list[str]) -> None:
    assert set(expected) <= set(names(backbone))


@pytest.mark.parametrize("backbone", ["vgg11_bn", "alexnet", "squeezenet1_1"])
def test_maps_of_the_classifier_part_are_no_cuts(backbone: str) -> None:
    assert not [name for name in names(backbone) if name.startswith(("classifier", "avgpool"))]


def test_a_cut_after_a_residual_block_lies_behind_its_addition_and_its_relu() -> None:
    cuts = {cut.name: cut for cut in list_cuts("resnet50", image_size=64, classes=2)}
    assert cuts["layer3.3"].nodes == ("layer3.3.relu_2",)


def test_a_cut_inside_a_dense_block_names_the_parts_of_the_concatenation() -> None:
    cuts = {cut.name: cut for cut in list_cuts("densenet121", image_size=64, classes=2)}
    expected = ("features.pool0", "features.denseblock1.denselayer1.conv2", "features.denseblock1.denselayer2.conv2")
    assert cuts["features.denseblock1.denselayer2"].nodes == expected


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet18", ["layer1.1", "layer2.1", "layer3.1"]),
        ("densenet121", ["features.denseblock1", "features.denseblock2", "features.denseblock3"]),
        ("mobilenet_v2", ["features.1", "features.3", "features.6", "features.13"]),
        ("squeezenet1_1", ["features.3", "features.6", "features.12"]),
        ("regnet_y_400mf", ["stem", "trunk_output.block1", "trunk_output.block2", "trunk_output.block3"]),
    ],
)
def test_stages_are_the_last_whole_blocks_at_each_resolution(backbone: str, expected: list[str]) -> None:
    assert stages(backbone) == expected


def test_the_deepest_stage_is_left_to_full_only_where_it_is_the_same_network() -> None:
    pooled = list_cuts("resnet18", image_size=224, classes=2)
    flat = list_cuts("resnet18", image_size=224, classes=2, pool="flatten")
    assert [cut.name for cut in pooled if cut.stage][-1] == "layer3.1"
    assert [cut.name for cut in flat if cut.stage][-1] == "layer4.1"


def test_only_unnormalised_sums_and_concatenations_get_a_batch_norm() -> None:
    def bare(backbone: str) -> set[str]:
        return {cut.name for cut in list_cuts(backbone, image_size=64, classes=2) if not cut.normalised}

    assert bare("resnet50") == bare("mobilenet_v2") == bare("efficientnet_b0") == bare("squeezenet1_1") == set()
    assert bare("googlenet") == bare("shufflenet_v2_x0_5") == bare("mnasnet0_5") == bare("regnet_y_400mf") == set()
    assert set(names("densenet121")) - bare("densenet121") == {"features.pool0", "full"}
    assert set(names("convnext_tiny")) - bare("convnext_tiny") == {"features.0", "full"}


def test_names_do_not_depend_on_the_image_size() -> None:
    for backbone in ("resnet18", "googlenet", "squeezenet1_1", "convnext_tiny"):
        assert names(backbone, 32) == names(backbone, 224)


def test_an_image_that_is_too_small_is_refused_with_the_smallest_size() -> None:
    with pytest.raises(UsageError, match=r"inception_v3 cannot take images of 64 x 64 .* --image-size 75"):
        list_cuts("inception_v3", image_size=64, classes=2)
    assert list_cuts("inception_v3", image_size=75, classes=2)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2 classes, not 1"):
        list_cuts("resnet18", image_size=64, classes=1)


class TestResolving:
    cuts: tuple[Cut, ...]

    @pytest.fixture(autouse=True)
    def resnet(self) -> None:
        self.cuts = list_cuts("resnet18", image_size=64, classes=2)

    def resolve(self, *asked: str) -> list[str]:
        return [cut.name for cut in resolve_cuts(asked, self.cuts)]

    def test_names_come_back_shallow_to_deep_and_once(self) -> None:
        assert self.resolve("layer3.0", "maxpool", "layer3.0") == ["maxpool", "layer3.0"]

    def test_all_and_stages(self) -> None:
        assert self.resolve("all") == [cut.name for cut in self.cuts]
        assert self.resolve("stages", "full") == ["layer1.1", "layer2.1", "layer3.1", "full"]

    def test_a_module_means_the_deepest_cut_inside_it(self) -> None:
        assert self.resolve("layer3") == ["layer3.1"]

    def test_an_unknown_cut_is_refused_with_the_near_ones(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown cut 'layer3\.5'.*layer3\.1"):
            self.resolve("layer3.5")

    def test_a_module_that_only_begins_alike_is_another(self) -> None:
        with pytest.raises(UnknownNameError):
            self.resolve("layer")

    def test_the_last_layer_of_a_dense_block_means_the_whole_block(self) -> None:
        cuts = list_cuts("densenet121", image_size=64, classes=2)
        assert [cut.name for cut in resolve_cuts(["features.denseblock2.denselayer12"], cuts)] == [
            "features.denseblock2"
        ]
        assert [cut.name for cut in resolve_cuts(["features"], cuts)] == ["features.denseblock4"]


def test_a_part_of_a_block_with_parallel_branches_is_no_cut() -> None:
    with pytest.raises(UnknownNameError):
        resolve_cuts(["inception4c.branch4"], list_cuts("googlenet", image_size=64, classes=2))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", backbone_names())
def test_every_backbone_has_unique_cuts_that_grow_with_depth(backbone: str) -> None:
    size = SIDE.get(backbone, 64)
    cuts = list_cuts(backbone, image_size=size, classes=3)
    assert len({cut.name for cut in cuts}) == len(cuts) >= 5
    assert [cut.depth for cut in cuts] == list(range(1, len(cuts) + 1))
    *trunks, _full = [(place.layers, place.params, place.macs) for place in find_places(backbone, size)]
    assert all(shallow[0] < deep[0] for shallow, deep in pairwise(trunks))
    assert trunks == sorted(trunks)
    # Channels first: a larger image changes the map, never the channels.
    larger = list_cuts(backbone, image_size=2 * size, classes=3)
    assert [cut.channels for cut in larger] == [cut.channels for cut in cuts]
    assert all(big.height > cut.height for cut, big in zip(cuts[:-1], larger[:-1], strict=True))


def test_the_graph_is_traced_and_measured_once() -> None:
    assert trace_backbone("resnet18", 64) is trace_backbone("resnet18", 64)
    assert measure_backbone("resnet18", 64) is measure_backbone("resnet18", 64)
