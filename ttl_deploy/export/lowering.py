"""From a file in single precision to one of 8 bits that holds its gate: tries, a bounded number of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ttl_deploy.errors import GateError
from ttl_deploy.export import quantisation
from ttl_deploy.export.quantisation import Recipe
from ttl_deploy.export.writer import Single
from ttl_deploy.plugins import Proof
from ttl_deploy.processes import Outcome, run_isolated, value_of
from ttl_deploy.records.artifacts import Attempt, Parity, Quantisation
from ttl_deploy.records.refusals import Measured

Judge = Callable[[Path], Parity]
"""Runs a model file over the validation images, and says how it did."""
_QUANTISE_TIMEOUT_S = 1800.0
_RANKED_IMAGES = 16
_LAYERS_PER_CHILD = 8
_MOST_KEPT = 16
_HIGHEST_SHARE_KEPT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """The file that holds its gate, how it did, and how it was made; from the given model or a `finetuned` one."""

    model: Path
    parity: Parity
    quantisation: Quantisation
    finetuned: Single | None = None


@dataclass(slots=True, kw_only=True)
class Int8Search:
    """Tries recipes, then the first with ever more sensitive layers in single precision, then two last resorts.

    Attributes:
        source: the ONNX file in single precision; `work` is a folder for what is made on the way.
        recipes: tried in this order.
        finish: turns a quantised ONNX file into what would be shipped, whose first file it returns.
        judge: measures that.
        last_resort: makes such a file in quite another way; None where there is none. Named by `last_name`.
        finetune: makes another model to quantise by the same recipes, all layers of it; None where that is not wanted.
    """

    source: Path
    work: Path
    recipes: tuple[Recipe, ...]
    proof: Proof
    finish: Callable[[Path], Path]
    judge: Judge
    last_resort: Callable[[Path], Path] | None = None
    last_name: str = ""
    finetune: Callable[[], Single] | None = None
    _finetuned: Single | None = None
    _attempts: list[Attempt] = field(default_factory=list)
    _last: Parity | None = None

    def run(self) -> Lowered:
        """Return the first try that holds the gate; raises `GateError` naming the best where none does."""
        self._prepare()
        for recipe, kept, path in self._candidates():
            model, parity = self._try(recipe, kept, path)
            if parity.passed:
                quantised = self._describe(recipe, kept)
                return Lowered(model=model, parity=parity, quantisation=quantised, finetuned=self._finetuned)
            if parity.auroc is not None and parity.auroc.difference is None:
                told = f"int8 was not published: {'; '.join(parity.failures)}. {_MORE_DATA}"
                raise GateError(told, measured=self._measured())
        raise GateError(self._tell_failure(), measured=self._measured())

    def _prepare(self) -> None:
        done = run_isolated(quantisation.prepare, self.source, self._prepared, timeout_s=_QUANTISE_TIMEOUT_S)
        value_of(done, error=GateError, doing="cannot prepare the model for quantisation")

    @property
    def _prepared(self) -> Path:
        return self.work / f"prepared-{self.source.stem}.onnx"

    def _candidates(self) -> Iterator[tuple[str, tuple[str, ...], Path]]:
        """Make one file after the other, each only when those before it have failed."""
        for recipe in self.recipes:
            yield recipe.name, (), self.finish(self._quantise(recipe, ()))
        yield from self._with_layers_kept(self.recipes[0])
        if self.last_resort is not None:
            self.proof.progress(f"quantising by {self.last_name}", 0, 1)
            yield self.last_name, (), self.last_resort(self.source)
        if self.finetune is not None:
            self._finetuned = self.finetune()
            self.source = self._finetuned.path
            self._prepare()
            for recipe in self.recipes:
                yield f"{recipe.name}{_FINETUNED}", (), self.finish(self._quantise(recipe, ()))

    def _with_layers_kept(self, recipe: Recipe) -> Iterator[tuple[str, tuple[str, ...], Path]]:
        worst = self._rank(recipe)
        count = 1
        while count <= min(_MOST_KEPT, int(len(worst) * _HIGHEST_SHARE_KEPT)):
            kept = tuple(worst[:count])
            yield recipe.name, kept, self.finish(self._quantise(recipe, kept))
            count *= 2

    def _quantise(self, recipe: Recipe, kept: tuple[str, ...]) -> Path:
        ranges = self._ranges(recipe)
        path = self.work / f"int8-{len(self._attempts)}.onnx"
        images = None if ranges.exists() else self.proof.calibration
        what = " the finetuned model" if self._finetuned else ""
        stage = "keeping sensitive layers in fp32" if kept else f"quantising{what} to {recipe.name}"
        self.proof.progress(stage, len(kept), max(1, len(kept)))
        made = run_isolated(
            quantisation.quantise_in_child,
            self._prepared,
            path,
            recipe.name,
            ranges,
            images,
            kept,
            timeout_s=_QUANTISE_TIMEOUT_S,
        )
        value_of(made, error=GateError, doing=f"cannot quantise to {recipe.name}")
        return path

    def _ranges(self, recipe: Recipe) -> Path:
        """The file of activations' ranges, which depend on what is quantised, and on the signs asked for."""
        return self.work / f"ranges-{self.source.stem}-{list(quantisation.RECIPES).index(recipe.name)}.json"

    def _rank(self, recipe: Recipe) -> list[str]:
        """Return the layers by the error that each makes alone on training images, the worst first."""
        layers = quantisation.layers_of(self._prepared)
        images = self.proof.calibration[:_RANKED_IMAGES]
        powers: list[float] = []
        for start in range(0, len(layers), _LAYERS_PER_CHILD):
            self.proof.progress("finding sensitive layers", start, len(layers))
            part = layers[start : start + _LAYERS_PER_CHILD]
            measured: Outcome[list[float]] = run_isolated(
                quantisation.measure_layers,
                self._prepared,
                self.work,
                recipe.name,
                self._ranges(recipe),
                images,
                part,
                np.ndim(self.proof.labels) == 2,
                timeout_s=_QUANTISE_TIMEOUT_S,
            )
            found: list[float] = value_of(measured, error=GateError, doing="cannot measure the layers")
            powers += found
        self.proof.progress("finding sensitive layers", len(layers), len(layers))
        return [layers[i] for i in np.argsort(powers)[::-1]]

    def _try(self, recipe: str, kept: tuple[str, ...], path: Path) -> tuple[Path, Parity]:
        parity = self.judge(path)
        difference = parity.auroc.difference if parity.auroc else None
        self._attempts.append(
            Attempt(
                recipe=recipe,
                kept=kept,
                size_bytes=_size(path),
                max_difference=parity.max_difference,
                sqnr_db=parity.sqnr_db,
                agreement=parity.agreement,
                auroc_difference=None if difference is None else difference.value,
                auroc_low=None if difference is None else difference.low,
                passed=parity.passed,
            )
        )
        self._last = parity
        return path, parity

    def _measured(self) -> Measured:
        return Measured(parity=self._last, attempts=tuple(self._attempts))

    def _describe(self, recipe: str, kept: tuple[str, ...]) -> Quantisation:
        return Quantisation(
            recipe=recipe,
            calibration=self.proof.calibrated_on,
            kept=kept,
            attempts=tuple(self._attempts),
            single_size_bytes=self.source.stat().st_size,
            finetuning=self._finetuned.finetuning if self._finetuned else None,
        )

    def _tell_failure(self) -> str:
        best = max(self._attempts, key=lambda one: (one.agreement, -1.0 if one.auroc_low is None else one.auroc_low))
        kept = f", {len(best.kept)} layers kept in fp32" if best.kept else ""
        low = "not known" if best.auroc_low is None else f"{best.auroc_low:+z.4f}"
        last = "; ".join(self._last.failures if self._last else ())
        return (
            f"no int8 file held the gate in {len(self._attempts)} tries, and nothing was published. Best: "
            f"{best.recipe}{kept}: {best.agreement:.2%} of decisions the same, lower bound of the AUROC difference "
            f"{low}. Last: {last}. {_MORE_DATA}" + ("" if self.finetune else f". {_TRY_FINETUNING}")
        )


_FINETUNED = ", model finetuned for 8 bits"
_TRY_FINETUNING = "Finetuning for 8 bits was not tried: add --qat-epochs 3"
_MORE_DATA = "Validate on more images, allow more with --max-drop, or export --precision bf16 or fp32"


def _size(path: Path) -> int:
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0)
