"""What /stats and /metrics say."""

from __future__ import annotations

from pillion_common import models
from pillion_log.metrics import Counts, Heard, Tailed, exposition
from pillion_log.stats import summed, table
from pillion_log.store.base import ServiceCount, StoreStats

STATS = StoreStats(
    services={
        "Portald": ServiceCount(1, 100, 0, "2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123Z"),
        "GradingService": ServiceCount(1200, 345678, 17, "2026-01-31T11:00:00.000Z", "2026-01-31T12:00:00.1235Z"),
    },
    disk_bytes=4096,
    oldest=5,
    end=345783,
    removed_segments=1,
    removed_bytes=5,
)


def test_total_is_the_sum_over_all_services() -> None:
    total = summed(STATS).total
    assert total == ServiceCount(1201, 345778, 17, "2026-01-31T11:00:00.000Z", "2026-01-31T12:00:00.1235Z")
    assert models.encode(summed(StoreStats({}))) == (
        b'{"Services":{},"Total":{"Lines":0,"Bytes":0,"Gaps":0,"First":"","Last":""},"DiskBytes":0,"Oldest":0,"End":0,'
        b'"RemovedSegments":0,"RemovedBytes":0,"Damaged":0}'
    )


def test_table_has_one_row_for_each_service() -> None:
    assert table(summed(STATS)).splitlines() == [
        "SERVICE         LINES    BYTES  MISSING  FIRST RECEIVED            LAST RECEIVED",
        "GradingService  1,200  345,678       17  2026-01-31T11:00:00.000Z  2026-01-31T12:00:00.1235Z",
        "Portald             1      100        0  2026-01-31T12:00:00.123Z  2026-01-31T12:00:00.123Z",
        "total           1,201  345,778       17  2026-01-31T11:00:00.000Z  2026-01-31T12:00:00.1235Z",
        "4,096 bytes on disk; 5 bytes removed by retention since the start",
    ]


def test_prometheus_reads_each_number_once_with_its_type() -> None:
    counts = Counts()
    counts.accepted, counts.duplicates, counts.rejected = 12345678901, 2, 3
    rows = exposition(STATS, "the disk is full", Tailed(4, 5), counts, {}).decode().splitlines()
    assert [row for row in rows if not row.startswith("#")] == [
        "pillion_log_accepted_total 12345678901",
        "pillion_log_duplicates_total 2",
        "pillion_log_rejected_total 3",
        'pillion_log_entries{service="GradingService"} 1200',
        'pillion_log_entries{service="Portald"} 1',
        'pillion_log_bytes{service="GradingService"} 345678',
        'pillion_log_bytes{service="Portald"} 100',
        'pillion_log_gaps{service="GradingService"} 17',
        'pillion_log_gaps{service="Portald"} 0',
        "pillion_log_written_bytes_total 345783",
        "pillion_log_removed_bytes_total 5",
        "pillion_log_disk_bytes 4096",
        "pillion_log_damaged 0",
        "pillion_log_store_fault 1",
        "pillion_log_tails 4",
        "pillion_log_tail_missed_total 5",
    ]
    assert rows[:2] == ["# HELP pillion_log_accepted_total Entries stored since the start.", "# TYPE pillion_log_accepted_total counter"]
    assert "pillion_log_store_fault 0" in exposition(STATS, None, Tailed(0, 0), None, {}).decode()
    assert "accepted" not in exposition(STATS, None, Tailed(0, 0), None, {}).decode()


def test_syslog_is_counted_by_transport_and_over_tcp_nothing_is_dropped() -> None:
    rows = exposition(STATS, None, Tailed(0, 0), None, {"tcp": Heard(7, 1, None, 2), "udp": Heard(9, 0, 3, 0)}).decode().splitlines()
    assert [row for row in rows if row.startswith("pillion_log_syslog")] == [
        'pillion_log_syslog_received_total{transport="tcp"} 7',
        'pillion_log_syslog_received_total{transport="udp"} 9',
        'pillion_log_syslog_malformed_total{transport="tcp"} 1',
        'pillion_log_syslog_malformed_total{transport="udp"} 0',
        'pillion_log_syslog_dropped_total{transport="udp"} 3',
        'pillion_log_syslog_refused_total{transport="tcp"} 2',
        'pillion_log_syslog_refused_total{transport="udp"} 0',
    ]
    assert "syslog" not in exposition(STATS, None, Tailed(0, 0), None, {}).decode()
