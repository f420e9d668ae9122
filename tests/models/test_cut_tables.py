"""Parameters and MACs of cuts and of the papers' baselines against the published sizes (224 px, two classes).

The papers' numbers stand in `benchmarks/published_sizes.toml`. Where a head of theirs is not one of ours, its
size is worked out from our trunk: `C (c + 1)` parameters after pooling, `C (c h w + 1)` for a flat map, and
`2 c` more for a BatchNorm.
"""

import importlib.util
import re
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.places import find_places
from ttl_deploy.records.models import Cut, Pool

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = tomllib.loads((ROOT / "benchmarks" / "published_sizes.toml").read_text(encoding="utf-8"))
BOTTLENECKS = [row[0] for row in PUBLISHED["resnet50"]]
CLASSES = 2

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


known_cuts = cache(list_cuts)  # the page on the papers asks for the same networks as these tests


def cuts_of(backbone: str, pool: Pool = "avg") -> dict[str, Cut]:
    return {cut.name: cut for cut in known_cuts(backbone, image_size=224, classes=CLASSES, pool=pool)}


def full_size(backbone: str) -> list[int]:
    full = cuts_of(backbone)["full"]
    return [full.params, full.macs]


def trunk_params(backbone: str) -> dict[str, int]:
    return {place.name: place.params for place in find_places(backbone, 224)}


def test_resnet50_has_the_published_seventeen_cuts_and_the_full_network() -> None:
    pooled, flat = cuts_of("resnet50"), cuts_of("resnet50", "flatten")
    trunks = {place.name: place for place in find_places("resnet50", 224)}
    assert [*BOTTLENECKS, "full"] == list(pooled)
    for name, channels, side, *sizes in PUBLISHED["resnet50"]:
        cut, trunk = pooled[name], trunks[name]
        assert (cut.channels, cut.height, cut.width) == (channels, side, side)
        found = (trunk.params, trunk.macs, cut.params, cut.macs, flat[name].params, flat[name].macs)
        assert list(found) == sizes
    full, last = pooled["full"], pooled["layer4.2"]
    assert (full.params, full.macs) == (last.params, last.macs) == (23_512_130, 4_087_140_352)
    assert full.layers == 54  # 53 convolutions and one linear layer


def test_the_shares_of_the_full_resnet50_are_the_published_ones() -> None:
    cuts = cuts_of("resnet50")
    assert cuts["layer3.3"].params_share == pytest.approx(0.2684, abs=5e-5)
    assert cuts["layer3.3"].macs_share == pytest.approx(0.695, abs=5e-4)
    assert cuts["layer3.5"].params_share == pytest.approx(0.3634, abs=5e-5)


def test_training_every_cut_of_resnet50_costs_8750_thousandths_of_the_full_network_and_its_stages_2438() -> None:
    cuts = cuts_of("resnet50")
    assert sum(cuts[name].macs_share for name in BOTTLENECKS) == pytest.approx(8.750, abs=5e-4)
    stages = ("layer1.2", "layer2.3", "layer3.5", "layer4.2")
    assert sum(cuts[name].macs_share for name in stages) == pytest.approx(2.438, abs=5e-4)


def test_every_layer_of_densenet121_is_a_cut_of_the_published_size() -> None:
    found = cuts_of("densenet121")
    for block, (params, macs) in DENSENET121.items():
        names = [f"features.denseblock{block}.denselayer{layer}" for layer in range(1, len(params))]
        names.append(f"features.denseblock{block}")
        assert [found[name].params for name in names] == params
        assert [found[name].macs for name in names] == macs
        assert not any(found[name].normalised for name in names)
    assert len(found) == 1 + 58 + 3 + 1  # stem, dense layers, transitions, full


@pytest.mark.parametrize("network", ["densenet121", "densenet201"])
def test_densenet_ends_of_blocks_and_transitions_have_the_published_sizes_with_each_head(network: str) -> None:
    pooled, flat, trunks = cuts_of(network), cuts_of(network, "flatten"), trunk_params(network)
    for name, channels, side, trunk, flat_params, gap, bn_gap, flat_macs, gap_macs in PUBLISHED[network]:
        assert (pooled[name].channels, pooled[name].height, trunks[name]) == (channels, side, trunk)
        assert trunks[name] + CLASSES * (channels + 1) == gap
        assert trunks[name] + CLASSES * (channels * side * side + 1) == flat_params
        assert pooled[name].params == bn_gap == gap + 2 * channels  # our head begins with a BatchNorm
        assert flat[name].params == flat_params + 2 * channels
        assert (pooled[name].macs, flat[name].macs) == (gap_macs, flat_macs)


