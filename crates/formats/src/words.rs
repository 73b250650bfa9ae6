//! Numbers, counts and sizes as people read them.

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its word: `1 tensor`, `2 tensors`.
pub fn count(number: u64, word: &str) -> String {
    format!("{} {word}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Bytes in decimal units: `90.9 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1000.0, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let read = (grouped(0), grouped(999), grouped(1_234_567));
        assert_eq!(read, ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!((count(1, "tensor"), count(2000, "tensor")), ("1 tensor".into(), "2,000 tensors".into()));
        assert_eq!(
            (size(999), size(90_868_372), size(u64::MAX)),
            ("999 B".into(), "90.9 MB".into(), "18.4 EB".into())
        );
        assert_eq!((size(999_949), size(999_950)), ("999.9 kB".into(), "1.0 MB".into()));
    }
}
