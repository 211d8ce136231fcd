"""Where data is looked for: `$NORMLAB_DATA`, then the cache (`$NORMLAB_HOME` or the platform's cache folder); what is a
user's own also in the current folder, last."""

import os
from pathlib import Path

from normlab.errors import UsageError, nearest


def cache_root() -> Path:
    if home := os.environ.get("NORMLAB_HOME"):
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_cache_dir("normlab"))


def data_folders() -> list[Path]:
    """The folders a name is looked up in, in order."""
    given = os.environ.get("NORMLAB_DATA")
    return [*([Path(given)] if given else []), cache_root() / "data"]


def find(name: str) -> Path | None:
    """A user's own file or folder of that name; a name with a slash is a path as it stands."""
    if "/" in name or os.sep in name:
        path = Path(os.path.expanduser(name))  # unlike Path's, this one bears users whom nobody knows
        return path if path.exists() else None
    return next((place / name for place in [*data_folders(), Path()] if (place / name).exists()), None)


def not_found(name: str) -> UsageError:
    """What to say where `find` found nothing."""
    if "/" in name or os.sep in name:
        return UsageError(f"data 'folder:{name}': there is no such file or folder")
    present = [path.name for place in [*data_folders(), Path()] if place.is_dir() for path in place.iterdir()]
    looked = ", ".join(str(place) for place in data_folders())
    return UsageError(
        f"data 'folder:{name}': not found in {looked} and the current folder{nearest(name, present)}; "
        "put it there, point NORMLAB_DATA at its folder, or write a path such as folder:data/pets"
    )
