"""What DNS answers to which query, byte for byte as dnslib reads it, without sockets."""

from __future__ import annotations

from collections import Counter

import pytest
from dnslib import EDNS0, QTYPE, DNSLabel, DNSQuestion, DNSRecord, EDNSOption
from fake_table import FakeTable
from zone_lab import HOSTS, ask, code, told, zone

from pillion_sidecar.dns.zone import MAX_PROVIDERS, Unresolved, Zone
from pillion_sidecar.wire import Provider

# Addresses.


def test_addresses_of_the_family_asked_for() -> None:
    reply = ask("GradingService.pillion.")
    assert sorted(told(reply)) == ["10.0.0.7", "10.0.0.8"]
    assert {(str(record.rname), record.ttl, record.rclass) for record in reply.rr} == {("GradingService.pillion.", 0, 1)}
    assert reply.header.aa == 1
    assert told(ask("GradingService.pillion.", "AAAA")) == ["fd00::1"]


@pytest.mark.parametrize("name", ["gradingservice.PILLION.", "GRADINGSERVICE.pillion.", "GradingService.Pillion."])
def test_case_does_not_matter_and_comes_back_as_it_was(name: str) -> None:
    reply = ask(name)
    assert len(reply.rr) == 2
    assert b".".join(reply.q.qname.label).decode() + "." == name
    assert str(reply.rr[0].rname) == name


def test_of_two_names_that_differ_in_case_alone_the_one_written_so_is_meant() -> None:
    assert told(ask("Twin.pillion.")) == ["10.0.0.1"]
    assert told(ask("twin.pillion.")) == ["10.0.0.2"]
    assert told(ask("TWIN.pillion.")) == ["10.0.0.1"]


def test_a_name_with_dots_is_found_and_what_lies_above_it_exists() -> None:
    assert told(ask("shop.cart.v1.pillion.")) == ["10.0.0.9"]
    for name in ("cart.v1.pillion.", "v1.pillion.", "_tcp.pillion.", "addr.pillion.", "cart.v1._tcp.pillion."):
        assert code(ask(name)) == "NOERROR nothing", name
    assert code(ask("shop.pillion.")) == "NXDOMAIN nothing"


def test_dots_inside_a_label_are_no_dots_of_a_name() -> None:
    query = DNSRecord(q=DNSQuestion(DNSLabel((b"shop.cart.v1", b"pillion")), QTYPE.A))
    answer = zone().answer(query.pack(), udp=True)
    assert answer is not None
    assert code(DNSRecord.parse(answer)) == "NXDOMAIN nothing"


def test_a_host_name_is_answered_with_its_addresses() -> None:
    assert told(ask("Db.pillion.")) == ["10.0.1.1"]
    assert told(ask("Db.pillion.", "AAAA")) == ["::2"]
    assert told(ask("Half.pillion.")) == ["10.0.0.9"]
    assert code(ask("Lost.pillion.")) == "SERVFAIL"


def test_a_host_name_that_was_not_looked_up_is_asked_for() -> None:
    with pytest.raises(Unresolved) as unresolved:
        ask("Slow.pillion.")
    assert unresolved.value.hosts == {"slow.internal", "slower.internal"}
    assert len(ask("Slow.pillion.", "SRV").rr) == 2  # which tells the names as they are


def test_the_address_in_a_targets_name_holds() -> None:
    assert told(ask("0a000007.addr.pillion.")) == ["10.0.0.7"]
    assert told(ask("0A000007.ADDR.pillion.")) == ["10.0.0.7"]
    assert told(ask("fd000000000000000000000000000001.addr.pillion.", "AAAA")) == ["fd00::1"]
    assert code(ask("0a000007.addr.pillion.", "AAAA")) == "NOERROR nothing"
    for name in ("0a0000.addr.pillion.", "0a0000071.addr.pillion.", "0a00000g.addr.pillion.", "x.0a000007.addr.pillion."):
        assert code(ask(name)) == "NXDOMAIN nothing", name


# Services.


