//! The shelf of runbooks: those of the program, and the installation's own, each read only if its signature counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::papers::{self, PaperFault, PublicKeys, Purpose};
use crate::domain::runbook::{self, BYTES, Runbook};

/// Files of one folder.
const FILES: usize = 200;

/// Those every installation begins with. They are part of the program, as its rules are.
const BUILT_IN: [&str; 14] = [
    include_str!("../../runbooks/site_dark.toml"),
    include_str!("../../runbooks/carrier.toml"),
    include_str!("../../runbooks/line_slow.toml"),
    include_str!("../../runbooks/lan.toml"),
    include_str!("../../runbooks/pc_dead.toml"),
    include_str!("../../runbooks/service.toml"),
    include_str!("../../runbooks/portal_slow.toml"),
    include_str!("../../runbooks/desktop.toml"),
    include_str!("../../runbooks/data_centre.toml"),
    include_str!("../../runbooks/token.toml"),
    include_str!("../../runbooks/printer.toml"),
    include_str!("../../runbooks/disk.toml"),
    include_str!("../../runbooks/clock.toml"),
    include_str!("../../runbooks/pc_slow.toml"),
];

/// Where runbooks are, and whose signatures count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    /// The installation's own; they go before those of the program with the same id.
    pub folder: Option<PathBuf>,
    /// Keys that may sign them.
    pub keys: PublicKeys,
}

/// A runbook that may be used.
#[derive(Clone, Debug)]
pub struct Book {
    /// It.
    pub runbook: Runbook,
    /// Its file; empty: part of the program.
    pub file: String,
    /// Id of the key that signed it; empty: part of the program.
    pub key: String,
}

/// A file that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub file: String,
    /// `R-401` not signed, `R-402` by a key that is not configured, `R-403` altered, `R-404` with faults, `R-405` unreadable.
    pub code: &'static str,
    /// The particulars.
    pub message: String,
}

impl Shelf {
    /// Reads them all, by id; a file that is not signed as it should be is refused, not used.
    #[must_use]
    pub fn read(&self) -> (Vec<Book>, Vec<Refused>) {
        let mut books = BTreeMap::new();
        for text in BUILT_IN {
            // A test reads them all.
            if let Ok(runbook) = Runbook::parse(text) {
                books.insert(runbook.id.clone(), Book { runbook, file: String::new(), key: String::new() });
            }
        }
        let mut refused = Vec::new();
        for path in self.files() {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match open(&path, &self.keys) {
                Ok((runbook, key)) => _ = books.insert(runbook.id.clone(), Book { runbook, file, key }),
                Err((code, message)) => refused.push(Refused { file, code, message }),
            }
        }
        (books.into_values().collect(), refused)
    }

    fn files(&self) -> Vec<PathBuf> {
        let read = self.folder.as_ref().and_then(|f| std::fs::read_dir(f).ok());
        let all = read.into_iter().flatten().flatten().map(|e| e.path());
        let mut all: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|x| x == "toml")).take(FILES).collect();
        all.sort();
        all
    }
}

/// Reads a signed file.
///
/// # Errors
/// Code and particulars, as in [`Refused`].
pub fn open(path: &Path, keys: &PublicKeys) -> Result<(Runbook, String), (&'static str, String)> {
    let size = std::fs::metadata(path).map_err(|e| ("R-405", e.to_string()))?.len();
    if size > BYTES as u64 + 1024 {
        return Err(("R-404", format!("a runbook has at most {BYTES} bytes")));
    }
    let file = std::fs::read_to_string(path).map_err(|e| ("R-405", e.to_string()))?;
    let Some((text, key, signature)) = runbook::unsigned(&file) else {
        return Err(("R-401", "it is not signed; see `tram-controller runbook sign`".to_owned()));
    };
    papers::prove(keys, key, Purpose::Runbook, text, signature).map_err(|e| match e {
        PaperFault::Key => ("R-402", format!("{e}: {key}")),
        PaperFault::Signature => ("R-403", e.to_string()),
    })?;
    let book = Runbook::parse(text).map_err(|faults| ("R-404", faults.join("; ")))?;
    Ok((book, key.to_owned()))
}

