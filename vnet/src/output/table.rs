//! Aligned columns, and quantities people can read.

use std::io::{self, Write};

/// Prints rows under a header, each column as wide as its widest cell.
pub(super) fn print(
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

/// The items, or a dash for none.
pub(super) fn words(items: impl IntoIterator<Item = impl ToString>) -> String {
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
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2 << 30, "2.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
