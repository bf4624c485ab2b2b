"""The digests that registries give for images, asked by the tools that people have for it, with their log-ins."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence

#: Ways to ask, the first that is on PATH: the image comes last.
TOOLS: tuple[tuple[str, Sequence[str], str], ...] = (
    ("skopeo", ("inspect", "--no-tags", "--format={{.Digest}}"), "docker://"),
    ("crane", ("digest",), ""),
    ("docker", ("buildx", "imagetools", "inspect", "--format={{.Manifest.Digest}}"), ""),
)
#: A registry that is silent for so long is not asked on.
SECONDS = 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digests(images: Iterable[str]) -> dict[str, str]:
    """The digest of each of `images` (with a tag) whose registry gives one; empty without a tool that can ask."""
    tool = next((each for each in TOOLS if shutil.which(each[0])), None)
    found: dict[str, str] = {}
    for image in images if tool else ():
        program, arguments, scheme = tool or TOOLS[0]
        command = [program, *arguments, f"{scheme}{image}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            continue
        digest = _DIGEST.fullmatch(done.stdout.strip())
        if done.returncode == 0 and digest:
            found[image] = digest[0]
    return found
