"""The sample pictures inside the package: four photographs and five paintings (SOURCES.md)."""

from __future__ import annotations

from pathlib import Path

from impasto.errors import ImpastoError

_FOLDER = Path(__file__).parent


def sample_names() -> dict[str, list[str]]:
    """The names of the samples, by kind: `"photos"` and `"paintings"`."""
    return {
        kind: sorted(path.stem for path in (_FOLDER / kind).glob("*.jpg"))
        for kind in ("photos", "paintings")
    }


def sample(name: str) -> Path:
    """The file of the sample called `name`.

    Raises:
        ImpastoError: there is no such sample; the text lists all names.
    """
    found = {path.stem: path for path in _FOLDER.glob("*/*.jpg")}
    if name not in found:
        raise ImpastoError(f"there is no sample {name!r}; there are: {', '.join(sorted(found))}")
    return found[name]
