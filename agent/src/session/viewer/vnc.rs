//! VNC: TigerVNC's viewer on a UNIX socket, or `remote-viewer` on a loopback port.

use std::ffi::OsString;

use super::super::listen::Place;

/// TigerVNC's viewer takes a path for a server's name.
pub(super) fn tiger(place: &Place) -> Vec<OsString> {
    let to = match place {
        Place::Path(path) => path.clone().into_os_string(),
        Place::Port(port) => format!("127.0.0.1::{port}").into(),
    };
    // Security ended at the gateway; others look on only when the gateway lets them, so `Shared` harms nobody.
    // The size of the desktop follows the screen where the guest can.
    let fixed =
        ["-FullScreen=1", "-SecurityTypes=None", "-Shared=1", "-RemoteResize=1", "-ReconnectOnError=0", "-MenuKey=F8"];
    fixed.into_iter().map(OsString::from).chain([to]).collect()
}

/// `remote-viewer` knows VNC by TCP only.
pub(super) fn remote_viewer(place: &Place) -> Vec<OsString> {
    let port = match place {
        Place::Port(port) => *port,
        // Never asked for by `Viewer::kind`; a port nobody listens on is an error the viewer shows.
        Place::Path(_) => 0,
    };
    vec!["--full-screen".into(), "--title=Tram".into(), "--".into(), format!("vnc://127.0.0.1:{port}").into()]
}
