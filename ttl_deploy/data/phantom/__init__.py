"""The built-in demo: radiograph-like images drawn by code, with findings whose scale is chosen."""

from ttl_deploy.data.phantom.films import (
    PHANTOM_KINDS,
    PHANTOM_VERSION,
    PhantomFilm,
    PhantomKind,
    PhantomSettings,
    draw_phantom,
)

__all__ = ["PHANTOM_KINDS", "PHANTOM_VERSION", "PhantomFilm", "PhantomKind", "PhantomSettings", "draw_phantom"]
