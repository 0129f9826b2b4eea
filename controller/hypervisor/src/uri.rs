//! Splitting a backend URI. Only what we need: no crate for four characters of syntax.

use crate::{Error, Result};

/// `scheme://rest?query` taken apart; the query decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    /// Before the first `:`.
    pub scheme: String,
    /// Between the scheme and `?`.
    pub rest: String,
    /// Decoded pairs in order.
    pub query: Vec<(String, String)>,
}

impl Uri {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.len() > 2048 || text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(Error::Invalid(
                "a hypervisor URI has at most 2048 bytes, no blanks and no control characters".into(),
            ));
        }
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| Error::Invalid("a hypervisor URI begins with a scheme, such as qemu:///system".into()))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = query.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(k)?, decode(v)?))
        });
        Ok(Self { scheme: scheme.to_owned(), rest: rest.to_owned(), query: query.collect::<Result<_>>()? })
    }
}

fn decode(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let hex = [bytes.next(), bytes.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
        match hex {
            [Some(h), Some(l)] if h + l > 0 => out.push((h * 16 + l) as u8),
            _ => return Err(Error::Invalid("the hypervisor URI has a broken % escape".into())),
        }
    }
    String::from_utf8(out).map_err(|_| Error::Invalid("the hypervisor URI is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_uri_apart() {
        let u = Uri::parse("sim:///one?state=/a%20b&cpus=4&flag").unwrap();
        assert_eq!((u.scheme.as_str(), u.rest.as_str()), ("sim", "///one"));
        assert_eq!(
            u.query,
            [("state".into(), "/a b".into()), ("cpus".into(), "4".into()), ("flag".into(), String::new())]
        );
        for bad in ["", "nothing", "sim:///a?x=%0", "sim:///a?x=%00", "sim:///a?x=%ff", "sim:///a\n", "a b:"] {
            assert!(Uri::parse(bad).is_err(), "{bad:?}");
        }
    }
}
