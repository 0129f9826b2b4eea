//! As much of IPP as asking a local CUPS for its printers and jobs takes: numbers, texts and lists.

use std::collections::BTreeMap;

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// CUPS-Get-Printers.
    Printers = 0x4002,
    /// Get-Jobs, those that aren't done.
    Jobs = 0x000A,
}

/// One printer or job: names to values; a list has several.
pub type Group = BTreeMap<String, Vec<Value>>;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Integer, enum or boolean.
    Number(i32),
    /// Anything written in letters.
    Text(String),
    /// Of a kind we don't need.
    Other,
}

/// The whole HTTP request. The names wanted keep documents' and users' names out of the answer.
#[must_use]
pub fn request(operation: Operation, wanted: &[&str]) -> Vec<u8> {
    let mut body = vec![1, 1];
    body.extend((operation as u16).to_be_bytes());
    body.extend([0, 0, 0, 1, 1]);
    attribute(&mut body, 0x47, "attributes-charset", "utf-8");
    attribute(&mut body, 0x48, "attributes-natural-language", "en");
    if operation == Operation::Jobs {
        attribute(&mut body, 0x45, "printer-uri", "ipp://localhost/");
        attribute(&mut body, 0x44, "which-jobs", "not-completed");
    }
    for (i, name) in wanted.iter().enumerate() {
        // Further values of a list have no name.
        attribute(&mut body, 0x44, if i == 0 { "requested-attributes" } else { "" }, name);
    }
    body.push(3);
    let head = format!(
        "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/ipp\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

fn attribute(to: &mut Vec<u8>, tag: u8, name: &str, value: &str) {
    let text = |to: &mut Vec<u8>, t: &str| {
        to.extend(u16::try_from(t.len()).unwrap_or(0).to_be_bytes());
        to.extend(t.as_bytes());
    };
    to.push(tag);
    text(to, name);
    text(to, value);
}

/// The groups with this tag (2 jobs, 4 printers) of an HTTP answer; `None` if it isn't one that says yes.
#[must_use]
pub fn answer(http: &[u8], wanted: u8) -> Option<Vec<Group>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(http) else { return None };
    if response.code != Some(200) {
        return None;
    }
    let chunked = response.headers.iter().any(|h| h.name.eq_ignore_ascii_case("transfer-encoding"));
    let body = http.get(head..)?;
    if chunked { groups(&unchunk(body)?, wanted) } else { groups(body, wanted) }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let data = rest.get(end + 2..)?;
        if size == 0 {
            return Some(all);
        }
        all.extend_from_slice(data.get(..size)?);
        rest = data.get(size.checked_add(2)?..)?;
    }
}

fn groups(body: &[u8], wanted: u8) -> Option<Vec<Group>> {
    let mut r = Reader(body.get(8..)?);
    let status = u16::from_be_bytes([*body.get(2)?, *body.get(3)?]);
    // 0x0406: there is none of them.
    if status == 0x0406 {
        return Some(Vec::new());
    }
    if status >= 0x0100 {
        return None;
    }
    let (mut all, mut name, mut inside): (Vec<Group>, String, bool) = (Vec::new(), String::new(), false);
    loop {
        match r.byte()? {
            3 => return Some(all),
            tag @ 0..=0x0f => {
                inside = tag == wanted;
                if inside && all.len() < 64 {
                    all.push(Group::new());
                }
            }
            tag => {
                let (own, value) = (r.text()?, r.bytes()?);
                if !own.is_empty() {
                    name = own;
                }
                let value = match tag {
                    0x21 | 0x23 => Value::Number(i32::from_be_bytes(value.try_into().ok()?)),
                    0x22 => Value::Number(i32::from(*value.first()?)),
                    0x41..=0x49 => Value::Text(String::from_utf8_lossy(value).into_owned()),
                    _ => Value::Other,
                };
                if let Some(group) = all.last_mut().filter(|_| inside) {
                    group.entry(name.clone()).or_default().push(value);
                }
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let (value, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(value)
    }

    fn text(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes()?).into_owned())
    }
}

/// The first number of a name.
#[must_use]
pub fn number(g: &Group, name: &str) -> Option<i32> {
    match g.get(name)?.first()? {
        Value::Number(n) => Some(*n),
        Value::Text(_) | Value::Other => None,
    }
}

/// The texts of a name.
#[must_use]
pub fn texts(g: &Group, name: &str) -> Vec<String> {
    let text = |v: &Value| match v {
        Value::Text(t) => Some(t.clone()),
        Value::Number(_) | Value::Other => None,
    };
    g.get(name).into_iter().flatten().filter_map(text).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer as CUPS would give it: groups of (tag, name, value).
    pub(in crate::collect) fn said(group: u8, groups: &[&[(u8, &str, Vec<u8>)]]) -> Vec<u8> {
        let mut b = vec![1, 1, 0, 0, 0, 0, 0, 1];
        for g in groups {
            b.push(group);
            for (tag, name, value) in *g {
                b.push(*tag);
                b.extend((name.len() as u16).to_be_bytes());
                b.extend(name.as_bytes());
                b.extend((value.len() as u16).to_be_bytes());
                b.extend(value);
            }
        }
        b.push(3);
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", b.len());
        [head.as_bytes(), &b].concat()
    }

    #[test]
    fn lists_numbers_and_chunks_are_read() {
        let http = said(
            4,
            &[&[
                (0x42, "printer-name", b"a".to_vec()),
                (0x44, "printer-state-reasons", b"media-empty-error".to_vec()),
                (0x44, "", b"paused".to_vec()),
                (0x23, "printer-state", 5_i32.to_be_bytes().to_vec()),
            ]],
        );
        let groups = answer(&http, 4).unwrap();
        assert_eq!(texts(&groups[0], "printer-state-reasons"), ["media-empty-error", "paused"]);
        assert_eq!(number(&groups[0], "printer-state"), Some(5));
        let body = &http[http.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4..];
        let chunked = [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            format!("{:x}\r\n", body.len()).into_bytes(),
            body.to_vec(),
            b"\r\n0\r\n\r\n".to_vec(),
        ]
        .concat();
        assert_eq!(answer(&chunked, 4).unwrap(), groups);
    }

    #[test]
    fn a_torn_answer_is_none_and_never_a_crash() {
        let http = said(4, &[&[(0x23, "printer-state", 5_i32.to_be_bytes().to_vec())]]);
        for cut in 0..http.len() {
            assert_eq!(answer(&http[..cut], 4), None, "{cut}");
        }
        assert_eq!(answer(b"HTTP/1.1 401 Unauthorized\r\n\r\n", 4), None);
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx", 4), None);
    }
}
