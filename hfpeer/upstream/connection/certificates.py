"""Makes the TLS context for hubs: this machine's certificates beside those of certifi, and those that are named.

A company's proxy that re-signs TLS has its authority in the system's store, where curl and git find it. Python's own
store may be elsewhere, so the usual files are tried too.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
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
    for named_by, place in [*replacing, *adding, *([("the setting `ca`", setting)] if setting else [])]:
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
            context.load_verify_locations(capath=place)
        else:
            context.load_verify_locations(cafile=place)
    except ssl.SSLError as error:
        raise UnusableCertificates(f"cannot be asked: {named_by} names {place}, which holds no certificate") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnusableCertificates(f"cannot be asked: {named_by} names {place}: {reason}") from error
