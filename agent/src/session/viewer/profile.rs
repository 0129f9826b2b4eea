//! What viewers keep between two runs: thrown away when support asks for it, and the viewer begins anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

/// Below the home of the kiosk's user: settings, histories and remembered certificates of the viewers, nothing else.
const KEPT: [&str; 8] = [
    ".cache/virt-viewer",
    ".config/tigervnc",
    ".config/virt-viewer",
    ".local/share/tigervnc",
    ".local/state/tigervnc",
    ".vnc/default.tigervnc",
    ".vnc/tigervnc.history",
    ".vnc/x509_known_hosts",
];

/// The viewers' profile of this desk.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    home: Option<PathBuf>,
    gone: Arc<Notify>,
}

impl Profile {
    /// Of the user whose home this is.
    #[must_use]
    pub fn of(home: Option<PathBuf>) -> Self {
        Self { home: home.filter(|h| h.is_absolute()), gone: Arc::default() }
    }

    /// Throws it away; a viewer that runs is ended and begins anew.
    ///
    /// # Errors
    /// What can't be removed.
    pub fn reset(&self) -> io::Result<()> {
        let done = self.home.as_deref().map_or(Ok(()), remove);
        self.gone.notify_waiters();
        done
    }

    /// Until it is thrown away.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }
}

fn remove(home: &Path) -> io::Result<()> {
    KEPT.iter().map(|kept| home.join(kept)).try_for_each(|at| {
        // A link is removed, not what it leads to.
        let done = match fs::symlink_metadata(&at) {
            Ok(m) if m.is_dir() => fs::remove_dir_all(&at),
            Ok(_) => fs::remove_file(&at),
            Err(e) => Err(e),
        };
        done.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_viewers_keep_goes_and_the_viewer_hears_of_it() {
        let home = tempfile::tempdir().unwrap();
        let at = |p: &str| home.path().join(p);
        for p in [".config/virt-viewer/settings", ".vnc/default.tigervnc", ".vnc/passwd", "Documents/thư.odt"] {
            fs::create_dir_all(at(p).parent().unwrap()).unwrap();
            fs::write(at(p), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("Documents"), at(".config/tigervnc")).unwrap();
        let profile = Profile::of(Some(home.path().to_owned()));
        let (heard, same) = (profile.gone(), profile.clone());
        tokio::pin!(heard);
        // It listens from its first poll on.
        tokio::select! {
            biased;
            () = heard.as_mut() => panic!("nothing was thrown away"),
            () = std::future::ready(()) => {}
        }
        same.reset().unwrap();
        heard.await;
        assert!(!at(".config/virt-viewer").exists() && !at(".vnc/default.tigervnc").exists());
        assert!(at(".vnc/passwd").exists() && at("Documents/thư.odt").exists());
        assert!(fs::symlink_metadata(at(".config/tigervnc")).is_err());
        // There is nothing left, and that is fine; so is a desk without a home.
        same.reset().unwrap();
        Profile::of(Some("relative".into())).reset().unwrap();
    }
}
