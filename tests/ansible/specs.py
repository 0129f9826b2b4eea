#!/usr/bin/env python3
"""Each role's defaults are the ones its argument_specs.yml tells, option by option. Give the folder of roles."""

import pathlib
import sys

import yaml


def differences(role):
    with open(role / "meta/argument_specs.yml", encoding="utf-8") as file:
        options = yaml.safe_load(file)["argument_specs"]["main"]["options"]
    with open(role / "defaults/main.yml", encoding="utf-8") as file:
        defaults = yaml.safe_load(file) or {}
    for name in sorted(options.keys() | defaults.keys()):
        if name not in options:
            yield f"{name} has a default but no specification"
        elif name not in defaults and not options[name].get("required"):
            yield f"{name} is specified but has no default"
        elif name in defaults and options[name].get("default") != defaults[name]:
            yield f"{name} is {defaults[name]!r} but specified as {options[name].get('default')!r}"
        if not options.get(name, {"description": "-"}).get("description"):
            yield f"{name} is not described"
        if not name.startswith(role.name + "_"):
            yield f"{name} does not begin with {role.name}_"


def main():
    roles = sorted(path for path in pathlib.Path(sys.argv[1]).iterdir() if path.is_dir())
    faults = [f"{role.name}: {text}" for role in roles for text in differences(role)]
    print("\n".join(faults) or f"{len(roles)} roles: defaults and specifications agree")
    return 1 if faults or not roles else 0


if __name__ == "__main__":
    sys.exit(main())
