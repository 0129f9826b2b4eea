//! Domain XML: a typed writer that escapes, the desktop's definition, and our mark in its metadata.
//!
//! Pure. Foreign XML is never read back and written again; of our own we only read the mark.

use std::fmt::{self, Write as _};
use std::path::Path;

use uuid::Uuid;

use crate::{Accel, DesktopId, DesktopSpec, Display, Error, GuestProfile, InstallationId, Result};

/// Namespace of our mark.
pub(super) const NAMESPACE: &str = "https://tram.invalid/xmlns/desktop/1";
/// Raised when the definition below changes: domains written by an older release are then written anew.
const TEMPLATE: u32 = 4;

/// When a display's password ran out: long before it was set.
const NEVER: &str = "1970-01-01T00:00:01";

/// An element under construction.
pub(super) struct El {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Child>,
}

enum Child {
    El(El),
    Text(String),
}

/// A new element.
pub(super) fn el(name: &'static str) -> El {
    El { name, attributes: Vec::new(), children: Vec::new() }
}

impl El {
    pub(super) fn attr(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    pub(super) fn text(mut self, value: impl fmt::Display) -> Self {
        self.children.push(Child::Text(value.to_string()));
        self
    }

    pub(super) fn child(mut self, child: El) -> Self {
        self.children.push(Child::El(child));
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = El>) -> Self {
        self.children.extend(children.into_iter().map(Child::El));
        self
    }

    /// The text of the element.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a value has a character that XML can't carry at all, such as NUL.
    pub(super) fn write(&self) -> Result<String> {
        let mut out = String::with_capacity(2048);
        self.write_to(&mut out)?;
        Ok(out)
    }

    fn write_to(&self, out: &mut String) -> Result<()> {
        let _ = write!(out, "<{}", self.name);
        for (name, value) in &self.attributes {
            let _ = write!(out, " {name}='");
            escape(out, value)?;
            out.push('\'');
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return Ok(());
        }
        out.push('>');
        for child in &self.children {
            match child {
                Child::El(el) => el.write_to(out)?,
                Child::Text(text) => escape(out, text)?,
            }
        }
        let _ = write!(out, "</{}>", self.name);
        Ok(())
    }
}

fn escape(out: &mut String, text: &str) -> Result<()> {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            // As they are, an attribute's value would be normalised to blanks.
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                return Err(Error::Invalid("a value has a character that can't be written in XML".into()));
            }
            c => out.push(c),
        }
    }
    Ok(())
}

/// Our mark on a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DomainMark {
    pub(super) installation: InstallationId,
    pub(super) desktop: DesktopId,
    pub(super) generation: i64,
    /// All that the definition depends on: equal means it need not be written again.
    pub(super) form: String,
}

impl DomainMark {
    /// Reads the mark from the element libvirt returns. `None` if it is not one of ours.
    pub(super) fn parse(xml: &str) -> Option<Self> {
        let value = |name: &str| attribute(xml, name);
        Some(Self {
            installation: value("installation")?.parse().ok()?,
            desktop: value("id")?.parse().ok()?,
            generation: value("generation")?.parse().ok()?,
            form: value("form").unwrap_or_default().to_owned(),
        })
    }

    fn element(&self) -> El {
        el("tram:desktop")
            .attr("xmlns:tram", NAMESPACE)
            .attr("installation", self.installation)
            .attr("id", self.desktop)
            .attr("generation", self.generation)
            .attr("form", &self.form)
    }
}

/// An attribute of the first tag. The values we look for are ids and numbers and hold no escapes.
fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let tag = &xml[..xml.find('>')?];
    let mut rest = tag;
    loop {
        let at = rest.find(name)?;
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let quote = after.strip_prefix("='").map(|v| (v, '\'')).or_else(|| after.strip_prefix("=\"").map(|v| (v, '"')));
        match quote {
            Some((value, quote)) if before.ends_with(|c: char| c.is_ascii_whitespace()) => {
                return value.split(quote).next();
            }
            _ => rest = after,
        }
    }
}

