"""The sizes of the papers' networks: as published, as ours with the paper's head, and as ours with our own head.

Run:  python benchmarks/paper_sizes.py [--write]
Prints a page in Markdown; with --write it becomes docs/papers.md. Published figures: published_sizes.toml.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttl_deploy.files import make_folder, publish_text
from ttl_deploy.models import truncation
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.heads import AvgPool
from ttl_deploy.models.places import find_places
from ttl_deploy.records.models import FULL, ModelSpec, Pool

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "papers.md"
PUBLISHED: dict[str, Any] = tomllib.loads((HERE / "published_sizes.toml").read_text(encoding="utf-8"))
SIDE = 224
CLASSES = 2

INTRODUCTION = """\
# The papers' networks, and how to run them here

`ttl-deploy` builds on three papers. This page says which networks they compare, which command runs each of them
here, and that their sizes are the published ones. It is written by `python benchmarks/paper_sizes.py --write`;
a test fails when it is out of date. How a network is *trained* (which layers, which rates) is another matter.

* **TTL**: Peng, Liang, Luo, Li, Sun, *Rethinking Transfer Learning for Medical Image Classification*, BMVC 2023,
  arXiv 2106.05152. ResNet-50 and DenseNet-201 (in 2021 DenseNet-121), whole and truncated; a hybrid called TF; CBR.
* **TransFusion**: Raghu, Zhang, Kleinberg, Bengio, *Transfusion: Understanding Transfer Learning for Medical Imaging*,
  NeurIPS 2019, arXiv 1902.07208. ResNet-50 and Inception-v3, whole; four CBR networks; a hybrid called Slim.
* **Davila 2024**: Davila, Colan, Hasegawa, arXiv 2406.10050. ResNet-50, DenseNet-121, VGG-19, whole.

| baseline | here: `ttl-deploy search --data YOUR_FOLDER` and |
|---|---|
| whole network (FTL) | `--backbone resnet50 --cuts full`; also `densenet121`, `inception_v3`, `vgg19` … |
| truncated after a stage (TTL, block-wise; t = 3) | `--backbone resnet50 --cuts layer3.5` |
| truncated after a unit (TTL, layer-wise; k = 12: stem, 11 bottlenecks) | `--backbone resnet50 --cuts layer3.3` |
| DenseNet truncated after a transition (TTL, t = 2) | `--backbone densenet201 --cuts features.transition2` |
| TF, block-wise u = 2; Slim | `--backbone 'slim:resnet50?keep=layer2' --cuts full` |
| TF, layer-wise u = 11 | `--backbone 'slim:resnet50?keep=layer3.3&copy=matching' --cuts full` |
| TF of DenseNet-201, u = 1 | `--backbone 'slim:densenet201?keep=features.transition1' --cuts full` |
| CBR-LargeT, from random weights | `--backbone cbr:large-t --weights none --cuts unit5` |
| CBR-LargeW, -Small, -Tiny | `--backbone cbr:tiny --weights none --cuts unit4` |
| a CBR network of other widths | `--backbone 'cbr:tiny?kernel=7&widths=32-64-128&last-pool=no' --weights none` |

`ttl-deploy cuts --backbone NAME` lists where a network can be cut, hybrids and CBR networks too. TTL's head on a flat
map is `--pool flatten`.

* **Hybrids** keep a pretrained bottom at full width, up to and with the unit `keep`; above it widths are halved
  (`factor=2`; 4 and 8 are possible) and weights start at random. With `copy=bottom`, the default, exactly the bottom
  comes from the pretrained network, running statistics included: TTL's code by blocks, with which what is known of
  Slim agrees. With `copy=matching` every parameter of equal name and shape does, above `keep` too, and no running
  statistics: TTL's code by bottlenecks. The papers have hybrids of ResNets with bottlenecks and of DenseNets; those of
  ResNet-18, ResNet-34 and MobileNetV2 (`'slim:mobilenet_v2?keep=features.6'`) follow the same rules, but are ours.
