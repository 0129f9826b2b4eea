//! Messages packed for the line: a byte that says so, and the JSON deflated. A report of health is mostly names that come
//! again and again; packed it is a fifth. With a dictionary of what reports are made of, both ends know the names
//! beforehand, and a delta, too short to repeat itself, is packed as well.
//!
//! Only to a controller whose plan says that it reads them ([`crate::plan::Plan::binary`]), and only with the dictionary
//! it names ([`crate::plan::Plan::dictionary`]). A dictionary is never changed: another one gets another number.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use serde::de::Error;

use crate::frame::{MAX_FRAME, WireError};

const PACKED: u8 = 3;
/// The same with a dictionary, whose number follows.
const WITH_DICTIONARY: u8 = 4;
/// Shorter ones gain nothing by themselves.
const WORTH: usize = 300;
/// The same with a dictionary.
const WORTH_WITH: usize = 60;
/// Of ten; more costs time and brings nothing at these sizes.
const LEVEL: u8 = 6;
/// Deflate without a head of its own.
const RAW: i32 = -15;

/// The newest dictionary this build has.
pub const DICTIONARY: u8 = 1;

/// What the JSON of reports is made of, what comes most often last: trained by `zstd --train --maxdict=8192` from the
/// reports of the agents in `tests/tests/played.rs`, figures and names replaced by chance; its text without zstd's head.
const REPORTS_1: &[u8] = include_bytes!("reports.1.dict");

fn dictionary(number: u8) -> Option<&'static [u8]> {
    (number == 1).then_some(REPORTS_1)
}

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

/// The same with a dictionary; without one if this build does not have it.
#[must_use]
pub fn pack_with(text: &str, number: u8) -> Option<Vec<u8>> {
    let Some(known) = dictionary(number) else { return pack(text) };
    if text.len() < WORTH_WITH {
        return None;
    }
    let mut bytes = vec![WITH_DICTIONARY, number];
    bytes.extend(deflate(known, text.as_bytes())?);
    (bytes.len() < text.len()).then_some(bytes)
}

/// What comes after `known` in a stream that began with it.
fn deflate(known: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let mut packer = CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL.into(), RAW, 0));
    let mut out = vec![0; known.len().max(text.len()) + 1024];
    // The other end has this part already.
    let (status, took, _) = compress(&mut packer, known, &mut out, TDEFLFlush::Sync);
    if status != TDEFLStatus::Okay || took != known.len() {
        return None;
    }
    let (status, _, wrote) = compress(&mut packer, text, &mut out, TDEFLFlush::Finish);
    out.truncate(wrote);
    (status == TDEFLStatus::Done).then_some(out)
}

fn inflate(known: &[u8], packed: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut size = 4 * packed.len().clamp(512, MAX_FRAME / 4);
    loop {
        let mut out = vec![0; known.len() + size];
        out[..known.len()].copy_from_slice(known);
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, _, wrote) = decompress(&mut DecompressorOxide::new(), packed, &mut out, known.len(), flags);
        match status {
            TINFLStatus::Done => {
                out.truncate(known.len() + wrote);
                return Ok(out.split_off(known.len()));
            }
            TINFLStatus::HasMoreOutput if size < MAX_FRAME => size = (size * 4).min(MAX_FRAME),
            TINFLStatus::HasMoreOutput => return Err(WireError::TooLarge { bytes: MAX_FRAME + 1 }),
            _ => return Err(garbled("it can't be unpacked")),
        }
    }
}

fn garbled(why: &str) -> WireError {
    WireError::NotAMessage(serde_json::Error::custom(why))
}

