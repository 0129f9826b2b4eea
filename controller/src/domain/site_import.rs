//! Reading a list of sites and planning what it changes. Pure: every fault is found and named by line, and
//! nothing is decided by half a list.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::day::Day;
use super::site::{Level, Phase, Site, UnitType};
use super::text;

/// The columns of the file, in any order.
pub const COLUMNS: [&str; 12] = [
    "province_code",
    "province_name",
    "district_code",
    "district_name",
    "district_type",
    "commune_code",
    "commune_name",
    "commune_short_name",
    "commune_type",
    "ascii_name",
    "phase",
    "alt_name",
];

/// Faults told at most; a file with more is wrong as a whole.
pub const FAULTS_MAX: usize = 500;
/// Lines read at most: several countries' worth.
const LINES_MAX: u64 = 50_000;
const NAME_MAX: usize = 100;
const CODE_MAX: usize = 10;

/// One fault of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineFault {
    /// Line, counted from 1; the header is line 1.
    pub line: u64,
    /// Short code.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// Reads the file: provinces, districts and communes, each once, without days.
///
/// `known` tells which codes the tree has already, so that a line may name its district by code alone.
///
/// # Errors
/// Every fault of the file, by line.
pub fn read(bytes: &[u8], known: &dyn Fn(&str) -> bool, from: Day) -> Result<Vec<Site>, Vec<LineFault>> {
    let mut reading = Reading { from, ..Reading::default() };
    let text = reading.decode(bytes);
    if let Some(text) = text {
        reading.rows(&text);
        reading.check_parents(known);
    }
    reading.finish()
}

#[derive(Default)]
struct Reading {
    from: Day,
    faults: Vec<LineFault>,
    /// Every unit with the line that named it first.
    units: BTreeMap<String, (Site, u64)>,
    /// Units named by code alone: code, line and column.
    by_code_alone: Vec<(String, u64, &'static str)>,
    with_district: Option<(bool, u64)>,
}

/// The fields of one line, by column.
struct Line<'a> {
    number: u64,
    fields: HashMap<&'static str, &'a str>,
}

impl Line<'_> {
    fn get(&self, column: &'static str) -> &str {
        self.fields.get(column).copied().unwrap_or_default().trim()
    }
}

