//! Screens by their EDID.

use tram_wire::report::Item;

use super::{Fill, item};
use crate::host::Host;

const ROOT: &str = "/sys/class/drm";

/// Reads the connectors that have a screen.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    let read = |name: &str, leaf: &str| host.read(&format!("{ROOT}/{name}/{leaf}"));
    host.list(ROOT)
        .into_iter()
        .filter(|n| read(n, "status").as_deref() == Some("connected"))
        .map(|name| {
            let edid = host.bytes(&format!("{ROOT}/{name}/edid")).and_then(|b| parse(&b)).unwrap_or_default();
            let mode = read(&name, "modes").and_then(|m| m.lines().next().map(str::to_owned));
            item("monitor", &name)
                .named(edid.name)
                .fact("maker", edid.maker)
                .fact("serial", edid.serial)
                .fact("year", edid.year)
                .fact("mode", mode)
        })
        .take(16)
        .collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Edid {
    maker: Option<String>,
    name: Option<String>,
    serial: Option<String>,
    year: Option<String>,
}

fn parse(b: &[u8]) -> Option<Edid> {
    let block = b.get(..128)?;
    let sum = block.iter().fold(0_u8, |s, x| s.wrapping_add(*x));
    if block.get(..8)? != [0, 255, 255, 255, 255, 255, 255, 0] || sum != 0 {
        return None;
    }
    let id = u16::from_be_bytes([*block.get(8)?, *block.get(9)?]);
    let letter = |shift: u16| char::from_u32(u32::from(id >> shift & 31) + 64).filter(char::is_ascii_uppercase);
    let maker = [10, 5, 0].into_iter().map(letter).collect();
    let text = |tag: u8| {
        let d = [54, 72, 90, 108].iter().filter_map(|at| block.get(*at..at + 18));
        let found = d.into_iter().find(|d| d.get(..4) == Some(&[0, 0, 0, tag]))?;
        let text = String::from_utf8_lossy(found.get(5..)?).split('\n').next()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let number = u32::from_le_bytes([*block.get(12)?, *block.get(13)?, *block.get(14)?, *block.get(15)?]);
    let year = block.get(17).filter(|y| **y > 0).map(|y| (1990 + u32::from(*y)).to_string());
    let serial = text(0xff).or_else(|| (number > 0 && number != 0x0101_0101).then(|| number.to_string()));
    Some(Edid { maker, name: text(0xfc), serial, year })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn edid() -> Vec<u8> {
        let mut b = vec![0; 128];
        b[..8].copy_from_slice(&[0, 255, 255, 255, 255, 255, 255, 0]);
        // D, E, L: five bits each.
        b[8..10].copy_from_slice(&(4_u16 << 10 | 5 << 5 | 12).to_be_bytes());
        b[17] = 30;
        b[54..72].copy_from_slice(b"\0\0\0\xfc\0DELL P2419H\n ");
        b[72..90].copy_from_slice(b"\0\0\0\xff\0CV0XK2\n      ");
        b[127] = 0_u8.wrapping_sub(b.iter().fold(0_u8, |s, x| s.wrapping_add(*x)));
        b
    }

    #[test]
    fn a_screen_says_who_made_it() {
        let host = Fake::new()
            .file("/sys/class/drm/card0-HDMI-A-1/status", "connected")
            .file("/sys/class/drm/card0-HDMI-A-1/modes", "1920x1080\n1280x720")
            .binary("/sys/class/drm/card0-HDMI-A-1/edid", &edid())
            .file("/sys/class/drm/card0-DP-1/status", "disconnected");
        let m = collect(&host);
        assert_eq!((m.len(), m[0].name.as_deref(), m[0].facts["maker"].as_str()), (1, Some("DELL P2419H"), "DEL"));
        assert_eq!((m[0].facts["serial"].as_str(), m[0].facts["year"].as_str()), ("CV0XK2", "2020"));
        assert_eq!(m[0].facts["mode"], "1920x1080");
    }

    #[test]
    fn a_torn_or_lying_edid_is_no_edid_and_never_a_crash() {
        let good = edid();
        for cut in 0..128 {
            assert_eq!(parse(&good[..cut]), None);
        }
        for at in 0..128 {
            let mut b = good.clone();
            b[at] ^= 0x55;
            assert_eq!(parse(&b), None, "byte {at}");
        }
    }
}
