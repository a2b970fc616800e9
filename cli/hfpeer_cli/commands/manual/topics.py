"""The topics of `hfpeer help TOPIC`, for facts that concern many commands. Man pages are made from them too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from hfpeer_cli.grammar import EXIT_CODES

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Topic:
    """A page: its title, its paragraphs, and its sections of terms with their meanings, and of examples."""

    title: str
    text: str
    sections: Mapping[str, Rows]
    examples: Sequence[str] = ()


def _exit_codes() -> Topic:
    from hfpeer.errors import CODES

    codes: dict[int, list[str]] = {}
    for error in CODES.values():
        codes.setdefault(error.exit_code, []).append(error.code)
    return Topic(
        "Exit codes",
        "Each failure is one sentence on stderr, mostly with a hint, and one of these codes. With --json it is an "
        "object with code, message, hint and facts.\n\n"
        "What a command names and is not there is 4. A list of everything that is empty is 0. Of several repos the "
        "first failure decides.",
        {
            "Exit codes": [(str(code), meaning) for code, meaning in EXIT_CODES.items()],
            "Codes with --json": [(str(code), ", ".join(names)) for code, names in sorted(codes.items())],
        },
        ["hfpeer daemon status || hfpeer daemon start", "hfpeer --json ls acme/none 2>&1 | jq .code"],
    )


def _environment() -> Topic:
    from hfpeer.config.settings import KEYS

    return Topic(
        "Environment",
        "The environment overrides the settings file. A daemon keeps the environment of the shell that started it.",
        {
            "Variables of hfpeer": [
                ("HFPEER_HOME", "where hfpeer keeps what is its own"),
                *((key.variable, f"{key.summary} (the setting {key.name})") for key in KEYS.values()),
                ("HFPEER_LANG", "the language of messages and help: en or zh_CN; else LC_ALL, LC_MESSAGES, LANG"),
            ],
            "Variables of other tools": [
                (
                    "HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME",
                    "where the Hugging Face cache is, as huggingface_hub reads them",
                ),
                ("HF_TOKEN, HUGGING_FACE_HUB_TOKEN", "a token for this command, instead of the one that was logged in"),
                ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "send no token that was not asked for"),
                ("HF_HUB_DISABLE_SYMLINKS", "real files in snapshots instead of links"),
                ("HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE", "the Python functions ask nobody"),
                ("http_proxy, https_proxy, all_proxy, no_proxy", "the proxy to the hubs: `hfpeer help proxies`"),
                (
                    "SSL_CERT_FILE, SSL_CERT_DIR",
                    "certificates instead of this system's; REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are trusted too",
                ),
                ("NO_COLOR", "no colours, whatever its value"),
                ("TERM", "dumb: no colours and no bars; a line every 30 seconds instead"),
                ("COLUMNS", "the width of tables and bars, instead of the terminal's"),
            ],
        },
        ["hfpeer conf ls", "HFPEER_LOG_LEVEL=debug hfpeer daemon start"],
    )


def _offline() -> Topic:
    return Topic(
        "Offline",
        "What is in the cache, and what peers have, needs no Internet. A hub that does not answer costs a second and a "
        "half, once. A LAN without Internet saves that too, by one setting.\n\n"
        "Names such as main are what a hub said last, here or at a peer; the command says who said so and when. "
        "A commit id needs no answer.",
        {
            "What asks whom": [
                ("hfpeer conf set offline true", "no hub is asked any more, only peers; then restart the daemon"),
                ("hfpeer add --local-only REPO", "neither hubs nor peers are asked"),
                ("hfpeer add --from HOST --only-from REPO", "only this peer is asked"),
                ("HF_HUB_OFFLINE=1", "programs use what is in the cache; load_dataset needs a prepared set"),
                ("hfpeer export, import, push", "carry revisions to a machine without any network, or over ssh"),
            ]
        },
        ["hfpeer conf set offline true && hfpeer daemon restart", "hfpeer export Qwen/Qwen3-0.6B -o /media/stick/"],
    )


def _proxies() -> Topic:
    return Topic(
        "Proxies and certificates",
        "Hubs are asked through the proxy of the environment: http_proxy, https_proxy, all_proxy, in either case of "
        "letters, HTTP or SOCKS5. no_proxy takes hosts, networks and ports. Peers are asked directly.\n\n"
        "The daemon keeps the proxy of the shell that started it. A service has none: there the setting is the way.",
        {
            "Settings": [
                ("proxy", "a URL, http://USER:PASSWORD@HOST:PORT or socks5://HOST:PORT; none: ask directly"),
                ("ca", "a file or folder of certificates that are trusted beside this system's"),
            ],
            "Variables": [
                ("SSL_CERT_FILE, SSL_CERT_DIR", "certificates instead of this system's"),
                ("REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE", "more certificates"),
            ],
        },
        [
            "hfpeer conf set proxy http://proxy.example.org:3128 && hfpeer daemon restart",
            "hfpeer conf set ca /etc/ssl/company.pem && hfpeer daemon restart",
        ],
    )


def _repos() -> Topic:
    return Topic(
        "Names of repos",
        "REPO stands for any of these. Most commands take several, as arguments or behind -r.",
        {
            "Forms": [
                ("ORG/NAME, NAME", "a repo of the type of the command; a model if it is for all types"),
                ("datasets/ORG/NAME", "a dataset; spaces/ and models/ likewise, or --type dataset"),
                ("REPO@REV", "at a branch, a tag, refs/pr/N or a commit id; else what -v says, else main"),
                (
                    "https://huggingface.co/…",
                    "the address of a repo, a folder or a file; also of hf-mirror.com and your hubs",
                ),
                ("hf://datasets/ORG/NAME@REV/FILE", "as in Hugging Face's own tools"),
                ("'ORG/*'", "every repo in the cache that matches; of `ls` only"),
            ]
        },
        [
            "hfpeer add Qwen/Qwen3-0.6B@main datasets/rajpurkar/squad",
            "hfpeer add https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
            "hfpeer ls 'Qwen/*' --sort size",
        ],
    )


TOPICS: dict[str, tuple[str, Callable[[], Topic]]] = {
    "environment": ("the variables that hfpeer reads", _environment),
    "exit-codes": ("what the number at the end of a command means", _exit_codes),
    "offline": ("without Internet, or without any network", _offline),
    "proxies": ("proxies and certificates on the way to the hubs", _proxies),
    "repos": ("the forms in which a repo is named", _repos),
}
"""By the word after `hfpeer help`: a summary, and what makes the page."""


def write_topic(formatter: click.HelpFormatter, topic: Topic) -> None:
    """Writes a page as the help of a command is written."""
    formatter.write_heading(topic.title)
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(topic.text)
    for heading, rows in topic.sections.items():
        with formatter.section(heading):
            formatter.write_dl(rows)
    if topic.examples:
        with formatter.section("Examples"):
            for example in topic.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
