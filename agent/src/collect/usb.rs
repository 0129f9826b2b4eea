//! What is plugged into USB, and what it is for: readers, signing tokens, scanners, printers, cameras.

use tram_wire::report::Item;

use super::{Fill, item};
use crate::host::Host;

/// Longest list worth sending.
const MOST: usize = 64;

/// Vendors whose every product is a certificate token as Vietnamese authorities hand them out.
const TOKEN_VENDORS: &[&str] = &["096e", "25dd", "0529", "24dc", "311f", "1ea8", "20a0", "1d99", "3540"];
/// Vendors of document scanners; a scanner has no class of its own.
const SCANNER_VENDORS: &[&str] = &["04c5", "05ca", "1083", "0638", "055f", "07b3", "04a7"];
/// Scanners of makers who also make other things, by vendor and product.
const SCANNERS: &[&str] = &["04b8:0", "04a9:19", "04a9:22", "03f0:01", "03f0:02", "04f9:60"];

/// Reads the tree below `/sys/bus/usb/devices`.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    const ROOT: &str = "/sys/bus/usb/devices";
    let all = host.list(ROOT);
    let device = |id: &String| -> Option<Item> {
        let read = |leaf: &str| host.read(&format!("{ROOT}/{id}/{leaf}")).filter(|v| !v.is_empty());
        let (vendor, product) = (read("idVendor")?, read("idProduct")?);
        let own = format!("{id}:");
        let class = |i: &String| host.read(&format!("{ROOT}/{i}/bInterfaceClass"));
        let mut classes: Vec<String> = all.iter().filter(|i| i.starts_with(&own)).filter_map(class).collect();
        classes.sort();
        classes.dedup();
        let name: Vec<String> = [read("manufacturer"), read("product")].into_iter().flatten().collect();
        let ids = format!("{vendor}:{product}");
        Some(
            item(kind(&ids, &classes, read("bDeviceClass").as_deref()), id)
                .named((!name.is_empty()).then(|| name.join(" ")))
                .fact("vendor_product", Some(ids))
                .fact("serial", read("serial"))
                .fact("speed_mbit", read("speed"))
                .fact("interfaces", (!classes.is_empty()).then(|| classes.join(","))),
        )
    };
    // Root hubs are the board's own; interfaces have a colon.
    all.iter().filter(|n| !n.starts_with("usb") && !n.contains(':')).filter_map(device).take(MOST).collect()
}

fn kind(ids: &str, classes: &[String], device_class: Option<&str>) -> &'static str {
    let has = |c: &str| classes.iter().any(|k| k == c);
    let among = |list: &[&str]| list.iter().any(|v| ids.starts_with(v));
    // Tokens first: most of them show themselves as card readers with the card built in.
    if among(TOKEN_VENDORS) {
        "token"
    } else if has("0b") {
        "reader"
    } else if has("07") {
        "printer"
    } else if has("06") || among(SCANNERS) || among(SCANNER_VENDORS) {
        "scanner"
    } else if has("0e") {
        "camera"
    } else if has("08") {
        "storage"
    } else if has("03") {
        "input"
    } else if has("01") {
        "audio"
    } else if device_class == Some("09") || has("09") {
        "hub"
    } else {
        "usb"
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::host::fake::Fake;

    /// Plugs a device in.
    pub(crate) fn plug(host: Fake, port: &str, ids: (&str, &str), class: &str, product: &str) -> Fake {
        let at = format!("/sys/bus/usb/devices/{port}");
        host.file(&format!("{at}/idVendor"), ids.0)
            .file(&format!("{at}/idProduct"), ids.1)
            .file(&format!("{at}/product"), product)
            .file(&format!("{at}:1.0/bInterfaceClass"), class)
    }

    #[test]
    fn things_are_told_apart_by_what_they_can_do_and_who_made_them() {
        let mut host = Fake::new().file("/sys/bus/usb/devices/usb1/idVendor", "1d6b");
        for (port, ids, class, product) in [
            ("1-1", ("25dd", "3111"), "0b", "BIT4ID tokenME"),
            ("1-2", ("076b", "3031"), "0b", "CardMan"),
            ("1-3", ("04c5", "1640"), "ff", "fi-8170"),
            ("1-4", ("04a9", "2676"), "07", "LBP2900"),
            ("1-5", ("046d", "c31c"), "03", "Keyboard"),
        ] {
            host = plug(host, port, ids, class, product);
        }
        let kinds: Vec<_> = collect(&host).into_iter().map(|i| (i.id, i.kind)).collect();
        let expected = [("1-1", "token"), ("1-2", "reader"), ("1-3", "scanner"), ("1-4", "printer"), ("1-5", "input")];
        assert_eq!(kinds, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_device_that_leaves_while_it_is_read_is_left_out() {
        let host = Fake::new().file("/sys/bus/usb/devices/1-1/idVendor", "25dd");
        assert!(collect(&host).is_empty());
    }
}
