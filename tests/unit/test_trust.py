"""The token, the networks of classic clients, and the addresses a program may call."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pillion_common import token_file, trust
from pillion_common.config import parse_networks
from pillion_common.errors import ConfigError, Forbidden, Unauthorized
from pillion_common.networks import EVERYWHERE, LOOPBACK, PRIVATE, TargetRule, within
from pillion_common.token_file import make_token_file
from pillion_common.trust import Token, check_token
from pillion_registry.settings import Settings

SECRET = "s3cret-s3cret-s3cret"


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(trust, "compare_digest", compare)
    token = Token(SECRET)
    assert token.fits(b"Bearer " + SECRET.encode())
    assert not token.fits(b"Bearer x")
    assert len(compared) == 2


@pytest.mark.parametrize(
    "header", [b"", b"Bearer", b"Bearer ", SECRET.encode(), b"Basic " + SECRET.encode(), b"Bearer " + SECRET.encode() + b"x", b"\xff\xfe"]
)
def test_a_wrong_header_does_not_fit(header: bytes) -> None:
    assert not Token(SECRET).fits(header)


def test_the_secret_is_not_shown_by_repr() -> None:
    assert SECRET not in repr(Token(SECRET))


def test_who_may_pass() -> None:
    token = Token(SECRET)
    classic = parse_networks("10.1.0.0/16")
    check_token(None, b"", "192.168.0.1")
    check_token(token, b"Bearer " + SECRET.encode(), "192.168.0.1")
    check_token(token, b"", "10.1.2.3", classic)
    with pytest.raises(Unauthorized) as missing:
        check_token(token, b"", "10.2.2.3", classic)
    assert missing.value.status == 401
    assert "PILLION_TOKEN_FILE" in missing.value.message
    with pytest.raises(Forbidden) as wrong:
        check_token(token, b"Bearer nonsense", "10.1.2.3", classic)
    assert wrong.value.status == 403
    assert SECRET not in missing.value.message + wrong.value.message


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    token = Token.load(str(path))
    assert token is not None
    assert token.header == f"Authorization: Bearer {SECRET}"
    assert Token.load("") is None


@pytest.mark.parametrize("content", [b"", b"short", b"   \n", b"has blanks in the middle of it", b"\xff" * 20, b"0123456789abcdef\x000123"])
def test_a_file_without_a_usable_token_is_a_configuration_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Token.load(str(path))
    assert str(path) in caught.value.faults[0]
    assert "pillion token" in caught.value.faults[0]


def test_a_file_that_is_not_there_is_a_configuration_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Token.load(str(tmp_path / "none"))


def test_a_token_file_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert make_token_file(path)
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert Token.load(str(path)) is not None
    assert not make_token_file(path)
    assert path.read_text() == first
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


def test_of_many_makers_at_once_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: make_token_file(path), range(64)))
    assert made.count(True) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


def test_two_makers_make_two_different_tokens(tmp_path: Path) -> None:
    make_token_file(tmp_path / "a")
    make_token_file(tmp_path / "b")
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_no_token_file_is_ever_readable_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = Path.chmod

    def chmod(path: Path, mode: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        real(path, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    make_token_file(tmp_path / "token")
    assert all(not mode & 0o007 for mode in modes)


def test_the_command_makes_it_says_so_and_repeats_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "token")
    assert token_file.main([path]) == 0
    assert token_file.main([path]) == 0
    out = capsys.readouterr().out
    assert out == f"{path}: made\n{path}: is there already\n"
    assert (tmp_path / "token").read_text().strip() not in out


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert token_file.main([str(tmp_path / "no" / "folder")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert token_file.main([]) == 2
    assert token_file.main(["--force"]) == 2
    assert token_file.main(["--help"]) == 0


def test_networks() -> None:
    assert within("10.1.2.3", PRIVATE)
    assert within("::ffff:10.1.2.3", PRIVATE)
    assert within("127.0.0.1", LOOPBACK)
    assert within("::1", LOOPBACK)
    assert not within("8.8.8.8", PRIVATE)
    assert not within("", PRIVATE)
    assert not within("app", PRIVATE)


@pytest.mark.parametrize(
    ("host", "registrant", "allowed"),
    [
        ("10.0.0.7", "10.0.0.8", True),
        ("192.168.1.1", "10.0.0.8", True),
        ("100.64.0.1", "10.0.0.8", True),
        ("fd00::1", "10.0.0.8", True),
        ("8.8.8.8", "10.0.0.8", False),
        ("8.8.8.8", "8.8.8.8", True),
        ("::ffff:8.8.8.8", "8.8.8.8", True),
        ("127.0.0.1", "10.0.0.8", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("169.254.169.254", "10.0.0.8", False),
        ("169.254.169.254", "169.254.169.254", False),
        ("::ffff:169.254.169.254", "10.0.0.8", False),
        ("fe80::1", "fe80::1", False),
        ("fe80::1%eth0", "fe80::1%eth0", False),
        ("0.0.0.0", "0.0.0.0", False),
        ("::", "10.0.0.8", False),
        ("224.0.0.1", "10.0.0.8", False),
        ("not-an-address", "10.0.0.8", False),
    ],
)
def test_which_addresses_the_registry_may_call(host: str, registrant: str, allowed: bool) -> None:
    assert TargetRule(PRIVATE).allows(host, registrant) is allowed


def test_link_local_is_refused_though_every_network_is_allowed() -> None:
    rule = TargetRule(parse_networks("0.0.0.0/0,::/0"))
    assert rule.allows("8.8.8.8", "10.0.0.8")
    assert not rule.allows("169.254.169.254", "10.0.0.8")
    assert not rule.allows("fe80::1", "10.0.0.8")


def test_an_address_is_judged_for_each_registrant_and_each_rule_anew() -> None:
    rule = TargetRule(PRIVATE)
    assert [rule.allows("8.8.8.8", registrant) for registrant in ("8.8.8.8", "10.0.0.8", "8.8.8.8", "app")] == [True, False, True, False]
    assert TargetRule(parse_networks("8.0.0.0/8")).allows("8.8.8.8", "10.0.0.8")
    assert not rule.allows("8.8.8.8", "10.0.0.8")


def test_an_address_with_an_endless_zone_is_judged_by_its_address() -> None:
    assert not TargetRule(PRIVATE).allows("fe80::1%" + "x" * 5000, "10.0.0.8")
    assert TargetRule(PRIVATE).allows("fd00::1%" + "x" * 5000, "10.0.0.8")


def settings(listen: str, targets: str = "", classic: str = "", token: str = "") -> Settings:
    from pillion_common.config import load

    words = ["--listen", listen, "--targets", targets, "--classic-networks", classic, "--token-file", token]
    return load(Settings, "registry", words, {})


def test_loopback_is_a_target_only_where_the_registry_listens_on_it() -> None:
    assert settings("127.0.0.1:0").allowed_targets() == PRIVATE + LOOPBACK
    assert settings("localhost:0").allowed_targets() == PRIVATE + LOOPBACK
    assert settings("0.0.0.0:0").allowed_targets() == PRIVATE
    assert settings("127.0.0.1:0", targets="10.0.0.0/8").allowed_targets() == parse_networks("10.0.0.0/8")


def test_classic_clients_are_all_exempt_without_a_token_and_none_with_one() -> None:
    assert settings("0.0.0.0:0").exempt_networks() == EVERYWHERE
    assert settings("0.0.0.0:0", token="/t").exempt_networks() == ()
    assert settings("0.0.0.0:0", token="/t", classic="10.1.0.0/16").exempt_networks() == parse_networks("10.1.0.0/16")
