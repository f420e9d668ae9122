"""SVCCA and debiased CKA against other routes to the same numbers, and against what they must not depend on."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ortho_group
from sklearn.cross_decomposition import CCA

from ttl_deploy.analysis import similarity

Array = NDArray[np.float64]


def draw(samples: int, *columns: int, seed: int = 0) -> tuple[Array, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((samples, count)) for count in columns)


def related(samples: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Return features that share two of their directions, with noise, and have offsets."""
    shared, x, y = draw(samples, 2, 5, 4, seed=seed)
    x[:, :2] += 3 * shared
    y[:, 1:3] += 2 * shared @ np.array([[1.0, 0.5], [-0.5, 1.0]])
    return x + 7, y - 3


def correlate(x: Array, y: Array, *, share: float = 1.0) -> Array:
    found = (similarity.find_directions(one, variance_share=share) for one in (x, y))
    return similarity.correlate(*found)


def correlate_by_covariances(x: Array, y: Array) -> Array:
    """Return canonical correlations as the roots of the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx (Hotelling 1936)."""
    joint = np.cov(x, y, rowvar=False)
    p = x.shape[1]
    sxx, sxy, syy = joint[:p, :p], joint[:p, p:], joint[p:, p:]
    product = np.linalg.solve(sxx, sxy) @ np.linalg.solve(syy, sxy.T)
    roots = np.sort(np.linalg.eigvals(product).real)[::-1][: min(x.shape[1], y.shape[1])]
    return np.sqrt(np.clip(roots, 0, 1))


def test_all_directions_give_the_canonical_correlations_of_hotelling() -> None:
    x, y = related(200)
    assert correlate(x, y) == pytest.approx(correlate_by_covariances(x, y), abs=1e-10)


def test_all_directions_give_those_that_scikit_learn_finds_one_after_the_other() -> None:
    x, y = related(120, seed=3)
    fitted = CCA(n_components=4, max_iter=20_000, tol=1e-12).fit(x, y)
    scores = fitted.transform(x, y)
    expected = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(*(one.T for one in scores), strict=True)]
    assert correlate(x, y) == pytest.approx(np.sort(expected)[::-1], abs=1e-6)


def test_a_correlation_computed_by_hand() -> None:
    """x = (1, 2, 3), y = (1, 3, 2): covariance 1/2 and both variances 1, so r = 1/2."""
    x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [3.0], [2.0]])
    assert correlate(x, y) == pytest.approx([0.5])


def test_directions_are_those_of_a_singular_value_decomposition() -> None:
    x, _ = related(80)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    count = int((np.cumsum(s**2) / (s**2).sum() < 0.9).sum()) + 1
    found = similarity.find_directions(x, variance_share=0.9)
    assert found.count == count < x.shape[1]
    assert found.basis @ found.basis.T == pytest.approx(u[:, :count] @ u[:, :count].T, abs=1e-9)


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_svcca_does_not_depend_on_rotation_scale_and_offset(share: float) -> None:
    x, y = related(150)
    turned = 0.01 * y @ ortho_group.rvs(4, random_state=np.random.default_rng(0)) + 5
    assert correlate(x, turned, share=share) == pytest.approx(correlate(x, y, share=share), abs=1e-8)


def test_plain_cca_does_not_depend_on_any_invertible_map() -> None:
    x, _ = related(150)
    (mixing,) = draw(5, 5, seed=8)
    assert correlate(x, x @ mixing) == pytest.approx(np.ones(5))


def test_features_are_entirely_like_themselves() -> None:
    x, _ = related(50)
    assert correlate(x, x, share=0.99) == pytest.approx(1)
    assert similarity.debiased_cka(x, x) == pytest.approx(1)


def test_noise_has_the_correlations_that_theory_expects() -> None:
    samples, counts = 4_000, (200, 120)
    x, y = draw(samples, *counts, seed=5)
    edge = similarity.noise_edge(samples, counts)
    assert correlate(x, y)[0] == pytest.approx(edge, abs=0.02)
    noise = similarity.correlate_noise(samples, counts, seed=1)
    assert noise[0] == pytest.approx(edge, abs=0.02)
    assert noise.mean() == pytest.approx(correlate(x, y).mean(), abs=0.01)


@pytest.mark.parametrize(("shape", "edge"), [((256, 3136), 0.019), ((512, 784), 0.053), ((2048, 49), 0.411)])
def test_the_edge_of_noise_is_where_the_figures_of_ttl_begin(shape: tuple[int, int], edge: float) -> None:
    """Peng et al.: 944 images at 224 px, ResNet-50's blocks; their random curves begin there."""
    channels, positions = shape
    found = similarity.noise_edge(944 * positions, (channels, channels))
    assert found == pytest.approx(edge, abs=6e-4)


def test_too_few_samples_are_undefined_and_say_so() -> None:
    x, y = (similarity.find_directions(one) for one in draw(10, 6, 6))
    assert similarity.explain_undefined(x, y) == "10 samples are too few for 6 + 6 directions"
    assert correlate(*draw(10, 6, 6))[0] == pytest.approx(1), "unrelated features seem alike"


def test_features_that_do_not_vary_are_undefined() -> None:
    (x,) = draw(20, 3)
    flat = np.full((20, 4), 0.1)
    kept = [similarity.find_directions(one) for one in (x, flat)]
    assert kept[1].count == 0
    assert "the same for all images" in similarity.explain_undefined(*kept)
    assert similarity.debiased_cka(x, flat) is None


def hsic_by_tuples(k: Array, l: Array) -> float:  # noqa: E741 # the letters of the paper
    """Sum over all tuples of different samples (Song et al. 2012, equation 4): the definition of the U-statistic."""
    n = len(k)
    two = [k[i, j] * l[i, j] for i, j in permutations(range(n), 2)]
    three = [k[i, j] * l[i, q] for i, j, q in permutations(range(n), 3)]
    four = [k[i, j] * l[q, r] for i, j, q, r in permutations(range(n), 4)]
    return float(np.mean(two) + np.mean(four) - 2 * np.mean(three))


def test_debiased_cka_is_the_ratio_of_u_statistics() -> None:
    x, y = related(8, seed=2)
    k, gram = x @ x.T, y @ y.T
    expected = hsic_by_tuples(k, gram) / np.sqrt(hsic_by_tuples(k, k) * hsic_by_tuples(gram, gram))
    assert similarity.debiased_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_debiased_cka_does_not_depend_on_rotation_scale_and_offset() -> None:
    x, y = related(40)
    turned = 100 * y @ ortho_group.rvs(4, random_state=np.random.default_rng(0)) - 2
    assert similarity.debiased_cka(x, turned) == pytest.approx(similarity.debiased_cka(x, y), rel=1e-9)


def test_debiased_cka_of_unrelated_features_is_0_in_the_mean_where_the_plain_one_is_not() -> None:
    """With more features than samples plain CKA is near 1, whatever is compared."""
    found, plain = [], []
    for seed in range(200):
        x, y = draw(12, 60, 60, seed=seed)
        found.append(similarity.debiased_cka(x, y))
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        plain.append(np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error < 0.05
    assert np.mean(plain) > 0.7
