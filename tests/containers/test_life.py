"""The life of an app and its sidecar under Compose: restarted, killed, recreated, stopped, one or both of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import eventually
from project import Project, seconds
from stack import Running, Stack

NOTICE_S = 2.0
BACK_S = 10.0  # from the app's start until the registry offers it again
CLOCK_S = 0.1  # the engine writes the moment of a stop a little after it has taken the network away

# Runs in the app's container: posts a numbered line every 20 ms for SECONDS, and prints which numbers the sidecar took.
SEND_LINES = """
my $http = HTTP::Tiny->new(timeout => 2); my ($n, @taken) = (0); my $until = time + SECONDS;
while (time < $until) { $n++; my $said = $http->post("http://127.0.0.1:7071/log", {content => "MARK line $n"});
  push @taken, $n if $said->{status} == 200; select undef, undef, undef, 0.02; }
print "{\\"sent\\": $n, \\"taken\\": [", join(",", @taken), "]}";
"""


@pytest.fixture(scope="module")
def hello(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The Perl example, with an environment that can be changed."""
    stack.start_all()
    override = Path(tmp_path_factory.mktemp("life")) / "override.yml"
    override.write_text('services: {hello: {environment: {COLOUR: "${COLOUR:-red}"}}}\n')
    project = Project(stack, "perl", "hello", "PerlHello", override)
    if missing := [image for image in project.images() if not stack.has_image(image)]:
        pytest.skip(f"the images {', '.join(missing)} are not here; pull them, or run scripts/base-images --examples")
    yield project
    try:
        project.up()  # so that it withdraws: the next tests want nothing to be down
    finally:
        project.down()


@pytest.fixture
def running(hello: Project) -> Project:
    """The same with both containers up, whatever an earlier test left."""
    hello.up()
    hello.until_up()
    return hello


def colour(project: Project) -> str:
    """Return what the app's container has in its environment."""
    settings = dict(entry.partition("=")[::2] for entry in project.container(project.app).attrs["Config"]["Env"])
    return settings["COLOUR"]


def expect_sidecar_back(project: Project) -> None:
    """Expect that the sidecar notices the loss of the app's network in time, and joins the new one."""
    eventually(lambda: project.state(project.app)["Running"], 20.0, project.last_words)
    app = project.state(project.app)
    gone, back = seconds(app["FinishedAt"]), seconds(app["StartedAt"])
    eventually(lambda: seconds(project.state(project.sidecar)["StartedAt"]) > back and project.is_up(), BACK_S + 10, project.last_words)
    up_s = time.time() - back
    noticed_s = seconds(project.events("namespace_lost", gone - 1)[-1]["time"]) - gone
    print(f"noticed {noticed_s:.2f} s after the app was gone; offered again {up_s:.2f} s after its start")
    assert -CLOCK_S - 1 < noticed_s < NOTICE_S
    assert up_s < BACK_S


def test_a_restarted_app_has_its_sidecar_back(running: Project) -> None:
    running.container(running.app).restart(timeout=2)
    expect_sidecar_back(running)


def test_an_app_that_was_killed_and_restarted_by_its_policy_has_its_sidecar_back(running: Project, stack: Stack) -> None:
    before = running.state(running.app)["StartedAt"]
    stack.kill_as_the_kernel_would(running.container(running.app))
    eventually(lambda: running.state(running.app)["StartedAt"] != before, 10.0, running.last_words)
    expect_sidecar_back(running)


def test_an_app_that_dies_again_and_again_at_its_start_keeps_its_sidecar(running: Project) -> None:
    app = running.container(running.app)
    app.kill()
    for _ in range(2):
        app.start()
        time.sleep(0.3)
        app.kill()
        time.sleep(1.5)  # long enough for a sidecar that ends too early to be refused by the engine, which then gives up
    app.start()
    running.until_up()
    assert seconds(running.state(running.sidecar)["StartedAt"]) > seconds(running.state(running.app)["StartedAt"])


def test_docker_compose_restart_keeps_the_two_together(running: Project) -> None:
    for services in ((), (running.app,), (running.sidecar,)):
        before = running.state(running.sidecar)["StartedAt"]
        running.compose("restart", "--timeout", "5", *services)
        eventually(lambda before=before: running.state(running.sidecar)["StartedAt"] != before, 10.0, running.last_words)  # type: ignore[misc]
        running.until_up()


