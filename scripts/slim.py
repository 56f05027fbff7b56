"""Takes out of an installed environment what running it does not need: `python slim.py DIRECTORY`.

Tests, stubs, C sources, bytecode, scripts to activate, and the debug information in extension
modules: wheels ship it, and it is a third of an image. Built into images by the Dockerfile, where
nothing but Python is at hand: no `strip`.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

FOLDERS = ("tests", "*-stubs", "__pycache__")
FILES = (
    "*.pyi",
    "*.pyx",
    "*.pxd",
    "*.c",
    "*.h",
    "activate*",
    "deactivate.bat",
    ".lock",
    ".gitignore",
)

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def slim(root: Path) -> int:
    """Take out what is not needed below `root`; return the bytes saved."""
    saved = 0
    for pattern in FOLDERS:
        for folder in [path for path in root.rglob(pattern) if path.is_dir()]:
            saved += sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
            shutil.rmtree(folder, ignore_errors=True)
    for pattern in FILES:
        for file in [path for path in root.rglob(pattern) if path.is_file()]:
            saved += file.lstat().st_size
            file.unlink()
    for file in list(root.rglob("*.so*")):
        if file.is_file() and not file.is_symlink():
            saved += strip(file)
    return saved


def strip(file: Path) -> int:
    """Cut an ELF library behind the last byte that the loader maps; return the bytes saved.

    Symbol tables and debug sections lie there; the loader reads program headers and the dynamic
    symbols, which are mapped. The section headers go too, so the file names none any more.
    """
    content = file.read_bytes()
    if not content.startswith(_ELF64_LITTLE):
        return 0
    header = list(_HEADER.unpack_from(content))
    first, size, count = header[5], header[9], header[10]
    end: int = first + size * count
    for number in range(count):
        segment = _SEGMENT.unpack_from(content, first + number * size)
        end = max(end, segment[2] + segment[5])
    if end >= len(content):
        return 0
    header[6] = header[12] = header[13] = 0
    # A file of its own: installers link what they install to their cache.
    cut = file.with_name(f".{file.name}.cut")
    cut.write_bytes(_HEADER.pack(*header) + content[_HEADER.size : end])
    shutil.copymode(file, cut)
    cut.replace(file)
    return len(content) - end


if __name__ == "__main__":
    print(f"slim: {slim(Path(sys.argv[1])) / 1e6:.1f} MB taken out of {sys.argv[1]}")