impl Reading {
    fn fault(&mut self, line: u64, code: &'static str, message: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(LineFault { line, code, message: message.into() });
        }
    }

    /// The file as text, with U+FFFD where it is broken, so that the other lines are checked too.
    fn decode(&mut self, bytes: &[u8]) -> Option<String> {
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            self.fault(1, "S-201", "the file is UTF-16; save it as \"CSV UTF-8\"");
            return None;
        }
        // Spreadsheets put a byte order mark in front.
        let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let (mut offset, mut line) = (start, 1);
        for chunk in bytes[start..].utf8_chunks() {
            line += count_lines(chunk.valid().as_bytes());
            offset += chunk.valid().len();
            if let Some(byte) = chunk.invalid().first() {
                self.fault(
                    line,
                    "S-201",
                    format!("byte {offset} of the file (0x{byte:02x}) is not UTF-8; save the file as \"CSV UTF-8\""),
                );
                offset += chunk.invalid().len();
            }
        }
        Some(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    fn rows(&mut self, text: &str) {
        let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
        let mut records = reader.records();
        let header = match records.next() {
            Some(Ok(header)) => header,
            _ => return self.fault(1, "S-202", "the file is empty"),
        };
        let Some(columns) = self.columns(&header) else { return };
        for record in records {
            let Ok(record) = record else { continue };
            let number = record.position().map_or(0, csv::Position::line);
            if number > LINES_MAX {
                return self.fault(number, "S-202", format!("the file has more than {LINES_MAX} lines"));
            }
            if record.len() != COLUMNS.len() {
                let hint =
                    if record.iter().any(|f| f.contains('\n')) { "; is a quotation mark left open?" } else { "" };
                self.fault(
                    number,
                    "S-203",
                    format!("the line has {} fields instead of {}{hint}", record.len(), COLUMNS.len()),
                );
                continue;
            }
            let fields = columns.iter().copied().zip(record.iter()).collect();
            self.line(&Line { number, fields });
        }
        if self.units.is_empty() && self.faults.is_empty() {
            self.fault(1, "S-202", "the file has a header but no sites");
        }
    }

    /// Which column stands where, or what is wrong with the header.
    fn columns(&mut self, header: &csv::StringRecord) -> Option<Vec<&'static str>> {
        let before = self.faults.len();
        let mut found: Vec<&'static str> = Vec::new();
        for name in header {
            match COLUMNS.into_iter().find(|c| *c == name.trim()) {
                Some(c) if found.contains(&c) => self.fault(1, "S-204", format!("the column `{c}` stands there twice")),
                Some(c) => found.push(c),
                None if header.len() == 1 && name.contains(';') => {
                    self.fault(1, "S-204", "the fields are separated by semicolons; save the file with commas");
                    return None;
                }
                None => self.fault(1, "S-204", format!("there is no column `{}` in this format", shown(name))),
            }
        }
        for missing in COLUMNS.into_iter().filter(|c| !found.contains(c)) {
            self.fault(1, "S-204", format!("the column `{missing}` is missing"));
        }
        (self.faults.len() == before).then_some(found)
    }

    fn line(&mut self, line: &Line) {
        let before = self.faults.len();
        for column in COLUMNS {
            let raw = line.fields.get(column).copied().unwrap_or_default();
            if !raw.trim().is_empty() {
                self.check_text(line.number, column, raw);
            }
        }
        if self.faults.len() > before {
            return;
        }
        let province = self.province(line);
        let district = self.district(line, province.as_deref());
        self.commune(line, district.or(province));
    }

    fn check_text(&mut self, line: u64, column: &'static str, raw: &str) {
        if raw.contains('\u{fffd}') {
            // Broken bytes were told already; a replacement character in the file itself is as bad.
            if !self.faults.iter().any(|f| f.line == line && f.code == "S-201") {
                self.fault(
                    line,
                    "S-201",
                    format!("{column} has the replacement character U+FFFD: the name was lost in a conversion"),
                );
            }
        } else if column.ends_with("_code") {
            let plain = raw.trim().bytes().all(|b| b.is_ascii_alphanumeric());
            if !plain || raw.trim().len() > CODE_MAX {
                self.fault(
                    line,
                    "S-205",
                    format!("{column} `{}` is not a code: up to {CODE_MAX} digits or letters", shown(raw)),
                );
            }
        } else if let Some(wrong) = text::fault(raw, NAME_MAX) {
            self.fault(line, "S-206", format!("{column} {wrong}"));
        }
    }

    fn province(&mut self, line: &Line) -> Option<String> {
        let (code, name) = (line.get("province_code"), text::tidy(line.get("province_name")));
        if code.is_empty() {
            self.fault(line.number, "S-207", "province_code is empty");
            return None;
        }
        if name.is_empty() {
            self.by_code_alone.push((code.into(), line.number, "province_code"));
            return Some(code.into());
        }
        match UnitType::split(&name) {
            Some((kind, short)) if kind.levels().contains(&Level::Province) => {
                let site = self.site(code, &name, short, kind, Level::Province, None);
                self.put(line.number, site);
            }
            _ => self.fault(
                line.number,
                "S-208",
                format!("province_name `{name}` begins with neither `Tỉnh` nor `Thành phố`"),
            ),
        }
        Some(code.into())
    }

    /// The district's code; `None` where there is no such level.
    fn district(&mut self, line: &Line, province: Option<&str>) -> Option<String> {
        let (code, name, kind) =
            (line.get("district_code"), text::tidy(line.get("district_name")), line.get("district_type"));
        let has = !(code.is_empty() && name.is_empty() && kind.is_empty());
        match self.with_district {
            None => self.with_district = Some((has, line.number)),
            Some((others, first)) if others != has => {
                let (this, that) = if has { ("names", "does not") } else { ("names no", "does") };
                self.fault(line.number, "S-207", format!("this line {this} district while line {first} {that}"));
                return None;
            }
            Some(_) => {}
        }
        if !has {
            return None;
        }
        if code.is_empty() {
            self.fault(line.number, "S-207", "district_code is empty");
            return None;
        }
        if name.is_empty() {
            self.by_code_alone.push((code.into(), line.number, "district_code"));
            return Some(code.into());
        }
        if let Some(kind) = self.kind(line.number, "district_type", kind, Level::District) {
            let short =
                UnitType::split(&name).filter(|(k, _)| *k == kind).map_or(name.as_str(), |(_, short)| short).to_owned();
            let site = self.site(code, &name, &short, kind, Level::District, province.map(Into::into));
            self.put(line.number, site);
        }
        Some(code.into())
    }

    fn commune(&mut self, line: &Line, parent: Option<String>) {
        let number = line.number;
        let code = line.get("commune_code");
        let (name, short) = (text::tidy(line.get("commune_name")), text::tidy(line.get("commune_short_name")));
        let alt = text::tidy(line.get("alt_name"));
        for (column, value) in [("commune_code", code), ("commune_name", &name), ("commune_short_name", &short)] {
            if value.is_empty() {
                self.fault(number, "S-207", format!("{column} is empty"));
            }
        }
        let kind = self.kind(number, "commune_type", line.get("commune_type"), Level::Commune);
        let phase = match line.get("phase") {
            "" => None,
            word => match word.parse::<Phase>() {
                Ok(phase) => Some(phase),
                Err(_) => {
                    return self.fault(number, "S-209", format!("the phase `{}` is none of urban, 1, 2", shown(word)));
                }
            },
        };
        let (Some(kind), false) = (kind, code.is_empty() || name.is_empty() || short.is_empty()) else { return };
        if let Some((other, first)) = self.units.get(code) {
            let what = if other.level == Level::Commune { "commune" } else { "unit of another level" };
            let message = format!("the code {code} stands on line {first} already, for the {what} {}", other.name);
            return self.fault(number, "S-210", message);
        }
        let mut site = self.site(code, &name, &short, kind, Level::Commune, parent);
        site.phase = phase;
        site.alt_name = Some(alt).filter(|a| !a.is_empty());
        self.units.insert(code.into(), (site, number));
    }

    fn kind(&mut self, line: u64, column: &'static str, word: &str, level: Level) -> Option<UnitType> {
        let kind = text::tidy(word).to_lowercase().parse::<UnitType>().ok().filter(|k| k.levels().contains(&level));
        if kind.is_none() {
            let all: Vec<_> =
                UnitType::ALL.iter().filter(|k| k.levels().contains(&level)).map(|k| k.as_str()).collect();
            self.fault(line, "S-208", format!("{column} `{}` is none of: {}", shown(word), all.join(", ")));
        }
        kind
    }

    fn site(&self, code: &str, name: &str, short: &str, kind: UnitType, level: Level, parent: Option<String>) -> Site {
        Site {
            code: code.into(),
            name: name.into(),
            short_name: short.into(),
            kind,
            level,
            parent_code: parent,
            phase: None,
            alt_name: None,
            valid_from: self.from,
            valid_to: None,
        }
    }

    /// Adds a unit that many lines name; they must agree.
    fn put(&mut self, line: u64, site: Site) {
        match self.units.get(&site.code) {
            None => drop(self.units.insert(site.code.clone(), (site, line))),
            Some((other, _)) if *other == site => {}
            Some((other, first)) => {
                let message = if other.level != site.level {
                    format!("the code {} is a {} here and a {} on line {first}", site.code, site.level, other.level)
                } else if other.parent_code != site.parent_code {
                    format!("{} {} lies in another unit than on line {first}", site.level, site.code)
                } else {
                    format!(
                        "{} {} is called `{}` here and `{}` on line {first}",
                        site.level, site.code, site.name, other.name
                    )
                };
                self.fault(line, "S-211", message);
            }
        }
    }

    /// A unit named by code alone must be named in full elsewhere, or be known already.
    fn check_parents(&mut self, known: &dyn Fn(&str) -> bool) {
        for (code, line, column) in std::mem::take(&mut self.by_code_alone) {
            if !self.units.contains_key(&code) && !known(&code) {
                self.fault(
                    line,
                    "S-212",
                    format!("{column} {code} is unknown: give its name and type, or import it first"),
                );
            }
        }
    }

    fn finish(mut self) -> Result<Vec<Site>, Vec<LineFault>> {
        if self.faults.is_empty() {
            return Ok(self.units.into_values().map(|(site, _)| site).collect());
        }
        self.faults.sort();
        Err(self.faults)
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').map(|_| 1).sum()
}

