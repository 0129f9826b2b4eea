#!/usr/bin/env python3
"""Reads manifests of service applications, says what is wrong with them, and writes what an image carries of them.

    services.py IMAGE FILE... --check | --packages | --mark | --into ROOT
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import sys
import tomllib

IMAGES = ("desktop", "test", "endpoint", "bare")
KEYS = {
    "id": str, "name": str, "package": (str, list), "url": str, "launch": str, "probe": str,
    "deadline_s": int, "images": list, "option": str,
}
PORTAL_KEYS = {"name": str, "url": str, "policies": dict}
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
URL = re.compile(r"https?://[^\s\"'<>\\^`{|}]+")


class Bad(Exception):
    """Something in a manifest is not as it must be."""


def check_keys(where, table, known):
    for key, value in table.items():
        if key not in known:
            raise Bad(f"{where}: unknown key {key!r} (known: {', '.join(known)})")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise Bad(f"{where}: {key} has the wrong type")
        if isinstance(value, str) and (not value.strip() or "\t" in value or "\n" in value):
            raise Bad(f"{where}: {key} must be one line that is not empty")


def check_url(where, url):
    if not URL.fullmatch(url):
        raise Bad(f"{where}: {url!r} is not an address that begins with http:// or https://")


def service(where, entry):
    """A checked entry with every default filled in."""
    if not isinstance(entry, dict):
        raise Bad(f"{where}: not a table")
    name = entry.get("id")
    where = f"{where}, service {name!r}"
    check_keys(where, entry, KEYS)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise Bad(f"{where}: id must be small letters, digits and '-'")
    if "name" not in entry:
        raise Bad(f"{where}: name is missing")
    if ("package" in entry) == ("url" in entry):
        raise Bad(f"{where}: give either package or url")
    packages = entry.get("package", [])
    packages = [packages] if isinstance(packages, str) else packages
    for package in packages:
        if not isinstance(package, str) or not PACKAGE.fullmatch(package):
            raise Bad(f"{where}: {package!r} is no name of a Debian package")
    url = entry.get("url")
    if url:
        check_url(where, url)
        if "launch" in entry:
            raise Bad(f"{where}: launch goes with package; an address has its own icon")
    elif not packages:
        raise Bad(f"{where}: package is empty")
    probe = entry.get("probe")
    deadline = entry.get("deadline_s", 20)
    if not 1 <= deadline <= 120:
        raise Bad(f"{where}: deadline_s must be 1 to 120")
    if not probe:
        if not url:
            raise Bad(f"{where}: probe is missing: how is one to know that it works?")
        probe = f"curl --silent --show-error --fail --location --max-time {deadline} --output /dev/null '{url}'"
    images = entry.get("images", ["desktop"])
    for image in images:
        if image not in IMAGES:
            raise Bad(f"{where}: there is no image {image!r}")
    option = entry.get("option")
    if option and not re.fullmatch(r"[A-Z][A-Z0-9_]*", option):
        raise Bad(f"{where}: option must be capital letters")
    return {
        "id": name, "name": entry["name"], "packages": packages, "url": url, "launch": entry.get("launch"),
        "probe": probe, "deadline_s": deadline, "images": images, "option": option,
    }


def load(paths):
    """The portal and the services of all files, later ones before earlier."""
    portal, services = None, {}
    for path in paths:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise Bad(f"{path}: {error}") from None
        for key in data:
            if key not in ("portal", "service"):
                raise Bad(f"{path}: unknown key {key!r} (known: portal, service)")
        if "portal" in data:
            check_keys(f"{path}, portal", data["portal"], PORTAL_KEYS)
            if not {"name", "url"} <= data["portal"].keys():
                raise Bad(f"{path}, portal: name and url are both needed")
            check_url(f"{path}, portal", data["portal"]["url"])
            portal = data["portal"]
        here = set()
        for entry in data.get("service", []):
            one = service(path, entry)
            if one["id"] in here:
                raise Bad(f"{path}: two services are called {one['id']!r}")
            here.add(one["id"])
            services[one["id"]] = one
    if portal is None:
        raise Bad("no file has a [portal]")
    return portal, list(services.values())


def policies(portal, services):
    """Firefox's policies: the portal first, the services as managed bookmarks, no word to anybody else."""
    marks = [{"toplevel_name": "Dịch vụ"}, {"name": portal["name"], "url": portal["url"]}]
    marks += [{"name": one["name"], "url": one["url"]} for one in services if one["url"]]
    nothing = {"Enabled": False, "Locked": True}
    ours = {
        "Homepage": {"URL": portal["url"], "StartPage": "homepage-locked", "Locked": False},
        "ManagedBookmarks": marks,
        "DisplayBookmarksToolbar": "always",
        "RequestedLocales": ["vi", "en-US"],
        "OverrideFirstRunPage": "", "OverridePostUpdatePage": "",
        "DontCheckDefaultBrowser": True, "NoDefaultBookmarks": True, "SkipTermsOfUse": True,
        "DisableTelemetry": True, "DisableFirefoxStudies": True, "DisablePocket": True, "DisableAppUpdate": True,
        "DisableSystemAddonUpdate": True, "ExtensionUpdate": False, "DisableFirefoxAccounts": True,
        "DisableFeedbackCommands": True, "DisableDefaultBrowserAgent": True, "CaptivePortal": False,
        "NetworkPrediction": False, "SearchSuggestEnabled": False, "DNSOverHTTPS": nothing,
        "EncryptedMediaExtensions": nothing, "TranslateEnabled": False,
        "FirefoxHome": {"Search": False, "TopSites": False, "SponsoredTopSites": False, "Highlights": False,
                        "Pocket": False, "SponsoredPocket": False, "Snippets": False, "Locked": True},
        "FirefoxSuggest": {"WebSuggestions": False, "SponsoredSuggestions": False, "ImproveSuggest": False, "Locked": True},
        "UserMessaging": {"WhatsNew": False, "ExtensionRecommendations": False, "FeatureRecommendations": False,
                          "UrlbarInterventions": False, "SkipOnboarding": True, "MoreFromMozilla": False, "Locked": True},
        "SecurityDevices": {"Add": {"OpenSC": "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"}},
        "Certificates": {"ImportEnterpriseRoots": True},
    }
    return {"policies": {**ours, **portal.get("policies", {})}}