def test_an_app_recreated_without_its_sidecar_is_said_and_one_command_mends_it(running: Project) -> None:
    running.env["COLOUR"] = "blue"
    running.compose("up", "--detach", running.app)
    eventually(lambda: running.events("app_container_removed"), 5.0, running.last_words)
    eventually(lambda: running.state(running.sidecar)["Health"]["Status"] == "unhealthy", 15.0, running.last_words)
    assert not running.is_up()
    running.up(running.sidecar)
    running.until_up()
    assert colour(running) == "blue"


@pytest.mark.parametrize("words", [("hello-sidecar",), (), ("--force-recreate",)])
def test_what_has_changed_in_the_app_is_brought_up_together_with_its_sidecar(running: Project, words: tuple[str, ...]) -> None:
    app, sidecar = running.container(running.app).id, running.container(running.sidecar).id
    wanted = running.env["COLOUR"] = f"green {words}"
    running.up(*words)
    running.until_up()
    assert colour(running) == wanted
    assert running.container(running.app).id != app
    assert running.container(running.sidecar).id != sidecar


def test_lines_taken_around_a_restart_and_a_kill_of_the_sidecar_are_all_there_once(running: Project, stack: Stack) -> None:
    mark = f"m{time.monotonic_ns()}"
    code = SEND_LINES.replace("SECONDS", "9").replace("MARK", mark)
    app_since = running.state(running.app)["StartedAt"]
    sending = Running(running.container(running.app), ["perl", "-MHTTP::Tiny", "-e", code])
    time.sleep(1)
    running.container(running.sidecar).restart(timeout=10)
    running.until_up()
    time.sleep(1)
    before = running.state(running.sidecar)["StartedAt"]
    stack.kill_as_the_kernel_would(running.container(running.sidecar))
    eventually(lambda: running.state(running.sidecar)["StartedAt"] != before, 10.0, running.last_words)
    killed = time.monotonic()
    running.until_up()
    print(f"offered again {time.monotonic() - killed:.2f} s after the killed sidecar's restart")
    outcome = json.loads(sending.output())
    taken = {f"{mark} line {n}" for n in outcome["taken"]}
    failed = outcome["sent"] - len(taken)
    print(f"{outcome['sent']} sent, {failed} refused while the sidecar was away")
    assert len(taken) > 20
    assert failed > 5, "the app has to see that nobody took its line"
    eventually(lambda: taken <= {entry["Message"] for entry in stack.lines(q=mark, limit="10000")}, 20.0, running.last_words)
    assert set(Counter(entry["Message"] for entry in stack.lines(q=mark, limit="10000")).values()) == {1}
    assert running.state(running.app)["StartedAt"] == app_since, "the app must not notice"


def test_a_stopped_app_is_gone_from_the_registry_and_comes_back_with_its_sidecar(running: Project, stack: Stack) -> None:
    before = time.monotonic()
    running.compose("stop")
    print(f"stopped within {time.monotonic() - before:.2f} s")
    assert time.monotonic() - before < 8
    assert running.state(running.sidecar)["ExitCode"] == 0, running.last_words()
    assert running.name not in stack.states()
    running.compose("start")
    running.until_up()


def test_an_app_stopped_alone_is_known_to_be_down_and_followed_when_it_is_started(running: Project, stack: Stack) -> None:
    running.compose("stop", running.app)
    eventually(lambda: stack.states()[running.name] == "down", 5.0, running.last_words)
    eventually(lambda: running.events("namespace_lost", seconds(running.state(running.app)["FinishedAt"]) - 1), 5.0, running.last_words)
    assert running.state(running.sidecar)["Running"], "ended now, the engine could not start it again"
    running.compose("start", running.app)
    expect_sidecar_back(running)


def test_a_sidecar_left_without_its_app_still_stops_cleanly(running: Project) -> None:
    running.compose("stop", running.app)
    eventually(lambda: running.events("namespace_lost", seconds(running.state(running.app)["FinishedAt"]) - 1), 5.0, running.last_words)
    before = time.monotonic()
    running.compose("stop", running.sidecar)
    assert time.monotonic() - before < 8
    assert running.state(running.sidecar)["ExitCode"] == 0, running.last_words()
