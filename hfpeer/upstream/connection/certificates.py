"""Makes the TLS context for hubs: this machine's certificates beside those of certifi, and those that are named.

A company's proxy that re-signs TLS has its authority in the system's store, where curl and git find it. Python's own
store may be elsewhere, so the usual files are tried too.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import certifi

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, BSD
)
"""Where systems have all their authorities in one file. Source: Go's crypto/x509, root_linux.go."""
REPLACING = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that replace the stores, as OpenSSL and httpx have it."""
ADDING = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables of other tools; the certificates that they name are trusted too."""

_MAX_DER_BYTES = 1 << 20
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The names by which OpenSSL finds certificates in a folder."""


class UnusableCertificates(Exception):
    """A file or folder of certificates cannot be used. The text ends a sentence that starts with the hub's name."""


def tls_context(environ: Mapping[str, str], setting: str | None = None) -> ssl.SSLContext:
    """A context that trusts the stores, and what the environment and the setting `ca` name. Takes some 20 ms.

    Raises UnusableCertificates, with the variable or setting that names what cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    replacing = [(name, environ[name]) for name in REPLACING if environ.get(name)]
    if not replacing:
        context.load_verify_locations(cafile=certifi.where())
        _load_system(context)
    adding = [(name, environ[name]) for name in ADDING if environ.get(name)]
    for named_by, value in [*replacing, *adding, *([("the setting `ca`", setting)] if setting else [])]:
        for place in value.split(os.pathsep) if named_by == "SSL_CERT_DIR" else [value]:
            _load(context, Path(place).expanduser(), named_by)
    return context


def _load_system(context: ssl.SSLContext) -> None:
    """The store of this system, if it can be found; a damaged one is passed over, as certifi's is there."""
    context.set_default_verify_paths()
    for bundle in SYSTEM_BUNDLES:
        if Path(bundle).is_file():
            try:
                context.load_verify_locations(cafile=bundle)
            except (OSError, ssl.SSLError):
                continue
            return


def _load(context: ssl.SSLContext, place: Path, named_by: str) -> None:
    try:
        if place.is_dir():
            _load_folder(context, place)
        else:
            _load_file(context, place)
    except (ssl.SSLError, ValueError) as error:
        raise UnusableCertificates(f"cannot be asked: {named_by} names {place}, which holds no certificate") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnusableCertificates(f"cannot be asked: {named_by} names {place}: {reason}") from error


def _load_folder(context: ssl.SSLContext, folder: Path) -> None:
    """All certificates of a folder, also of one that `openssl rehash` has not prepared."""
    context.load_verify_locations(capath=folder)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if any(_HASHED.fullmatch(file.name) for file in files):
        return
    is_loaded = False
    for file in files:
        with suppress(OSError, ValueError):
            _load_file(context, file)
            is_loaded = True
    if not is_loaded:
        raise ValueError("no file in it is a certificate")


def _load_file(context: ssl.SSLContext, file: Path) -> None:
    """The certificates of a file: PEM, or one in DER, the form in which Windows exports."""
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        with file.open("rb") as opened:
            context.load_verify_locations(cadata=opened.read(_MAX_DER_BYTES))
