"""How each strategy looks in the report's figures: colour, mark and line, the same in all of them."""

from collections.abc import Iterable
from dataclasses import dataclass

_COLOURS = ("#0072b2", "#e08a00", "#009e73", "#c4669a", "#4aa3dd", "#d55e00", "#8a6fc2", "#8c7a3d")
"""Close to Okabe and Ito's, which people with any colour vision can tell apart, for light and dark paper."""
_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "x", "hexagon")
_DIRECTION_MARKS = dict.fromkeys(
    (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}"
)
_DASHES = ("solid", "dash", "dashdot", "longdash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The look of one strategy: `label` is its text without what plotly reads as markup."""

    label: str
    colour: str
    symbol: str
    dash: str


def looks_of(strategies: Iterable[str]) -> dict[str, Look]:
    """Return a look for each strategy; after eight, colours come again with other marks and dashed lines."""
    return {
        strategy: Look(
            label=label_strategy(strategy),
            colour=_COLOURS[i % len(_COLOURS)],
            symbol=_SYMBOLS[(i + i // len(_COLOURS)) % len(_SYMBOLS)],
            dash=_DASHES[i // len(_COLOURS) % len(_DASHES)],
        )
        for i, strategy in enumerate(strategies)
    }


def clean_label(text: str) -> str:
    """Strip from a name what plotly would read as markup, and marks that turn the direction of the text around it."""
    return show_direction_marks(text).replace("<", "").replace("&", "")


def show_direction_marks(text: str) -> str:
    """Replace Unicode's marks of direction, with which a name could turn around what stands beside it."""
    return text.translate(_DIRECTION_MARKS)


def label_strategy(strategy: str) -> str:
    """Return a strategy's text for a label: `lwft?freeze=layer2, decay=5`."""
    return clean_label(strategy.replace("&", ", "))
