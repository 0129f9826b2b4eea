//! The only unsafe code of this crate: what the `virt` crate lacks (events, close callback) or leaks
//! (domain statistics). Everything is reached through the safe functions below.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::sys;

/// What a callback saw. Sent from the event loop's thread, or from any thread inside a libvirt call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A domain's life changed: libvirt's event and detail numbers.
    Lifecycle(Uuid, i32, i32),
    /// A guest agent came or went.
    Agent(Uuid),
    /// The connection is gone: libvirt's reason number.
    Closed(i32),
    /// Not from libvirt: a call found its own connection dead.
    Suspect,
    /// Not from libvirt: the backend was dropped.
    Stop,
}

/// Where callbacks put their notes. They must not block: a full channel only sets `lost`.
#[derive(Clone)]
pub(super) struct Notes {
    pub(super) to: SyncSender<Note>,
    pub(super) lost: Arc<AtomicBool>,
}

impl Notes {
    pub(super) fn put(&self, note: Note) {
        if self.to.try_send(note).is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

/// Callbacks registered on one connection; dropped, they are taken off again.
///
/// Holds its own reference to the connection, so the connection outlives the registration.
pub(super) struct Subscription {
    conn: Connect,
    events: Vec<c_int>,
    close: bool,
}

impl Subscription {
    /// Subscribes to lifecycle, guest agent and close notes. A driver that lacks one of them (the test
    /// driver inside this process knows no close callback) simply never sends it.
    pub(super) fn new(conn: &Connect, notes: &Notes) -> Result<Self, VirtError> {
        let mut this = Self { conn: conn.clone(), events: Vec::new(), close: false };
        // SAFETY: libvirt calls this pointer with exactly the signature it demands for the event id it
        // is registered under; the generic type is only the common denominator of its C prototype.
        let lifecycle: unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void) = unsafe {
            std::mem::transmute::<Lifecycle, unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void)>(
                on_lifecycle,
            )
        };
        this.add(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, notes)?;
        // SAFETY: as above.
        let agent: unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void) = unsafe {
            std::mem::transmute::<Agent, unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void)>(
                on_agent,
            )
        };
        let _ = this.add(sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, agent, notes);
        let opaque = Box::into_raw(Box::new(notes.clone())).cast::<c_void>();
        // SAFETY: the connection is alive, `opaque` is a leaked Box<Notes> that `free_notes` takes back
        // when libvirt drops the callback.
        let done = unsafe {
            sys::virConnectRegisterCloseCallback(this.conn.as_ptr(), Some(on_close), opaque, Some(free_notes))
        };
        if done == 0 {
            this.close = true;
        } else {
            // SAFETY: refused, so libvirt kept no copy of `opaque` and will not free it.
            drop(unsafe { Box::from_raw(opaque.cast::<Notes>()) });
        }
        Ok(this)
    }

    fn add(
        &mut self,
        event: sys::virDomainEventID,
        callback: unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
        notes: &Notes,
    ) -> Result<(), VirtError> {
        let opaque = Box::into_raw(Box::new(notes.clone())).cast::<c_void>();
        // SAFETY: the connection is alive; a null domain means all domains; `opaque` is a leaked
        // Box<Notes> that `free_notes` takes back when libvirt drops the callback.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.conn.as_ptr(),
                ptr::null_mut(),
                event as c_int,
                Some(callback),
                opaque,
                Some(free_notes),
            )
        };
        if id < 0 {
            let error = VirtError::last_error();
            // SAFETY: refused, so libvirt kept no copy of `opaque` and will not free it.
            drop(unsafe { Box::from_raw(opaque.cast::<Notes>()) });
            return Err(error);
        }
        self.events.push(id);
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for id in self.events.drain(..) {
            // SAFETY: the connection is alive (we hold a reference) and the id came from it. On a dead
            // connection the call fails after the local part is done, which is all we need.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.conn.as_ptr(), id) };
        }
        if self.close {
            // SAFETY: as above; the same callback that was registered.
            unsafe { sys::virConnectUnregisterCloseCallback(self.conn.as_ptr(), Some(on_close)) };
        }
    }
}

type Lifecycle = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Agent = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void);

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes back the pointer it was registered with and a domain valid during the call.
    unsafe {
        if let Some(uuid) = uuid_of(domain) {
            (*opaque.cast::<Notes>()).put(Note::Lifecycle(uuid, event, detail));
        }
    }
    0
}

unsafe extern "C" fn on_agent(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe {
        if let Some(uuid) = uuid_of(domain) {
            (*opaque.cast::<Notes>()).put(Note::Agent(uuid));
        }
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt passes back the pointer it was registered with.
    unsafe { (*opaque.cast::<Notes>()).put(Note::Closed(reason)) };
}

unsafe extern "C" fn free_notes(opaque: *mut c_void) {
    // SAFETY: `opaque` came from Box::into_raw in `Subscription` and libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<Notes>()) });
}

/// The UUID is kept in the client's domain object: no call to the daemon, safe inside a callback.
unsafe fn uuid_of(domain: sys::virDomainPtr) -> Option<Uuid> {
    let mut bytes = [0u8; 16];
    // SAFETY: the caller promises a valid domain; libvirt writes VIR_UUID_BUFLEN = 16 bytes.
    let done = unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) };
    (done == 0).then(|| Uuid::from_bytes(bytes))
}

