"""Parameters and MACs of cuts against the published sizes (224 px, two classes, pooled heads)."""

import pytest

from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.models import Cut

# name, channels, side, parameters, MACs
RESNET50 = [
    ("maxpool", 64, 56, 9_666, 118_014_080),
    ("layer1.0", 256, 56, 85_058, 349_225_472),
    ("layer1.1", 256, 56, 155_458, 567_591_424),
    ("layer1.2", 256, 56, 225_858, 785_957_376),
    ("layer2.0", 512, 28, 605_762, 1_158_464_512),
    ("layer2.1", 512, 28, 885_826, 1_376_830_464),
    ("layer2.2", 512, 28, 1_165_890, 1_595_196_416),
    ("layer2.3", 512, 28, 1_445_954, 1_813_562_368),
    ("layer3.0", 1024, 14, 2_959_426, 2_186_070_016),
    ("layer3.1", 1024, 14, 4_076_610, 2_404_435_968),
    ("layer3.2", 1024, 14, 5_193_794, 2_622_801_920),
    ("layer3.3", 1024, 14, 6_310_978, 2_841_167_872),
    ("layer3.4", 1024, 14, 7_428_162, 3_059_533_824),
    ("layer3.5", 1024, 14, 8_545_346, 3_277_899_776),
    ("layer4.0", 2048, 7, 14_586_946, 3_650_408_448),
    ("layer4.1", 2048, 7, 19_049_538, 3_868_774_400),
    ("layer4.2", 2048, 7, 23_512_130, 4_087_140_352),
]
RESNET50_FLAT = {"layer1.2": (1_830_978, 787_562_496), "layer3.3": (6_710_338, 2_841_567_232)}

# BatchNorm + ReLU + average pooling, after each dense layer: parameters, then MACs.
DENSENET121 = {
    1: (
        [55362, 105090, 158978, 217026, 279234, 345602],
        [259309760, 413450496, 580436288, 760267136, 952943040, 1158464000],
    ),
    2: (
        [432258, 490306, 552514, 618882, 689410, 764098, 842946, 925954, 1013122, 1104450, 1199938, 1299586],
        [
            *(1302970688, 1347928448, 1396097472, 1447477760, 1502069312, 1559872128),
            *(1620886208, 1685111552, 1752548160, 1823196032, 1897055168, 1974125568),
        ],
    ),
    3: (
        [
            *(1501186, 1575874, 1654722, 1737730, 1824898, 1916226, 2011714, 2111362),
            *(2215170, 2323138, 2435266, 2551554, 2672002, 2796610, 2925378, 3058306),
            *(3195394, 3336642, 3482050, 3631618, 3785346, 3943234, 4105282, 4271490),
        ],
        [
            *(2090533440, 2104984192, 2120237760, 2136294144, 2153153344, 2170815360, 2189280192, 2208547840),
            *(2228618304, 2249491584, 2271167680, 2293646592, 2316928320, 2341012864, 2365900224, 2391590400),
            *(2418083392, 2445379200, 2473477824, 2502379264, 2532083520, 2562590592, 2593900480, 2626013184),
        ],
    ),
    4: (
        [
            *(4899586, 5007554, 5119682, 5235970, 5356418, 5481026, 5609794, 5742722),
            *(5879810, 6021058, 6166466, 6316034, 6469762, 6627650, 6789698, 6955906),
        ],
        [
            *(2733790272, 2739008640, 2744427712, 2750047488, 2755867968, 2761889152, 2768111040, 2774533632),
            *(2781156928, 2787980928, 2795005632, 2802231040, 2809657152, 2817283968, 2825111488, 2833139712),
        ],
    ),
}
# channels, side, parameters, MACs
DENSENET121_ENDS = {
    "features.denseblock1": (256, 56, 345_602, 1_158_464_000),
    "features.transition1": (128, 28, 378_370, 1_261_224_192),
    "features.denseblock2": (512, 28, 1_299_586, 1_974_125_568),
    "features.transition2": (256, 14, 1_430_658, 2_076_885_504),
    "features.denseblock3": (1024, 14, 4_271_490, 2_626_013_184),
    "features.transition3": (512, 7, 4_795_778, 2_728_772_608),
    "features.denseblock4": (1024, 7, 6_955_906, 2_833_139_712),
}
DENSENET201_ENDS = {
    "features.denseblock1": (256, 56, 345_602, 1_158_464_000),
    "features.transition1": (128, 28, 378_370, 1_261_224_192),
    "features.denseblock2": (512, 28, 1_299_586, 1_974_125_568),
    "features.transition2": (256, 14, 1_430_658, 2_076_885_504),
    "features.denseblock3": (1792, 14, 9_508_482, 3_637_562_880),
    "features.transition3": (896, 7, 11_114_114, 3_952_264_960),
    "features.denseblock4": (1920, 7, 18_096_770, 4_289_449_728),
}
VGG19 = {
    "features.4": (64, 112, 38_850, 1_936_392_320),
    "features.9": (128, 56, 260_418, 4_710_924_544),
    "features.18": (256, 28, 2_326_082, 11_184_833_024),
    "features.27": (512, 14, 10_586_178, 17_658_741_760),
    "features.36": (512, 7, 20_025_410, 19_508_429_824),
}