/// How a desktop is connected to networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Network {
    /// Not at all: nothing leaves the desktop but its display.
    #[default]
    Isolated,
    /// QEMU's own address translation. Reaches out like the host, and the host's loopback at 10.0.2.2:
    /// for trials on one machine only.
    User,
    /// A libvirt network.
    Named(String),
    /// A bridge of the host.
    Bridge(String),
}

/// All that shapes a definition besides the specification.
#[derive(Clone, Debug)]
pub(super) struct Frame<'a> {
    pub(super) installation: InstallationId,
    pub(super) accel: Accel,
    pub(super) network: &'a Network,
    /// The overlay disk and the golden image below it.
    pub(super) disk: &'a Path,
    pub(super) backing: &'a Path,
    /// Never valid; without one QEMU's display would be open to whoever reaches it.
    pub(super) display_password: &'a str,
    /// QEMU here has SPICE.
    pub(super) spice: bool,
}

impl Frame<'_> {
    /// The mark a domain of this specification carries.
    pub(super) fn mark(&self, spec: &DesktopSpec) -> DomainMark {
        let network = match self.network {
            Network::Isolated => "none".to_owned(),
            Network::User => "user".to_owned(),
            Network::Named(n) => format!("network-{n}"),
            Network::Bridge(b) => format!("bridge-{b}"),
        };
        let form = format!(
            "{TEMPLATE}/{:?}/{:?}/{}/{}/{}/{}/{network}/{}",
            self.accel,
            spec.guest,
            spec.name,
            spec.vcpus,
            spec.memory_mib,
            spec.image_file,
            if self.spice { "spice" } else { "vnc" }
        );
        DomainMark { installation: self.installation, desktop: spec.id, generation: spec.generation, form }
    }

    /// The definition.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a path can't be written in XML.
    pub(super) fn domain(&self, spec: &DesktopSpec) -> Result<String> {
        let kind = match self.accel {
            Accel::Kvm => "kvm",
            Accel::Tcg => "qemu",
            Accel::None => "test",
        };
        let domain = el("domain")
            .attr("type", kind)
            .child(el("name").text(&spec.name))
            .child(el("uuid").text(spec.id))
            .child(el("metadata").child(self.mark(spec).element()))
            .child(el("memory").attr("unit", "MiB").text(spec.memory_mib))
            .child(el("vcpu").text(spec.vcpus));
        if self.accel == Accel::None {
            // The test driver keeps what it is told but runs nothing.
            return domain.child(el("os").child(el("type").text("hvm"))).write();
        }
        domain
            // systemd in the guest takes its host name from here, at no boot time and without a network.
            .child(
                el("sysinfo").attr("type", "smbios").child(
                    el("oemStrings")
                        .child(el("entry").text(format_args!("io.systemd.credential:system.hostname={}", spec.name))),
                ),
            )
            .child(os(spec.guest))
            .child(self.features(spec.guest))
            .child(self.cpu())
            .child(clock(spec.guest))
            .child(el("on_poweroff").text("destroy"))
            .child(el("on_reboot").text("restart"))
            .child(el("on_crash").text("destroy"))
            .child(self.devices(spec)?)
            .write()
    }

    fn features(&self, guest: GuestProfile) -> El {
        let features = el("features").child(el("acpi")).child(el("apic"));
        let features = match self.accel {
            // The default translation cache is 1 GiB a guest; 128 MiB boots as fast.
            Accel::Tcg => features.child(el("tcg").child(el("tb-cache").attr("unit", "MiB").text(128))),
            _ => features,
        };
        if guest != GuestProfile::Windows {
            return features;
        }
        // Secure Boot keeps its variables behind system management mode. QEMU's emulation has no enlightenments.
        let features = features.child(el("smm").attr("state", "on"));
        if self.accel == Accel::Kvm { features.child(enlightenments()) } else { features }
    }

    fn cpu(&self) -> El {
        match self.accel {
            Accel::Kvm => el("cpu").attr("mode", "host-passthrough").attr("check", "none").attr("migratable", "on"),
            // Measured on a boot to the guest agent: 55-61 s of processor time with all that TCG can do,
            // 64-67 s with qemu64, 79-99 s with Nehalem.
            _ => el("cpu").attr("mode", "maximum").attr("check", "none"),
        }
    }

    fn devices(&self, spec: &DesktopSpec) -> Result<El> {
        let path = |p: &Path| {
            p.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Error::Invalid("the image and disk folders need UTF-8 paths".into()))
        };
        // The whole chain with its formats: nothing is left for libvirt or QEMU to guess.
        let disk = el("disk")
            .attr("type", "file")
            .attr("device", "disk")
            .child(
                el("driver")
                    .attr("name", "qemu")
                    .attr("type", "qcow2")
                    .attr("cache", "writeback")
                    .attr("discard", "unmap"),
            )
            .child(el("source").attr("file", path(self.disk)?))
            .child(
                el("backingStore")
                    .attr("type", "file")
                    .child(el("format").attr("type", "qcow2"))
                    .child(el("source").attr("file", path(self.backing)?))
                    .child(el("backingStore")),
            )
            .child(el("target").attr("dev", "vda").attr("bus", "virtio"));
        let agent = el("channel")
            .attr("type", "unix")
            .child(el("target").attr("type", "virtio").attr("name", "org.qemu.guest_agent.0"));
        let display = |kind: &str| {
            el("graphics")
                .attr("type", kind)
                .attr("autoport", "no")
                .attr("passwd", self.display_password)
                .attr("passwdValidTo", NEVER)
                .child(el("listen").attr("type", "none"))
        };
        // Files go through nobody's display; the guest has no channel for the clipboard either.
        let spice = self.spice.then(|| display("spice").child(el("filetransfer").attr("enable", "no")));
        let devices = el("devices")
            .child(disk)
            .child(el("controller").attr("type", "usb").attr("model", "qemu-xhci"))
            .child(agent)
            .child(el("input").attr("type", "tablet").attr("bus", "usb"))
            .child(display("vnc"))
            .children(spice)
            .child(el("video").child(el("model").attr("type", "virtio").attr("heads", 1).attr("primary", "yes")))
            .child(el("memballoon").attr("model", "virtio"))
            .child(el("rng").attr("model", "virtio").child(el("backend").attr("model", "random").text("/dev/urandom")))
            .children(tpm(spec.guest))
            .children(self.interface(spec.id));
        Ok(devices)
    }

    fn interface(&self, id: DesktopId) -> Option<El> {
        let (kind, source) = match self.network {
            Network::Isolated => return None,
            Network::User => ("user", None),
            Network::Named(name) => ("network", Some(el("source").attr("network", name))),
            Network::Bridge(name) => ("bridge", Some(el("source").attr("bridge", name))),
        };
        let interface = el("interface").attr("type", kind).child(el("mac").attr("address", mac(id.0)));
        Some(interface.children(source).child(el("model").attr("type", "virtio")))
    }
}

