//! The few bytes of a certificate the agent looks at itself: its dates and who issued it. They are found by walking the
//! outer fields; nothing is decided by them that a verifier would have to decide.

/// `id-at-commonName`, `id-at-organizationName`.
const NAMES: [&[u8]; 2] = [&[0x55, 0x04, 0x03], &[0x55, 0x04, 0x0a]];

/// Tag, content and what follows of one DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let n = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(n).filter(|_| (1..=3).contains(&n))?;
        (bytes.iter().fold(0, |all, b| all << 8 | usize::from(*b)), rest)
    };
    let (body, after) = rest.split_at_checked(length)?;
    Some((tag, body, after))
}

/// The outer fields of a certificate, from its serial number on.
fn fields(der: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(der)?;
    let (_, signed, _) = element(certificate)?;
    match element(signed)? {
        // An explicit version.
        (0xa0, _, rest) => Some(rest),
        _ => Some(signed),
    }
}

/// What follows so many elements.
fn skip(der: &[u8], n: usize) -> Option<&[u8]> {
    (0..n).try_fold(der, |rest, _| element(rest).map(|(_, _, after)| after))
}

/// When a certificate begins and ends, Unix seconds.
pub(super) fn dates(der: &[u8]) -> Option<(u64, u64)> {
    // Serial number, algorithm, issuer, validity.
    let (_, validity, _) = element(skip(fields(der)?, 3)?)?;
    let (kind, from, rest) = element(validity)?;
    let (kind_to, to, _) = element(rest)?;
    Some((moment(kind, from)?, moment(kind_to, to)?))
}

/// Who issued a certificate: the common name, else the organization.
pub(super) fn issuer(der: &[u8]) -> Option<String> {
    let (_, mut sets, _) = element(skip(fields(der)?, 2)?)?;
    let mut found = [None, None];
    while let Some((_, set, rest)) = element(sets) {
        sets = rest;
        let Some((_, pair, _)) = element(set) else { continue };
        let Some((_, oid, value)) = element(pair) else { continue };
        if let Some(n) = NAMES.iter().position(|name| *name == oid)
            && let Some((_, text, _)) = element(value)
        {
            let text = String::from_utf8_lossy(text);
            found[n] = Some(text.chars().filter(|c| !c.is_control()).take(64).collect());
        }
    }
    found.into_iter().flatten().next()
}

/// `UTCTime` or `GeneralizedTime` in the only form certificates use.
fn moment(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let (y, rest) = text.split_at_checked(2)?;
            let y: i64 = y.parse().ok()?;
            (if y < 50 { 2000 + y } else { 1900 + y }, rest)
        }
        0x18 => {
            let (y, rest) = text.split_at_checked(4)?;
            (y.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    // Days since 1970 of the proleptic Gregorian calendar, counted from a March.
    let y = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(((days * 24 + part(4)?) * 60 + part(6)?) * 60 + part(8)?).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

    use super::*;

    #[test]
    fn the_dates_of_a_certificate_are_read() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        for (from, to) in [((2026, 2, 28), (2029, 12, 31)), ((2024, 2, 29), (2051, 3, 1)), ((1999, 1, 1), (2000, 1, 1))]
        {
            let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
            params.not_before = date_time_ymd(from.0, from.1, from.2);
            params.not_after = date_time_ymd(to.0, to.1, to.2);
            let der = params.self_signed(&key).unwrap();
            let told = dates(der.der()).unwrap();
            let meant = [params.not_before, params.not_after].map(|t| u64::try_from(t.unix_timestamp()).unwrap());
            assert_eq!([told.0, told.1], meant);
            for cut in 0..60 {
                assert_eq!((dates(&der.der()[..cut]), issuer(&der.der()[..cut])), (None, None));
            }
        }
    }

    #[test]
    fn the_issuer_is_named() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Sở");
        let der = params.self_signed(&key).unwrap();
        assert_eq!(issuer(der.der()).as_deref(), Some("Sở"));
        params.distinguished_name.push(DnType::CommonName, "Proxy CA");
        let der = params.self_signed(&key).unwrap();
        assert_eq!(issuer(der.der()).as_deref(), Some("Proxy CA"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [&b"991332000000"[..], b"9901", b"x", b"", "ếếếếếZ".as_bytes()] {
            assert_eq!(moment(0x17, bad), None);
        }
        assert_eq!(moment(0x17, b"700101000000Z"), Some(0));
    }
}
