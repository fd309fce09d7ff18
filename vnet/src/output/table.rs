//! Aligned columns, and quantities people can read.

use std::io::{self, Write};

/// Prints rows under a header, each column as wide as its widest cell.
///
/// # Errors
/// When they cannot be written.
pub fn print(
    out: &mut impl Write,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let header = header.iter().map(|&cell| cell.to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A time span in its largest unit, two below an hour: `59s`, `4m10s`, `3h`, `12d`.
#[must_use]
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes in the unit that leaves one to four digits before the point.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bits in a second in the unit that leaves one to three digits before the point.
#[must_use]
pub fn bit_rate(bits: f64) -> String {
    let (value, unit) = scaled(bits);
    if unit.is_empty() { format!("{value:.0} bit/s") } else { format!("{value:.1} {unit}bit/s") }
}

/// How many in a second, likewise.
#[must_use]
pub fn count_rate(count: f64) -> String {
    let (value, unit) = scaled(count);
    match unit {
        "" if count == 0.0 => "0/s".to_owned(),
        "" => format!("{value:.1}/s"),
        unit => format!("{value:.1}{unit}/s"),
    }
}

/// A number and what it counts thousands of.
fn scaled(mut value: f64) -> (f64, &'static str) {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut unit = 0;
    // What rounds to a thousand is one of the next.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    (value, UNITS[unit])
}

/// The items, or a dash for none.
#[must_use]
pub fn words(items: impl IntoIterator<Item = impl ToString>) -> String {
    let words = items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ");
    if words.is_empty() { "-".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        print(&mut out, &["NAME", "N"], rows.into_iter()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME    N\na       1\nlonger\n");
    }

    #[test]
    fn quantities_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (250, "4m10s"), (3 * 3600 + 60, "3h01m"), (90_000_000, "1041d")]
        {
            assert_eq!(age(seconds), text);
        }
        for (bits, text) in [
            (0.0, "0 bit/s"),
            (999.0, "999 bit/s"),
            (1_000.0, "1.0 kbit/s"),
            (999_960.0, "1.0 Mbit/s"),
            (2.55e9, "2.5 Gbit/s"),
        ] {
            assert_eq!(bit_rate(bits), text);
        }
        for (count, text) in [(0.0, "0/s"), (0.25, "0.2/s"), (12.0, "12.0/s"), (12_340.0, "12.3k/s")] {
            assert_eq!(count_rate(count), text);
        }
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2 << 30, "2.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
