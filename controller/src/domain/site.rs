//! Sites: the administrative units that offices belong to, as a tree that changes with time.
//!
//! A site is known by its code; names repeat (25 communes of Hanoi share a name with another), so whoever
//! shows a commune shows its district too. Each row is valid from one day until before another: units are
//! renamed, merged and moved, and what happened under the old unit stays with it.

use super::day::Day;
use super::text;

text_enum! {
    /// Where in the tree a site stands.
    Level {
        /// A province or a city under the central government.
        Province = "province",
        /// A district; none since July 2025.
        District = "district",
        /// A commune: where the offices are.
        Commune = "commune",
    }
}

text_enum! {
    /// The official kind of a unit.
    UnitType {
        /// Rural commune.
        Xa = "xã",
        /// Urban ward.
        Phuong = "phường",
        /// Township.
        ThiTran = "thị trấn",
        /// Special zone.
        DacKhu = "đặc khu",
        /// Urban district.
        Quan = "quận",
        /// Rural district.
        Huyen = "huyện",
        /// Town.
        ThiXa = "thị xã",
        /// City.
        ThanhPho = "thành phố",
        /// Province.
        Tinh = "tỉnh",
    }
}

text_enum! {
    /// When the programme reaches a site.
    Phase {
        /// The inner districts, done before.
        Urban = "urban",
        /// First phase.
        One = "1",
        /// Second phase.
        Two = "2",
    }
}

impl UnitType {
    /// Levels of the tree at which this kind stands.
    #[must_use]
    pub fn levels(self) -> &'static [Level] {
        match self {
            Self::Xa | Self::Phuong | Self::ThiTran | Self::DacKhu => &[Level::Commune],
            Self::Quan | Self::Huyen | Self::ThiXa => &[Level::District],
            Self::ThanhPho => &[Level::District, Level::Province],
            Self::Tinh => &[Level::Province],
        }
    }

    /// How people shorten it when they type.
    fn abbreviation(self) -> &'static str {
        match self {
            Self::ThiTran => "tt",
            Self::ThiXa => "tx",
            Self::ThanhPho => "tp",
            Self::DacKhu => "dk",
            _ => "",
        }
    }

    /// The kind a full name such as `Quận Ba Đình` begins with, and the rest of the name.
    #[must_use]
    pub fn split(full_name: &str) -> Option<(Self, &str)> {
        Self::ALL.iter().find_map(|kind| {
            let rest = strip_prefix_ignoring_case(full_name, kind.as_str())?;
            let short = rest.trim_start();
            (short.len() < rest.len() && !short.is_empty()).then_some((*kind, short))
        })
    }
}

/// Both in the same Unicode form; lower-casing Vietnamese keeps the number of characters.
fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let mut rest = text.chars();
    for wanted in prefix.chars() {
        if rest.next()?.to_lowercase().ne(wanted.to_lowercase()) {
            return None;
        }
    }
    Some(rest.as_str())
}

/// One site as it is from one day until before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Official code: text, zeros in front count.
    pub code: String,
    /// Full name, such as `Xã Cổ Loa`.
    pub name: String,
    /// Name without its kind, such as `Cổ Loa`.
    pub short_name: String,
    /// Official kind.
    pub kind: UnitType,
    /// Place in the tree.
    pub level: Level,
    /// The unit above.
    pub parent_code: Option<String>,
    /// When the programme reaches it.
    pub phase: Option<Phase>,
    /// Another spelling in use.
    pub alt_name: Option<String>,
    /// First day.
    pub valid_from: Day,
    /// First day it is no longer so.
    pub valid_to: Option<Day>,
}

impl Site {
    /// What it is found by, without the units above: those are looked up as they are on the day asked for.
    #[must_use]
    pub fn search_key(&self) -> String {
        let kind = format!("{} {} {}", self.kind, self.kind.abbreviation(), self.code);
        text::search_key(&[&self.short_name, self.alt_name.as_deref().unwrap_or_default(), &kind])
    }

    /// Whether it says the same as another but for the days.
    #[must_use]
    pub fn same_facts(&self, other: &Self) -> bool {
        let days = |s: &Self| Self { valid_from: self.valid_from, valid_to: None, ..s.clone() };
        days(self) == days(other)
    }
}

/// A site as others show it: never without its district where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRef {
    /// Code.
    pub code: String,
    /// Full name.
    pub name: String,
    /// Full name of the district it lies in.
    pub district: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_off_full_names() {
        assert_eq!(UnitType::split("Quận Ba Đình"), Some((UnitType::Quan, "Ba Đình")));
        assert_eq!(UnitType::split("THỊ TRẤN Đông Anh"), Some((UnitType::ThiTran, "Đông Anh")));
        assert_eq!(UnitType::split("Thành phố Hà Nội"), Some((UnitType::ThanhPho, "Hà Nội")));
        for bad in ["Ba Đình", "Quận", "Quận ", "Xãhội", ""] {
            assert_eq!(UnitType::split(bad), None, "{bad}");
        }
    }
}
