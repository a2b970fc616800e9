"""The suffix of a picture or a sound, by its first bytes: the name that a dataset gives it is often wrong. Pure."""

from __future__ import annotations

import re

_STARTS = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"%PDF-", "pdf"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\xff\xf3", "mp3"),
    (b"\xff\xf2", "mp3"),
    (b"\x1aE\xdf\xa3", "mkv"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cjP  ", "jp2"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"M4A ": "m4a"}
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_AUDIO = frozenset({"flac", "mp3", "ogg", "opus", "wav"})
_VIDEO = frozenset({"avi", "mkv", "mov", "mp4", "mpeg", "mpg", "webm"})
_OF_BUILDER = {"audiofolder": "Audio", "videofolder": "Video", "pdffolder": "Pdf"}
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")
_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,8})$")


def suffix_of(content: bytes | memoryview, path: str | None) -> str:
    """`jpg`, `png`, …; for unknown bytes the suffix of the path, else `bin`."""
    head = bytes(content[:16])
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "mp4")
    for start, suffix in _STARTS:
        if head.startswith(start):
            return suffix
    found = _SUFFIX.search(path or "")
    return found[1].lower() if found else "bin"


def kind_of_media(builder: str, suffix: str) -> str:
    """What `datasets` calls the media of a builder, or of files with a suffix, where no feature tells it."""
    return "Audio" if suffix in _AUDIO else "Video" if suffix in _VIDEO else _OF_BUILDER.get(builder, "Image")


def is_media_name(name: str) -> bool:
    """Whether a file has a name that `media_name` gives."""
    return _NAME.fullmatch(name) is not None


def media_name(sha256: str, suffix: str) -> str:
    """The path of a picture below the folder of a conversion: equal bytes have one name."""
    return f"images/{sha256[:2]}/{sha256}.{suffix}"
