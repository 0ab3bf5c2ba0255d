"""How near samples are to data: Fréchet distance, inception score, energy distance."""

import numpy as np


def frechet(mean, cov, other_mean, other_cov):
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), the Frechet distance of two Gaussians, squared."""
    values, vectors = np.linalg.eigh(cov)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C C' has the eigenvalues of this symmetric matrix
    products = np.linalg.eigvalsh(root @ other_cov @ root)
    cross = np.sum(np.sqrt(np.maximum(products, 0)))
    shift = np.sum(np.square(mean - other_mean))
    return float(shift + np.trace(cov) + np.trace(other_cov) - 2 * cross)


def fid(features, other):
    """The distance of two sets of features, (n, features), by their means and covariances."""
    moments = [(np.mean(f, axis=0), np.cov(f.T)) for f in (np.float64(features), np.float64(other))]
    return frechet(*moments[0], *moments[1])


def inception_score(p):
    """exp(mean_x KL(p(y|x) || p(y))) of class probabilities, (n, classes): from 1 to the number of classes."""
    p = np.clip(np.float64(p), 1e-12, 1)
    return float(np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1))))


def energy_distance(a, b):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples, (n, d): 0 where they have one distribution."""
    mean = lambda p, q: np.linalg.norm(p[:, None] - q[None], axis=-1).mean()
    return float(2 * mean(a, b) - mean(a, a) - mean(b, b))
