#!/usr/bin/env python3
"""Holds a build to the packages of an earlier one, as its manifest (or a file of "NAME VERSION" lines) names them.

    lock.py FILE --preferences          apt preferences that ask for exactly these versions
    lock.py FILE --simulated LOG        does `apt-get -s install` come to these versions?
    lock.py FILE --installed LIST       is this exactly what was installed?
"""

import argparse
import json
import pathlib
import re
import sys

SHOWN = 12


def load(path):
    """Names and versions."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("{"):
        packages = json.loads(text).get("packages")
        if not isinstance(packages, dict):
            raise ValueError("no packages in it")
    else:
        packages = dict(line.split() for line in text.splitlines() if line.strip())
    for name, version in packages.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) or not re.fullmatch(r"[0-9A-Za-z.+:~-]+", str(version)):
            raise ValueError(f"{name} {version} is no package with its version")
    if not packages:
        raise ValueError("no packages in it")
    return packages


def differences(locked, found, whole):
    """One line each; `whole`: what is locked must be there too."""
    for name in sorted(set(found) | (set(locked) if whole else set())):
        if locked.get(name) != found.get(name):
            yield f"{name}: locked {locked.get(name, 'not at all')}, here {found.get(name, 'not at all')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lock", type=pathlib.Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preferences", action="store_true")
    what.add_argument("--simulated", type=pathlib.Path)
    what.add_argument("--installed", type=pathlib.Path)
    options = parser.parse_args()
    try:
        locked = load(options.lock)
    except (OSError, ValueError, AttributeError) as fault:
        print(f"{options.lock}: {fault}", file=sys.stderr)
        return 2
    if options.preferences:
        for name, version in sorted(locked.items()):
            print(f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n")
        return 0
    if options.simulated:
        found = dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", options.simulated.read_text(encoding="utf-8"), re.M))
    else:
        found = dict(line.split() for line in options.installed.read_text(encoding="utf-8").splitlines())
    other = list(differences(locked, found, whole=bool(options.installed)))
    for line in other[:SHOWN]:
        print(line, file=sys.stderr)
    if len(other) > SHOWN:
        print(f"... and {len(other) - SHOWN} more", file=sys.stderr)
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
