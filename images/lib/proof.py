"""What every boot proof shares: a machine under plain QEMU, its guest agent, its screen and its network."""

import argparse
import base64
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tram"
IMAGES = CACHE / "images"
TELEX = "tieengs vieejt nguyeenx"
VNI = "tie6ng1 vie6t5 nguye6n4"
TYPED = "tiếng việt nguyễn"
OVMF = pathlib.Path("/usr/share/OVMF")


class Failed(Exception):
    """Something the image must do was not seen in time."""


class JsonSocket:
    """A line of JSON out, lines of JSON in: QMP and the guest agent both speak so."""

    def __init__(self, path, deadline):
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(str(path))
                break
            except OSError:
                self.sock.close()
                if time.monotonic() > deadline:
                    raise Failed(f"{path} did not appear") from None
                time.sleep(0.2)
        self.buffer = b""

    def send(self, message):
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout):
        self.sock.settimeout(timeout)
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise Failed("the machine closed its socket")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line.lstrip(b"\xff"))


class Qmp(JsonSocket):
    """The machine's own control socket."""

    def __init__(self, path, deadline):
        super().__init__(path, deadline)
        self.receive(30)
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.send({"execute": command, "arguments": arguments})
        while True:
            answer = self.receive(60)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failed(f"{command}: {answer['error']['desc']}")

    def keys(self, text):
        names = {" ": "spc", "\n": "ret", "-": "minus", ".": "dot", "/": "slash", ":": "shift-semicolon"}
        for letter in text:
            code = names.get(letter, letter)
            held = []
            if letter.isupper():
                held, code = ["shift"], letter.lower()
            elif code.startswith("shift-"):
                held, code = ["shift"], code.removeprefix("shift-")
            for down, chain in ((True, [*held, code]), (False, [code, *held])):
                for name in chain:
                    key = {"type": "qcode", "data": name}
                    self.call("input-send-event", events=[{"type": "key", "data": {"down": down, "key": key}}])
                # An emulated keyboard has a short queue and the guest a slow CPU.
                time.sleep(0.06)

    def chord(self, *names):
        self.call("send-key", keys=[{"type": "qcode", "data": name} for name in names])


