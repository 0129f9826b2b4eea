#!/usr/bin/env python3
"""What the dynamic inventory makes of the controller's answers."""

import importlib.util
import io
import pathlib
import unittest
import unittest.mock
import urllib.error

FILE = pathlib.Path(__file__).resolve().parents[2] / "ansible/inventories/tram_inventory.py"
SPEC = importlib.util.spec_from_file_location("tram_inventory", FILE)
tram = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tram)

SITES = [
    {"code": "00505", "phase": "1", "district": {"code": "017", "name": "Huyện Đông Anh"}},
    {"code": "00001", "phase": "urban", "district": {"code": "001", "name": "Quận Ba Đình"}},
]


def endpoint(name, code="00505", state="online", addresses=("127.0.0.1/8", "fe80::1/64", "10.1.2.3/24")):
    return {
        "id": f"id-of-{name}-{code}",
        "name": name,
        "site": {"code": code},
        "state": state,
        "verdict": "ok",
        "network": {"interfaces": [{"name": "eth0", "up": True, "addresses": list(addresses)}]},
    }


class Inventory(unittest.TestCase):
    def test_groups_are_commune_district_and_phase(self):
        got = tram.inventory([endpoint("a"), endpoint("b", "00001")], SITES)
        self.assertEqual(got["endpoints"]["hosts"], ["a", "b"])
        self.assertEqual(got["site_00505"]["hosts"], ["a"])
        self.assertEqual(got["district_001"]["hosts"], ["b"])
        self.assertEqual(got["phase_urban"]["hosts"], ["b"])
        self.assertEqual(got["_meta"]["hostvars"]["a"]["ansible_host"], "10.1.2.3")
        self.assertEqual(got["_meta"]["hostvars"]["a"]["endpoint_site"], "00505")

    def test_two_of_one_name_are_refused_and_both_are_named(self):
        with self.assertRaises(tram.Fault) as refused:
            tram.inventory([endpoint("a"), endpoint("a", "00001")], SITES)
        for word in ("named a", "id-of-a-00505", "id-of-a-00001", "revoke"):
            self.assertIn(word, str(refused.exception))

    def test_a_withdrawn_one_is_left_out_and_frees_its_name(self):
        got = tram.inventory([endpoint("a", state="revoked"), endpoint("a", "00001")], SITES)
        self.assertEqual(got["site_00001"]["hosts"], ["a"])
        self.assertNotIn("site_00505", got)

    def test_one_that_never_said_its_address_or_place(self):
        silent = endpoint("a", "99999")
        silent["network"] = None
        got = tram.inventory([silent], SITES)
        self.assertNotIn("ansible_host", got["_meta"]["hostvars"]["a"])
        self.assertEqual(sorted(got), ["_meta", "endpoints", "site_99999"])

    def test_links_that_are_down_and_local_addresses_do_not_count(self):
        computer = endpoint("a", addresses=("169.254.3.4/16", "::1/128"))
        self.assertIsNone(tram.address(computer))

    def test_a_controller_that_is_busy_is_asked_again(self):
        busy = lambda: urllib.error.HTTPError("u", 503, "", {}, io.BytesIO(b'{"code": "X-503", "detail": "try again"}'))  # noqa: E731
        controller = tram.Controller("https://tram.test:8443", None)
        with unittest.mock.patch.object(tram, "AGAIN_S", (0, 0)):
            controller.opener = unittest.mock.Mock()
            good = unittest.mock.MagicMock()
            good.__enter__.return_value.read.return_value = b'{"items": []}'
            controller.opener.open.side_effect = [busy(), busy(), good]
            self.assertEqual(controller.call("/sites"), {"items": []})
            controller.opener.open.side_effect = [busy(), busy(), busy()]
            with self.assertRaises(tram.Fault) as refused:
                controller.call("/sites")
            self.assertIn("X-503 try again", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
