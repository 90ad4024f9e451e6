"""Can this Python on this system run the project? `make` asks before it installs; any Python 3 must be able to read this file."""

import os
import platform
import sys


def reason(version, system, machine, folder=""):
    """Why not, in words; empty if it can."""
    if not (3, 11) <= version[:2] < (3, 13):
        found = ".".join(str(part) for part in version[:3])
        return f"Python 3.11 or 3.12 is needed, and {sys.executable} is {found}. Name another one: make PYTHON=python3.11 ..."
    if system == "Darwin" and machine == "x86_64":
        return (
            "PyTorch has no build for this Python: a Mac with an Intel processor, or an Intel build of Python on an Apple chip. "
            "Linux (x86-64 or ARM), macOS on Apple chips with a native Python, and WSL on Windows are meant."
        )
    if system == "Windows":
        return (
            "Windows itself is not meant: the build uses POSIX locks and a POSIX shell. Call make inside WSL."
        )
    if os.pathsep in folder:
        return f"{folder}: no environment of Python can lie in a folder with {os.pathsep!r} in its path. Move the checkout."
    return ""


def main():
    why = reason(tuple(sys.version_info), platform.system(), platform.machine(), os.getcwd())
    if why:
        sys.stderr.write(why + "\n")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
