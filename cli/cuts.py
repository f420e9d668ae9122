"""`ttl-deploy cuts`: where a backbone can be cut, and what is left."""

from typing import Annotated

import typer

NAME = "cuts"


def run(
    backbone: Annotated[str, typer.Option(help="Backbone by its torchvision name.")],
    image_size: Annotated[int, typer.Option(help="Side of the square image in pixels.")] = 224,
    classes: Annotated[int, typer.Option(min=2, help="Classes of the head.")] = 2,
    pool: Annotated[str, typer.Option(help="avg, max, avgmax, gem or flatten before the classifier.")] = "avg",
    cuts: Annotated[str, typer.Option(help="stages, all, or names separated by commas.")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """List the cuts of a backbone with parameters, MACs, their share of the full network, and feature shape."""
    import json
    from typing import get_args

    import msgspec

    from ttl_deploy import plugins
    from ttl_deploy.errors import UnknownNameError, UsageError
    from ttl_deploy.records.models import Pool

    from .settings import parse_cuts
    from .tables import print_cuts

    if pool not in get_args(Pool):
        raise UnknownNameError("pool", pool, get_args(Pool))
    if not 8 <= image_size <= 2048:
        raise UsageError(f"--image-size {image_size}: give 8 to 2048 pixels")
    models = plugins.import_part("ttl_deploy.models.cuts", need="`ttl-deploy cuts`")
    known = models.list_cuts(backbone, image_size=image_size, classes=classes, pool=pool)
    wanted = models.resolve_cuts(parse_cuts(cuts), known)
    if as_json:
        print(json.dumps([msgspec.to_builtins(cut) for cut in wanted], indent=2))
        return
    print_cuts(wanted, backbone=backbone, image_size=image_size, classes=classes)
