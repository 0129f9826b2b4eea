//! What this computer forbids: a file of words, one a line, that can only forbid.

use std::path::Path;

use tram_wire::diagnosis::{ACTIONS, Bundle, Class, spec};

/// Whether the file forbids what is called `name` and comes to these actions. One that can't be read, or has a word
/// nobody knows, forbids everything: a misspelt prohibition that does nothing would be worse.
#[must_use]
pub fn forbids(file: &Path, name: &str, actions: &[&str]) -> bool {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => return e.kind() != std::io::ErrorKind::NotFound,
    };
    let words = text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).filter(|w| !w.is_empty());
    words.into_iter().any(|w| word_forbids(w, name, actions))
}

fn word_forbids(word: &str, name: &str, actions: &[&str]) -> bool {
    let classes = [Class::Silent, Class::Active, Class::Disruptive].map(Class::name);
    let bundles = Bundle::ALL.map(Bundle::name);
    let known = classes.contains(&word) || bundles.contains(&word) || ACTIONS.iter().any(|a| a.name == word);
    if !known {
        // `all` among them.
        return true;
    }
    name == word || actions.iter().any(|a| *a == word || spec(a).is_some_and(|s| s.class.name() == word))
}
