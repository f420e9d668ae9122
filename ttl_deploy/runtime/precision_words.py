"""What precision a file has, how it came about and what it changed, as sentences for terminal, page and model card."""

from ttl_deploy.records.artifacts import ArtifactManifest, Attempt, AurocDrop, Execution, Parity, Quantisation
from ttl_deploy.records.quantisation import Finetuning

_READABLE = 1e-3


def describe_precision(manifest: ArtifactManifest) -> tuple[str, ...]:
    """Say which precision was asked for, which really ran where, and how the 8-bit numbers came about."""
    lines = [f"{manifest.format} in {manifest.precision}{_ran(manifest.executed)}"]
    if manifest.quantisation:
        lines.append(describe_quantisation(manifest.quantisation))
        if manifest.quantisation.finetuning:
            lines.append(describe_finetuning(manifest.quantisation.finetuning))
    return tuple(lines)


def describe_quantisation(quantisation: Quantisation) -> str:
    """Say by which recipe and images a file was quantised, after how many tries, and what stayed in fp32."""
    images = quantisation.calibration
    tries = len(quantisation.attempts)
    kept = ", ".join(quantisation.kept)
    return (
        f"quantised by {quantisation.recipe}, ranges from {images.images} training images of {images.patients} "
        f"patients; {tries} {'try' if tries == 1 else 'tries'}; "
        + (f"{len(quantisation.kept)} sensitive layers kept in fp32: {kept}" if kept else "no layer kept in fp32")
    )


def describe_finetuning(finetuning: Finetuning) -> str:
    """Say how the weights were finetuned for 8 bits, which of them were kept, where they lie, and their hash."""
    kept = f"best after epoch {finetuning.best_epoch} of {finetuning.epochs}"
    after = finetuning.auroc_after[finetuning.best_epoch - 1]
    gained = ""
    if finetuning.auroc_before is not None and after is not None:
        gained = f"; with rounding, validation AUROC {finetuning.auroc_before:.4f} before and {after:.4f} after"
    return (
        f"weights finetuned for 8 bits, taught by the trained model, on {finetuning.images} training images: {kept}, "
        f"rate {finetuning.lr:g}, temperature {finetuning.temperature:g}, seed {finetuning.seed}{gained}; weights "
        f"{finetuning.weights_sha256[:16]} in {finetuning.weights} of the run"
    )


def describe_parity(parity: Parity) -> tuple[str, ...]:
    """Say how far probabilities differ, how many decisions flipped, and what that is in AUROC, with what is allowed."""
    allowed = f" (allowed {parity.limit:g})" if parity.gate is None else ""
    lines = [f"largest difference in probability {_format(parity.max_difference)}{allowed}"]
    if parity.percentiles:
        median, high, highest = parity.percentiles
        quality = "" if parity.sqnr_db is None else f"; signal to noise of the logits {parity.sqnr_db:.1f} dB"
        lines.append(
            f"differences: mean {_format(parity.mean_difference)}, median {_format(median)}, 95 % below "
            f"{_format(high)}, 99 % below {_format(highest)}{quality}"
        )
    share = (
        "" if parity.gate is None else f" ({parity.agreement:.2%} the same, asked for {parity.gate.min_agreement:.0%})"
    )
    lines.append(f"decisions flipped {parity.decisions_flipped} of {parity.images}{share}")
    if parity.auroc:
        wanted = "" if parity.gate is None else f"; a loss of {parity.gate.max_drop:g} must be excluded"
        lines.append(f"{describe_drop(parity.auroc)}{wanted}")
    return tuple(lines)


def _format(difference: float) -> str:
    """Write a difference of probabilities as `0.155`, or `4.02e-06` where so few digits would show nothing."""
    return f"{difference:.3f}" if difference >= _READABLE else f"{difference:.2e}"


def describe_drop(drop: AurocDrop) -> str:
    """Say both AUROCs, their difference and its interval."""
    if drop.difference is None or drop.file is None or drop.model is None:
        return f"AUROC not compared: {drop.reason}"
    found = drop.difference
    return (
        f"AUROC {drop.file:.4f}, trained model {drop.model:.4f}: difference {found.value:+z.4f}, {found.level:.0%} "
        f"interval {found.low:+z.4f} to {found.high:+z.4f} ({drop.images} images, {drop.patients} patients)"
    )


def _ran(execution: Execution | None) -> str:
    if execution is None:
        return ""
    layers = ", ".join(f"{count} in {name}" for name, count in execution.layers.items())
    told = f" (convolutions and matrix products: {layers})" if layers else ""
    return f"; {execution.runtime} really ran {execution.precision}{told}"


def describe_attempt(attempt: Attempt) -> str:
    """Say in a line how one try did."""
    kept = f", {len(attempt.kept)} layers in fp32" if attempt.kept else ""
    quality = "" if attempt.sqnr_db is None else f", {attempt.sqnr_db:.1f} dB"
    low = "no AUROC" if attempt.auroc_low is None else f"AUROC difference at least {attempt.auroc_low:+z.4f}"
    return (
        f"{attempt.recipe}{kept}: {attempt.size_bytes / 1e6:.2f} MB, {attempt.agreement:.2%} of decisions the same, "
        f"{low}{quality}; {'passed' if attempt.passed else 'failed'}"
    )