/// Which of a domain's displays is this one, as libvirt counts them.
pub(super) fn graphics_place(xml: &str, display: Display) -> Option<u32> {
    let wanted = match display {
        Display::Vnc => "vnc",
        Display::Spice => "spice",
    };
    let at = xml.split("<graphics ").skip(1).position(|g| attribute(&format!("<graphics {g}"), "type") == Some(wanted));
    at.and_then(|at| u32::try_from(at).ok())
}

/// What somebody wrote into a definition of ours after us that opens its displays to others: a way in by the network
/// or a socket, or a server without a password that has run out. Only the descriptor that the hypervisor hands out
/// leads to a desktop; whoever shows one that has another way in would show an officer's screen to the office.
/// `xml` must be read with its secrets.
pub(super) fn opened_to_others(xml: &str) -> Option<&'static str> {
    xml.split("<graphics ").skip(1).find_map(|rest| {
        let own = rest.split("</graphics>").next().unwrap_or(rest);
        let display = format!("<graphics {own}");
        let tag = &display[..display.find('>').unwrap_or(display.len())];
        let whole = if tag.ends_with('/') { tag } else { display.as_str() };
        let is = |name: &str| attribute(&display, name);
        if !matches!(is("type"), Some("vnc" | "spice")) {
            return Some("it has a display of another kind than VNC and SPICE");
        }
        let mut listens = whole.split("<listen").skip(1).map(|l| attribute(l, "type")).peekable();
        if listens.peek().is_none() || listens.any(|kind| kind != Some("none")) {
            return Some("a display listens on the network or on a socket");
        }
        if is("passwd").is_none_or(str::is_empty) || is("passwdValidTo") != Some(NEVER) {
            return Some("a display has no password, or one that is good");
        }
        None
    })
}

