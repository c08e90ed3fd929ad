"""`helm uninstall`: what is left is what the notes say, and their last command removes that too."""

from __future__ import annotations

import shlex
import time

import figures
from cluster import GONE_S, RELEASE, Namespace, eventually, helm, run


def test_what_is_left_is_what_the_notes_say(before: set[str], release: Namespace) -> None:
    notes = helm("get", "notes", RELEASE)
    release.kubectl("delete", "pod", "--selector", "app in (caller, host)", "--grace-period", "1")
    release.kubectl("delete", "networkpolicy", "caller", "--ignore-not-found")
    began = time.monotonic()
    helm("uninstall", RELEASE, "--wait")
    tested = f"pod/{RELEASE}-test"
    leaves = {
        f"persistentvolumeclaim/data-{RELEASE}-registry-0",
        f"persistentvolumeclaim/data-{RELEASE}-log-0",
        f"secret/{RELEASE}-token",
    }
    eventually(lambda: release.everything() - before - {tested} == leaves, GONE_S, f"{leaves} and nothing else is left", 1.0)
    figures.note("helm uninstall until the last pod is gone", time.monotonic() - began, "s")
    everywhere = "mutatingwebhookconfigurations,clusterroles,clusterrolebindings"
    assert run(["kubectl", "get", everywhere, "--selector", f"app.kubernetes.io/instance={RELEASE}", "--output", "name"]) == ""
    assert "`helm uninstall` leaves the volumes, the pod of `helm test` and the token's Secret" in notes
    command = notes.strip().splitlines()[-1].rpartition("Secret: ")[2]
    run(shlex.split(command))
    assert release.everything() - before == set()
