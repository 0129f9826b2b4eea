//! Names people type. Names reach XML, file paths, host names and logs, so the rule is narrow.

/// Longest name of a pool or host, in bytes.
pub const MAX: usize = 40;

/// Checks a pool, host or image name: 1 to 40 of `a-z 0-9 -`, beginning and ending with a letter or digit.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty; give 1 to 40 lower-case letters, digits or hyphens".into());
    }
    if name.len() > MAX {
        return Err(format!("the name is {} bytes long; 40 are allowed", name.len()));
    }
    if let Some(bad) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(format!(
            "the name has the character `{}`; only lower-case letters a-z, digits and hyphens are allowed",
            bad.escape_default()
        ));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err("the name begins or ends with a hyphen".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn hostile_names_are_refused_and_plain_ones_pass() {
        for good in ["co-loa", "a", "pool7", &"x".repeat(40)] {
            check(good).unwrap();
        }
        for bad in ["", "a<b", "a&b", "a\0b", "a\nb", "../etc", "-a", "a-", "Cổ Loa", "A", &"x".repeat(10_240)] {
            check(bad).unwrap_err();
        }
    }
}
