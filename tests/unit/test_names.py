"""Names and URLs: what is let in, and what is refused with which reason."""

from __future__ import annotations

import random
from itertools import product

import pytest

from pillion_common.errors import InvalidInput
from pillion_common.names import (
    _REMEMBERED,
    Url,
    _address_of,
    _any_url,
    _plain_url,
    address_of,
    check_name,
    derive_id,
    is_host,
    packed_address,
    parse_url,
)


@pytest.mark.parametrize("name", ["a", "LogService", "9lives", "a.b_c-d", "x" * 63])
def test_a_good_name_is_returned_as_it_is(name: str) -> None:
    assert check_name(name, "ServiceName") == name


@pytest.mark.parametrize("name", ["", " ", ".a", "-a", "_a", "a b", "a/b", "a\n", "ä", "a\x00", "x" * 64, "a\u0660"])
def test_a_bad_name_is_refused_with_its_field(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_name(name, "RequiredServices[0]")
    assert caught.value.status == 400
    assert caught.value.code == "invalid_name"
    assert caught.value.field == "RequiredServices[0]"


def test_a_long_bad_name_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_name("!" * 100_000, "ServiceName")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://10.0.0.7:6000", Url("http", "10.0.0.7", 6000, "/")),
        ("http://10.0.0.7:6000/services", Url("http", "10.0.0.7", 6000, "/services")),
        ("http://app/a/b?c=d&e=f", Url("http", "app", 80, "/a/b?c=d&e=f")),
        ("https://app", Url("https", "app", 443, "/")),
        ("HTTP://App:81/X", Url("http", "app", 81, "/X")),
        ("http://my_app:80", Url("http", "my_app", 80, "/")),
        ("http://[fd00::7]:6000/x", Url("http", "fd00::7", 6000, "/x")),
        ("http://app?q=1", Url("http", "app", 80, "/?q=1")),
    ],
)
def test_a_good_url_is_taken_apart(text: str, url: Url) -> None:
    assert parse_url(text, "ServiceURL") == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("app:6000", "is not an http or https URL"),
        ("//app:6000", "is not an http or https URL"),
        ("ftp://app", "is not an http or https URL"),
        ("file:///etc/passwd", "is not an http or https URL"),
        ("javascript:alert(1)", "is not an http or https URL"),
        ("http://", "has no valid host"),
        ("http:///path", "has no valid host"),
        ("http://:80/", "has no valid host"),
        ("http://-a/", "has no valid host"),
        ("http://a%20b/", "has no valid host"),
        ("http://a:0/", "has port 0"),
        ("http://a:65536/", "cannot be read"),
        ("http://a:x/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://user@a/", "carries a user name"),
        ("http://user:secret@a/", "carries a user name"),
        ("http://a/#part", "carries a fragment"),
        ("http://a /", "has spaces"),
        ("http://a/\r\nX: y", "has spaces"),
        ("http://a/\x00", "has spaces"),
        ("http://ä/", "has spaces"),
        ("http://a/" + "x" * 2048, "is longer than 2048"),
    ],
)
def test_a_bad_url_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_url(text, "HeartbeatURL")
    assert caught.value.code == "invalid_url"
    assert caught.value.field == "HeartbeatURL"
    assert reason in caught.value.message


def test_the_authority_leaves_the_default_port_out_and_brackets_ipv6() -> None:
    assert parse_url("http://app:80/", "u").authority == "app"
    assert parse_url("https://app:443/", "u").authority == "app"
    assert parse_url("https://app:80/", "u").authority == "app:80"
    assert parse_url("http://[fd00::7]:6000/", "u").authority == "[fd00::7]:6000"


def test_the_origin_is_what_one_connection_can_serve() -> None:
    assert parse_url("http://app/heartbeat", "u").origin == parse_url("http://app:80/services", "u").origin
    assert parse_url("http://app/", "u").origin != parse_url("http://app:81/", "u").origin


@pytest.mark.parametrize("host", ["a", "a.b", "10.0.0.7", "::1", "fe80::1%eth0"])
def test_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a:80", "[::1]", "ä"])
def test_what_is_no_host(host: str) -> None:
    assert not is_host(host)