/// Whether a host's capabilities name SPICE among the displays.
pub(super) fn offers_spice(capabilities: &str) -> bool {
    let graphics = capabilities.split("<graphics ").nth(1).and_then(|g| g.split("</graphics>").next());
    graphics.is_some_and(|g| g.contains("<value>spice</value>"))
}

/// Firmware and how it starts the disk. Which files that is, libvirt finds among the firmware the host has.
fn os(guest: GuestProfile) -> El {
    let os = el("os");
    let os = if guest == GuestProfile::LinuxBios { os } else { os.attr("firmware", "efi") };
    let os = os.child(el("type").attr("arch", "x86_64").attr("machine", "q35").text("hvm"));
    let feature = |name: &str, enabled: bool| {
        el("feature").attr("enabled", if enabled { "yes" } else { "no" }).attr("name", name)
    };
    let os = match guest {
        GuestProfile::LinuxBios => os,
        // A golden image has a kernel of its own signing, or none.
        GuestProfile::LinuxUefi => os.child(el("firmware").child(feature("secure-boot", false))),
        GuestProfile::Windows => {
            os.child(el("firmware").child(feature("enrolled-keys", true)).child(feature("secure-boot", true)))
        }
    };
    os.child(el("boot").attr("dev", "hd")).child(el("smbios").attr("mode", "sysinfo"))
}

/// What tells Windows that it is a guest, so that it asks the hypervisor instead of waiting for hardware.
fn enlightenments() -> El {
    let on = |name: &'static str| el(name).attr("state", "on");
    el("hyperv")
        .attr("mode", "custom")
        .child(on("relaxed"))
        .child(on("vapic"))
        .child(on("spinlocks").attr("retries", 8191))
        .child(on("vpindex"))
        .child(on("runtime"))
        .child(on("synic"))
        .child(on("stimer"))
        .child(on("frequencies"))
}

/// Windows 11 asks for one; swtpm plays it, and its memory goes with the domain.
fn tpm(guest: GuestProfile) -> Option<El> {
    (guest == GuestProfile::Windows).then(|| {
        el("tpm").attr("model", "tpm-crb").child(el("backend").attr("type", "emulator").attr("version", "2.0"))
    })
}

fn clock(guest: GuestProfile) -> El {
    let windows = guest == GuestProfile::Windows;
    let clock = el("clock")
        .attr("offset", if windows { "localtime" } else { "utc" })
        .child(el("timer").attr("name", "rtc").attr("tickpolicy", "catchup"))
        .child(el("timer").attr("name", "hpet").attr("present", "no"));
    if windows { clock.child(el("timer").attr("name", "hypervclock").attr("present", "yes")) } else { clock }
}

