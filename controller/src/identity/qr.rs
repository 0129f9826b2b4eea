//! QR codes of enrolment tokens: as a picture, as a drawing, and in the letters of a terminal.

use std::fmt::Write as _;
use std::io;

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around a code, without which no camera finds it.
const QUIET: usize = 4;
/// Pixels of a module in a picture: large enough for a cheap camera when it is printed 6 cm wide.
const PIXELS: usize = 8;

/// A code of one text.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    side: usize,
    dark: Vec<bool>,
}

// What it says may be a secret.
impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(…)")
    }
}

impl Code {
    /// The code of a text that survives a fold or a stain of 15 %; `None` if it is too long for any.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
        Some(Self { side: code.width(), dark: code.to_colors().iter().map(|c| *c == Color::Dark).collect() })
    }

    fn dark(&self, x: usize, y: usize) -> bool {
        x < self.side && y < self.side && self.dark[y * self.side + x]
    }

    /// With the light frame around it; a module outside is light.
    fn framed(&self, x: usize, y: usize) -> bool {
        x >= QUIET && y >= QUIET && self.dark(x - QUIET, y - QUIET)
    }

    fn framed_side(&self) -> usize {
        self.side + 2 * QUIET
    }

    /// A line of `#` and `.` for each row, without the frame: for whoever draws it.
    #[must_use]
    pub fn rows(&self) -> Vec<String> {
        let row = |y| (0..self.side).map(|x| if self.dark(x, y) { '#' } else { '.' }).collect();
        (0..self.side).map(row).collect()
    }

    /// Half blocks for a terminal with light letters on a dark ground, two rows a line.
    #[must_use]
    pub fn text(&self) -> String {
        let side = self.framed_side();
        let mut out = String::new();
        for y in (0..side).step_by(2) {
            for x in 0..side {
                // What is below the last row is drawn as ground.
                let (upper, lower) = (!self.framed(x, y), y + 1 < side && !self.framed(x, y + 1));
                out.push(match (upper, lower) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            out.push('\n');
        }
        out
    }

    /// A drawing of any size.
    #[must_use]
    pub fn svg(&self) -> String {
        let side = self.framed_side();
        let mut path = String::new();
        for y in 0..side {
            let mut x = 0;
            while x < side {
                let run = (x..side).take_while(|x| self.framed(*x, y)).count();
                if run > 0 {
                    let _ = write!(path, "M{x} {y}h{run}v1h-{run}z");
                }
                x += run.max(1);
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
             <path fill=\"#fff\" d=\"M0 0h{side}v{side}h-{side}z\"/><path d=\"{path}\"/></svg>\n"
        )
    }

    /// A picture.
    ///
    /// # Errors
    /// Never for a code that was made.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        let side = self.framed_side() * PIXELS;
        let mut rgb = Vec::with_capacity(side * side * 3);
        for y in 0..side {
            for x in 0..side {
                let shade = if self.framed(x / PIXELS, y / PIXELS) { 0 } else { 255 };
                rgb.extend_from_slice(&[shade; 3]);
            }
        }
        let side = u32::try_from(side).map_err(io::Error::other)?;
        tram_hypervisor::png::encode_rgb(side, side, &rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_have_the_same_modules() {
        let code = Code::of("https://tram.example:8444 tram1-AAAAA").unwrap();
        let rows = code.rows();
        assert!(rows.len() == code.side && rows.iter().all(|r| r.len() == code.side));
        // Finders stand in three corners.
        assert!(
            rows[0].starts_with("#######.")
                && rows[0].ends_with(".#######")
                && rows[code.side - 1].starts_with("#######.")
        );
        let dark = rows.iter().flat_map(|r| r.chars()).filter(|c| *c == '#').count();
        let in_svg: usize = code
            .svg()
            .split('M')
            .skip(2)
            .filter_map(|p| p.split_once('h')?.1.split_once('v')?.0.parse::<usize>().ok())
            .sum();
        assert_eq!(in_svg, dark);
        assert_eq!(code.text().lines().count(), (code.side + 2 * QUIET).div_ceil(2));
        assert_eq!(&code.png().unwrap()[1..4], b"PNG");
        assert!(Code::of(&"x".repeat(5000)).is_none());
    }
}
