"""The decoded images of a search, one cache for each input size, opened when it is first needed."""

from dataclasses import dataclass, field, replace

from ttl_deploy.data.cache import Note, PixelCache, open_cache
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import DecodeSettings, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """The images of a manifest, decoded as the settings say but for their size."""

    manifest: Manifest
    decode: DecodeSettings
    progress: Progress
    note: Note
    opened: dict[int, PixelCache] = field(default_factory=dict)

    def of(self, image_size: int) -> PixelCache:
        """Return the images at a size, decoding them first where that was not yet done; raises as `open_cache`."""
        if image_size not in self.opened:
            settings = replace(self.decode, image_size=image_size)
            self.opened[image_size] = open_cache(self.manifest, settings, progress=self.progress, note=self.note)
        return self.opened[image_size]
