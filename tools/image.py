"""Container images made from files of this machine, without a registry or a daemon, for nodes that can pull nothing."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Where the loader looks without being told to, on Debian.
LIBRARIES = "/lib/x86_64-linux-gnu"
_ELF = b"\x7fELF"


@dataclass
class Image:
    """What an image holds: files of this machine, texts and links, each by its path in the image."""

    files: dict[str, Path] = field(default_factory=dict[str, Path])
    texts: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    links: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    #: What it runs where a pod does not say.
    command: tuple[str, ...] = ()

    def tree(self, source: Path, target: str, skip: Callable[[Path], bool] = lambda _: False) -> None:
        """Add every file below `source`, as itself where it is a link; `skip` leaves out folders and files."""
        for path in source.iterdir():
            if skip(path):
                continue
            if path.is_dir():
                self.tree(path, f"{target}/{path.name}", skip)
            elif path.is_file():
                self.files[f"{target}/{path.name}"] = path.resolve()

    def shell(self, users: Mapping[str, int]) -> None:
        """Add busybox under all its names, and `users` (name to number) beside root."""
        self.files["/bin/busybox"] = Path("/bin/busybox")
        names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        self.links |= {f"/bin/{name}": "busybox" for name in names if name != "busybox"} | {"/usr/bin/env": "/bin/busybox"}
        everybody = {"root": 0, **users}
        self.texts["/etc/passwd"] = (
            "".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in everybody.items()),
            0o644,
        )
        self.texts["/etc/group"] = ("".join(f"{name}:x:{number}:\n" for name, number in everybody.items()), 0o644)
        self.texts["/etc/nsswitch.conf"] = ("passwd: files\ngroup: files\nhosts: files dns\n", 0o644)

    def libraries(self) -> None:
        """Add the shared libraries that the files need and the image does not have yet."""
        programs = [str(path) for path in self.files.values() if _is_elf(path)]
        have = set(self.files.values())
        for start in range(0, len(programs), 200):
            listed = subprocess.run(
                ["ldd", *programs[start : start + 200]], capture_output=True, text=True, check=False
            ).stdout
            for name, found in re.findall(r"^\s+(?:(\S+) => )?(/\S+) \(0x", listed, re.MULTILINE):
                path = Path(found)
                if path.resolve() not in have:
                    self.files[found if not name else f"{LIBRARIES}/{name}"] = path.resolve()

    def save(self, archive: Path, names: Sequence[str]) -> None:
        """Write the image to `archive`, in the form that `ctr images import` reads."""
        layer = archive.with_suffix(".layer")
        with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
            self._fill(tar)
        with layer.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {
                    "Env": [f"{name}={value}" for name, value in self.environment.items()],
                    "Cmd": list(self.command),
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
        ).encode()
        manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": ["layer.tar"]}]
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, content in (("config.json", config), ("manifest.json", json.dumps(manifest).encode())):
                tar.addfile(_entry(name, len(content), 0o644), io.BytesIO(content))
            with layer.open("rb") as file:
                tar.addfile(_entry("layer.tar", layer.stat().st_size, 0o644), file)
        layer.unlink()

    def _fill(self, tar: tarfile.TarFile) -> None:
        for folder in _folders([*self.files, *self.texts, *self.links, "/tmp/x", "/dev/x", "/proc/x", "/sys/x"]):  # noqa: S108
            entry = _entry(folder, 0, 0o1777 if folder == "tmp" else 0o755)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for target, source in self.files.items():
            status = source.stat()
            # Every user may read, since pods choose theirs; compiled Python is only good for a source of the same age.
            entry = _entry(target, status.st_size, status.st_mode & 0o755 | 0o444)
            entry.mtime = int(status.st_mtime)
            with source.open("rb") as file:
                tar.addfile(entry, file)
        for target, (text, mode) in self.texts.items():
            tar.addfile(_entry(target, len(text.encode()), mode), io.BytesIO(text.encode()))
        for target, link in self.links.items():
            entry = _entry(target, 0, 0o777)
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            tar.addfile(entry)


def _entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = size, mode
    return entry


def _folders(paths: Iterable[str]) -> list[str]:
    """Every folder above `paths`, those above first."""
    return sorted({str(parent).lstrip("/") for path in paths for parent in Path(path).parents} - {""})


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _ELF
