"""Images that show the same picture although their bytes differ: encoded, scaled, brightened or trimmed anew.

An image is hashed to 128 signs of its cosine transform, lowest frequencies first. Pairs within `RADIUS`
are found exactly, without comparing everything with everything, and then looked at: how well does a
thumbnail's detail explain the other's? How the numbers below were chosen stands in `docs/data.md`.
Mirrored or turned copies are not found.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.plugins import Progress

Floats = NDArray[np.float64]
HASH_SIDE = 64
"""Side of the grey image that is hashed, in pixels."""
THUMBNAIL_SIDE = 32
WORDS = 8
"""A hash is so many 16-bit words."""
RADIUS = 15
"""Most differing bits of two hashes worth a look; below two per word, which makes the search exact."""
LEAST_MATCH = 0.93
"""A pair from this match on is taken for one picture, unless the pictures look alike altogether."""
STRICT_MATCH = 0.97
"""What it takes where they do; copies that were trimmed are missed then."""
_LOOK_ALIKE = 0.1
_WORD_BITS = 16
_BITS = WORDS * _WORD_BITS
_FREQUENCIES = 16
_BLUR = 2
_AT_ONCE = 1000


def _cosines() -> Floats:
    """Return the first `_FREQUENCIES` rows of the cosine transform (DCT-II, unscaled) of `HASH_SIDE` values."""
    frequency, place = np.arange(_FREQUENCIES)[:, None], np.arange(HASH_SIDE)[None]
    return np.asarray(np.cos(np.pi * frequency * (2 * place + 1) / (2 * HASH_SIDE)))


def _lowest_frequencies() -> NDArray[np.intp]:
    """Return the flat positions of the `_BITS` lowest frequencies but the mean, dealt out to the words in turn."""
    row, column = np.divmod(np.arange(_FREQUENCIES**2), _FREQUENCIES)
    lowest = np.argsort(row**2 + column**2, kind="stable")[1 : _BITS + 1]
    return np.asarray(lowest.reshape(_WORD_BITS, WORDS).T.ravel())


_COSINES = _cosines()
_CHOSEN = _lowest_frequencies()


def hash_image(grey: Floats) -> NDArray[np.uint16]:
    """Hash a grey image `(HASH_SIDE, HASH_SIDE)` to `WORDS` words; the same whatever its contrast."""
    signs = (_COSINES @ grey @ _COSINES.T).ravel()[_CHOSEN] > 0
    return np.packbits(signs).view(np.uint16)


def find_close(hashes: NDArray[np.uint16], *, progress: Progress | None = None) -> Iterator[NDArray[np.intp]]:
    """Yield all pairs `(m, 2)` of hashes `(n, WORDS)` that differ in at most `RADIUS` bits, each once.

    Of two such hashes, one word differs in one bit at most (else there were two per word). So those are
    compared that agree in a word but for one of its bits: multi-index hashing (Norouzi, Punjani & Fleet,
    CVPR 2012). A pair belongs to the first word where that holds. Needs memory for n pairs at a time.
    """
    for word in range(WORDS):
        for bit in range(_WORD_BITS):
            if progress:
                progress("comparing the images", word * _WORD_BITS + bit, _BITS)
            mask = np.uint16(1 << bit)
            for first, second in _equal_pairs(hashes[:, word] & ~mask):
                differing = hashes[first] ^ hashes[second]
                counts = np.bitwise_count(differing)
                kept = (counts.sum(axis=1) <= RADIUS) & ((counts <= 1).argmax(axis=1) == word)
                kept &= (differing[:, word] == mask) | (bit == 0)
                if kept.any():
                    yield np.stack((first[kept], second[kept]), axis=1)
    if progress:
        progress("comparing the images", _BITS, _BITS)


def _equal_pairs(keys: NDArray[np.uint16]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the positions of equal keys: those one apart in sorted order, then those two apart, and so on."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    left = np.arange(len(keys))
    for apart in range(1, len(keys)):
        left = left[left < len(keys) - apart]
        left = left[ordered[left] == ordered[left + apart]]
        if not len(left):
            return
        yield order[left], order[left + apart]


def match(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    """Tell how alike thumbnails `(m, THUMBNAIL_SIDE, THUMBNAIL_SIDE)` are, pair by pair, 0 to 1.

    It is the correlation of their details (the thumbnail less its blurred self) after the best small shift
    and trim, to first order: the multiple correlation of one's detail with the other's and its derivatives.
    Of both directions the smaller counts.
    """
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(first), _AT_ONCE)]
    return np.concatenate([np.empty(0), *(_match(_details(first[part]), _details(second[part])) for part in parts)])


def choose_level(matches: Floats, *, images: int) -> float:
    """Return the match it takes to be reported, given those of all pairs within the radius.

    Where many pairs come near and are no copies, some of them will reach `LEAST_MATCH` by chance.
    """
    failed = int((matches < LEAST_MATCH).sum())
    return STRICT_MATCH if failed > _LOOK_ALIKE * images else LEAST_MATCH


def _match(first: Floats, second: Floats) -> Floats:
    return np.minimum(_explain(first, second), _explain(second, first))


def _explain(given: Floats, wanted: Floats) -> Floats:
    """Return the multiple correlation of `wanted` `(m, S, S)` with `given`, moved and scaled in x and y."""
    down, right = np.gradient(given, axis=(1, 2))
    place = np.linspace(-1, 1, given.shape[1])
    parts = (given, down, right, down * place[:, None], right * place)
    columns = np.stack(parts, axis=-1).reshape(len(given), -1, len(parts))
    columns = columns - columns.mean(axis=1, keepdims=True)
    target = wanted.reshape(len(wanted), -1)
    target = target - target.mean(axis=1, keepdims=True)
    gram = np.einsum("npi,npj->nij", columns, columns) + 1e-6 * np.eye(len(parts))
    shared = np.einsum("npi,np->ni", columns, target)
    weights = np.linalg.solve(gram, shared[..., None])[..., 0]
    explained = (weights * shared).sum(axis=1) / np.maximum((target**2).sum(axis=1), 1e-9)
    return np.asarray(np.sqrt(np.clip(explained, 0, 1)))


def _details(thumbnails: NDArray[np.uint8]) -> Floats:
    """Take from each pixel the mean of the square around it."""
    plain = thumbnails.astype(np.float64)
    padded = np.pad(plain, ((0, 0), (_BLUR, _BLUR), (_BLUR, _BLUR)), mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(padded, (2 * _BLUR + 1,) * 2, axis=(1, 2))
    return np.asarray(plain - squares.mean(axis=(3, 4)))