/// A stable address in QEMU's range, from the last bytes of the id (random in every UUID version we use).
fn mac(id: Uuid) -> String {
    let b = id.as_bytes();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", b[13], b[14], b[15])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DesktopSpec {
        DesktopSpec {
            id: DesktopId(Uuid::now_v7()),
            name: "pc-01".into(),
            image_file: "base.qcow2".into(),
            vcpus: 2,
            memory_mib: 768,
            disk_gib: None,
            generation: 3,
            guest: GuestProfile::LinuxBios,
        }
    }

    fn frame(accel: Accel, network: &Network) -> Frame<'_> {
        Frame {
            installation: InstallationId(Uuid::nil()),
            accel,
            network,
            disk: Path::new("/d/a&b'<c>.qcow2"),
            backing: Path::new("/i/base.qcow2"),
            display_password: "x",
            spice: true,
        }
    }

    #[test]
    fn values_are_escaped_and_impossible_ones_refused() {
        let xml = el("a").attr("b", "<&>'\"\n").text("]]>&x").write().unwrap();
        assert_eq!(xml, "<a b='&lt;&amp;&gt;&apos;&quot;&#10;'>]]&gt;&amp;x</a>");
        assert!(matches!(el("a").text("\0").write(), Err(Error::Invalid(_))));
        assert!(matches!(el("a").attr("b", "\u{1b}").write(), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_mark_is_read_back_whatever_libvirt_did_to_its_quotes() {
        let network = Network::Isolated;
        let mark = frame(Accel::Tcg, &network).mark(&spec());
        let written = mark.element().write().unwrap();
        assert_eq!(DomainMark::parse(&written).as_ref(), Some(&mark));
        assert_eq!(DomainMark::parse(&written.replace('\'', "\"").replace("tram:", "")).as_ref(), Some(&mark));
        assert_eq!(DomainMark::parse("<desktop installation='x'/>"), None);
        assert_eq!(DomainMark::parse(""), None);
        assert_eq!(DomainMark::parse("<desktop"), None);
    }

    #[test]
    fn a_display_is_never_open_and_a_format_never_guessed() {
        for network in [Network::Isolated, Network::User, Network::Named("<n>".into()), Network::Bridge("br0".into())] {
            let xml = frame(Accel::Tcg, &network).domain(&spec()).unwrap();
            assert!(xml.contains("<listen type='none'/>"), "{xml}");
            assert_eq!(xml.matches("<listen type='none'/>").count(), 2);
            assert_eq!(xml.matches("passwd='x' passwdValidTo='1970-01-01T00:00:01'").count(), 2);
            assert_eq!(xml.matches("type='qcow2'").count(), 2);
            assert!(xml.contains("/d/a&amp;b&apos;&lt;c&gt;.qcow2"));
            assert_eq!(xml.contains("<interface"), network != Network::Isolated);
            assert!(!xml.contains("<n>"));
        }
    }

    #[test]
    fn a_display_is_found_among_those_the_domain_was_started_with() {
        let both = "<devices><graphics type='vnc' port='-1'><listen type='none'/></graphics><graphics type='spice'/>";
        assert_eq!(graphics_place(both, Display::Vnc), Some(0));
        assert_eq!(graphics_place(both, Display::Spice), Some(1));
        assert_eq!(graphics_place("<graphics type='vnc' spice='no'/>", Display::Spice), None);
        assert_eq!(graphics_place("<video><model type='qxl'/></video>", Display::Spice), None);
    }

    #[test]
    fn what_opens_a_display_to_others_is_noticed() {
        let network = Network::Isolated;
        let ours = frame(Accel::Tcg, &network).domain(&spec()).unwrap();
        assert_eq!(opened_to_others(&ours), None);
        // As libvirt writes a running one.
        let own = "passwd='x' passwdValidTo='1970-01-01T00:00:01'";
        let good = format!("<graphics type='vnc' port='-1' autoport='no' {own}>\n  <listen type='none'/>\n</graphics>");
        assert_eq!(opened_to_others(&good), None);
        let listens = "listens";
        for (what, from, to, why) in [
            ("a port", "<listen type='none'/>", "<listen type='address' address='0.0.0.0'/>", listens),
            ("a second way in", "<listen type='none'/>", "<listen type='none'/><listen type='address'/>", listens),
            ("a socket", "<listen type='none'/>", "<listen type='socket' socket='/tmp/x'/>", listens),
            ("as it was written ten years ago", "<listen type='none'/>", "", listens),
            ("no password", own, "", "password"),
            ("an empty one", "passwd='x'", "passwd=''", "password"),
            ("one that is good", " passwdValidTo='1970-01-01T00:00:01'", "", "password"),
            ("one that is good until 2050", "1970", "2050", "password"),
            ("another kind", "type='vnc'", "type='rdp'", "another kind"),
        ] {
            assert!(good.contains(from), "{what}");
            let bent = good.replacen(from, to, 1);
            for xml in [bent.clone(), format!("{good}{bent}"), format!("{bent}{good}")] {
                assert!(opened_to_others(&xml).is_some_and(|said| said.contains(why)), "{what}: {xml}");
            }
        }
        // Nothing inside: what follows belongs to another element.
        let empty = format!("<graphics type='vnc' {own}/><x><listen type='none'/></x>");
        assert!(opened_to_others(&empty).is_some());
    }

    #[test]
    fn a_qemu_without_spice_is_noticed() {
        let built = |kinds: &str| format!("<graphics supported='yes'><enum name='type'>{kinds}</enum></graphics>");
        assert!(offers_spice(&built("<value>vnc</value><value>spice</value>")));
        assert!(!offers_spice(&built("<value>vnc</value>")));
        assert!(!offers_spice("<video><value>spice</value></video>"));
        let network = Network::Isolated;
        let without = Frame { spice: false, ..frame(Accel::Tcg, &network) }.domain(&spec()).unwrap();
        assert!(without.contains("type='vnc'") && !without.contains("spice"), "{without}");
    }

    #[test]
    fn each_guest_gets_the_machine_it_was_installed_on() {
        let network = Network::Isolated;
        let of = |accel, guest| frame(accel, &network).domain(&DesktopSpec { guest, ..spec() }).unwrap();
        let bios = of(Accel::Kvm, GuestProfile::LinuxBios);
        assert!(!bios.contains("efi") && !bios.contains("<tpm") && bios.contains("offset='utc'"), "{bios}");
        let uefi = of(Accel::Kvm, GuestProfile::LinuxUefi);
        assert!(uefi.contains("<os firmware='efi'>") && uefi.contains("enabled='no' name='secure-boot'"), "{uefi}");
        let windows = of(Accel::Kvm, GuestProfile::Windows);
        for part in
            ["enabled='yes' name='secure-boot'", "<smm state='on'/>", "<hyperv", "<tpm model='tpm-crb'>", "localtime"]
        {
            assert!(windows.contains(part), "{part}: {windows}");
        }
        assert!(!of(Accel::Tcg, GuestProfile::Windows).contains("<hyperv"));
    }

    #[test]
    fn each_thing_the_definition_depends_on_changes_its_form() {
        let network = Network::Isolated;
        let (base, s) = (frame(Accel::Tcg, &network), spec());
        let form = |s: &DesktopSpec| base.mark(s).form;
        for other in [
            DesktopSpec { name: "pc-02".into(), ..s.clone() },
            DesktopSpec { vcpus: 1, ..s.clone() },
            DesktopSpec { memory_mib: 1, ..s.clone() },
            DesktopSpec { image_file: "other.qcow2".into(), ..s.clone() },
            DesktopSpec { guest: GuestProfile::LinuxUefi, ..s.clone() },
            DesktopSpec { guest: GuestProfile::Windows, ..s.clone() },
        ] {
            assert_ne!(form(&other), form(&s));
        }
        assert_ne!(Frame { spice: false, ..base.clone() }.mark(&s).form, form(&s));
        assert_ne!(frame(Accel::Kvm, &network).mark(&s).form, form(&s));
        assert_ne!(frame(Accel::Tcg, &Network::User).mark(&s).form, form(&s));
    }
}
