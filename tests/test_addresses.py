"""Addresses of servers and variables' names: what works is taken, and no refusal shows a secret."""

import pytest

from infalign.addresses import require_addresses, require_variable


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000/v1", "https://api.example.com/v1", "http://[::1]:80/v1"),
        *(
            "http://my_host-1:65535",
            "https://xn--mnchen-3ya.example./v1",
            "http://[2001:db8::2]/v1",
        ),
    ],
)
def test_addresses_that_work_are_taken_by_the_client_too(url):
    require_addresses([url])
    openai = pytest.importorskip("openai")
    assert openai.AsyncOpenAI(base_url=url, api_key="none").base_url.host


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "base_urls is empty"),
        (["host:8000"], "'host:8000'.* neither http:// nor https://"),
        (["ftp://host/v1"], "neither http:// nor https://"),
        (["http://127.0.0.1:99999/v1"], "whose port is not within"),
        (["http://host:0/v1"], "whose port is not within"),
        (["http://host:eight/v1"], "whose port is not within"),
        (["http://[bad/v1"], "cannot be read"),
        (["http://[bad]/v1"], "cannot be read|names no host"),
        (["http://"], "names no host"),
        (["http:///v1"], "names no host"),
        (["http://:8000/v1"], "names no host"),
        (["http://a..b/v1"], "names no host"),
        (["http://ho st/v1"], "a character that no address has"),
        (["http://host/v1\n"], "a character that no address has"),
        (["http://me:s3cret@host/v1"], r"base_urls\[0\] holds a user"),
        (["http://host/v1", "me:s3cret@host"], r"base_urls\[1\] holds a user"),
        (["http://me:s3/cret@[bad"], r"base_urls\[0\] holds a user"),
        (["http://host/v1?key=s3cret"], r"base_urls\[0\] holds a user, a password or a key"),
        (["http://host/v1#s3cret"], r"base_urls\[0\] holds a user, a password or a key"),
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(urls, message):
    with pytest.raises(ValueError, match=message) as told:
        require_addresses(urls)
    assert not any(part in str(told.value) for part in ("s3", "cret"))
    assert "http://host:port/v1" in str(told.value)


@pytest.mark.parametrize(
    "name", ["sk-s3cret", "s3cret key", "", "3s3cret", "s3cret\n", "schlüs3cret"]
)
def test_a_key_in_place_of_its_name_is_refused_and_not_shown(name):
    with pytest.raises(
        ValueError, match="api_key_env is no name of an environment variable"
    ) as told:
        require_variable(name)
    assert "s3cret" not in str(told.value)


def test_names_of_variables_are_taken():
    for name in (None, "MY_SERVER_KEY", "_key2"):
        require_variable(name)
