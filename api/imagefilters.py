"""Filters of `images` and `search`, as Docker has them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial

from msgspec.structs import replace

from api.filters import image_fits, label_fits, parse_filters
from model.api import FoundImage, ImageInfo
from model.errors import InvalidInput, NotFound
from model.image import ImageRecord
from model.quantity import BOOLS, parse_bool

KNOWN = ("label", "label!", "reference", "dangling", "before", "since", "until")


def filter_images(infos: Sequence[ImageInfo], texts: Sequence[str]) -> list[ImageInfo]:
    """`before` and `since` name images among `infos`; `until` is in unix seconds. Of an image found by
    reference only the names that fit are shown. Raises InvalidInput, NotFound."""
    filters = parse_filters(texts, KNOWN)
    rules = {key: _rule(key, values, infos) for key, values in filters.items()}
    kept = [info for info in infos if all(fits(info) for fits in rules.values())]
    wanted = filters.get("reference")
    return [_named(info, wanted) for info in kept] if wanted else kept


def _rule(key: str, values: Sequence[str], infos: Sequence[ImageInfo]) -> Callable[[ImageInfo], bool]:
    """Values of one key are alternatives, but labels must all hold; of times the narrowest counts."""
    match key:
        case "label":
            return lambda i: all(label_fits(i.image.config.labels, v) for v in values)
        case "label!":
            return lambda i: not any(label_fits(i.image.config.labels, v) for v in values)
        case "reference":
            return lambda i: any(reference_fits(name, v) for name in i.image.names for v in values)
        case "dangling":
            return lambda i: any((not i.image.names) == BOOLS[v] for v in values)
        case "since":
            after = max(_created(infos, v) for v in values)
            return lambda i: i.image.created > after
        case _:
            times = (_seconds(v) if key == "until" else _created(infos, v) for v in values)
            before = min(times)
            return lambda i: i.image.created < before


def reference_fits(name: str, pattern: str) -> bool:
    """A repository, a repository and tag, or a pattern of either in which `*` stops at a slash:
    `busybox:*`, `ghcr.io/*/web`."""
    if image_fits(name, pattern):
        return True
    tagged = name.removeprefix("docker.io/").removeprefix("library/")
    repository = tagged.rpartition(":")[0]
    return any(_matches(text, pattern) for text in (name, tagged, repository))


def _matches(text: str, pattern: str) -> bool:
    parts, wanted = text.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _created(infos: Sequence[ImageInfo], ref: str) -> float:
    """When the image that `ref` names was made."""
    digits = ref.removeprefix("sha256:")
    tagged = ref if ":" in ref.rpartition("/")[2] else f"{ref}:latest"
    for info in infos:
        image = info.image
        if any(image_fits(name, tagged) for name in image.names) or ref in image.digests:
            return image.created
    found = {i.image.id: i.image.created for i in infos if i.image.id.startswith(f"sha256:{digits}")}
    if len(found) != 1 or not digits:
        raise NotFound(f"no such image: {ref[:128]}", hint="before= and since= take an image that is here")
    return next(iter(found.values()))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"filter until={text[:40]}: not a time in seconds") from None


def image_chooser(texts: Sequence[str]) -> Callable[[ImageRecord], bool]:
    """What `image prune` may take: `until=SECONDS` (created before then, unix time), `label=…`, `label!=…`.
    All must hold, as in Docker."""
    wanted: list[Callable[[ImageRecord], bool]] = []
    for key, values in parse_filters(texts, ("until", "label", "label!")).items():
        for value in values:
            if key == "until":
                wanted.append(partial(_created_before, _seconds(value)))
            else:
                wanted.append(partial(_image_labelled, value, key == "label"))
    return lambda image: all(fits(image) for fits in wanted)


def _created_before(at: float, image: ImageRecord) -> bool:
    return image.created < at


def _image_labelled(wish: str, has: bool, image: ImageRecord) -> bool:
    return label_fits(image.config.labels, wish) is has


def _named(info: ImageInfo, references: Sequence[str]) -> ImageInfo:
    names = tuple(name for name in info.image.names if any(reference_fits(name, r) for r in references))
    return replace(info, image=replace(info.image, names=names))


# -- search -----------------------------------------------------------------------------------------
_FOUND: Mapping[str, Callable[[FoundImage, str], bool]] = {
    "stars": lambda f, v: f.stars >= int(v),
    "is-official": lambda f, v: f.official == BOOLS[v],
    "is-automated": lambda f, v: not BOOLS[v],
}
"""Docker Hub builds nothing automatically any more: no image is."""


def filter_found(found: Sequence[FoundImage], texts: Sequence[str]) -> list[FoundImage]:
    """Raises InvalidInput."""
    filters = parse_filters(texts, tuple(_FOUND))
    for value in filters.get("stars", ()):
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise InvalidInput(f"filter stars={value[:40]}: that is no number of stars")
    for key in ("is-official", "is-automated"):
        for value in filters.get(key, ()):
            parse_bool(value, f"filter {key}")
    return [f for f in found if all(_FOUND[key](f, v) for key, values in filters.items() for v in values)]
