"""Weights: where they come from, how they fit, and into models and out of them."""

from ttl_deploy.models.weights.loading import check_weights, load_pretrained, load_weights, save_weights

__all__ = ["check_weights", "load_pretrained", "load_weights", "save_weights"]
