//! Messages packed for the line: a byte that says so, and the JSON deflated. A full report of health is mostly names
//! that come again and again; packed it is a fifth.
//!
//! Only to a controller whose plan says that it reads them ([`crate::plan::Plan::binary`]).

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use serde::de::Error;

use crate::frame::{MAX_FRAME, WireError};

const PACKED: u8 = 3;
/// Shorter ones gain nothing.
const WORTH: usize = 300;
/// Of ten; more costs time and brings nothing at these sizes.
const LEVEL: u8 = 6;

/// The frame of a message, if it is worth packing.
#[must_use]
pub fn pack(text: &str) -> Option<Vec<u8>> {
    if text.len() < WORTH {
        return None;
    }
    let mut bytes = vec![PACKED];
    bytes.extend(compress_to_vec(text.as_bytes(), LEVEL));
    (bytes.len() < text.len()).then_some(bytes)
}

/// The JSON of a packed frame; `None`: it is no packed frame.
///
/// # Errors
/// If it unpacks to more than [`MAX_FRAME`], or not at all.
#[must_use]
pub fn unpack(bytes: &[u8]) -> Option<Result<Vec<u8>, WireError>> {
    let (kind, body) = bytes.split_first()?;
    if *kind != PACKED {
        return None;
    }
    Some(decompress_to_vec_with_limit(body, MAX_FRAME).map_err(|e| match e.status {
        TINFLStatus::HasMoreOutput => WireError::TooLarge { bytes: MAX_FRAME + 1 },
        _ => WireError::NotAMessage(serde_json::Error::custom("it can't be unpacked")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_smaller_and_comes_back() {
        let text = format!(r#"{{"kind":"report","checks":[{}]}}"#, r#"{"check":"memory","state":"ok"},"#.repeat(40));
        let packed = pack(&text).unwrap();
        assert!(packed.len() * 5 < text.len(), "{}", packed.len());
        assert_eq!(unpack(&packed).unwrap().unwrap(), text.as_bytes());
        assert_eq!(pack("short"), None);
        assert!(unpack(b"").is_none() && unpack(&[1, 2]).is_none());
    }

    #[test]
    fn a_bomb_and_rubbish_are_refused() {
        let bomb = [&[PACKED][..], &compress_to_vec(&vec![b'['; 50_000_000], 9)].concat();
        assert!(bomb.len() < MAX_FRAME);
        assert_eq!(unpack(&bomb).unwrap().unwrap_err().code(), "too_large");
        assert_eq!(unpack(&[PACKED, 0xff, 0xff, 0xff]).unwrap().unwrap_err().code(), "not_a_message");
        let whole = pack(&"ab".repeat(500)).unwrap();
        for cut in 1..whole.len() {
            assert!(unpack(&whole[..cut]).unwrap().is_err(), "{cut}");
        }
    }
}
