//! What is done to one domain, on a connection, blocking. Idempotent, and never on a foreign domain.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt::stream::Stream;
use virt::sys;

use super::convert::{self, is_gone, is_no_metadata, is_wrong_state};
use super::ffi;
use super::xml::{self, DomainMark, Frame, NAMESPACE};
use crate::{DesktopId, DesktopSpec, Display, Error, InstallationId, Power, Result, Stop, png};

/// A screenshot larger than this is no screenshot.
const MAX_SCREENSHOT: usize = 64 << 20;
/// Seconds the guest agent may take; it answers in milliseconds when it lives.
const AGENT_SECONDS: i32 = 2;

/// The mark of the domain with this UUID, `None` for a foreign one.
///
/// # Errors
/// [`Error::NotFound`] when there is no such domain.
pub(super) fn mark_of(conn: &Connect, uuid: Uuid) -> Result<Option<DomainMark>> {
    let domain = conn.lookup_domain_by_uuid(uuid).map_err(convert::error)?;
    read_mark(&domain).map_err(convert::error)
}

/// The mark of a domain, `None` for a foreign one. A copy somebody made of our domain (`virt-clone`) carries
/// our mark under another UUID: it is theirs.
pub(super) fn read_mark(domain: &Domain) -> Result<Option<DomainMark>, VirtError> {
    match domain.metadata(sys::VIR_DOMAIN_METADATA_ELEMENT as i32, Some(NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Ok(xml) => {
            let uuid = domain.uuid()?;
            Ok(DomainMark::parse(&xml).filter(|m| m.desktop.0 == uuid))
        }
        Err(e) if is_no_metadata(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Our domain of this id, `None` if there is none.
///
/// # Errors
/// [`Error::Refused`] when a foreign domain has the id.
pub(super) fn find(
    conn: &Connect,
    id: DesktopId,
    installation: InstallationId,
) -> Result<Option<(Domain, DomainMark)>> {
    let domain = match conn.lookup_domain_by_uuid(id.0) {
        Ok(domain) => domain,
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(convert::error(e)),
    };
    match read_mark(&domain) {
        Ok(Some(mark)) if mark.installation == installation => Ok(Some((domain, mark))),
        Ok(_) => Err(Error::Refused(format!("the domain with the id {id} on this host belongs to somebody else"))),
        // It went away between the two calls.
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(convert::error(e)),
    }
}

/// As [`find`], for calls that need a domain.
pub(super) fn need(conn: &Connect, id: DesktopId, installation: InstallationId) -> Result<Domain> {
    let found = find(conn, id, installation)?;
    found.map(|(domain, _)| domain).ok_or_else(|| Error::NotFound(format!("the desktop {id}")))
}

pub(super) fn power(domain: &Domain) -> Result<Power, VirtError> {
    let (state, reason) = domain.state()?;
    Ok(convert::power(state, &reason))
}

fn is_on(domain: &Domain) -> Result<bool> {
    Ok(matches!(power(domain).map_err(convert::error)?, Power::Running | Power::Paused))
}

pub(super) fn define(conn: &Connect, frame: &Frame<'_>, spec: &DesktopSpec) -> Result<()> {
    if let Some((domain, mark)) = find(conn, spec.id, frame.installation)? {
        if mark == frame.mark(spec) {
            return Ok(());
        }
        // libvirt can't rename by defining anew; the disk stays, only the definition goes.
        if domain.name().map_err(convert::error)? != spec.name {
            if is_on(&domain)? {
                return Err(Error::Busy("a running desktop can't be renamed".into()));
            }
            undefine(&domain)?;
        }
    }
    conn.define_domain_xml(&frame.domain(spec)?).map(drop).map_err(convert::error)
}

pub(super) fn start(domain: &Domain) -> Result<()> {
    match power(domain).map_err(convert::error)? {
        Power::Running => Ok(()),
        Power::Paused => domain.resume().map(drop).map_err(convert::error),
        Power::Off | Power::Crashed => {
            closed(
                &domain.xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE).map_err(convert::error)?,
            )?;
            match domain.create() {
                Ok(_) => Ok(()),
                // Somebody else was quicker.
                Err(e) if is_wrong_state(&e) && domain.is_active().unwrap_or(false) => Ok(()),
                Err(e) => Err(convert::start_error(e)),
            }
        }
    }
}

/// A definition that somebody opened to others is neither started nor shown.
fn closed(xml: &str) -> Result<()> {
    match xml::opened_to_others(xml) {
        None => Ok(()),
        Some(why) => Err(Error::Invalid(format!(
            "this desktop's definition was changed on its host: {why}. Rebuild the desktop, which defines it anew"
        ))),
    }
}

pub(super) fn stop(domain: &Domain, how: Stop) -> Result<()> {
    if !is_on(domain)? {
        return Ok(());
    }
    let done = match how {
        Stop::Force => domain.destroy().map(drop),
        // With both flags libvirt tries the agent and then the power button.
        Stop::Graceful => {
            let both = sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT | sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN;
            domain
                .shutdown_flags(both)
                .map(drop)
                .or_else(|_| domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN).map(drop))
                .or_else(|_| domain.shutdown().map(drop))
        }
    };
    match done {
        Err(e) if is_gone(&e) || (is_wrong_state(&e) && !domain.is_active().unwrap_or(true)) => Ok(()),
        other => other.map_err(convert::error),
    }
}

pub(super) fn reset(domain: &Domain) -> Result<()> {
    if !is_on(domain)? {
        return Err(Error::Busy("the desktop is not running".into()));
    }
    domain.reset().map(drop).map_err(convert::error)
}

/// Power off and definition gone.
pub(super) fn remove(domain: &Domain) -> Result<()> {
    stop(domain, Stop::Force)?;
    undefine(domain)
}

fn undefine(domain: &Domain) -> Result<()> {
    let everything = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_NVRAM
        | sys::VIR_DOMAIN_UNDEFINE_TPM;
    let plain = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    // Drivers refuse flags they don't know.
    let done =
        domain.undefine_flags(everything).or_else(|e| if is_gone(&e) { Err(e) } else { domain.undefine_flags(plain) });
    match done {
        Err(e) if is_gone(&e) => Ok(()),
        other => other.map(drop).map_err(convert::error),
    }
}

pub(super) fn open_display(domain: &Domain, display: Display) -> Result<OwnedFd> {
    if !is_on(domain)? {
        return Err(Error::Busy("the desktop is not running".into()));
    }
    // The running definition counts: one from before SPICE is rewritten, but lives on until the desktop stops.
    let running = domain.xml_desc(sys::VIR_DOMAIN_XML_SECURE).map_err(convert::error)?;
    closed(&running)?;
    let place = xml::graphics_place(&running, display)
        .ok_or_else(|| Error::Unsupported("this desktop was started without such a display".into()))?;
    let fd = domain.open_graphics_fd(place, sys::VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH).map_err(convert::error)?;
    ffi::owned(fd).ok_or_else(|| Error::Refused("libvirt gave no usable descriptor".into()))
}

pub(super) fn screenshot(conn: &Connect, domain: &Domain) -> Result<Vec<u8>> {
    if !is_on(domain)? {
        return Err(Error::Busy("the desktop is not running".into()));
    }
    let stream = Stream::new(conn, 0).map_err(convert::error)?;
    let kind = domain.screenshot(&stream, 0, 0).map_err(convert::error)?;
    let mut picture = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match usize::try_from(stream.recv(&mut buffer).map_err(convert::error)?) {
            Ok(0) => break,
            Ok(n) if picture.len() + n <= MAX_SCREENSHOT => picture.extend_from_slice(&buffer[..n]),
            _ => {
                let _ = stream.abort();
                return Err(Error::Refused("the screenshot is too large or broke off".into()));
            }
        }
    }
    stream.finish().map_err(convert::error)?;
    match kind.as_str() {
        "image/png" => Ok(picture),
        _ => png::from_ppm(&picture).ok_or_else(|| Error::Unsupported(format!("screenshots as {kind}"))),
    }
}

/// Whether libvirt sees the guest agent's port open. No round trip to the guest: an agent that hangs
/// can't hold us up.
pub(super) fn agent_connected(domain: &Domain) -> Result<bool, VirtError> {
    let xml = domain.xml_desc(0)?;
    let channel = xml.split("<channel ").find(|c| c.contains("org.qemu.guest_agent.0"));
    let target = channel.and_then(|c| c.split("<target ").nth(1)).and_then(|t| t.split('>').next());
    Ok(target.is_some_and(|t| t.contains("state='connected'")))
}

/// Whether somebody is signed in, as the guest agent says; `None` where none answers, or none that knows.
pub(super) fn signed_in(domain: &Domain) -> Result<Option<bool>> {
    if !is_on(domain)? {
        return Err(Error::Busy("the desktop is not running".into()));
    }
    if !agent_connected(domain).unwrap_or(false) {
        return Ok(None);
    }
    let answer = domain.qemu_agent_command(r#"{"execute":"guest-get-users"}"#, AGENT_SECONDS, 0).ok();
    let users = answer.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    Ok(users.and_then(|v| v.get("return")?.as_array().map(|users| !users.is_empty())))
}

/// Whether the guest agent answers, and the addresses it reports.
pub(super) fn ask_agent(domain: &Domain) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default, rename = "return")]
        interfaces: Vec<Interface>,
    }
    #[derive(Deserialize)]
    struct Interface {
        #[serde(default, rename = "ip-addresses")]
        addresses: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        #[serde(rename = "ip-address")]
        address: std::net::IpAddr,
    }
    domain.qemu_agent_command(r#"{"execute":"guest-ping"}"#, AGENT_SECONDS, 0).ok()?;
    let answer = domain.qemu_agent_command(r#"{"execute":"guest-network-get-interfaces"}"#, AGENT_SECONDS, 0).ok();
    // The guest is not trusted: whatever is not an address is dropped with the whole answer.
    let interfaces =
        answer.and_then(|a| serde_json::from_str::<Answer>(&a).ok()).map(|a| a.interfaces).unwrap_or_default();
    let addresses = interfaces.into_iter().flat_map(|i| i.addresses).map(|a| a.address);
    Some(addresses.filter(|a| !a.is_loopback()).take(32).map(|a| a.to_string()).collect())
}