def test_an_address_that_hides_in_ipv6_is_the_ipv4_one() -> None:
    assert str(address_of("::ffff:169.254.169.254")) == "169.254.169.254"
    assert address_of("app") is None
    assert address_of("2130706433") is None


def outcome(parse: object, text: str) -> Url | str:
    try:
        return parse(text, "HeartbeatURL")  # type: ignore[operator, no-any-return]
    except InvalidInput as exc:
        return exc.message


SCHEMES = ["http://", "https://", "HTTP://", "http:/", "http:", "//", "ftp://", ""]
HOSTS = ["a", "My_App.Local", "10.0.0.7", "_a", "-a", ".", "a..b", "[fd00::7]", "[::1", "u@a", "u:p@a", "a%20", "a\\b", ""]
HOSTS += ["h" * 253, "h" * 254]
PORTS = ["", ":", ":0", ":1", ":00080", ":000080", ":65535", ":65536", ":99999", ":x", ":+1", ":1_0", ":80:80"]
TARGETS = ["", "/", "/a/b", "//a", "/a;b", "/?", "/a?b=c", "?", "?q", "#", "/#f", "/a#", "/@:[]", "/a b", "/\x7f", "/ä", "/\n", "\\x"]
TARGETS += ["/" + "x" * 300]


def test_the_short_way_to_read_a_url_agrees_with_the_long_one() -> None:
    short = 0
    for parts in product(SCHEMES, HOSTS, PORTS, TARGETS):
        text = "".join(parts)
        plain = _plain_url(text)
        assert outcome(parse_url, text) == outcome(_any_url, text) == (plain or outcome(_any_url, text)), text
        short += plain is not None
    assert short == 2 * 6 * 4 * 7 + 2  # plain schemes, hosts, ports and targets; and "http:" before "//a", "http:/" before "/a/b"


def test_the_two_ways_agree_on_nonsense() -> None:
    chance = random.Random(7)
    letters = "ht:/.pas@#?[]%;\\0189-_ \t\x00~ä"
    for _ in range(20_000):
        text = chance.choice(["http://", "https://a", "http://a:8", ""]) + "".join(chance.choices(letters, k=chance.randrange(12)))
        assert outcome(parse_url, text) == outcome(_any_url, text), text


def test_a_url_that_is_read_twice_is_the_same_and_a_bad_one_names_its_field_each_time() -> None:
    assert parse_url("http://a:1/x", "ServiceURL") is parse_url("http://a:1/x", "HeartbeatURL")
    for field in ("ServiceURL", "HeartbeatURL"):
        with pytest.raises(InvalidInput) as caught:
            parse_url("http://a:0/x", field)
        assert caught.value.field == field


def test_what_is_remembered_is_bounded_in_number_and_length() -> None:
    for number in range(3000):
        parse_url(f"http://a:1/{number}", "u")
        address_of(f"10.0.{number // 256}.{number % 256}")
    assert _plain_url.cache_info().currsize == _address_of.cache_info().currsize == _REMEMBERED
    before = _plain_url.cache_info().misses, _address_of.cache_info().misses
    assert parse_url("http://a:1/" + "x" * 2000, "u").target == "/" + "x" * 2000
    assert str(address_of("fe80::1%" + "x" * 300)) == "fe80::1"
    assert (_plain_url.cache_info().misses, _address_of.cache_info().misses) == before


@pytest.mark.parametrize(
    ("name", "url", "instance_id"),
    [
        ("Log", "http://10.0.0.1:80", "Log-d2782909a51a6efe"),
        ("x" * 63, "http://a/" + "y" * 2000, "x" * 46 + "-30e67f3ba1eb1293"),
    ],
)
def test_an_id_is_the_same_for_the_same_name_and_url(name: str, url: str, instance_id: str) -> None:
    assert derive_id(name, url) == derive_id(name, url) == instance_id


@pytest.mark.parametrize(
    ("host", "packed"),
    [
        ("10.0.0.7", "0a000007"),
        ("::1", "00000000000000000000000000000001"),
        ("::ffff:10.0.0.7", "0a000007"),
        ("fe80::1%eth0", None),
        ("grading", None),
        ("10.0.0", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_an_address_in_bytes(host: str, packed: str | None) -> None:
    assert packed_address(host) == (None if packed is None else bytes.fromhex(packed))
