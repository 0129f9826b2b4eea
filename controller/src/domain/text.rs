//! Vietnamese text as people search it: without regard to marks, case, Unicode form or old spelling.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Folds a text to lower-case words of `a-z 0-9` (and letters of other scripts), in which equal sounds
/// spelled differently are equal: `Đống Đa` and `dong da`, `Thụy` and `Thuỵ`, `Kỳ` and `Kì`.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in text.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        let c = match c {
            // Not decomposed by Unicode. The Icelandic and African letters look the same and are typed for it.
            'đ' | 'ð' | 'ɖ' => 'd',
            c => c,
        };
        match words.last_mut() {
            Some(word) if c.is_alphanumeric() => push_folding_y(word, c),
            Some(word) if word.is_empty() => {}
            _ => words.push(String::new()),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// The same text without Vietnamese marks, letter for letter; upper case stays.
#[must_use]
pub fn unmarked(text: &str) -> String {
    let plain = text.nfd().filter(|c| !is_combining_mark(*c));
    plain
        .map(|c| match c {
            'đ' => 'd',
            'Đ' => 'D',
            c => c,
        })
        .collect()
}

/// `y` after a consonant is written `i` by some (Kỳ/Kì, Lý/Lí, Quý/Quí); after a vowel (Tây, Thúy) and at
/// the beginning (Yên) it is another sound.
fn push_folding_y(word: &mut String, c: char) {
    let after_consonant = word.ends_with("qu") || word.chars().next_back().is_some_and(|p| !"aeiouy".contains(p));
    word.push(if c == 'y' && after_consonant { 'i' } else { c });
}

/// What a row is found by: ` co loa | dong anh | ha noi `. Every word has a blank before it, so that a
/// database finds beginnings of words with `LIKE '% word%'` (see [`patterns`]); `|` keeps the parts apart.
#[must_use]
pub fn search_key(parts: &[&str]) -> String {
    let parts: Vec<String> = parts.iter().map(|p| words(p).join(" ")).filter(|p| !p.is_empty()).collect();
    format!(" {} ", parts.join(" | "))
}

/// `LIKE` patterns that all must match a [`search_key`] to find it by what somebody typed. Unused ones match
/// everything; words beyond the `N`th are ignored. Text without a single word finds nothing.
#[must_use]
pub fn patterns<const N: usize>(typed: &str) -> [String; N] {
    let words = words(typed);
    let mut patterns = [const { String::new() }; N];
    for (i, pattern) in patterns.iter_mut().enumerate() {
        *pattern = match words.get(i) {
            Some(word) => format!("% {word}%"),
            None if words.is_empty() && !typed.trim().is_empty() => String::new(),
            None => "%".into(),
        };
    }
    patterns
}

/// A name in the one Unicode form we keep (NFC), with blanks trimmed and runs of them made one.
#[must_use]
pub fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").nfc().collect()
}

/// What is wrong with a text people will read, if anything: nothing in it, too long, or characters that
/// do not show or reorder what stands around them.
#[must_use]
pub fn fault(text: &str, max_chars: usize) -> Option<String> {
    if text.trim().is_empty() {
        return Some("is empty".into());
    }
    let length = text.chars().count();
    if length > max_chars {
        return Some(format!("is {length} characters long; {max_chars} are allowed"));
    }
    let hidden = |c: &char| {
        c.is_control()
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().find(hidden).map(|c| format!("has the hidden character {}", c.escape_unicode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        words(text).join(" ")
    }

    #[test]
    fn marks_case_and_form_do_not_matter() {
        assert_eq!(key("Đường Đê La Thành"), "duong de la thanh");
        assert_eq!(key("ỨNG HÒA"), key("ứng hoà"));
        let composed: String = "Xã Cổ Nhuế 1, quận Bắc Từ Liêm".nfc().collect();
        let decomposed: String = composed.nfd().collect();
        assert_ne!(composed, decomposed);
        assert_eq!(key(&composed), key(&decomposed));
        assert_eq!(key(&composed), "xa co nhue 1 quan bac tu liem");
        assert_eq!(key("Ðông Anh"), "dong anh", "the Icelandic letter");
        assert_eq!(key("  -- "), "");
    }

    #[test]
    fn y_and_i_are_one_only_where_they_sound_alike() {
        for (a, b) in [("Thụy", "Thuỵ"), ("Kỳ", "Kì"), ("Mỹ Đức", "Mĩ Đức"), ("Quý", "Quí"), ("Lý", "lí")]
        {
            assert_eq!(key(a), key(b), "{a} {b}");
        }
        for (a, b) in [("Tây", "Tai"), ("Thúy", "Thúi"), ("Bảy", "Bải")] {
            assert_ne!(key(a), key(b), "{a} {b}");
        }
        // Half a word, as it is being typed, must stay a prefix of the whole.
        for (part, whole) in [("quy", "Quỳnh Mai"), ("y", "Yên Sở"), ("thuy", "Thuỵ Khuê"), ("nguy", "Nguyễn Trãi")]
        {
            assert!(key(whole).starts_with(&key(part)), "{part} {whole}");
        }
    }

    #[test]
    fn patterns_match_what_the_key_says() {
        assert_eq!(search_key(&["Cổ Loa", "", "Đông Anh"]), " co loa | dong anh ");
        assert_eq!(patterns::<3>("  LOA đông"), ["% loa%", "% dong%", "%"]);
        assert_eq!(patterns::<2>(""), ["%", "%"]);
        assert_eq!(patterns::<2>("%"), ["", ""], "a wildcard typed by somebody is no word");
    }

    #[test]
    fn names_are_tidied_and_hidden_characters_found() {
        assert_eq!(tidy("  Phường \u{a0} Cống  Vi\u{323} "), "Phường Cống Vị");
        assert_eq!(fault("Cổ Loa", 100), None);
        for bad in ["", " ", "a\nb", "a\0", "\u{202e}cba", "a\u{200b}", &"x".repeat(101)] {
            assert!(fault(bad, 100).is_some(), "{bad:?}");
        }
    }
}
