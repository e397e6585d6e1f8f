"""Addresses: what is allowed, and that nothing leads out of a prefix, however it is written."""

from __future__ import annotations

import pytest

from service.addresses import allowed_address, checked_prefix, parse_address
from service.errors import InvalidInput
from service.settings import InvalidSettings, load_settings

PREFIXES = ("s3://bucket/open/", "https://data.example.org/sets/", "file:///srv/data/", "abfs://c@a.dfs.core.windows.net/")

ALLOWED = [
    "s3://bucket/open/people.parquet",
    "s3://bucket/open/year=2024/",
    "s3://bucket/open/A name, with spaces+signs %41.csv",
    "https://data.example.org/sets/people.csv",
    "https://data.example.org/sets/a%20b.csv?signature=abc",
    "https://data.example.org/sets/100%25.csv",
    "file:///srv/data/x.npz",
    "abfs://c@a.dfs.core.windows.net/x.parquet",
]


@pytest.mark.parametrize("text", ALLOWED)
def test_addresses_below_a_prefix_are_allowed(text: str) -> None:
    assert allowed_address(text, PREFIXES).whole == text


ELSEWHERE = [
    "s3://bucket/openly/x.csv",
    "s3://bucket/open",
    "s3://bucket2/open/x.csv",
    "S3://bucket/open/x.csv",
    "s3://Bucket/open/x.csv",
    "s3a://bucket/open/x.csv",
    "s3://bucket/Open/x.csv",
    "s3://bucket/open/../closed/x.csv",
    "s3://bucket/open/./x.csv",
    "s3://bucket/open//x.csv",
    "s3://bucket/open/%2e%2e/x.csv",
    "s3://bucket/open/..%2fclosed/x.csv",
    "s3://bucket/open/%252e%252e/x.csv",
    "s3://bucket/open/..;/closed/x.csv",
    "s3://bucket/open/ ../x.csv",
    "s3://bucket/open/\uff0e\uff0e/x.csv",
    "s3://bucket/open/%c0%ae%c0%ae/x.csv",
    "s3://bucket/open/%u002e%u002e/x.csv",
    "s3://bucket/open/a%00.csv",
    "s3://bucket/open/a\x00.csv",
    "s3://bucket/open/a\n.csv",
    "s3://bucket/open/..\\closed\\x.csv",
    "s3://bucket/open/*/x.csv",
    "s3://bucket/open/x.csv?versionId=3",
    "s3://bucket/open/x.csv#part",
    "s3://key:secret@bucket/open/x.csv",
    "simplecache::s3://bucket/open/x.csv",
    "zip://x.csv::s3://bucket/open/x.zip",
    "s3://bucket/open/x.zip::file:///etc/passwd",
    "zip:///srv/data/x.zip",
    "reference://x",
    "https://data.example.org.evil.org/sets/x.csv",
    "https://data.example.org@evil.org/sets/x.csv",
    "https://user:secret@data.example.org/sets/x.csv",
    "https://DATA.example.org/sets/x.csv",
    "HTTPS://data.example.org/sets/x.csv",
    "http://data.example.org/sets/x.csv",
    "https://data.example.org:8443/sets/x.csv",
    "https://data.example.org\\@evil.org/sets/x.csv",
    "https://data.example.org%2f@evil.org/sets/x.csv",
    "https://data.example.org/sets/..%5cx.csv",
    "https:/data.example.org/sets/x.csv",
    "https:data.example.org/sets/x.csv",
    "//data.example.org/sets/x.csv",
    " https://data.example.org/sets/x.csv",
    "file:///etc/passwd",
    "file://localhost/srv/data/x.csv",
    "file:///srv/data/../../etc/passwd",
    "file:/srv/data/x.csv",
    "/srv/data/x.csv",
    "s3://bucket/open/" + "x" * 2000,
    "",
]


@pytest.mark.parametrize("text", ELSEWHERE)
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        allowed_address(text, PREFIXES)
    (issue,) = caught.value.issues
    assert issue.field == "address"
    assert issue.allowed
    assert "secret" not in f"{issue}{issue.value}{issue.allowed}"


def test_a_refusal_names_the_setting_and_the_prefixes() -> None:
    with pytest.raises(InvalidInput, match="REGSEARCH_DATA_PREFIXES") as caught:
        allowed_address("s3://other/x.csv", PREFIXES)
    assert caught.value.issues[0].allowed == list(PREFIXES)
    with pytest.raises(InvalidInput) as caught:
        allowed_address("s3://other/x.csv", ())
    assert caught.value.issues[0].allowed == "none"


def test_what_may_be_a_secret_is_not_shown() -> None:
    address = parse_address("https://data.example.org/people.csv?signature=abc")
    assert (address.shown, address.name) == ("https://data.example.org/people.csv?…", "people.csv")
    for text in (
        "https://a:se/cr@et@h/x",
        "zip://x::https://a:secret@h/x?secret",
        "https://h/x y?secret#secret",
        "a:secret@b",
    ):
        with pytest.raises(InvalidInput) as caught:
            parse_address(text)
        assert "secret" not in str(caught.value.issues)
        assert "se/cr" not in str(caught.value.issues)


@pytest.mark.parametrize("prefix", [*PREFIXES, "https://h:8443/", "http://[::1]:80/", "gs://bucket/"])
def test_prefixes(prefix: str) -> None:
    assert checked_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        "s3://bucket",
        "s3://",
        "https://h",
        "https://h/a/../",
        "https://u:p@h/",
        "https://h/?a=",
        "file:///",
        "ftp://h/",
        "s3://b/*/",
    ],
)
def test_prefixes_that_would_allow_more_than_meant_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_prefix(prefix)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DATA_PREFIXES", "s3://bucket/", "REGSEARCH_DATA_PREFIXES: must be JSON"),
        ("DATA_PREFIXES", '["s3://a/", "https://u:secret@h"]', "REGSEARCH_DATA_PREFIXES.1: has a host"),
        ("DATABASES", '["postgresql://u:secret@h/x"]', "REGSEARCH_DATABASES: Input should be a valid dictionary"),
        ("DATABASES", '{"a": ["postgresql://u:secret@h/x"]}', "REGSEARCH_DATABASES.a: "),
        ("DATABASES", '{"a b": "postgresql://u:secret@h/x"}', "REGSEARCH_DATABASES.a b: "),
        ("DATABASES", '{"a": "postgresql://u:secret@h/x"', "REGSEARCH_DATABASES: must be JSON"),
        ("PORT", "x", "REGSEARCH_PORT: .*, not 'x'"),
    ],
)
def test_a_wrong_setting_is_told_without_its_passwords(
    name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"REGSEARCH_{name}", value)
    load_settings.cache_clear()
    try:
        with pytest.raises(InvalidSettings, match=told) as caught:
            load_settings()
    finally:
        load_settings.cache_clear()
    assert "secret" not in str(caught.value)
