//! Hypervisor hosts.

text_enum! {
    /// Whether desktops can be placed on a host and managed there.
    HostState {
        /// First contact is under way.
        Connecting = "connecting",
        /// It answers.
        Up = "up",
        /// It does not answer; its desktops may well still run.
        Down = "down",
        /// Switched off by an operator: nothing new is placed there.
        Disabled = "disabled",
    }
}

text_enum! {
    /// Which acceleration an operator allows on a host.
    AccelSetting {
        /// Whatever is proved to work.
        Auto = "auto",
        /// Hardware virtualization, unproved.
        Kvm = "kvm",
        /// Software emulation.
        Tcg = "tcg",
    }
}

/// What an operator wants of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Desktops are placed there.
    Open,
    /// No new ones; what is there goes on.
    Closed,
    /// No new ones, and what nobody uses moves to other hosts.
    Drained,
}