/// Foreign text in a message: short, and without what would break the line.
fn shown(text: &str) -> String {
    text.trim().chars().take(40).flat_map(char::escape_debug).collect()
}

/// What an import does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows to write: new ones, and old ones with their last day.
    pub write: Vec<Site>,
    /// Sites that were not there.
    pub created: Vec<String>,
    /// Sites whose facts changed.
    pub updated: Vec<String>,
    /// Sites that stay as they are.
    pub unchanged: usize,
    /// Sites that end because the list has them no more.
    pub closed: Vec<String>,
    /// Sites of the list's provinces that it does not have, left as they are.
    pub missing: Vec<String>,
}

/// Plans how the tree follows a list that is true from a day on. What was before stays as it was; what a
/// later import already said stays too. With `close_missing`, communes and districts of the list's provinces
/// that it does not have end on that day.
#[must_use]
pub fn plan(all: &[Site], wanted: &[Site], from: Day, close_missing: bool) -> Plan {
    let mut plan = Plan::default();
    let valid = |s: &&Site| s.valid_from <= from && s.valid_to.is_none_or(|to| to > from);
    let now: HashMap<&str, &Site> = all.iter().filter(valid).map(|s| (s.code.as_str(), s)).collect();
    for site in wanted {
        let old = now.get(site.code.as_str()).copied();
        if old.is_some_and(|old| old.same_facts(site)) {
            plan.unchanged += 1;
            continue;
        }
        let later = || all.iter().filter(|s| s.code == site.code && s.valid_from > from).map(|s| s.valid_from).min();
        let valid_to = old.map_or_else(later, |old| old.valid_to);
        plan.write.extend(ended(old, from));
        plan.write.push(Site { valid_from: from, valid_to, ..site.clone() });
        if old.is_some() { plan.updated.push(site.code.clone()) } else { plan.created.push(site.code.clone()) }
    }
    for site in missing(&now, wanted) {
        if close_missing {
            // One that began on this very day was a mistake: ended on its first day, it is valid never.
            plan.write.push(Site { valid_to: Some(from), ..site.clone() });
            plan.closed.push(site.code.clone());
        } else {
            plan.missing.push(site.code.clone());
        }
    }
    plan
}