/// Two numbers of one running domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) uuid: Uuid,
    pub(super) cpu_time_ns: u64,
    pub(super) rss_kib: u64,
}

/// Statistics of all running domains, without waiting for a domain that is busy with another call.
pub(super) fn loads(conn: &Connect) -> Result<Vec<Load>, VirtError> {
    let groups = sys::VIR_DOMAIN_STATS_CPU_TOTAL | sys::VIR_DOMAIN_STATS_BALLOON;
    let nowait = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is alive; libvirt fills `records` with a list that we free below.
    let mut count =
        unsafe { sys::virConnectGetAllDomainStats(conn.as_ptr(), groups as c_uint, &mut records, nowait as c_uint) };
    if count < 0 {
        // The test driver knows neither of the filters.
        // SAFETY: as above.
        count = unsafe { sys::virConnectGetAllDomainStats(conn.as_ptr(), 0, &mut records, 0) };
    }
    if count < 0 {
        return Err(VirtError::last_error());
    }
    let mut loads = Vec::with_capacity(count as usize);
    for i in 0..count as usize {
        // SAFETY: libvirt promises `count` records, each with a domain and `nparams` parameters, all
        // valid until the list is freed.
        unsafe {
            let record = &**records.add(i);
            let Some(uuid) = uuid_of(record.dom) else { continue };
            let params = if record.nparams > 0 && !record.params.is_null() {
                std::slice::from_raw_parts(record.params, record.nparams as usize)
            } else {
                &[]
            };
            let find =
                |name: &CStr| params.iter().find(|p| CStr::from_ptr(p.field.as_ptr()) == name).map_or(0, |p| number(p));
            loads.push(Load { uuid, cpu_time_ns: find(c"cpu.time"), rss_kib: find(c"balloon.rss") });
        }
    }
    // SAFETY: the list came from virConnectGetAllDomainStats and nothing points into it any more.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(loads)
}

/// The value of a typed parameter, 0 if it is not a number or negative.
unsafe fn number(p: &sys::virTypedParameter) -> u64 {
    // SAFETY: `type_` says which member of the union libvirt wrote.
    unsafe {
        match p.type_ as c_uint {
            sys::VIR_TYPED_PARAM_ULLONG => p.value.ul,
            sys::VIR_TYPED_PARAM_LLONG => u64::try_from(p.value.l).unwrap_or(0),
            sys::VIR_TYPED_PARAM_UINT => p.value.ui.into(),
            sys::VIR_TYPED_PARAM_INT => u64::try_from(p.value.i).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Takes ownership of a descriptor that libvirt gave away.
pub(super) fn owned(fd: u32) -> Option<OwnedFd> {
    let fd = RawFd::try_from(fd).ok()?;
    // SAFETY: virDomainOpenGraphicsFD returns a new descriptor that belongs to the caller.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4
    }

    /// The crate's own `all_domain_stats` grows by about 140 MB here.
    #[test]
    fn statistics_do_not_leak() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.xml");
        let mut xml = String::from("<node>");
        for n in 0..1000 {
            xml.push_str(&format!(
                "<domain type='test'><name>d{n}</name><uuid>{}</uuid><memory>8192</memory><os><type>hvm</type></os></domain>",
                Uuid::new_v4()
            ));
        }
        xml.push_str("</node>");
        std::fs::write(&file, xml).unwrap();
        let conn = Connect::open(Some(&format!("test://{}", file.display()))).unwrap();
        for _ in 0..20 {
            assert_eq!(loads(&conn).unwrap().len(), 1000);
        }
        let before = resident_kib();
        for _ in 0..200 {
            loads(&conn).unwrap();
        }
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 4096, "200 calls over 1000 domains grew the process by {grown} KiB");
    }

    #[test]
    fn events_arrive_and_a_dropped_subscription_is_silent() {
        super::super::events::start();
        let conn = Connect::open(Some("test:///default")).unwrap();
        let (to, from) = std::sync::mpsc::sync_channel(64);
        let notes = Notes { to, lost: Arc::default() };
        let subscription = Subscription::new(&conn, &notes).unwrap();
        let uuid = Uuid::new_v4();
        let define = || {
            conn.define_domain_xml(&format!(
                "<domain type='test'><name>e-{uuid}</name><uuid>{uuid}</uuid><memory>8192</memory><os><type>hvm</type></os></domain>"
            ))
            .unwrap()
        };
        let domain = define();
        let wait = std::time::Duration::from_secs(5);
        let mine = |n: &Note| matches!(n, Note::Lifecycle(u, ..) if *u == uuid);
        assert!(std::iter::from_fn(|| from.recv_timeout(wait).ok()).any(|n| mine(&n)));
        drop(subscription);
        domain.undefine().unwrap();
        define().undefine().unwrap();
        assert!(from.recv_timeout(std::time::Duration::from_millis(300)).is_err());
    }
}
