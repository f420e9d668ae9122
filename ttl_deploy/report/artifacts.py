"""An artifact's calibration and operating point as sentences, for terminal and page."""

from ttl_deploy.records.artifacts import SHIFTED, Calibration, OperatingPoint


def describe_calibration(calibration: Calibration | None) -> str:
    """Say by which temperature the probabilities are calibrated, fitted on what, and what that changed there."""
    if calibration is None:
        return "probabilities not calibrated"
    on = f"{calibration.images} validation images of {calibration.patients} patients"
    if calibration.note:
        return f"probabilities not calibrated: {calibration.note}"
    changes = "; ".join(
        f"{effect.split} negative log-likelihood {effect.nll_before:.4f} to {effect.nll_after:.4f}"
        for effect in calibration.effects
    )
    told = f"calibrated by the temperature {calibration.temperature:.4g}, fitted on {on}; {changes}"
    return f"{told}. {SHIFTED}" if calibration.missed else told


def describe_operating_point(point: OperatingPoint) -> str:
    """Say from which probability on class 1 is decided for, how sure that is, and by which rule."""
    if point.rule == "each":
        return "every class by itself, present from probability 0.5 on"
    if point.threshold is None:
        return "the most probable class"
    bounds = "no interval" if point.low is None or point.high is None else f"[{point.low:.3f}, {point.high:.3f}]"
    share = "" if point.target is None else f" of at least {point.target:g}"
    rule = "Youden's index" if point.rule == "youden" else f"a {point.rule}{share}"
    return f"class 1 from probability {point.threshold:.4g} on {bounds}, chosen on {point.split} for {rule}"
