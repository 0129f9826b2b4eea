//! libvirt's event loop: one per process, started before the first connection is opened.
//!
//! Without it neither events nor keep-alive work. Callbacks may also run on whatever thread happens to
//! be inside a libvirt call, so they do nothing but put a note into a channel.

use std::sync::Once;
use std::thread;
use std::time::Duration;

static STARTED: Once = Once::new();

/// Starts the loop; later calls do nothing.
pub(super) fn start() {
    STARTED.call_once(|| {
        // Errors reach us as results; without this libvirt also prints each of them to stderr.
        virt::error::clear_error_callback();
        if let Err(e) = virt::event::event_register_default_impl() {
            tracing::error!(error = %e, "libvirt's event loop can't be registered: no events, no keep-alive");
            return;
        }
        let run = || {
            loop {
                if let Err(e) = virt::event::event_run_default_impl() {
                    tracing::error!(error = %e, "libvirt's event loop failed");
                    // Never spin: a lasting failure would eat a processor.
                    thread::sleep(Duration::from_secs(1));
                }
            }
        };
        if let Err(e) = thread::Builder::new().name("libvirt-events".into()).spawn(run) {
            tracing::error!(error = %e, "libvirt's event loop can't be started: no events, no keep-alive");
        }
    });
}
