//! A small PNG writer for screens: 8-bit RGB, no filter.

use std::io::{self, Write};

use flate2::{Compression, Crc, write::ZlibEncoder};

/// Encodes `rgb` (3 bytes a pixel, rows from the top) as PNG.
///
/// # Errors
/// When the buffer does not have `width * height * 3` bytes.
pub fn encode_rgb(width: u32, height: u32, rgb: &[u8]) -> io::Result<Vec<u8>> {
    let row = width as usize * 3;
    if row == 0 || height == 0 || rgb.len() != row * height as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "picture size and data don't agree"));
    }
    let mut z = ZlibEncoder::new(Vec::new(), Compression::fast());
    for line in rgb.chunks_exact(row) {
        z.write_all(&[0])?;
        z.write_all(line)?;
    }
    let mut head = Vec::with_capacity(13);
    head.extend_from_slice(&width.to_be_bytes());
    head.extend_from_slice(&height.to_be_bytes());
    head.extend_from_slice(&[8, 2, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, *b"IHDR", &head);
    chunk(&mut out, *b"IDAT", &z.finish()?);
    chunk(&mut out, *b"IEND", &[]);
    Ok(out)
}

/// Converts a binary PPM (`P6`), which older hypervisors give, to PNG. `None` if it is not one.
#[must_use]
pub fn from_ppm(ppm: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    let mut word = || {
        let rest = ppm.get(at..)?;
        let skip = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let len = rest[skip..].iter().take(12).take_while(|b| !b.is_ascii_whitespace()).count();
        at += skip + len;
        std::str::from_utf8(&rest[skip..skip + len]).ok()
    };
    if word()? != "P6" {
        return None;
    }
    let (width, height, max): (u32, u32, u32) = (word()?.parse().ok()?, word()?.parse().ok()?, word()?.parse().ok()?);
    if max != 255 {
        return None;
    }
    encode_rgb(width, height, ppm.get(at + 1..)?).ok()
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&kind);
    out.extend_from_slice(data);
    let mut crc = Crc::new();
    crc.update(&kind);
    crc.update(data);
    out.extend_from_slice(&crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ppm_becomes_a_png_of_the_same_size() {
        let png = from_ppm(b"P6\n2 1\n255\n\xff\x00\x00\x00\xff\x00").unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(&png[16..24], &[0, 0, 0, 2, 0, 0, 0, 1]);
        assert!(from_ppm(b"P6\n2 2\n255\n\xff").is_none(), "too little data");
        assert!(from_ppm(b"P5\n2 1\n255\n").is_none());
        assert!(from_ppm(b"").is_none());
    }
}
