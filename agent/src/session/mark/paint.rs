//! The bar's picture. Fonts are those of the distribution; Vietnamese letters are one character each.

use std::path::Path;

use ab_glyph::{Font, FontVec, PxScale, ScaleFont, point};

use super::Words;

/// Regular and bold, the first pair that is there.
const FONTS: [[&str; 2]; 3] = [
    ["/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf", "/usr/share/fonts/truetype/noto/NotoSans-Bold.ttf"],
    ["/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"],
    [
        "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
        "/usr/share/fonts/truetype/liberation/LiberationSans-Bold.ttf",
    ],
];
/// Lines of the sentence; what does not fit is cut, with dots.
const LINES: usize = 3;

/// How loudly the bar speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Somebody looks.
    Look,
    /// Somebody types.
    Control,
}

type Colour = [u8; 3];

impl Tone {
    /// Ground and letters: dark on amber, white on red; both above 4.5:1.
    fn colours(self) -> (Colour, Colour) {
        match self {
            Self::Look => ([0xf5, 0xb3, 0x33], [0x14, 0x20, 0x2b]),
            Self::Control => ([0xb3, 0x26, 0x1e], [0xff, 0xff, 0xff]),
        }
    }
}

/// The letters.
pub(super) struct Fonts {
    regular: FontVec,
    bold: FontVec,
}

impl Fonts {
    /// Those of the distribution, if it has any we know.
    pub(super) fn installed() -> Option<Self> {
        let read = |path: &str| FontVec::try_from_vec(std::fs::read(Path::new(path)).ok()?).ok();
        FONTS.iter().find_map(|[regular, bold]| Some(Self { regular: read(regular)?, bold: read(bold)? }))
    }
}

/// A picture as X wants it: blue, green, red, nothing.
pub(super) struct Bar {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) pixels: Vec<u8>,
    /// The button: left, top, right, bottom.
    pub(super) button: [i16; 4],
}

impl Bar {
    /// Whether the button is there.
    pub(super) fn is_button(&self, x: i16, y: i16) -> bool {
        let [left, top, right, bottom] = self.button;
        (left..right).contains(&x) && (top..bottom).contains(&y)
    }

    fn fill(&mut self, [left, top, right, bottom]: [i16; 4], colour: Colour) {
        for y in top.max(0)..bottom.min(self.height as i16) {
            for x in left.max(0)..right.min(self.width as i16) {
                self.dot(x.into(), y.into(), colour, 1.0);
            }
        }
    }

    fn dot(&mut self, x: i32, y: i32, colour: Colour, cover: f32) {
        if x < 0 || y < 0 || x >= self.width.into() || y >= self.height.into() {
            return;
        }
        let at = (y as usize * usize::from(self.width) + x as usize) * 4;
        for (byte, new) in self.pixels[at..at + 3].iter_mut().zip(colour.iter().rev()) {
            *byte = (f32::from(*byte) * (1.0 - cover) + f32::from(*new) * cover).round() as u8;
        }
    }

    fn write(&mut self, font: &FontVec, px: f32, left: f32, baseline: f32, text: &str, colour: Colour) {
        let scaled = font.as_scaled(PxScale::from(px));
        let mut x = left;
        for c in text.chars() {
            let glyph = scaled.glyph_id(c).with_scale_and_position(px, point(x, baseline));
            x += scaled.h_advance(glyph.id);
            if let Some(outline) = font.outline_glyph(glyph) {
                let bounds = outline.px_bounds();
                let (dx, dy) = (bounds.min.x as i32, bounds.min.y as i32);
                outline.draw(|gx, gy, cover| self.dot(gx as i32 + dx, gy as i32 + dy, colour, cover));
            }
        }
    }
}

fn width(font: &FontVec, px: f32, text: &str) -> f32 {
    let scaled = font.as_scaled(PxScale::from(px));
    text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum()
}

/// Breaks a text into lines that fit; a word that is too long is broken, too.
fn lines(font: &FontVec, px: f32, text: &str, room: f32) -> Vec<String> {
    let mut lines = vec![String::new()];
    // What would turn the direction of writing, or is none at all, has no place in a mark.
    let odd = |c: char| c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) || c == '\u{feff}';
    let text: String = text.chars().map(|c| if odd(c) { ' ' } else { c }).collect();
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let longer = if lines[last].is_empty() { word.to_owned() } else { format!("{} {word}", lines[last]) };
        if width(font, px, &longer) <= room {
            lines[last] = longer;
            continue;
        }
        if !lines[last].is_empty() {
            lines.push(String::new());
        }
        for c in word.chars() {
            let last = lines.len() - 1;
            if !lines[last].is_empty() && width(font, px, &format!("{}{c}", lines[last])) > room {
                lines.push(String::new());
            }
            let last = lines.len() - 1;
            lines[last].push(c);
        }
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        while width(font, px, &format!("{}…", lines[LINES - 1])) > room && lines[LINES - 1].pop().is_some() {}
        lines[LINES - 1].push('…');
    }
    lines
}

