"""From files to a checked manifest with its splits, and to decoded pixels; never imports torch."""

from ttl_deploy.data.cache import PixelCache, open_cache
from ttl_deploy.data.manifest import limit_train, prepare
from ttl_deploy.data.manifest_files import fingerprint, load_manifest, save_manifest

__all__ = ["PixelCache", "fingerprint", "limit_train", "load_manifest", "open_cache", "prepare", "save_manifest"]
