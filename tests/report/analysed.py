"""An analysis of one cut beside the full network, with one picture whose names are attacks."""

from ttl_deploy.records.analysis import Analysis, CamImage, Cams, Convergence, Depth, LayerSimilarity, Pair

DEPTHS = (("features.3", 14, 20, 0.1), ("features.6", 7, 60, 0.24), ("full", 1, None, 1.0))


def compare(pair: Pair, cut: str, svcca: float | None, cka: float | None = 0.5) -> LayerSimilarity:
    reason = "" if svcca is not None else "9 samples are too few for 8 + 8 directions"
    return LayerSimilarity(
        pair=pair,
        cut=cut,
        samples=900,
        directions=(40, 42),
        svcca=svcca,
        svcca_noise=None if reason else 0.125,
        noise_edge=None if reason else 0.4,
        svcca_reason=reason,
        cka=cka,
    )


def make_analysis() -> Analysis:
    """Return the analysis."""
    return Analysis(
        backbone="mobilenet_v2",
        weights="imagenet",
        image_size=56,
        cut="features.6",
        model="features.6__full__s0",
        reference="full__full__s0",
        split="val",
        images=40,
        split_images=50,
        image_seed=0,
        position_seed=0,
        random_seeds=(1, 2),
        variance_share=0.99,
        lesion_px=40.0,
        depths=tuple(
            Depth(
                cut=cut,
                depth=number,
                channels=8,
                height=side,
                width=side,
                positions=9,
                macs_share=share,
                receptive_field=field,
                global_context=False,
            )
            for number, (cut, side, field, share) in enumerate(DEPTHS, start=1)
        ),
        similarities=(
            compare("cut-full", "features.3", 0.9),
            compare("cut-full", "features.6", 0.7),
            compare("random-random", "features.3", 0.3, -0.004),
            compare("random-random", "features.6", 0.25, -0.051),
            compare("random-random", "full", None),
        ),
        curves=(Convergence(key="full__full__s0", epochs=(1, 2, 3, 4), val_auroc=(None, 0.8, 0.895, 0.9)),),
        cams=Cams(
            full_layer="features.18",
            full_grid=(2, 2),
            cut_layer="features.6",
            cut_grid=(7, 7),
            seed=0,
            images=(
                CamImage(
                    file="analysis/gradcam-1.png",
                    image="<b>p1</b>.png",
                    split="val",
                    label="<img src=x>",
                    kind="both right",
                    full=0.91,
                    cut=0.87,
                ),
            ),
        ),
        notes=("one note",),
        device="cpu",
        seconds=1.0,
        created="2026-01-01T00:00:00+00:00",
    )
