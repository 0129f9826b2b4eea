#!/usr/bin/env python3
"""Inventory of the office computers, asked of a Tram controller.

Groups: endpoints; site_CODE, district_CODE and phase_1, phase_2 or phase_urban of where each one stands.
Needs nothing but Python. Settings come from the environment:

  TRAM_INVENTORY_URL            https://tram.example:8443
  TRAM_INVENTORY_USER           an account of the role support or operator
  TRAM_INVENTORY_PASSWORD_FILE  file with its password (or TRAM_INVENTORY_PASSWORD)
  TRAM_INVENTORY_CA             the controller's ca.pem, unless the system trusts its certificate
"""

import argparse
import http.cookies
import ipaddress
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT_S = 30
# Waits after a 503, which says that nothing was changed and to try again: a database that restarts, a machine that is busy.
AGAIN_S = (2, 5, 10, 15)


class Fault(Exception):
    """What a person must be told."""


class Busy(Exception):
    """The controller asks to be asked again."""


class Cookies(urllib.request.BaseHandler):
    """Gives a sign-in's cookies back to whoever gave them. There is one server, and it may be asked by an address
    although its cookies are for the domain that it shares with its gateways."""

    def __init__(self):
        self.kept = {}

    def https_request(self, request):
        if self.kept:
            request.add_unredirected_header("Cookie", "; ".join(f"{k}={v}" for k, v in self.kept.items()))
        return request

    def https_response(self, _request, response):
        for header in response.headers.get_all("Set-Cookie") or []:
            for name, morsel in http.cookies.SimpleCookie(header).items():
                self.kept[name] = morsel.value
        return response


class Controller:
    """A signed-in connection to the API."""

    def __init__(self, url, ca):
        self.url = url.rstrip("/")
        context = ssl.create_default_context(cafile=ca)
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context),
            Cookies(),
        )

    def call(self, path, body=None, csrf=None):
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
            body = json.dumps(body).encode()
        if csrf:
            headers["x-tram-csrf"] = csrf
        for pause in (*AGAIN_S, None):
            request = urllib.request.Request(f"{self.url}/api/v1{path}", data=body, headers=headers)
            try:
                return self.answer(request, path)
            except Busy as error:
                if pause is None:
                    raise Fault(str(error)) from error
                time.sleep(pause)
        return None

    def answer(self, request, path):
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code == 503:
                raise Busy(f"{self.url} answered 503 to {path}: {problem(error)}") from error
            raise Fault(f"{self.url} answered {error.code} to {path}: {problem(error)}") from error
        except urllib.error.URLError as error:
            hint = "; set TRAM_INVENTORY_CA to its ca.pem" if isinstance(error.reason, ssl.SSLError) else ""
            raise Fault(f"{self.url} can't be reached: {error.reason}{hint}") from error
        except (OSError, ValueError) as error:
            raise Fault(f"{self.url} gave no usable answer to {path}: {error}") from error

    def pages(self, path):
        cursor = ""
        while True:
            page = self.call(f"{path}{'&' if '?' in path else '?'}limit=5000{cursor}")
            yield from page["items"]
            if not page.get("next"):
                return
            cursor = "&cursor=" + urllib.parse.quote(str(page["next"]))


def problem(error):
    try:
        told = json.load(error)
        return f"{told.get('code', '')} {told.get('detail') or told.get('title') or ''}".strip()
    except ValueError:
        return error.reason


def address(endpoint):
    """Where the computer is reached: its first address that leaves the machine."""
    for interface in (endpoint.get("network") or {}).get("interfaces", []):
        for text in interface.get("addresses", []) if interface.get("up", True) else []:
            ip = ipaddress.ip_interface(text).ip
            if not (ip.is_loopback or ip.is_link_local):
                return str(ip)
    return None


def variables(endpoint):
    """A host's variables. Where no address is known, its name must do."""
    said = {
        "endpoint_site": endpoint["site"]["code"],
        "tram_endpoint_id": endpoint["id"],
        "tram_state": endpoint["state"],
        "tram_verdict": endpoint["verdict"],
        "tram_agent_version": endpoint.get("agent_version"),
        "ansible_host": address(endpoint),
    }
    return {key: value for key, value in said.items() if value is not None}


def inventory(endpoints, sites):
    """What Ansible expects. Two computers of one name would be one host to it, so they are refused."""
    places = {site["code"]: site for site in sites}
    groups, hosts = {"endpoints": set()}, {}
    for endpoint in endpoints:
        if endpoint["state"] == "revoked":
            continue
        name, code = endpoint["name"], endpoint["site"]["code"]
        if name in hosts:
            other = hosts[name]
            raise Fault(
                f"two computers are named {name}: {other['tram_endpoint_id']} at site {other['endpoint_site']} and "
                f"{endpoint['id']} at site {code}. Rename one (hostnamectl), or withdraw the one that is gone: "
                f"tram-controller admin endpoint revoke ID --reason ..."
            )
        hosts[name] = variables(endpoint)
        place = places.get(code, {})
        of = ["endpoints", f"site_{code}"]
        if place.get("district"):
            of.append(f"district_{place['district']['code']}")
        if place.get("phase"):
            of.append(f"phase_{place['phase']}")
        for group in of:
            groups.setdefault(group, set()).add(name)
    listed = {group: {"hosts": sorted(names)} for group, names in sorted(groups.items())}
    listed["_meta"] = {"hostvars": hosts}
    return listed


def setting(name, required=True):
    value = os.environ.get(f"TRAM_INVENTORY_{name}", "")
    if required and not value:
        raise Fault(f"TRAM_INVENTORY_{name} is not set; see the head of {os.path.basename(__file__)}")
    return value


def password():
    file = setting("PASSWORD_FILE", required=False)
    if not file:
        return setting("PASSWORD")
    try:
        with open(file, encoding="utf-8") as source:
            text = source.read().strip()
    except OSError as error:
        raise Fault(f"{file}: {error.strerror}") from error
    # As `tram-controller admin user add --generate --json` prints it, or the password alone.
    return json.loads(text)["password"] if text.startswith("{") else text


def ask():
    controller = Controller(setting("URL"), setting("CA", required=False) or None)
    signed = controller.call("/login", {"username": setting("USER"), "password": password()})
    try:
        return inventory(controller.pages("/endpoints"), controller.pages("/sites?level=commune"))
    finally:
        controller.call("/logout", {}, signed["csrf"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="all groups and hosts")
    what.add_argument("--host", metavar="NAME", help="variables of one host")
    wanted = parser.parse_args()
    try:
        listed = ask()
    except Fault as fault:
        print(f"tram_inventory: {fault}", file=sys.stderr)
        return 1
    if wanted.list:
        print(json.dumps(listed, indent=1, ensure_ascii=False))
    else:
        print(json.dumps(listed["_meta"]["hostvars"].get(wanted.host, {}), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
