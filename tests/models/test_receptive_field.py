"""Receptive fields of all cuts: against published tables, derivations by hand, and from small images to large."""

from itertools import accumulate, pairwise

import pytest

from ttl_deploy.models.backbones import backbone_names, build_backbone
from ttl_deploy.models.cost.receptive_field import find_receptive_fields
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.graph.measured import measure_backbone
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records.models import FULL, Cut

SIDE = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 56}
SIDE |= {name: 224 for name in backbone_names() if name.startswith("cbr:")}


def cuts_of(backbone: str, size: int = 224) -> dict[str, Cut]:
    return {cut.name: cut for cut in list_cuts(backbone, image_size=size, classes=2)}


def sides_of(backbone: str, size: int = 224) -> dict[str, int | None]:
    return {name: cut.receptive_field for name, cut in cuts_of(backbone, size).items()}


def test_swins_first_fields_follow_from_its_windows() -> None:
    """Patches of 4 px, windows of 7 × 7 patches.

    A window's patches see 7 · 4 px. Shifted by 3, a window holds patches of two earlier windows: 14 · 4 px.
    Merging joins patches 2 and 3 of a window, which lie in different shifted windows: three windows, 21 · 4 px.
    """
    sides = sides_of("swin_t")
    assert sides["features.0.2"] == 4
    assert sides["features.1.0"] == 7 * 4
    assert sides["features.1.1"] == 14 * 4
    assert sides["features.2"] == 21 * 4


def test_a_vision_transformer_sees_everything_from_its_first_attention_on() -> None:
    first, *others = sides_of("vit_b_16").values()
    assert first == 16
    assert set(others) == {224}


# google-research/receptive_field, RECEPTIVE_FIELD_TABLE.md: the table of Araujo, Norris and Sim, Distill 2019.
PUBLISHED = {
    "alexnet": {"features.2": 19, "features.7": 99, "features.9": 131, "features.12": 195},
    "vgg11": {"features.2": 4, "features.5": 10, "features.10": 30, "features.15": 70, "features.20": 150},
    "vgg16": {
        "features.4": 6,
        "features.9": 16,
        "features.16": 44,
        "features.23": 100,
        "features.27": 164,
        "features.30": 212,
    },
    "inception_v3": {
        "maxpool1": 15,
        "maxpool2": 31,
        "Mixed_5b": 63,
        "Mixed_5d": 127,
        "Mixed_6a": 159,
        "Mixed_6b": 351,
        "Mixed_6e": 927,
        "Mixed_7a": 1055,
        "Mixed_7c": 1311,
    },
}


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_fields_are_the_published_ones(backbone: str) -> None:
    sides = sides_of(backbone)
    assert {name: sides[name] for name in PUBLISHED[backbone]} == PUBLISHED[backbone]


def test_the_last_convolution_of_vgg16_sees_what_the_closed_form_says() -> None:
    """Its last pooling, of 2 × 2 positions at a distance of 16 px, adds 16 px to the convolution before."""
    measured = measure_backbone("vgg16", 224)
    (relu,) = [node for node, path in measured.symbolic.paths.items() if path == "features.29"]
    assert find_receptive_fields(measured).sides[relu] == 196 == 212 - 16


def test_resnet50_differs_from_the_published_network_only_by_where_its_strides_are() -> None:
    """The table's resnet_v1_50 halves the map in the last unit of a stage and sees 483 px; torchvision in the first.

    Closed form, equation 2 of the article: 1 + Σ (kernel - 1) · product of the strides before.
    """

    def field(strides: list[list[int]]) -> int:
        layers = [(7, 2), (3, 2), *((3, stride) for stage in strides for stride in stage)]
        distances = [1, *accumulate((stride for _, stride in layers), int.__mul__)]
        return 1 + sum((kernel - 1) * distance for (kernel, _), distance in zip(layers, distances, strict=False))

    assert field([[1, 1, 2], [1, 1, 1, 2], [1, 1, 1, 1, 1, 2], [1, 1, 1]]) == 483
    torchvisions = [[1, 1, 1], [2, 1, 1, 1], [2, 1, 1, 1, 1, 1], [2, 1, 1]]
    assert sides_of("resnet50")["layer4.2"] == field(torchvisions) == 427


@pytest.mark.parametrize(
    "backbone", ["resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
def test_the_field_does_not_depend_on_the_image_size(backbone: str) -> None:
    """Not even where a map has one position: at 32 px a network's last ones do."""
    small, large = sides_of(backbone, 32), sides_of(backbone, 224)
    assert small.pop(FULL) == 32
    assert large.pop(FULL) == 224
    assert small == large


def test_only_networks_with_gates_see_a_summary_of_the_whole_image() -> None:
    assert not any(cut.global_context for cut in cuts_of("resnet50").values())
    assert not any(cut.global_context for cut in cuts_of("convnext_tiny").values())
    stem, *others = cuts_of("mobilenet_v3_small").values()
    assert (stem.name, stem.global_context) == ("features.0", False)
    squeezing = load_torchvision().ops.misc.SqueezeExcitation
    first = next(
        path
        for path, layer in build_backbone("mobilenet_v3_small", image_size=64).named_modules()
        if isinstance(layer, squeezing)
    )
    assert first == "features.1.block.1"
    assert [cut.global_context for cut in others if cut.name.startswith("features.1")][-1]
    assert others[-1].global_context


def check_all_cuts(backbone: str) -> None:
    size = SIDE.get(backbone, 64)
    *trunks, full = cuts_of(backbone, size).values()
    sides = [cut.receptive_field for cut in trunks]
    assert all(shallow is not None and deep is not None and shallow <= deep for shallow, deep in pairwise(sides))
    assert full.receptive_field is not None
    # `full` sees no further than the image, which a trunk's field may: it is not cut off at the border.
    assert min(sides[-1] or 0, size) <= full.receptive_field
    contexts = [cut.global_context for cut in (*trunks, full)]
    assert contexts == sorted(contexts)


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "regnet_y_400mf", "swin_t", "timm:resnet18"])
def test_fields_grow_with_depth(backbone: str) -> None:
    check_all_cuts(backbone)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", backbone_names())
def test_fields_are_known_and_grow_with_depth_in_every_backbone(backbone: str) -> None:
    check_all_cuts(backbone)