@pytest.mark.parametrize("network", ["densenet121", "densenet201"])
def test_full_densenets_have_the_published_sizes(network: str) -> None:
    trunk, flat_params, gap, flat_macs, gap_macs = PUBLISHED[f"{network}_full"]
    last, flat = cuts_of(network)["features.denseblock4"], cuts_of(network, "flatten")["features.denseblock4"]
    assert full_size(network) == [gap, gap_macs] == [last.params, last.macs]
    assert trunk_params(network)["full"] == trunk
    # The original's full network is flat behind norm5: our cut after the last dense layer with a flat head.
    assert (flat.params, flat.macs) == (flat_params, flat_macs)


@pytest.mark.parametrize("network", ["densenet121", "densenet201"])
def test_each_dense_layer_and_transition_adds_what_the_formula_says(network: str) -> None:
    places = find_places(network, 224)[:-1]
    assert (places[0].params, places[0].macs, places[0].features) == (9_536, 118_013_952, (64, 56, 56))
    for before, after in pairwise(places):
        c, h, w = before.features
        added = (after.params - before.params, after.macs - before.macs)
        if "transition" in after.name:
            assert added == (2 * c + c**2 // 2, c**2 // 2 * h * w)
            assert after.features == (c // 2, h // 2, w // 2)
        else:
            assert added == (130 * c + 37_120, (128 * c + 36_864) * h * w)
            assert after.features == (c + 32, h, w)


def test_vgg19_has_the_published_sizes_and_no_batch_norm_in_its_heads() -> None:
    cuts, trunks = cuts_of("vgg19"), trunk_params("vgg19")
    sizes = dict(PUBLISHED["vgg19"])
    assert full_size("vgg19") == sizes.pop("full")
    assert {
        name: [cuts[name].channels, cuts[name].height, trunks[name], cuts[name].params, cuts[name].macs]
        for name in sizes
    } == sizes
    assert all(cut.normalised for cut in cuts.values())


@pytest.mark.parametrize("keep", BOTTLENECKS)
def test_slim_resnet50_has_the_published_size_wherever_it_begins(keep: str) -> None:
    published = PUBLISHED["tf_resnet50"][BOTTLENECKS.index(keep)]
    assert full_size(f"slim:resnet50?keep={keep}") == published


def test_slim_resnet50_by_stages_is_the_one_by_bottlenecks_and_past_the_last_it_is_resnet50() -> None:
    for stage, kept in ((1, 3), (2, 7), (3, 13)):
        assert full_size(f"slim:resnet50?keep=layer{stage}") == PUBLISHED["tf_resnet50"][kept]
    assert full_size("slim:resnet50?keep=layer4") == full_size("resnet50")


@pytest.mark.parametrize("transition", [1, 2, 3])
def test_slim_densenet201_has_the_published_size(transition: int) -> None:
    found = full_size(f"slim:densenet201?keep=features.transition{transition}")
    assert found == PUBLISHED["tf_densenet201"][transition - 1]


@pytest.mark.parametrize("network", ["large-t", "large-w", "small", "tiny"])
def test_cbr_networks_have_the_published_sizes(network: str) -> None:
    assert full_size(f"cbr:{network}") == PUBLISHED["cbr"][network]


def test_parameters_that_the_paper_prints_are_ours_rounded() -> None:
    for backbone, name, millions, _gmacs in PUBLISHED["printed"]:
        shown = cuts_of(backbone)[name].params / 1e6
        assert f"{shown:.3g}" == f"{millions:.3g}"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_sizes", ROOT / "benchmarks" / "paper_sizes.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    return script


def test_macs_that_the_paper_prints_are_ours_once_they_are_counted_its_way() -> None:
    count_as_printed = load_script().count_as_printed
    for backbone, name, _millions, gmacs in PUBLISHED["printed"]:
        assert f"{count_as_printed(backbone, name) / 1e9:.2f}" == f"{gmacs:.2f}"
        assert f"{cuts_of(backbone)[name].macs / 1e9:.2f}" != f"{gmacs:.2f}"


def test_the_page_on_the_papers_is_what_the_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script()
    monkeypatch.setattr(script, "list_cuts", known_cuts)
    written = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert written == script.write_page(), "run python benchmarks/paper_sizes.py --write"


def test_every_command_on_the_page_names_a_backbone_and_a_cut_that_exist() -> None:
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    commands = re.findall(r"`--backbone '?([^' `]+)'?(?: --weights none)?(?: --cuts ([^`]+))?[^`]*`", page)
    assert len(commands) == page.count("`--backbone ") == 10
    for backbone, cut in commands:
        assert (cut or "full") in cuts_of(backbone)


def test_more_classes_cost_one_row_of_the_linear_layer_each() -> None:
    two = list_cuts("resnet50", image_size=224, classes=2)
    five = list_cuts("resnet50", image_size=224, classes=5)
    for few, many in zip(two, five, strict=True):
        assert many.params - few.params == 3 * (few.channels + 1)
        assert many.macs - few.macs == 3 * few.channels