def quoted(text):
    """Text inside an Exec= line of a desktop entry."""
    return '"' + re.sub(r'([\\"`$])', r"\\\1", text).replace("%", "%%") + '"'


def entry(one):
    """The icon of a service."""
    command = f"firefox-esr {quoted(one['url'])}" if one["url"] else one["launch"]
    icon = "firefox-esr" if one["url"] else one["packages"][0]
    return f"[Desktop Entry]\nType=Application\nName={one['name']}\nExec={command}\nIcon={icon}\nTerminal=false\n"


def into(root, image, portal, services):
    """Writes the probes, and on a desktop icons and policies."""
    share = root / "usr/local/share/tram"
    share.mkdir(parents=True, exist_ok=True)
    (share / "probes.tsv").write_text(
        "".join(f"{one['id']}\t{one['deadline_s']}\t{'far' if one['url'] else 'here'}\t{one['probe']}\n" for one in services),
        encoding="utf-8",
    )
    if image != "desktop":
        return
    icons = root / "usr/local/share/tram/icons"
    icons.mkdir(parents=True, exist_ok=True)
    home = {"id": "cong", "name": portal["name"], "url": portal["url"], "launch": None, "packages": []}
    for number, one in enumerate([home, *services]):
        if one["url"] or one["launch"]:
            (icons / f"{number:02}-{one['id']}.desktop").write_text(entry(one), encoding="utf-8")
    firefox = root / "etc/firefox/policies"
    firefox.mkdir(parents=True, exist_ok=True)
    (firefox / "policies.json").write_text(
        json.dumps(policies(portal, services), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", choices=IMAGES)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true")
    what.add_argument("--packages", action="store_true")
    what.add_argument("--mark", action="store_true")
    what.add_argument("--into", type=pathlib.Path)
    options = parser.parse_args()
    try:
        portal, services = load(options.files)
    except Bad as fault:
        print(f"services: {fault}", file=sys.stderr)
        return 1
    services = [
        one for one in services
        if options.image in one["images"]
        and (not one["option"] or os.environ.get(f"TRAM_IMAGE_{one['option']}") == "1")
    ]
    if options.packages:
        for name in sorted({package for one in services for package in one["packages"]}):
            print(name)
    elif options.mark:
        print(hashlib.sha256(json.dumps([portal, services], sort_keys=True).encode()).hexdigest())
    elif options.into:
        into(options.into, options.image, portal, services)
    return 0


if __name__ == "__main__":
    sys.exit(main())