class Agent(JsonSocket):
    """The guest agent."""

    def sync(self, deadline, alive=lambda: True):
        """Answers are matched by a number: what an earlier try left in the pipe is dropped."""
        token = 0
        while time.monotonic() < deadline:
            if not alive():
                raise Failed("the machine ended")
            token += 1
            try:
                # Nobody reads the other end until the agent runs, so the questions pile up: ask seldom.
                self.send({"execute": "guest-sync", "arguments": {"id": token}})
                asked = time.monotonic()
                while time.monotonic() < asked + 3:
                    if self.receive(3).get("return") == token:
                        return
            except (TimeoutError, json.JSONDecodeError):
                continue
        raise Failed("the guest agent did not answer")

    def call(self, command, **arguments):
        self.send({"execute": command, "arguments": arguments})
        answer = self.receive(120)
        if "error" in answer:
            raise Failed(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def run(self, script):
        """Runs a shell script in the guest: exit status and what it wrote."""
        pid = self.call(
            "guest-exec", path="/bin/sh", arg=["-c", f"export LC_ALL=C.UTF-8; {script}"], **{"capture-output": True}
        )["pid"]
        while True:
            status = self.call("guest-exec-status", pid=pid)
            if status["exited"]:
                data = base64.b64decode(status.get("out-data", ""))
                return status["exitcode"], data.decode("utf-8", "replace").strip()
            time.sleep(0.3)


def pixels(ppm):
    """A PPM picture as (width, height, bytes)."""
    data = ppm.read_bytes()
    magic, width, height, _ = data.split(maxsplit=4)[:4]
    if magic != b"P6":
        raise Failed("unexpected picture format")
    width, height = int(width), int(height)
    return width, height, data[-width * height * 3 :]


def until(what, deadline, probe, every=1.0):
    """Asks until there is an answer."""
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not seen in time: {what}")
        time.sleep(every)


def outside(pcap):
    """What a captured guest asked for: every name put to the DNS, every address beyond its own network."""
    data, at, found = pcap.read_bytes(), 24, set()
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        frame, at = data[at + 16 : at + 16 + length], at + 16 + length
        if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[26:29] != b"\x0a\x00\x02":
            continue
        to = frame[30:34]
        if to[:3] != b"\x0a\x00\x02" and to[0] < 224:
            found.add(".".join(map(str, to)))
        udp = 14 + (frame[14] & 15) * 4
        if frame[23] != 17 or struct.unpack_from(">H", frame, udp + 2)[0] != 53:
            continue
        spot, labels = udp + 8 + 12, []
        while spot < len(frame) and frame[spot]:
            labels.append(frame[spot + 1 : spot + 1 + frame[spot]].decode("ascii", "replace"))
            spot += frame[spot] + 1
        found.add(".".join(labels).lower())
    # The root itself ("") is the resolver's own look at its server.
    return sorted(found - {""})


class Machine:
    """One guest at a time on this computer: emulated CPUs leave nothing for a second."""

    def __init__(self, options, work, disks, credentials=(), network="user,id=net,restrict=on", extra=(), capture=None):
        self.options, self.work, self.serial = options, work, options.out / f"serial-{options.firmware}.log"
        tcg = options.accel == "tcg"
        # UEFI starts over the network by its own driver, as on a computer of metal; QEMU's BIOS needs iPXE for that.
        boot = "" if disks else ",bootindex=0" if options.firmware == "bios" else ",bootindex=0,romfile="
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config",
            "-accel", "tcg,tb-size=128" if tcg else options.accel, "-cpu", "max" if tcg else "host",
            "-smp", str(options.vcpus), "-m", str(options.memory),
            "-device", "virtio-vga", "-device", "virtio-rng-pci",
            "-device", "qemu-xhci", "-device", "usb-tablet", "-device", "usb-kbd",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={work}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-chardev", f"file,id=serial,path={self.serial}", "-serial", "chardev:serial",
            "-netdev", network, "-device", f"virtio-net-pci,netdev=net{boot}",
            "-display", "none", "-vnc", f"unix:{work}/vnc",
            "-qmp", f"unix:{work}/qmp,server=on,wait=off",
        ]
        machine = "q35"
        if options.firmware != "bios":
            secure = options.firmware == "secure"
            code = OVMF / ("OVMF_CODE_4M.ms.fd" if secure else "OVMF_CODE_4M.fd")
            if not code.is_file():
                raise Failed(f"{code} is not there: install the package ovmf")
            shutil.copy(OVMF / ("OVMF_VARS_4M.ms.fd" if secure else "OVMF_VARS_4M.fd"), work / "vars.fd")
            command += [
                "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}",
                "-drive", f"if=pflash,format=raw,unit=1,file={work}/vars.fd",
            ]
            if secure:
                machine = "q35,smm=on"
                command += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        command += ["-machine", machine]
        for number, disk in enumerate(disks):
            command += [
                "-drive", f"if=none,id=disk{number},file={disk},format={form(disk)},discard=unmap",
                "-device", f"virtio-blk-pci,drive=disk{number},bootindex={number}",
            ]
        for credential in credentials:
            command += ["-smbios", f"type=11,value=io.systemd.credential:{credential}"]
        if capture:
            command += ["-object", f"filter-dump,id=dump,netdev=net,file={capture}"]
        self.command = command + list(extra)
        self.process = None

    def __enter__(self):
        IMAGES.mkdir(parents=True, exist_ok=True)
        self.lock = (IMAGES / "guest.lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.began = time.monotonic()
        self.deadline = self.began + self.options.limit
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        try:
            self.qmp = Qmp(self.work / "qmp", self.began + 60)
            self.agent = Agent(self.work / "agent", self.began + 60)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, _value, _trace):
        if kind and self.process.poll() is None:
            try:
                self.picture(self.options.out / "failed.png")
            except Exception as error:  # the first fault is the one to show
                print(f"no picture of the failure: {error}", file=sys.stderr)
        self.kill()

    def kill(self):
        """As a power cut does it."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
        self.lock.close()

    def alive(self):
        return self.process.poll() is None

    def seconds(self):
        return time.monotonic() - self.began

    def report(self, what):
        print(f"  {self.seconds():6.1f} s  {what}", flush=True)

    def wait_agent(self):
        self.agent.sync(self.deadline, self.alive)

    def until(self, what, probe, every=1.0):
        def asked():
            if not self.alive():
                raise Failed(f"the machine ended before: {what}")
            return probe()

        return until(what, self.deadline, asked, every)

    def picture(self, path):
        self.qmp.call("screendump", filename=str(path), format="png")

    def screen(self):
        ppm = self.work / "screen.ppm"
        self.qmp.call("screendump", filename=str(ppm))
        return pixels(ppm)

    def colours(self):
        """How many different colours the screen has, and its size."""
        width, height, data = self.screen()
        return len({data[i : i + 3] for i in range(0, len(data), 3)}), width, height

    def share(self, rgb):
        """What share of the screen has exactly this colour."""
        width, height, data = self.screen()
        return sum(data[i : i + 3] == rgb for i in range(0, len(data), 3)) / (width * height)

    def no_failed_unit(self):
        _, failed = self.agent.run("systemctl --failed --no-legend --plain | cut -d' ' -f1")
        if failed:
            raise Failed(f"failed units in the guest: {failed}")
        memory = self.agent.run("free -m | awk '/^Mem/{print $3\" MiB used, \"$7\" MiB available\"}'")[1]
        self.report(f"no failed unit; memory in the guest: {memory}")

    def secure_boot(self):
        """With the firmware that demands it, the kernel must have seen it on: else nothing was demanded."""
        if self.options.firmware != "secure":
            return
        lock = self.agent.run("cat /sys/kernel/security/lockdown")[1]
        if "[none]" in lock or not lock:
            raise Failed(f"the kernel does not know of Secure Boot: {lock!r}")
        self.report(f"Secure Boot is on (kernel lockdown: {lock})")

    def shut_down(self):
        self.agent.send({"execute": "guest-shutdown"})
        self.process.wait(timeout=self.options.limit)
        self.report("shut down by the agent")

    def explain(self):
        """Where the boot spent its time."""
        for script in ("systemd-analyze", "systemd-analyze blame | head -n 25", "systemd-analyze critical-chain",
                       "ps -eo rss,etimes,args --sort=-rss | head -n 25"):
            print(self.agent.run(f"export SYSTEMD_COLORS=0; {script}")[1])


def form(path):
    """How a disk is written."""
    return "raw" if str(path).endswith((".img", ".raw")) else "qcow2"


def overlay(work, image, name="overlay.qcow2", size=None):
    """A disk that writes nowhere but into itself."""
    path = work / name
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form(image), "-b", str(image), str(path)]
    subprocess.run(command + ([size] if size else []), check=True)
    return path


def verified(image):
    """Refuses to boot what the signature does not cover."""
    keys = IMAGES / "keys"
    key = os.environ.get("TRAM_IMAGE_PUBLIC_KEY") or keys / "image-signing.pub"
    here = pathlib.Path(__file__).parent.parent
    done = subprocess.run([here / "verify", "--key", str(key), str(image.parent), image.name], capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr.strip())


def arguments(doc, image, memory):
    """The options every proof has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--image", type=pathlib.Path, default=image)
    parser.add_argument("--out", type=pathlib.Path, default=image.parent / "proof", help="where pictures and serial logs go")
    parser.add_argument("--vcpus", type=int, default=2)
    parser.add_argument("--memory", type=int, default=memory, help="MiB")
    parser.add_argument("--firmware", choices=("bios", "uefi", "secure"), default="bios")
    parser.add_argument("--accel", default="tcg")
    parser.add_argument("--limit", type=int, default=1200, help="seconds for the whole proof")
    parser.add_argument("--verbose", action="store_true", help="also where the boot spent its time")
    return parser


