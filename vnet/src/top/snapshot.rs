//! What is shown: tables of rows, each with words and numbers.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::output::{self, Format, age, bit_rate, bytes, count_rate};

/// A table, or pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// What each endpoint sends and receives.
    Endpoints,
    /// What goes through each published port.
    Mappings,
    /// Each flow.
    Flows,
    /// What is dropped, where and why.
    Drops,
}

impl Tab {
    /// Every one, as they are shown.
    pub const ALL: [Self; 4] = [Self::Endpoints, Self::Mappings, Self::Flows, Self::Drops];

    /// Its word on the command line, and its list in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Mappings => "mappings",
            Self::Flows => "flows",
            Self::Drops => "drops",
        }
    }

    /// The columns of words, and after them those of numbers.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        const fn word(title: &'static str, key: &'static str, least: usize, spared: u8) -> Column {
            Column { title, key, kind: Kind::Word, least, spared }
        }
        const fn number(title: &'static str, key: &'static str, kind: Kind, spared: u8) -> Column {
            Column { title, key, kind, least: kind.width(), spared }
        }
        match self {
            // Counted by the endpoint's own end of its link; flows and new ones from the flow table.
            Self::Endpoints => {
                const {
                    &[
                        word("ENDPOINT", "endpoint", 12, 0),
                        word("NETWORK", "network", 8, 3),
                        word("ADDRESSES", "addresses", 15, 4),
                        number("SENT", "sent_bits", Kind::Bits, 0),
                        number("PKT/S", "sent_packets", Kind::Rate, 2),
                        number("RECEIVED", "received_bits", Kind::Bits, 0),
                        number("PKT/S", "received_packets", Kind::Rate, 2),
                        number("NEW/S", "new_flows", Kind::Rate, 0),
                        number("FLOWS", "flows", Kind::Count, 0),
                    ]
                }
            }
            // The flows that it has opened, as the flow table counts them.
            Self::Mappings => {
                const {
                    &[
                        word("PUBLISHED", "published", 14, 0),
                        word("ENDPOINT", "endpoint", 12, 1),
                        word("PORTS", "target", 8, 3),
                        number("IN", "in_bits", Kind::Bits, 0),
                        number("PKT/S", "in_packets", Kind::Rate, 2),
                        number("OUT", "out_bits", Kind::Bits, 0),
                        number("PKT/S", "out_packets", Kind::Rate, 2),
                        number("NEW/S", "new_flows", Kind::Rate, 0),
                        number("FLOWS", "flows", Kind::Count, 0),
                    ]
                }
            }
            Self::Flows => {
                const {
                    &[
                        word("PROTO", "protocol", 6, 0),
                        word("STATE", "state", 13, 3),
                        word("FROM", "from", 10, 6),
                        word("ORIGINAL", "original", 40, 0),
                        word("TO", "to", 10, 4),
                        word("TRANSLATED", "translated", 30, 7),
                        number("SENT", "sent_bits", Kind::Bits, 0),
                        number("PKT/S", "sent_packets", Kind::Rate, 5),
                        number("RECEIVED", "received_bits", Kind::Bits, 0),
                        number("PKT/S", "received_packets", Kind::Rate, 5),
                        number("TOTAL", "bytes", Kind::Bytes, 2),
                        number("AGE", "age", Kind::Seconds, 1),
                    ]
                }
            }
            // Since `vnet up`.
            Self::Drops => {
                const {
                    &[
                        word("INTERFACE", "interface", 10, 0),
                        word("HOOK", "hook", 13, 0),
                        word("REASON", "reason", 12, 0),
                        number("PKT/S", "packets_per_second", Kind::Rate, 0),
                        number("PACKETS", "packets", Kind::Count, 0),
                    ]
                }
            }
        }
    }

    /// How many of the columns are of words.
    #[must_use]
    pub fn words(self) -> usize {
        self.columns().iter().filter(|column| column.kind == Kind::Word).count()
    }

    /// By which column rows are sorted unless another is chosen.
    #[must_use]
    pub fn first_sort(self) -> usize {
        self.words()
    }
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// For people.
    pub title: &'static str,
    /// For programs.
    pub key: &'static str,
    /// What is in it.
    pub kind: Kind,
    /// Characters that it takes on a screen at least.
    pub least: usize,
    /// Where there is not enough room, the columns with the greatest number are left out first, those with 0 never.
    pub spared: u8,
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words.
    Word,
    /// Bits in a second.
    Bits,
    /// How many in a second.
    Rate,
    /// How many.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Kind {
    /// Characters that a number takes at most.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Bits => 12,
            Self::Bytes => 10,
            Self::Rate | Self::Count | Self::Seconds | Self::Word => 8,
        }
    }

    /// A number for people. What is not known, because nothing was counted before, is a dash.
    #[must_use]
    pub fn show(self, number: f64) -> String {
        if number.is_nan() {
            return "-".to_owned();
        }
        match self {
            Self::Bits => bit_rate(number),
            Self::Rate => count_rate(number).trim_end_matches("/s").to_owned(),
            Self::Bytes => bytes(number as u64),
            Self::Seconds => age(number as u64),
            Self::Count | Self::Word => format!("{number:.0}"),
        }
    }
}