def sizes(backbone: str) -> dict[str, tuple[int, int, int, int]]:
    cuts = list_cuts(backbone, image_size=224, classes=2)
    return {cut.name: (cut.channels, cut.height, cut.params, cut.macs) for cut in cuts}


def full(backbone: str) -> Cut:
    return list_cuts(backbone, image_size=224, classes=2)[-1]


def test_resnet50_has_the_published_seventeen_cuts_and_the_full_network() -> None:
    *cuts, last = list_cuts("resnet50", image_size=224, classes=2)
    assert [(cut.name, cut.channels, cut.height, cut.params, cut.macs) for cut in cuts] == RESNET50
    assert (last.name, last.params, last.macs) == ("full", 23_512_130, 4_087_140_352)
    assert last.layers == 54  # 53 convolutions and one linear layer


def test_resnet50_with_a_flat_head_has_the_published_sizes() -> None:
    cuts = {cut.name: cut for cut in list_cuts("resnet50", image_size=224, classes=2, pool="flatten")}
    assert {name: (cuts[name].params, cuts[name].macs) for name in RESNET50_FLAT} == RESNET50_FLAT


def test_the_shares_of_the_full_resnet50_are_the_published_ones() -> None:
    cuts = {cut.name: cut for cut in list_cuts("resnet50", image_size=224, classes=2)}
    assert cuts["layer3.3"].params_share == pytest.approx(0.2684, abs=5e-5)
    assert cuts["layer3.3"].macs_share == pytest.approx(0.695, abs=5e-4)
    assert cuts["layer3.5"].params_share == pytest.approx(0.3634, abs=5e-5)
    assert sum(cuts[name].macs_share for name, *_ in RESNET50) == pytest.approx(8.750, abs=5e-4)


def test_every_layer_of_densenet121_is_a_cut_of_the_published_size() -> None:
    found = {cut.name: cut for cut in list_cuts("densenet121", image_size=224, classes=2)}
    for block, (params, macs) in DENSENET121.items():
        names = [f"features.denseblock{block}.denselayer{layer}" for layer in range(1, len(params))]
        names.append(f"features.denseblock{block}")
        assert [found[name].params for name in names] == params
        assert [found[name].macs for name in names] == macs
        assert not any(found[name].normalised for name in names)
    assert len(found) == 1 + 58 + 3 + 1  # stem, dense layers, transitions, full


def test_densenet121_ends_of_blocks_and_transitions_have_the_published_sizes() -> None:
    found = sizes("densenet121")
    assert {name: found[name] for name in DENSENET121_ENDS} == DENSENET121_ENDS
    assert (full("densenet121").params, full("densenet121").macs) == (6_955_906, 2_833_139_712)


def test_densenet201_ends_of_blocks_and_transitions_have_the_published_sizes() -> None:
    found = sizes("densenet201")
    assert {name: found[name] for name in DENSENET201_ENDS} == DENSENET201_ENDS
    assert (full("densenet201").params, full("densenet201").macs) == (18_096_770, 4_289_449_728)


def test_vgg19_has_the_published_sizes_and_no_batch_norm_in_its_heads() -> None:
    found = sizes("vgg19")
    assert {name: found[name] for name in VGG19} == VGG19
    assert (full("vgg19").params, full("vgg19").macs) == (139_578_434, 19_627_974_656)
    assert all(cut.normalised for cut in list_cuts("vgg19", image_size=224, classes=2))


def test_more_classes_cost_one_row_of_the_linear_layer_each() -> None:
    two = list_cuts("resnet50", image_size=224, classes=2)
    five = list_cuts("resnet50", image_size=224, classes=5)
    for few, many in zip(two, five, strict=True):
        assert many.params - few.params == 3 * (few.channels + 1)
        assert many.macs - few.macs == 3 * few.channels
