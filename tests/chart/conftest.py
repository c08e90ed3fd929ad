"""These suites need helm and Kubernetes' schemas: scripts/chart-test has both and runs them. Others pass them by."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("PILLION_HELM") else ["test_*.py"]