/// The JSON of a packed frame; `None`: it is no packed frame.
///
/// # Errors
/// If it unpacks to more than [`MAX_FRAME`], or not at all, or needs a dictionary nobody here has.
#[must_use]
pub fn unpack(bytes: &[u8]) -> Option<Result<Vec<u8>, WireError>> {
    let (kind, body) = bytes.split_first()?;
    if *kind == WITH_DICTIONARY {
        let (number, body) = body.split_first()?;
        return Some(match dictionary(*number) {
            Some(known) => inflate(known, body),
            None => Err(garbled("its dictionary is not known here")),
        });
    }
    if *kind != PACKED {
        return None;
    }
    Some(decompress_to_vec_with_limit(body, MAX_FRAME).map_err(|e| match e.status {
        TINFLStatus::HasMoreOutput => WireError::TooLarge { bytes: MAX_FRAME + 1 },
        _ => garbled("it can't be unpacked"),
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
        assert!(unpack(b"").is_none() && unpack(&[1, 2]).is_none() && unpack(&[WITH_DICTIONARY]).is_none());
    }

    #[test]
    fn a_bomb_and_rubbish_are_refused() {
        let zeros = vec![b'['; 50_000_000];
        let bomb = [&[PACKED][..], &compress_to_vec(&zeros, 9)].concat();
        assert!(bomb.len() < MAX_FRAME);
        assert_eq!(unpack(&bomb).unwrap().unwrap_err().code(), "too_large");
        let bomb = [&[WITH_DICTIONARY, DICTIONARY][..], &compress_to_vec(&zeros, 9)].concat();
        assert_eq!(unpack(&bomb).unwrap().unwrap_err().code(), "too_large");
        for head in [&[PACKED][..], &[WITH_DICTIONARY, DICTIONARY]] {
            let rubbish = [head, &[0xff, 0xff, 0xff]].concat();
            assert_eq!(unpack(&rubbish).unwrap().unwrap_err().code(), "not_a_message");
        }
        assert_eq!(unpack(&[WITH_DICTIONARY, 99, 1]).unwrap().unwrap_err().code(), "not_a_message");
        for whole in [pack(&"ab".repeat(500)).unwrap(), pack_with(&"\"check\":".repeat(50), DICTIONARY).unwrap()] {
            for cut in 2..whole.len() {
                assert!(unpack(&whole[..cut]).unwrap().is_err(), "{cut}");
            }
        }
        // Bytes that point to before the dictionary: there is nothing.
        let far = pack_with(&"\"check\":".repeat(50), DICTIONARY).unwrap();
        assert!(inflate(&[], &far[2..]).is_err());
    }

    #[test]
    fn the_largest_message_and_any_bytes_come_back_with_a_dictionary() {
        let large = "ế".repeat(MAX_FRAME / 3);
        let noise: String =
            (0..20_000_u32).map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();
        for text in [&large, &noise, &String::from_utf8_lossy(REPORTS_1).into_owned()] {
            let packed = pack_with(text, DICTIONARY).unwrap();
            assert_eq!(unpack(&packed).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(pack_with(&noise, 99), pack(&noise), "a dictionary this build does not have");
        assert_eq!(pack_with("short", DICTIONARY), None);
    }

    #[test]
    fn a_dictionary_that_is_out_there_stays_as_it_is() {
        let sum = REPORTS_1
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!((REPORTS_1.len(), sum), (8064, 0x95b8_0c19_3a9f_f09e), "make another one with another number");
    }

    /// What it brings on the samples of the protocol, which are odd on purpose; real reports gain more.
    #[test]
    fn a_dictionary_is_worth_its_place() {
        for (sample, name) in [
            (include_str!("../tests/golden/v1/report_delta.json"), "delta"),
            (include_str!("../tests/golden/v1/report_keyframe.json"), "keyframe"),
        ] {
            let text = serde_json::to_string(&serde_json::from_str::<serde_json::Value>(sample).unwrap()).unwrap();
            let (plain, with) =
                (pack(&text).map_or(text.len(), |p| p.len()), pack_with(&text, DICTIONARY).unwrap().len());
            println!("{name}: {} bytes, packed {plain}, with the dictionary {with}", text.len());
            assert!(with < plain, "{name}: {with} of {plain}");
        }
    }
}