@pytest.mark.parametrize("name", ["GradingService.pillion.", "_GradingService._tcp.pillion.", "_gradingservice._TCP.pillion."])
def test_a_service_record_has_weight_port_and_a_target_whose_address_goes_along(name: str) -> None:
    reply = ask(name, "SRV")
    assert told(reply) == [
        "0 1 6000 fd000000000000000000000000000001.addr.pillion.",
        "0 1 6001 0a000008.addr.pillion.",
        "0 3 6000 0a000007.addr.pillion.",
    ]
    along = {str(record.rname): record.rdata.toZone() for record in reply.ar if record.rtype != QTYPE.OPT}
    assert along == {
        "0a000007.addr.pillion.": "10.0.0.7",
        "0a000008.addr.pillion.": "10.0.0.8",
        "fd000000000000000000000000000001.addr.pillion.": "fd00::1",
    }


def test_providers_of_our_own_zone_come_first() -> None:
    told_first = told(ask("GradingService.pillion.", "SRV", zone(own_zone="west")))
    assert [line.split(" addr")[0][:8] for line in told_first] == ["0 3 6000", "1 1 6000", "1 1 6001"]
    assert told(ask("GradingService.pillion.", where=zone(own_zone="east")))[0] == "10.0.0.8"


def test_a_service_records_target_is_a_host_as_the_provider_wrote_it() -> None:
    reply = ask("Db.pillion.", "SRV")
    assert told(reply) == ["0 1 5432 db.internal."]
    assert [record for record in reply.ar if record.rtype != QTYPE.OPT] == []


def test_what_dns_cannot_tell_is_left_out_and_weights_are_kept_within_bounds() -> None:
    assert sorted(told(ask("Odd.pillion."))) == ["10.0.0.3", "10.0.0.4"]
    assert sorted(told(ask("Odd.pillion.", "SRV"))) == ["0 0 80 0a000003.addr.pillion.", "0 65535 80 0a000004.addr.pillion."]


def test_the_service_form_has_no_addresses() -> None:
    assert code(ask("_GradingService._tcp.pillion.")) == "NOERROR nothing"
    assert code(ask("_GradingService._udp.pillion.", "SRV")) == "NXDOMAIN nothing"
    assert code(ask("_Other._tcp.pillion.", "SRV")) == "NXDOMAIN nothing"


# What else there is to say.


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("Mail.pillion.", "A", "NOERROR nothing"),
        ("Mail.pillion.", "SRV", "NOERROR nothing"),
        ("GradingService.pillion.", "TXT", "NOERROR nothing"),
        ("GradingService.pillion.", "HTTPS", "NOERROR nothing"),
        ("Other.pillion.", "A", "NXDOMAIN nothing"),
        ("x.GradingService.pillion.", "A", "NXDOMAIN nothing"),
        ("Unheard.pillion.", "A", "SERVFAIL"),
        ("_Unheard._tcp.pillion.", "SRV", "SERVFAIL"),
        ("example.com.", "A", "REFUSED"),
        ("notpillion.", "A", "REFUSED"),
        ("GradingService.", "A", "REFUSED"),
        (".", "A", "REFUSED"),
        ("GradingService.pillion.", "AXFR", "REFUSED"),
        ("pillion.", "AXFR", "REFUSED"),
        ("pillion.", "NS", "NOERROR nothing"),
        ("pillion.", "SOA", "NOERROR"),
    ],
)
def test_the_codes(name: str, kind: str, expected: str) -> None:
    reply = ask(name, kind)
    assert code(reply) == expected
    assert reply.header.aa == (expected.split()[0] in ("NOERROR", "NXDOMAIN"))


def test_that_nothing_is_there_may_not_be_kept_either() -> None:
    [soa] = ask("Other.pillion.").auth
    assert (str(soa.rname), soa.ttl, soa.rdata.times[4]) == ("pillion.", 0, 0)
    assert (str(soa.rdata.mname), str(soa.rdata.rname)) == ("pillion.", "hostmaster.pillion.")


def test_a_table_that_changes_is_followed() -> None:
    table = FakeTable({"Db": ()})
    where = zone(table)
    assert code(ask("Mail.pillion.", where=where)) == "NXDOMAIN nothing"
    table.known["Mail"] = (Provider("Mail", "http://10.0.0.1:25"),)
    assert told(ask("mail.pillion.", where=where)) == ["10.0.0.1"]


def test_everything_is_told_to_who_asks_for_any() -> None:
    kinds = Counter(QTYPE.get(record.rtype) for record in ask("GradingService.pillion.", "ANY").rr)
    assert kinds == {"A": 2, "AAAA": 1, "SRV": 3}


def test_other_networks_than_the_internet_are_refused() -> None:
    assert code(ask("GradingService.pillion.", klass="CH")) == "REFUSED"
    assert len(ask("GradingService.pillion.", klass="*").rr) == 2