def main(parser, prove):
    """Runs a proof and says how it went; exit status 0 means that all of it was seen."""
    options = parser.parse_args()
    if not options.image.is_file():
        parser.error(f"{options.image} is not there: build it first")
    options.out.mkdir(parents=True, exist_ok=True)
    # Told to stop, it takes its machine with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = pathlib.Path(tempfile.mkdtemp(prefix="tram-prove."))
    print(f"booting {options.image} ({options.vcpus} vCPU, {options.memory} MiB, {options.accel}, {options.firmware})", flush=True)
    try:
        measured = prove(options, work) or {}
    except (Failed, OSError, subprocess.SubprocessError) as fault:
        # A guest that falls silent in the middle shows as a timeout of its socket.
        print(f"FAILED: {fault or type(fault).__name__}\nlook at {options.out} (serial-{options.firmware}.log, failed.png)", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work)
    if measured:
        measured = {"firmware": options.firmware, "vcpus": options.vcpus, "memory_mib": options.memory, **measured}
        how = getattr(options, "how", "stick")
        (options.out / f"times-{options.firmware}{'' if how == 'stick' else '-' + how}.json").write_text(json.dumps(measured, indent=1) + "\n")
    print(f"proven; pictures in {options.out}")
    return 0


def controller_program():
    """The controller that was built last, for proofs that need one."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
    found = [path for path in (target / "release/tram-controller", target / "debug/tram-controller",
                               CACHE / "target/debug/tram-controller") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=pathlib.Path("tram-controller"))