/// Those of the program as they are written, by id.
#[must_use]
pub fn built_in() -> Vec<(String, &'static str)> {
    BUILT_IN.iter().filter_map(|text| Some((Runbook::parse(text).ok()?.id, *text))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::papers::{PaperKey, public_keys};
    use super::*;
    use crate::domain::incident::Cause;

    #[test]
    fn what_every_installation_begins_with_is_sound_and_covers_the_causes() {
        for text in BUILT_IN {
            let read = Runbook::parse(text);
            assert!(read.is_ok(), "{read:?}\n{}", text.lines().next().unwrap_or_default());
        }
        let (books, refused) = Shelf::default().read();
        assert_eq!((books.len(), refused), (BUILT_IN.len(), Vec::new()), "no two have one id");
        for cause in Cause::ALL {
            // Nobody does anything about what was switched off; flapping names the cause behind it.
            let none = matches!(cause, Cause::SwitchedOff | Cause::Flapping);
            assert!(none || books.iter().any(|b| b.runbook.causes.contains(cause)), "none for {cause}");
        }
        for action in books.iter().flat_map(|b| &b.runbook.steps).flat_map(|s| &s.actions) {
            assert!(CATALOGUE.contains(&action.as_str()), "{action} is no action of the catalogue");
        }
    }

    /// Names of the diagnosis catalogue.
    const CATALOGUE: [&str; 35] = [
        "health",
        "top",
        "disks",
        "unit",
        "journal",
        "network",
        "ping",
        "trace",
        "mtu",
        "dns",
        "tcp",
        "tls",
        "http",
        "https",
        "ntp",
        "clock",
        "smart",
        "usb",
        "printers",
        "readers",
        "test_page",
        "resume_queue",
        "clear_queue",
        "restart_unit",
        "bandwidth",
        "renew_dhcp",
        "flush_dns",
        "reread_proxy",
        "smart_test",
        "usb_cycle",
        "resend_inventory",
        "reboot",
        "log_out",
        "reset_viewer",
        "capture",
    ];

    #[test]
    fn what_is_not_signed_as_it_is_is_refused_with_a_code() {
        let dir = tempfile::tempdir().unwrap();
        let key = PaperKey::of(dir.path(), "key.pem").unwrap();
        let other = PaperKey::of(dir.path(), "other.pem").unwrap();
        let shelf = Shelf { folder: Some(dir.path().to_owned()), keys: public_keys([key.public().as_str()]).unwrap() };
        let text = BUILT_IN[0].replacen("version = 1", "version = 9", 1);
        let sign = |key: &PaperKey, text: &str| {
            let body = runbook::body(text);
            runbook::signed(text, &key.id(), &key.sign(Purpose::Runbook, &body).unwrap())
        };
        let good = sign(&key, &text);
        for (name, file) in [
            ("a-good.toml", good.clone()),
            ("b-bare.toml", text.clone()),
            ("c-foreign.toml", sign(&other, &text)),
            ("d-altered.toml", good.replacen("version = 9", "version = 8", 1)),
            ("e-faulty.toml", sign(&key, "id = \"x\"\n")),
            ("f-cut.toml", good[..good.len() / 2].to_owned()),
            ("g-twice.toml", format!("{good}{good}")),
            ("readme.txt", String::new()),
        ] {
            std::fs::write(dir.path().join(name), file).unwrap();
        }
        std::fs::write(dir.path().join("h-bytes.toml"), [0xff, 0xfe, 0x00]).unwrap();
        let (books, refused) = shelf.read();
        let codes: Vec<_> = refused.iter().map(|r| (&r.file[..1], r.code)).collect();
        let wanted = [
            ("b", "R-401"),
            ("c", "R-402"),
            ("d", "R-403"),
            ("e", "R-404"),
            ("f", "R-401"),
            ("g", "R-403"),
            ("h", "R-405"),
        ];
        assert_eq!(codes, wanted);
        let own: Vec<_> = books.iter().filter(|b| !b.key.is_empty()).collect();
        assert_eq!(
            (own.len(), own[0].runbook.version, books.len()),
            (1, 9, BUILT_IN.len()),
            "it takes the program's place"
        );
    }
}