/// The row with its last day, unless it began on that day: then it is written over.
fn ended(old: Option<&Site>, on: Day) -> Option<Site> {
    old.filter(|s| s.valid_from < on).map(|s| Site { valid_to: Some(on), ..s.clone() })
}

/// Sites in the list's provinces that the list does not have, by code.
fn missing<'a>(now: &HashMap<&str, &'a Site>, wanted: &[Site]) -> Vec<&'a Site> {
    let wanted_codes: HashSet<&str> = wanted.iter().map(|w| w.code.as_str()).collect();
    let parents: HashSet<&str> = wanted.iter().filter_map(|w| w.parent_code.as_deref()).collect();
    let listed = |code: &str| wanted_codes.contains(code) || parents.contains(code);
    let province = |site: &Site| {
        let mut code = site.parent_code.as_deref();
        // Two steps lead from a commune to its province.
        for _ in 0..2 {
            match code.and_then(|c| now.get(c)) {
                Some(parent) if parent.parent_code.is_some() => code = parent.parent_code.as_deref(),
                _ => break,
            }
        }
        code.is_some_and(listed)
    };
    let mut missing: Vec<_> =
        now.values().copied().filter(|s| !wanted_codes.contains(s.code.as_str()) && province(s)).collect();
    missing.sort_by(|a, b| a.code.cmp(&b.code));
    missing
}
