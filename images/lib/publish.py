#!/usr/bin/env python3
"""Writes what stands beside a published image: its manifest and its bill of materials (CycloneDX 1.5)."""

import argparse
import datetime
import hashlib
import json
import pathlib
import uuid


def paragraphs(status):
    """Each installed package of a dpkg status file as a dict."""
    for block in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def component(fields):
    """A package as CycloneDX names it."""
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    source, _, source_version = fields.get("Source", name).partition(" ")
    quoted = version.replace(":", "%3A").replace("+", "%2B")
    purl = f"pkg:deb/debian/{name}@{quoted}?arch={architecture}&distro=debian-13"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": [
            {"name": "tram:source", "value": source},
            {"name": "tram:source_version", "value": source_version.strip("()") or version},
        ],
    }


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("image", "recipe", "suite", "mirror", "snapshot", "kernel", "main"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--status", type=pathlib.Path, required=True)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()

    packages = sorted(paragraphs(options.status), key=lambda fields: fields["Package"])
    files = sorted(path for path in options.folder.iterdir() if path.is_file())
    stem = options.main.rsplit(".", 1)[0]
    sums = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}
    when = datetime.datetime.fromtimestamp(options.epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    main_file = sums[options.main]
    head = {
        "name": stem,
        "recipe": options.recipe,
        "suite": options.suite,
        "mirror": options.mirror,
        "snapshot": options.snapshot or None,
        "built_at": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source_date": when,
        "kernel": options.kernel,
        "bytes": main_file["bytes"],
        "sha256": main_file["sha256"],
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in sums.items())
    lines.append(f'  "files": {{\n{inner}\n  }}')
    inner = ",\n".join(f"    {json.dumps(p['Package'])}: {json.dumps(p['Version'])}" for p in packages)
    lines.append(f'  "packages": {{\n{inner}\n  }}')
    (options.folder / f"{stem}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, "tram:" + stem + ":" + main_file["sha256"]).urn,
        "version": 1,
        "metadata": {
            "timestamp": when,
            "component": {
                "type": "operating-system",
                "name": stem,
                "version": options.recipe[:16],
                "hashes": [{"alg": "SHA-256", "content": main_file["sha256"]}],
            },
        },
        "components": [component(fields) for fields in packages],
    }
    (options.folder / f"{stem}.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
