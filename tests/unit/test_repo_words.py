"""A repo as people write and paste it: names, addresses of the Hub, hf:// URIs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.errors import InvalidName
from hfpeer.names import RepoType
from hfpeer.repo_words import NamedRepo, parse_repo_word

COMMIT = "5a0d" * 10


def told(named: NamedRepo) -> tuple[str, str | None, str | None, str | None]:
    return named.repo.api_path, named.revision, named.file, named.folder


@pytest.mark.parametrize(
    ("word", "repo", "revision", "file", "folder"),
    [
        ("Qwen/Qwen3-0.6B", "models/Qwen/Qwen3-0.6B", None, None, None),
        (" gpt2@v1\n", "models/gpt2", "v1", None, None),
        ("Qwen/Qwen3-0.6B@refs/pr/3", "models/Qwen/Qwen3-0.6B", "refs/pr/3", None, None),
        ("models/acme/tiny", "models/acme/tiny", None, None, None),
        ("acme/tiny/", "models/acme/tiny", None, None, None),
        ("model/acme/tiny", "models/acme/tiny", None, None, None),
        ("datasets/squad", "datasets/squad", None, None, None),
        ("dataset/squad", "models/dataset/squad", None, None, None),
        ("spaces/gradio/hello@main", "spaces/gradio/hello", "main", None, None),
        ("hf://acme/tiny", "models/acme/tiny", None, None, None),
        ("hf://gpt2@v1", "models/gpt2", "v1", None, None),
        ("hf://acme/tiny/", "models/acme/tiny", None, None, None),
        ("hf://datasets/acme/rows/a/b.json", "datasets/acme/rows", None, "a/b.json", None),
        ("hf://datasets/a/b@refs/convert/parquet/x/0.json", "datasets/a/b", "refs/convert/parquet", "x/0.json", None),
        ("hf://acme/tiny@refs%2Fpr%2F1/a.json", "models/acme/tiny", "refs/pr/1", "a.json", None),
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "models/Qwen/Qwen3-0.6B", None, None, None),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/", "models/Qwen/Qwen3-0.6B", None, None, None),
        ("https://huggingface.co/gpt2", "models/gpt2", None, None, None),
        ("https://huggingface.co/gpt2/tree/main", "models/gpt2", "main", None, None),
        ("https://huggingface.co/datasets/squad", "datasets/squad", None, None, None),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", "models/Qwen/Qwen3-0.6B", "main", None, None),
        (f"https://huggingface.co/a/b/tree/{COMMIT}/onnx/q4", "models/a/b", COMMIT, None, "onnx/q4"),
        ("https://huggingface.co/a/b/blob/main/sub/config.json#L10", "models/a/b", "main", "sub/config.json", None),
        ("https://huggingface.co/a/b/resolve/main/w.bin?download=true", "models/a/b", "main", "w.bin", None),
        ("https://huggingface.co/a/b/raw/refs%2Fpr%2F7/x.md", "models/a/b", "refs/pr/7", "x.md", None),
        ("https://huggingface.co/a/b/tree/refs/pr/7", "models/a/b", "refs/pr/7", None, None),
        ("https://huggingface.co/a/b/tree/feature%2Fx", "models/a/b", "feature/x", None, None),
        (f"https://huggingface.co/a/b/commit/{COMMIT}", "models/a/b", COMMIT, None, None),
        ("https://huggingface.co/a/b/discussions/7", "models/a/b", None, None, None),
        ("https://huggingface.co/datasets/a/b/viewer/default/train?p=1", "datasets/a/b", None, None, None),
        ("https://huggingface.co/datasets/a/b/blob/main/%E6%95%B0%20x.txt", "datasets/a/b", "main", "数 x.txt", None),
        ("https://huggingface.co/spaces/gradio/hello", "spaces/gradio/hello", None, None, None),
        ("https://huggingface.co/api/models/a/b/revision/main", "models/a/b", "main", None, None),
        ("https://hf-mirror.com/datasets/a/b/tree/main", "datasets/a/b", "main", None, None),
        ("http://HF.co/a/b", "models/a/b", None, None, None),
        ("hf.co/a/b", "models/a/b", None, None, None),
        ("huggingface.co/datasets/a/b/", "datasets/a/b", None, None, None),
        ("https://user:secret@huggingface.co/a/b.git", "models/a/b", None, None, None),
        ("git@hf.co:datasets/a/b.git", "datasets/a/b", None, None, None),
        ("ssh://git@hf.co/a/b", "models/a/b", None, None, None),
    ],
)
def test_a_word_names_a_repo_and_what_is_in_it(
    word: str, repo: str, revision: str | None, file: str | None, folder: str | None
) -> None:
    assert told(parse_repo_word(word)) == (repo, revision, file, folder)


def test_a_bare_name_is_of_the_given_type_and_does_not_say_one() -> None:
    named = parse_repo_word("acme/rows@v1", RepoType.DATASET)
    assert (named.repo.api_path, named.revision, named.says_type) == ("datasets/acme/rows", "v1", False)
    assert parse_repo_word("https://hf.co/acme/tiny", "dataset").repo.type is RepoType.MODEL
    assert parse_repo_word("models/acme/tiny", "dataset").says_type


def test_addresses_of_further_hubs_are_known_by_their_urls() -> None:
    hubs = ["https://models.corp/hf", "http://127.0.0.1:9438"]
    assert told(parse_repo_word("https://models.corp/hf/a/b/tree/v1", hubs=hubs))[:2] == ("models/a/b", "v1")
    assert told(parse_repo_word("http://127.0.0.1:9438/datasets/a/b", hubs=hubs))[0] == "datasets/a/b"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("https://modelscope.cn/models/a/b", "no address of a hub"),
        ("https://huggingface.co.evil.example/a/b", "no address of a hub"),
        ("http://127.0.0.1:9438/a/b", "no address of a hub"),
        ("https://huggingface.co", "no address of a repo"),
        ("https://huggingface.co/docs/hub/index", "no address of a repo"),
        ("https://huggingface.co/datasets", "no address of a repo"),
        ("https://huggingface.co/a/b/tree/a..b", "not a revision"),
        ("https://huggingface.co/a/b/blob/main/..%2F..%2Fetc", "not the path of a file"),
        ("hf://acme/tiny/../x", "not the path of a file"),
        ("hf://", "not a repo name"),
        ("a/b/c", "not a repo name"),
        ("a/b@", "no revision behind the @"),
        ("", "not a repo name"),
        ("C:\\models", "not a repo name"),
    ],
)
def test_other_words_are_refused_with_the_reason(word: str, says: str) -> None:
    with pytest.raises(InvalidName, match=says):
        parse_repo_word(word)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("acme/tiny:main", "`acme/tiny@main`"),
        ("hf.co/acme/tiny-GGUF:Q4_K_M", "`acme/tiny-GGUF --include '*Q4_K_M*'`"),
        ("qwen3:0.6b", "`qwen3@0.6b`"),
        ("acme/tiny#v1", "`acme/tiny@v1`"),
        ("acme/tiny@", "Leave out the @: `acme/tiny`"),
        ("models--acme--tiny", "the repo is `acme/tiny`"),
        ("datasets--acme--rows", "the repo is `datasets/acme/rows`"),
        ("./acme/tiny", "That is a path"),
        ("/data/acme", "That is a path"),
        ("C:\\models", "That is a path"),
        ("acme/*", "`hfpeer ls 'ORG/*'`"),
        ("acme/tiny/onnx/model.onnx", "`acme/tiny -f onnx/model.onnx`"),
        ("datasets/acme/rows/a.csv", "`datasets/acme/rows -f a.csv`"),
        ("https://modelscope.cn/models/Qwen/Qwen3-0.6B", "`hfpeer add Qwen/Qwen3-0.6B --modelscope Qwen/Qwen3-0.6B`"),
        ("https://www.modelscope.cn/datasets/a/b/files", "`hfpeer add datasets/a/b --modelscope a/b`"),
        ("https://hub.example/a/b", "Known are huggingface.co, hf.co, hf-mirror.com and"),
        ("a b", "A repo is NAME or ORG/NAME"),
    ],
)
def test_the_hint_says_what_may_have_been_meant(word: str, hint: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_repo_word(word)
    assert hint in (caught.value.hint or "")


@given(st.text(max_size=40) | st.text(st.sampled_from("ab/@:%2F.#?hf"), max_size=40).map("https://hf.co/".__add__))
def test_no_word_breaks_the_parser(word: str) -> None:
    try:
        parse_repo_word(word)
    except InvalidName:
        pass


@pytest.mark.parametrize(
    "word",
    [
        "hf://acme/tiny@main/a.json",
        "hf://datasets/acme/rows@refs/pr/3/train.json",
        "https://huggingface.co/datasets/acme/rows/blob/main/a%20b/train.csv",
        "https://huggingface.co/acme/tiny/resolve/feature%2Ffoo/w.bin?download=true",
    ],
)
def test_the_hub_client_reads_the_same(word: str) -> None:
    uris = pytest.importorskip("huggingface_hub.utils._hf_uris")
    theirs, ours = uris.parse_hf_uri(word), parse_repo_word(word)
    assert (theirs.type, theirs.id) == (ours.repo.type.value, ours.repo.full_name)
    assert (theirs.revision, theirs.path_in_repo) == (ours.revision, ours.file)