/// Draws the bar for a monitor of this size.
pub(super) fn draw(fonts: &Fonts, words: &Words, monitor: (u16, u16)) -> Bar {
    let px = (f32::from(monitor.1) / 36.0).clamp(22.0, 56.0);
    let pad = px * 0.6;
    let most = f32::from(monitor.0) * 0.8;
    let silent = words.stop.is_empty();
    let button = if silent { 0.0 } else { width(&fonts.bold, px, &words.stop) + 2.0 * pad };
    let room = (most - button - 3.0 * pad).max(px * 6.0);
    let lines = lines(&fonts.regular, px, &words.sentence, room);
    let widest = lines.iter().map(|l| width(&fonts.regular, px, l)).fold(0.0, f32::max);
    let line = px * 1.25;
    let height = (lines.len() as f32 * line).max(line + pad) + pad;
    let total = widest + button + 3.0 * pad;
    let (ground, ink) = words.tone.colours();
    let (w, h) = (total.ceil() as u16, height.ceil() as u16);
    let mut bar = Bar { width: w, height: h, pixels: vec![0; usize::from(w) * usize::from(h) * 4], button: [0; 4] };
    let (w, h) = (w as i16, h as i16);
    bar.fill([0, 0, w, h], ink);
    bar.fill([2, 2, w - 2, h - 2], ground);
    let top = (height - lines.len() as f32 * line) / 2.0;
    for (n, text) in lines.iter().enumerate() {
        bar.write(&fonts.regular, px, pad, top + n as f32 * line + px, text, ink);
    }
    if silent {
        return bar;
    }
    let middle = height / 2.0;
    bar.button = [
        (total - pad - button) as i16,
        (middle - (line + pad) / 2.0) as i16,
        (total - pad) as i16,
        (middle + (line + pad) / 2.0) as i16,
    ];
    bar.fill(bar.button, [0xff, 0xff, 0xff]);
    let [left, top, right, bottom] = bar.button;
    for edge in [
        [left, top, right, top + 2],
        [left, bottom - 2, right, bottom],
        [left, top, left + 2, bottom],
        [right - 2, top, right, bottom],
    ] {
        bar.fill(edge, [0x8c, 0x1d, 0x18]);
    }
    bar.write(&fonts.bold, px, total - button, middle + px * 0.35, &words.stop, [0x8c, 0x1d, 0x18]);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_and_the_button_stays_on_the_bar() {
        let Some(fonts) = Fonts::installed() else { panic!("no fonts: `make setup` installs them") };
        for (why, size) in [
            ("máy in", (1280, 800)),
            (&"dài ".repeat(200), (1280, 800)),
            (&"m".repeat(900), (800, 600)),
            ("", (320, 200)),
        ] {
            let words = Words { sentence: format!("Hoa đang xem: {why}"), stop: "Dừng".into(), tone: Tone::Look };
            let bar = draw(&fonts, &words, size);
            let [left, top, right, bottom] = bar.button;
            assert!(0 < left && left < right && right < bar.width as i16, "{:?} of {}", bar.button, bar.width);
            assert!(0 < top && top < bottom && bottom < bar.height as i16);
            assert!(bar.is_button(left, top) && !bar.is_button(left - 1, top));
            assert_eq!(bar.pixels.len(), usize::from(bar.width) * usize::from(bar.height) * 4);
        }
    }

    #[test]
    fn letters_are_there_and_nothing_turns_the_line_around() {
        let Some(fonts) = Fonts::installed() else { panic!("no fonts: `make setup` installs them") };
        for c in "Nguyễn Thị Hường, đường Đê La Thành…".chars().filter(|c| !c.is_whitespace()) {
            assert_ne!(fonts.regular.glyph_id(c).0, 0, "no letter for {c}");
        }
        let shown = lines(&fonts.regular, 20.0, "Hoa\u{202e}gniK\nhai", 1000.0);
        assert_eq!(shown, ["Hoa gniK hai"]);
    }
}
