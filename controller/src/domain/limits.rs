//! What a line carries, and how much of it sessions may fill.

use std::ops::RangeInclusive;

use super::site_import::LineFault;

/// Rates a line may have, kbit/s: below is no line, above is a slip of the finger.
pub const LINE_KBIT: RangeInclusive<u32> = 64..=10_000_000;
/// Sites in one list at most.
const LINES_MAX: usize = 50_000;
/// Faults told at most.
const FAULTS_MAX: usize = 500;

/// Limits of a whole gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Part of a site's line that its sessions may fill, percent. The rest keeps the queue here, where typed
    /// letters overtake pictures, rather than in the line; and leaves room for what wraps each packet.
    pub site_percent: u32,
    /// All sessions of one gateway together, kbit/s; none: uncapped.
    pub gateway_kbit: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { site_percent: 85, gateway_kbit: None }
    }
}

impl Limits {
    /// What all sessions of a site may send together, kbit/s.
    #[must_use]
    pub fn budget(&self, line_kbit: u32) -> u32 {
        let kbit = u64::from(line_kbit) * u64::from(self.site_percent) / 100;
        u32::try_from(kbit).unwrap_or(u32::MAX).max(1)
    }

    /// The part of that for one gateway, which carries `ours` of the `all` live sessions of the site.
    #[must_use]
    pub fn part(&self, line_kbit: u32, ours: u32, all: u32) -> u32 {
        // One that is just coming in is not written down yet.
        let (ours, all) = (ours.max(1), all.max(ours).max(1));
        let kbit = u64::from(self.budget(line_kbit)) * u64::from(ours) / u64::from(all);
        u32::try_from(kbit).unwrap_or(u32::MAX).max(1)
    }
}

/// One line of such a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRate {
    /// Where it stands in the list, from 1.
    pub line: u64,
    /// Code of the site.
    pub code: String,
    /// What its line carries; `None`: not known.
    pub kbit: Option<u32>,
}

/// Reads a list of lines: `site_code,down_kbit`, a header first; an empty rate means that it is not known.
///
/// # Errors
/// Every fault, by line.
pub fn read_lines(bytes: &[u8]) -> Result<Vec<LineRate>, Vec<LineFault>> {
    let fault = |line, code, message: String| LineFault { line, code, message };
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
        .map_err(|_| vec![fault(1, "S-201", "the file is not UTF-8; save it as \"CSV UTF-8\"".into())])?;
    // Lines are counted by their line feeds, and a spreadsheet's second line would be its first.
    let text = text.replace("\r\n", "\n");
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    let mut seen = std::collections::HashMap::new();
    for (n, record) in reader.records().enumerate() {
        let Ok(record) = record else { continue };
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = record.iter().map(str::trim).collect();
        match fields.as_slice() {
            ["site_code", "down_kbit"] if n == 0 => {}
            _ if n == 0 => {
                return Err(vec![fault(line, "S-204", "the first line must be `site_code,down_kbit`".into())]);
            }
            [code, rate] => match (rate_of(rate), seen.insert((*code).to_owned(), line)) {
                (_, Some(first)) => {
                    faults.push(fault(line, "S-210", format!("the site {code:?} stands on line {first} already")))
                }
                (Err(why), _) => faults.push(fault(line, "S-213", why)),
                (Ok(kbit), _) => rows.push(LineRate { line, code: (*code).to_owned(), kbit }),
            },
            other => faults.push(fault(line, "S-203", format!("the line has {} fields instead of 2", other.len()))),
        }
        if rows.len() > LINES_MAX || faults.len() >= FAULTS_MAX {
            break;
        }
    }
    if rows.len() > LINES_MAX {
        faults.push(fault(1, "S-202", format!("the file has more than {LINES_MAX} lines")));
    }
    if rows.is_empty() && faults.is_empty() {
        faults.push(fault(1, "S-202", "the file has no sites".into()));
    }
    if faults.is_empty() { Ok(rows) } else { Err(faults) }
}

fn rate_of(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(kbit) if LINE_KBIT.contains(&kbit) => Ok(Some(kbit)),
        _ => Err(format!(
            "down_kbit `{}` is not a rate: whole kbit/s from {} to {}, or nothing if it is not known",
            text.chars().take(40).flat_map(char::escape_debug).collect::<String>(),
            LINE_KBIT.start(),
            LINE_KBIT.end()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_shared_by_where_its_sessions_are() {
        let limits = Limits::default();
        assert_eq!(limits.budget(10_000), 8500);
        assert_eq!(limits.part(10_000, 2, 5), 3400);
        assert_eq!(limits.part(10_000, 0, 0), 8500, "the first one is not written down yet");
        assert_eq!(limits.part(10_000, 3, 2), 8500, "nor is everybody that went");
        assert_eq!(limits.part(1, 1, 100), 1, "never nothing at all");
        assert_eq!(limits.budget(u32::MAX) / 1000, 3_650_722);
    }

    #[test]
    fn a_list_of_lines_is_taken_whole_or_its_faults_are_told() {
        let read = |text: &str| read_lines(text.as_bytes());
        let good = read("\u{feff}site_code,down_kbit\r\n00004, 8000\n00006,\n").unwrap();
        let good: Vec<_> = good.iter().map(|r| (r.line, r.code.as_str(), r.kbit)).collect();
        assert_eq!(good, [(2, "00004", Some(8000)), (3, "00006", None)]);
        let faults = read("site_code,down_kbit\n1,63\n2,fast\n3\n4,100\n4,100\n5,-1\n6,1e6\n").unwrap_err();
        let told: Vec<_> = faults.iter().map(|f| (f.line, f.code)).collect();
        assert_eq!(told, [(2, "S-213"), (3, "S-213"), (4, "S-203"), (6, "S-210"), (7, "S-213"), (8, "S-213")]);
        for (text, code) in [("", "S-202"), ("site_code,down_kbit\n", "S-202"), ("4,100\n", "S-204"), ("a;b", "S-204")]
        {
            assert_eq!(read(text).unwrap_err()[0].code, code, "{text:?}");
        }
        assert_eq!(read_lines(b"\xff\xfes\0").unwrap_err()[0].code, "S-201");
    }
}
