"""Syslog messages of RFC 5424, of RFC 3164, and of those who follow neither; the frames of a TCP connection."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pillion_common.syslog import MAX_COUNT, MAX_PARAMS, Frame, FrameReader, Message, canonical_time, parse

NOW = 1_791_756_900.0  # 2026-10-11T22:15:00Z


def test_every_part_of_a_5424_message_is_read() -> None:
    # RFC 5424, 6.5, example 3, in another year
    data = (
        b'<165>1 2026-10-11T22:14:15.003Z mymachine.example.com evntslog 8710 ID47 [exampleSDID@32473 iut="3" eventSource="Application" '
        b'eventID="1011"][examplePriority@32473 class="high"] \xef\xbb\xbfAn application event log entry...'
    )
    assert parse(data, NOW) == Message(
        facility=20,
        severity=5,
        text="An application event log entry...",
        time="2026-10-11T22:14:15.003Z",
        host="mymachine.example.com",
        app="evntslog",
        process="8710",
        kind="ID47",
        data={
            "exampleSDID@32473": {"iut": "3", "eventSource": "Application", "eventID": "1011"},
            "examplePriority@32473": {"class": "high"},
        },
    )


def test_a_5424_message_may_leave_everything_out() -> None:
    assert parse(b"<0>1 - - - - - -", NOW) == Message(0, 0, "")
    assert parse(b"<0>1 - - - - - - ", NOW) == Message(0, 0, "")


def test_escapes_in_structured_data_are_undone_and_other_backslashes_stay() -> None:
    message = parse(rb'<13>1 - - - - - [x a="\"q\" \\ \] \n"] text', NOW)
    assert message.data == {"x": {"a": '"q" \\ ] \\n'}}
    assert message.text == "text"


@pytest.mark.parametrize("broken", [b"[x a=b] text", b'[x a="b] text', b'[x a="b"]text', b"[] text", b'[x a="b"', b"nonsense"])
def test_structured_data_that_is_not_well_formed_stays_in_the_text(broken: bytes) -> None:
    message = parse(b"<13>1 2026-10-11T22:14:15Z web1 shop - - " + broken, NOW)
    assert (message.app, message.data, message.text) == ("shop", {}, broken.decode())


def test_a_5424_time_that_is_none_loses_nothing_else() -> None:
    assert parse(b"<13>1 yesterday web1 shop 7 - - hello", NOW) == Message(1, 5, "hello", "", "web1", "shop", "7")


def test_structured_data_is_bounded() -> None:
    params = b"".join(b' n%d="v"' % number for number in range(500))
    elements = b"".join(b"[e%d]" % number for number in range(500))
    message = parse(b"<13>1 - - - - - [x" + params + b"]" + elements + b" text", NOW)
    assert (len(message.data), len(message.data["x"]), message.text) == (MAX_PARAMS, MAX_PARAMS, "text")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # RFC 3164, 5.4, example 1
        (
            b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            Message(4, 2, "'su root' failed for lonvick on /dev/pts/8", "2026-10-11T22:14:15.000Z", "mymachine", "su"),
        ),
        # example 2: nothing after the PRI is of the form
        (b"<13>Use the BFG!", Message(1, 5, "Use the BFG!")),
        # no PRI at all (4.3.3), and PRIs that are none
        (b"plain: text", Message(1, 5, "plain: text")),
        (b"<192>x", Message(1, 5, "<192>x")),
        (b"<013>x", Message(1, 5, "<013>x")),
        # glibc's syslog() to a local daemon: no host
        (
            b"<30>Oct  1 02:03:04 cron[812]: (root) CMD (true)",
            Message(3, 6, "(root) CMD (true)", "2026-10-01T02:03:04.000Z", "", "cron", "812"),
        ),
        # Go's log/syslog over a network
        (
            b"<11>2026-10-11T22:14:15+02:00 web1 shop[9]: bad thing",
            Message(1, 3, "bad thing", "2026-10-11T20:14:15.000Z", "web1", "shop", "9"),
        ),
        # Python's SysLogHandler: no header, a NUL at the end
        (b"<14>hello\0", Message(1, 6, "hello")),
        (b"<14>shop[12]: hello\n", Message(1, 6, "hello", "", "", "shop", "12")),
        # a host that is an IPv6 address; text without a tag
        (b"<14>Oct 11 22:14:15 fe80::1 hello there", Message(1, 6, "hello there", "2026-10-11T22:14:15.000Z", "fe80::1")),
        # fractions, and the year before or after
        (b"<14>Oct 11 22:14:15.250 web1 a: b", Message(1, 6, "b", "2026-10-11T22:14:15.250Z", "web1", "a")),
        (b"<14>Oct 11 2019 22:14:15 web1 a: b", Message(1, 6, "b", "2019-10-11T22:14:15.000Z", "web1", "a")),
        (b"<14>Oct 11 22:14:15 2019 web1 a: b", Message(1, 6, "b", "2019-10-11T22:14:15.000Z", "web1", "a")),
        # a day that does not exist is no time: all of it is text
        (b"<14>Feb 30 22:14:15 web1 a: b", Message(1, 6, "Feb 30 22:14:15 web1 a: b")),
        (b"<14>Oct 11 25:14:15 web1 a: b", Message(1, 6, "Oct 11 25:14:15 web1 a: b")),
        (b"<14>bytes \xff that are no UTF-8", Message(1, 6, "bytes � that are no UTF-8")),
    ],
)
def test_what_follows_no_standard_or_the_older_one_is_read_where_it_can_be(data: bytes, message: Message) -> None:
    assert parse(data, NOW) == message


@pytest.mark.parametrize(
    ("now", "told", "meant"),
    [
        (1_798_761_660.0, b"Dec 31 23:59:59", "2026-12-31T23:59:59.000Z"),  # 2027-01-01T00:01Z: it is of last year
        (1_798_761_540.0, b"Jan  1 00:00:30", "2027-01-01T00:00:30.000Z"),  # 2026-12-31T23:59Z: its clock is ahead
        (1_835_438_400.0, b"Feb 29 12:00:00", "2028-02-29T12:00:00.000Z"),  # 2028-02-29T16:00Z: only that year has the day
    ],
)
def test_a_time_without_a_year_is_of_the_year_that_brings_it_nearest_to_now(now: float, told: bytes, meant: str) -> None:
    assert parse(b"<14>" + told + b" web1 a: b", now).time == meant


def test_a_time_without_an_offset_is_read_by_the_senders_clock() -> None:
    assert parse(b"<14>Oct 11 22:14:15 web1 a: b", NOW, 7200.0).time == "2026-10-11T20:14:15.000Z"


def test_severities_become_levels() -> None:
    levels = [parse(b"<%d>x" % number, NOW).level for number in range(8)]
    assert levels == ["error", "error", "error", "error", "warning", "info", "info", "debug"]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-10-11T22:14:15Z", "2026-10-11T22:14:15.000Z"),
        ("2026-10-11T22:14:15.000003-07:00", "2026-10-12T05:14:15.000003Z"),
        ("2026-10-11T22:14:15.123456789Z", "2026-10-11T22:14:15.123456Z"),
        ("2026-10-11T22:14:60Z", None),  # RFC 5424, 6.2.3: no leap seconds
        ("2026-10-11t22:14:15z", None),
        ("2026-10-11T22:14:15", None),
        ("0001-01-01T00:00:00+23:00", None),
    ],
)
def test_times_are_written_one_way(text: str, time: str | None) -> None:
    assert canonical_time(text) == time


# Frames.


def frames(*pieces: bytes, max_bytes: int = 100) -> list[Frame]:
    reader = FrameReader(max_bytes)
    return [frame for piece in pieces for frame in reader.feed(piece)] + reader.end()


def test_lines_nuls_and_counts_may_follow_each_other_on_one_connection() -> None:
    data = b"<1>a\n<2>b\0" + b"7 <3>c\nd\n" + b"\r\n" + b"4 <4>e" + b"12 monkeys\n" + b"<5>f"
    assert frames(data) == [Frame(b"<1>a"), Frame(b"<2>b"), Frame(b"<3>c\nd"), Frame(b"<4>e"), Frame(b"12 monkeys"), Frame(b"<5>f")]


def test_a_frame_that_is_too_long_is_cut_and_the_next_one_is_whole() -> None:
    assert frames(b"<1>" + b"x" * 20 + b"\n<2>b\n", max_bytes=10) == [Frame(b"<1>xxxxxxx", 13), Frame(b"<2>b")]
    assert frames(b"23 <1>" + b"x" * 20 + b"<2>b\n", max_bytes=10) == [Frame(b"<1>xxxxxxx", 13), Frame(b"<2>b")]


def test_a_connection_that_ends_within_a_frame_gives_what_came() -> None:
    assert frames(b"40 <1>abc") == [Frame(b"<1>abc", 34)]
    assert frames(b"<1>abc") == [Frame(b"<1>abc")]


def test_a_count_beyond_all_reason_is_none() -> None:
    assert frames(b"%d <1>a\n<2>b\n" % (MAX_COUNT + 1)) == [Frame(b"16777217 <1>a"), Frame(b"<2>b")]


PIECES = st.lists(
    st.sampled_from(
        [b"<13>", b"1 ", b"- ", b"-", b"[x", b' a="', b'"]', b"]", b"\\", b"Oct 11 ", b"22:14:15 ", b"12 <", b":", b"\n", b"\0"]
    )
    | st.binary(max_size=12)
)


@given(PIECES)
@example([b"<13>1 - - - - - [x", b' a="' + b"\\" * 2000])
def test_nothing_that_comes_brings_the_parser_down(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    message = parse(data, NOW)
    assert 0 <= message.facility <= 23
    assert 0 <= message.severity <= 7
    message.text.encode()
    assert message.time == "" or canonical_time(message.time) == message.time


@given(PIECES, st.lists(st.integers(0, 300), max_size=8))
def test_frames_do_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    marks = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    assert frames(*(data[low:high] for low, high in pairwise(marks)), max_bytes=20) == frames(data, max_bytes=20)


@given(st.lists(st.binary(min_size=1, max_size=60).filter(lambda text: text == text.rstrip(b"\r\n\0"))))
def test_counted_frames_carry_any_bytes(texts: list[bytes]) -> None:
    sent = [b"<13>" + text for text in texts]
    assert frames(b"".join(b"%d %b" % (len(one), one) for one in sent)) == [Frame(one) for one in sent]
