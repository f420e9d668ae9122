"""Why a depth is enough: similarity of layers, what the networks look at, and what a position can see."""
