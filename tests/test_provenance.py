"""What a result says of where it comes from."""

import re
import sys

from semid_jax import provenance


def test_versions_and_revision() -> None:
    versions = provenance.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"jax", "flax", "semid_jax"} <= versions.keys()
    versions["jax"] = "changed"
    assert provenance.versions()["jax"] != "changed"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", provenance.revision())
    assert "cores" in provenance.machine()