def test_a_zone_of_another_name_with_several_labels() -> None:
    other = zone(domain="svc.example.test")
    assert told(ask("twin.svc.example.test.", where=other)) == ["10.0.0.2"]
    assert told(ask("twin.svc.example.test.", "SRV", other)) == ["0 1 1 0a000002.addr.svc.example.test."]
    assert code(ask("twin.pillion.", where=other)) == "REFUSED"
    assert code(ask("example.test.", where=other)) == "REFUSED"


# Spread and size.


def many(number: int) -> Zone:
    providers = tuple(Provider("Db", f"http://10.1.{index // 250}.{index % 250}:80") for index in range(number))
    return Zone(FakeTable({"Db": providers}), "", "pillion", HOSTS.get)


def test_each_comes_first_in_its_turn() -> None:
    where = many(4)
    first = Counter(told(ask("Db.pillion.", where=where))[0] for _ in range(400))
    assert len(first) == 4
    assert min(first.values()) > 40


def test_of_very_many_others_are_told_each_time() -> None:
    where = many(1000)
    seen = [frozenset(told(ask("Db.pillion.", where=where, udp=False))) for _ in range(20)]
    assert {len(addresses) for addresses in seen} == {MAX_PROVIDERS}
    assert len(frozenset.union(*seen)) > 5 * MAX_PROVIDERS


@pytest.mark.parametrize(("edns", "most"), [(0, 512), (100, 512), (512, 512), (900, 900), (1232, 1232), (65535, 1232)])
def test_an_answer_is_cut_to_what_the_client_takes_and_says_so(edns: int, most: int) -> None:
    where = many(64)
    query = DNSRecord.question("Db.pillion.", "SRV")
    if edns:
        query.add_ar(EDNS0(udp_len=edns))
    answer = where.answer(query.pack(), udp=True)
    assert answer is not None
    assert most - 50 < len(answer) <= most
    reply = DNSRecord.parse(answer)
    assert reply.header.tc == 1
    assert 0 < len(reply.rr) < 64
    assert [record.rtype for record in reply.ar] == [QTYPE.OPT] * bool(edns)
    whole = ask("Db.pillion.", "SRV", where, udp=False, edns=edns)
    assert (whole.header.tc, len(whole.rr), len(whole.ar)) == (0, 64, 64 + bool(edns))


def test_the_longest_question_and_zone_leave_room_to_say_that_there_is_nothing() -> None:
    domain = "x" * 29 + "." + "y" * 30  # as long as the settings let it be
    query = DNSRecord(q=DNSQuestion(DNSLabel((b"a" * 63, b"b" * 63, b"c" * 62, *domain.encode().split(b"."))), QTYPE.A))
    query.add_ar(EDNS0(udp_len=512))
    answer = zone(domain=domain).answer(query.pack(), udp=True)
    assert answer is not None
    assert len(answer) <= 512
    assert code(DNSRecord.parse(answer)) == "NXDOMAIN nothing"


def test_addresses_that_only_go_along_are_left_out_without_a_word() -> None:
    reply = ask("Db.pillion.", "SRV", many(24))
    assert (reply.header.tc, len(reply.rr)) == (0, 24)
    assert 1 < len(reply.ar) < 24


def test_edns_is_answered_in_kind() -> None:
    query = DNSRecord.question("Twin.pillion.")
    query.add_ar(EDNS0(udp_len=4096, flags="do", opts=[EDNSOption(10, b"12345678"), EDNSOption(12, b"\0" * 20)]))
    answer = zone().answer(query.pack(), udp=True)
    assert answer is not None
    [opt] = DNSRecord.parse(answer).ar
    assert (opt.rtype, opt.edns_len, opt.edns_ver, opt.edns_do, opt.edns_rcode, opt.rdata) == (QTYPE.OPT, 1232, 0, 1, 0, [])
    assert ask("Twin.pillion.", edns=0).ar == []


def test_a_version_of_edns_that_is_not_spoken() -> None:
    query = DNSRecord.question("Twin.pillion.")
    query.add_ar(EDNS0(udp_len=4096, version=1))
    answer = zone().answer(query.pack(), udp=True)
    assert answer is not None
    reply = DNSRecord.parse(answer)
    assert (reply.header.rcode, reply.ar[0].edns_rcode, reply.ar[0].edns_ver, reply.rr) == (0, 1, 0, [])
