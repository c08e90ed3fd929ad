"""The check by a command, in the real programs: what the heartbeat says, what the registry shows, what is left running."""

from __future__ import annotations

from pathlib import Path

import requests
from programs import eventually, program
from sidecar_bench import ASK_S, Sidecar, app, sidecar

FAST = ("--check-interval", "100ms", "--check-timeout", "500ms")


def heartbeat(of: Sidecar) -> tuple[int, dict[str, str]]:
    answer = requests.get(f"{of.peer}/heartbeat", timeout=ASK_S)
    return answer.status_code, answer.json()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_decides_what_the_heartbeat_and_the_registry_say(tmp_path: Path) -> None:
    script, pid_file = tmp_path / "check", tmp_path / "pid"
    hang = f"sleep 60 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    script.write_text("echo disk at 91 %; exit 1")
    with (
        program("registry", "--store", "memory:", "--heartbeat-interval", "200ms") as registry,
        app() as running,
        sidecar("A", running.port, registry.url, tmp_path / "state", "--check", f"exec:sh {script}", *FAST) as beside,
    ):

        def shown() -> tuple[str, str | None]:
            services = requests.get(f"{registry.url}/services", timeout=ASK_S).json()["Services"]
            return (services[0]["State"], services[0]["Reason"]) if services else ("", None)

        eventually(lambda: heartbeat(beside) == (200, {"State": "up", "Reason": "disk at 91 %"}))
        eventually(lambda: shown()[0] == "up")
        script.write_text("echo gone; exit 2")
        eventually(lambda: heartbeat(beside) == (503, {"State": "down", "Reason": "exit code 2: gone"}))
        eventually(lambda: shown() == ("down", "exit code 2: gone"))
        script.write_text(hang)
        eventually(lambda: heartbeat(beside)[1]["Reason"] == "the check's command did not end within 0.5 s")
        killed = int(pid_file.read_text())
        script.write_text("exit 0")
        eventually(lambda: not runs(killed))
        eventually(lambda: heartbeat(beside) == (200, {"State": "up"}))
        pid_file.unlink()
        script.write_text(hang)
        eventually(pid_file.exists)
        assert beside.program.stop() == 0
        assert not runs(int(pid_file.read_text())), "the sidecar's end is the end of the command that it runs"