* **CBR** networks have no published weights. Cut at its last unit, a CBR network has the size of `full` and our head,
  with the dropout of 0.1 that TTL's code has there. By two descriptions of the paper's appendix Tiny is larger than
  Small, which may be a slip; kernel, widths and the last max-pool are options: `'cbr:small?kernel=5'`. Nothing is
  padded, so images cannot be small: LargeT needs 217 pixels, LargeW and Small 121, Tiny 91.

## Why a figure may differ

* **Head.** Ours: average pooling, and in front of it BatchNorm and ReLU where the features are neither normalised nor
  activated yet, as after a DenseNet transition: `2 c` parameters more for `c` channels. TTL's code puts a linear layer
  on the flat map by default, and always for DenseNets: `C (c h w + 1)` parameters instead of `C (c + 1)`.
* **Counting.** We count multiply-accumulates of convolutions and linear layers. TTL's printed table counts about 1 %
  more: its figures are met when two per value of a BatchNorm, one per value of a ReLU and one per value that is pooled
  are added, which is how the package ptflops counts.

All figures: one image of 3 x 224 x 224, two classes; parameters with BatchNorm's scale and shift, without its
running statistics. "Published" are the numbers of `benchmarks/published_sizes.toml`, counted in the authors' code and
in torchvision's networks (VGG-19 with our head, as no paper gives its size); what the TTL paper itself prints is the
first table. "Same head" is our trunk with the paper's head, "own head" what this toolkit trains by default.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Parameters and MACs of a model."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network: what was published, and ours with the paper's head and with our own."""

    network: str
    cut: str
    head: str
    published: Size
    same: Size
    own: Size


def measure(backbone: str, cut: str, pool: Pool = "avg") -> Size:
    """Return the size of a backbone cut here, with our head."""
    found = {item.name: item for item in list_cuts(backbone, image_size=SIDE, classes=CLASSES, pool=pool)}[cut]
    return Size(params=found.params, macs=found.macs)


def measure_flat(backbone: str, cut: str) -> Size:
    """Return the size of a backbone cut here, with a linear layer on the flat map and nothing in front of it."""
    place = {item.name: item for item in find_places(backbone, SIDE)}[cut]
    channels, height, width = place.features
    inputs = channels * height * width
    return Size(params=place.params + CLASSES * (inputs + 1), macs=place.macs + CLASSES * inputs)


@torch.no_grad()
def count_as_printed(backbone: str, cut: str) -> int:
    """Count as ptflops does: MACs, two per value of a BatchNorm, one per value of a ReLU or into a pooling."""
    spec = ModelSpec(backbone=backbone, cut=cut, classes=CLASSES, image_size=SIDE)
    with torch.device("meta"):
        model = truncation.build(spec).eval()
    extra = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _outputs: torch.Tensor) -> None:
        nonlocal extra
        extra += inputs[0].numel() * (2 if isinstance(layer, nn.BatchNorm2d) else 1)

    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d | nn.AdaptiveAvgPool2d | AvgPool):
            layer.register_forward_hook(count)
    model(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    return measure(backbone, cut).macs + extra


def compare_resnet() -> Iterator[Row]:
    """Compare the 17 cuts of ResNet-50 with both heads of TTL."""
    for k, (cut, _, _, _, _, *sizes) in enumerate(PUBLISHED["resnet50"], start=1):
        own = measure("resnet50", cut)
        for head, same, (params, macs) in (
            ("GAP", own, sizes[:2]),
            ("flat", measure("resnet50", cut, "flatten"), sizes[2:]),
        ):
            published = Size(params=params, macs=macs)
            yield Row(network=f"k = {k}", cut=cut, head=head, published=published, same=same, own=own)


def compare_densenet(network: str) -> Iterator[Row]:
    """Compare a DenseNet cut after its transitions, and whole, with the flat head of TTL."""
    for cut, _, _, _, params, _, _, macs, _ in PUBLISHED[network]:
        if "transition" in cut:
            own = measure(network, cut)
            published = Size(params=params, macs=macs)
            same = measure_flat(network, cut)
            yield Row(network=f"t = {cut[-1]}", cut=cut, head="flat", published=published, same=same, own=own)
    _, params, _, macs, _ = PUBLISHED[f"{network}_full"]
    # TTL's whole network is flat behind norm5: our cut after the last block, whose head begins with a BatchNorm.
    same = measure(network, "features.denseblock4", "flatten")
    published = Size(params=params, macs=macs)
    yield Row(network="full", cut=FULL, head="flat", published=published, same=same, own=measure(network, FULL))


def compare_whole(network: str, backbone: str, published: Sequence[int], cut: str = FULL) -> Row:
    """Compare a network whose head in the paper is the one it has here."""
    own = measure(backbone, cut)
    params, macs = published
    head = "own classifier" if backbone == "vgg19" and cut == FULL else "GAP"
    label = backbone if cut == FULL else cut
    return Row(network=network, cut=label, head=head, published=Size(params=params, macs=macs), same=own, own=own)


def compare_hybrids() -> Iterator[Row]:
    """Compare the hybrids of ResNet-50 by bottlenecks, and those of DenseNet-201."""
    for kept, (cut, *_) in enumerate(PUBLISHED["resnet50"]):
        yield compare_whole(f"u = {kept}", f"slim:resnet50?keep={cut}", PUBLISHED["tf_resnet50"][kept])
    for kept, published in enumerate(PUBLISHED["tf_densenet201"], start=1):
        yield compare_whole(f"u = {kept}", f"slim:densenet201?keep=features.transition{kept}", published)


def compare_vgg() -> Iterator[Row]:
    """Compare VGG-19 after the pooling of each stage, and whole."""
    for cut, figures in PUBLISHED["vgg19"].items():
        yield compare_whole("VGG-19", "vgg19", figures[-2:], cut)


def draw_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Draw a table in Markdown; whole numbers get thousands separators."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def draw_sizes(rows: Iterable[Row]) -> str:
    """Draw published, same head and own head side by side, parameters first."""
    head = [f"{unit}, {which}" for unit in ("params", "MACs") for which in ("published", "same head", "own head")]
    cells = []
    for row in rows:
        sizes = (row.published, row.same, row.own)
        figures = [*(size.params for size in sizes), *(size.macs for size in sizes)]
        cells.append([row.network, f"`{row.cut}`", row.head, *figures])
    return draw_table(["", "here", "head in the paper", *head], cells)


def draw_printed() -> str:
    """Draw what TTL's paper prints for its best models beside our figures."""
    head = ("here", "params (M), printed", "ours", "MACs (G), printed", "ours, counted as there", "ours, our count")
    rows = []
    for backbone, cut, millions, gmacs in PUBLISHED["printed"]:
        size = measure(backbone, cut)
        counted = count_as_printed(backbone, cut)
        name = f"`{backbone}`, `{cut}`"
        rows.append(
            (name, millions, f"{size.params / 1e6:.3f}", gmacs, f"{counted / 1e9:.3f}", f"{size.macs / 1e9:.3f}")
        )
    return draw_table(head, rows)


def write_page() -> str:
    """Return the whole page."""
    cbr = (compare_whole(name, f"cbr:{name}", published) for name, published in PUBLISHED["cbr"].items())
    sections = {
        "What the TTL paper prints": draw_printed(),
        "TTL, ResNet-50: every cut": draw_sizes(compare_resnet()),
        "TTL, DenseNet-121": draw_sizes(compare_densenet("densenet121")),
        "TTL, DenseNet-201": draw_sizes(compare_densenet("densenet201")),
        "TF of TTL, Slim of TransFusion: `u` units at full width, half above": draw_sizes(compare_hybrids()),
        "CBR": draw_sizes(cbr),
        "VGG-19 (Davila)": draw_sizes(compare_vgg()),
    }
    return INTRODUCTION + "".join(f"\n## {title}\n\n{table}" for title, table in sections.items())


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    options = parser.parse_args()
    page = write_page()
    if not options.write:
        sys.stdout.write(page)
        return
    make_folder(PAGE.parent)
    publish_text(PAGE, page)
    print(f"wrote {PAGE.parent.name}/{PAGE.name}")


if __name__ == "__main__":
    main()