/// A row: as many words and numbers as its table has columns of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The words.
    pub words: Vec<String>,
    /// The numbers; what is not known is none.
    pub numbers: Vec<f64>,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Which.
    pub tab: Tab,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// What goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Seconds over which rates were counted; 0 if nothing was counted before.
    pub seconds: f64,
    /// The tables, one of each.
    pub tables: [Table; 4],
    /// How many flows there are.
    pub flows: usize,
    /// How many flows begin in a second.
    pub new_flows: f64,
    /// How many packets are dropped in a second.
    pub drops: f64,
}

impl Table {
    /// The numbers of the rows that hold a text, put in order by a column; the greatest number or the first word first,
    /// or the other way round. Of equals the one that came first. Of a hundred thousand rows that takes no time that
    /// somebody at a keyboard would notice.
    #[must_use]
    pub fn order(&self, column: usize, reverse: bool, filter: &str) -> Vec<usize> {
        let holds = |row: &Row| row.words.iter().any(|word| contains(word, filter));
        let mut order: Vec<usize> =
            (0..self.rows.len()).filter(|n| filter.is_empty() || holds(&self.rows[*n])).collect();
        let words = self.tab.words();
        let sign = if reverse { -1.0 } else { 1.0 };
        if column < words {
            let word = |row: &usize| &self.rows[*row].words[column];
            order.sort_by(|a, b| if reverse { word(b).cmp(word(a)) } else { word(a).cmp(word(b)) });
        } else {
            let number = |row: &usize| self.rows[*row].numbers[column - words];
            // What is not known comes last.
            let rank = |row: &usize| if number(row).is_nan() { f64::INFINITY } else { -number(row) * sign };
            order.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
        }
        order
    }
}

/// Whether a text holds another, whether its letters are small or not.
fn contains(text: &str, part: &str) -> bool {
    part.is_empty()
        || text.as_bytes().windows(part.len()).any(|there| there.eq_ignore_ascii_case(part.as_bytes()))
}

impl Snapshot {
    /// The table of a tab.
    #[must_use]
    pub fn table(&self, tab: Tab) -> &Table {
        &self.tables[tab as usize]
    }

    /// What there is in all, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let known = |rate: f64| if rate.is_nan() { "-".to_owned() } else { count_rate(rate) };
        format!(
            "{} endpoints, {} mappings, {} flows, {} new, {} dropped",
            self.table(Tab::Endpoints).rows.len(),
            self.table(Tab::Mappings).rows.len(),
            self.flows,
            known(self.new_flows),
            known(self.drops)
        )
    }

    /// Prints some of its tables, of each the first rows.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn print(
        &self,
        out: &mut impl Write,
        format: Format,
        tabs: &[Tab],
        limit: Option<usize>,
    ) -> io::Result<()> {
        let limit = limit.unwrap_or(usize::MAX);
        if format == Format::Json {
            return output::print_json(out, &Listed { snapshot: self, tabs, limit });
        }
        writeln!(out, "{}", self.summary())?;
        for tab in tabs {
            let table = self.table(*tab);
            let order = table.order(tab.first_sort(), false, "");
            let shown = order.len().min(limit);
            let rows = order[..shown].iter().map(|row| cells(*tab, &table.rows[*row]));
            writeln!(out)?;
            let header: Vec<&str> = tab.columns().iter().map(|column| column.title).collect();
            output::print_table(out, &header, rows)?;
            if shown < order.len() {
                writeln!(out, "and {} more", order.len() - shown)?;
            }
        }
        Ok(())
    }
}

/// A row for people.
pub(super) fn cells(tab: Tab, row: &Row) -> Vec<String> {
    let numbers = tab.columns()[tab.words()..].iter().zip(&row.numbers);
    row.words.iter().cloned().chain(numbers.map(|(column, number)| column.kind.show(*number))).collect()
}

/// A snapshot for programs.
struct Listed<'a> {
    snapshot: &'a Snapshot,
    tabs: &'a [Tab],
    limit: usize,
}

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { snapshot, tabs, limit } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &output::VERSION)?;
        map.serialize_entry("seconds", &snapshot.seconds)?;
        map.serialize_entry("total_flows", &snapshot.flows)?;
        map.serialize_entry("new_flows", &known(snapshot.new_flows))?;
        map.serialize_entry("drops_per_second", &known(snapshot.drops))?;
        for tab in *tabs {
            let table = snapshot.table(*tab);
            let order = table.order(tab.first_sort(), false, "");
            let rows: Vec<ListedRow<'_>> = order
                .iter()
                .take(*limit)
                .map(|row| ListedRow { tab: *tab, row: &table.rows[*row] })
                .collect();
            map.serialize_entry(tab.name(), &rows)?;
        }
        map.end()
    }
}

struct ListedRow<'a> {
    tab: Tab,
    row: &'a Row,
}

impl Serialize for ListedRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (words, numbers) = self.tab.columns().split_at(self.tab.words());
        let mut map = serializer.serialize_map(Some(words.len() + numbers.len()))?;
        for (column, word) in words.iter().zip(&self.row.words) {
            map.serialize_entry(column.key, word)?;
        }
        for (column, number) in numbers.iter().zip(&self.row.numbers) {
            match column.kind {
                Kind::Count | Kind::Bytes | Kind::Seconds => {
                    map.serialize_entry(column.key, &known(*number).map(|number| number as u64))?;
                }
                _ => map.serialize_entry(column.key, &known(*number))?,
            }
        }
        map.end()
    }
}

fn known(number: f64) -> Option<f64> {
    (!number.is_nan()).then_some(number)
}
