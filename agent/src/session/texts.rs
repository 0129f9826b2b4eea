//! The sentences officers read: one file for the page, the mark and the terminal.

use std::collections::HashMap;
use std::sync::OnceLock;

/// As the page gets it.
pub const JSON: &str = include_str!("page/texts.json");

type Texts = HashMap<String, HashMap<String, String>>;

fn all() -> &'static Texts {
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    // A test reads the file; a damaged one would leave every sentence out.
    TEXTS.get_or_init(|| serde_json::from_str(JSON).unwrap_or_default())
}

/// A sentence in a language (`vi`, `en`), with its names filled in. `None` if there is none of this key.
#[must_use]
pub fn text(language: &str, key: &str, values: &[(&str, &str)]) -> Option<String> {
    let sentences = all().get(language).or_else(|| all().get("vi"))?;
    let sentence = sentences.get(key)?;
    // In one pass: what is filled in is never looked at for names.
    let mut out = String::with_capacity(sentence.len());
    let mut rest = sentence.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(values.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v));
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_once() {
        let said = text("vi", "mark_watching", &[("who", "{why}"), ("why", "máy in")]).unwrap();
        assert!(said.contains("{why}") && said.contains("máy in"), "{said}");
        assert_eq!(text("vi", "no such key", &[]), None);
        assert_eq!(text("fr", "sign_in", &[]), text("vi", "sign_in", &[]));
    }
}
