"""What columns mean beyond their type: names of labels, pictures and sounds.

Told by the card of a repo, or by the metadata that `datasets` writes into Parquet. Source: datasets `features`,
`Features._from_yaml_list`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEDIA = frozenset({"Image", "Audio", "Video", "Pdf", "Nifti", "Mesh"})
_YAML_MEDIA = {name.lower(): name for name in MEDIA}
MAX_DEPTH = 20
"""At most this many levels of features are read."""


@dataclass(frozen=True)
class Feature:
    """The meaning of a column, or of a part of one: names of labels, media, or the parts of a list or a struct."""

    labels: tuple[str, ...] = ()
    media: str = ""
    item: Feature | None = None
    fields: Mapping[str, Feature] | None = None

    @property
    def has_labels(self) -> bool:
        inner = [*(self.fields or {}).values(), *([self.item] if self.item else [])]
        return bool(self.labels) or any(one.has_labels for one in inner)

    def field(self, name: str) -> Feature | None:
        return (self.fields or {}).get(name)


def feature_to_json(feature: Feature | None) -> Any:
    if feature is None:
        return None
    fields = {name: feature_to_json(one) for name, one in (feature.fields or {}).items()}
    known = {"labels": list(feature.labels), "media": feature.media, "item": feature_to_json(feature.item)}
    return {key: value for key, value in {**known, "fields": fields}.items() if value}


def feature_from_json(document: Any) -> Feature | None:
    if document is None:
        return None
    fields = {str(name): feature_from_json(one) or Feature() for name, one in document.get("fields", {}).items()}
    item = feature_from_json(document.get("item"))
    return Feature(tuple(document.get("labels", ())), str(document.get("media", "")), item, fields or None)


def of_metadata(features: Any, depth: int = 0) -> Feature:
    """The features that `datasets` writes as JSON: `{"label": {"names": […], "_type": "ClassLabel"}}`."""
    if depth > MAX_DEPTH:
        return Feature()
    if isinstance(features, list):
        return Feature(item=of_metadata(features[0], depth + 1) if features else None)
    if not isinstance(features, dict):
        return Feature()
    kind = features.get("_type")
    if kind == "ClassLabel":
        return Feature(labels=_names(features.get("names")))
    if kind in MEDIA:
        return Feature(media=str(kind))
    if kind in ("Sequence", "List", "LargeList"):
        inner = of_metadata(features.get("feature"), depth + 1)
        if kind == "Sequence" and inner.fields:  # a dict of lists
            return Feature(fields={name: Feature(item=one) for name, one in inner.fields.items()})
        return Feature(item=inner)
    if isinstance(kind, str):
        return Feature()
    fields = {str(name): of_metadata(one, depth + 1) for name, one in features.items()}
    return Feature(fields=fields)


def of_card(features: Any, depth: int = 0) -> Feature:
    """The features in the YAML of a card: a list of `{name, dtype | sequence | list | struct}`."""
    if depth > MAX_DEPTH:
        return Feature()
    if isinstance(features, list):
        named = [one for one in features if isinstance(one, dict) and "name" in one]
        return Feature(fields={str(one["name"]): of_card(one, depth + 1) for one in named})
    if isinstance(features, str):
        return Feature(media=_YAML_MEDIA.get(features, ""))
    if not isinstance(features, dict):
        return Feature()
    if "class_label" in features:
        return Feature(labels=_names((features["class_label"] or {}).get("names")))
    for key in ("sequence", "list", "large_list"):
        if key in features:
            inner = of_card(features[key], depth + 1)
            if key == "sequence" and inner.fields:
                return Feature(fields={name: Feature(item=one) for name, one in inner.fields.items()})
            return Feature(item=inner)
    if "struct" in features:
        return of_card(features["struct"], depth + 1)
    return of_card(features.get("dtype"), depth + 1)


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, dict):  # by number, as texts
        numbered = {int(number): str(name) for number, name in names.items() if str(number).isdigit()}
        return tuple(numbered.get(number, str(number)) for number in range(max(numbered, default=-1) + 1))
    return tuple(map(str, names)) if isinstance(names, list) else ()


def features_of_card(card: Any, config: str) -> Feature | None:
    """The features that the YAML of a card tells for a config; None if it tells none."""
    if not isinstance(card, dict):
        return None
    infos = card.get("dataset_info")
    for info in infos if isinstance(infos, list) else [infos]:
        if isinstance(info, dict) and info.get("features") and str(info.get("config_name", config)) == config:
            return of_card(info["features"])
    return None
