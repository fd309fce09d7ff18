//! What commands print: JSON objects for programs, tables for people, into any writer.
//!
//! Every object has a `"version"` and one list named for its noun; fields are only ever added. People get
//! aligned columns and no colour: what is read in a terminal can be read in a pager, a mail and a diff.

mod finding;
mod flow;
#[cfg(test)]
mod golden;
mod log;
mod object;
mod pcapng;
mod reachable;
mod run;
mod stats;
mod table;
mod trace;

pub use finding::Finding;
pub use flow::{Drop, DropEvent, Flow, FlowEvent, Names, Networks, Side};
pub use log::LogEvent;
pub use object::{
    Denied, DirectLink, Endpoint, Excluded, Floating, InspectedRouter, Lease, Limit, Link, Masquerade,
    Masquerades, Network, PortMap, Program, Router, Settings, Status,
};
pub use pcapng::{DroppedPacket, PacketFile};
pub use reachable::{Firewall, Reachable, Uplink};
pub use run::{Level, News, RunEvent};
pub use stats::{EndpointStats, FlowStats, Forecast, PortStats, StateStats, TableStats};
pub use table::{age, bit_rate, bytes, count_rate, print as print_table, words};
pub use trace::{ChangeLine, Decision, Leg, Trace, Vocabulary};

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Version of every JSON object that is printed.
pub const VERSION: u32 = 1;

/// For whom a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Something that is listed.
pub trait Listed: serde::Serialize {
    /// What its list is called.
    const NOUN: &'static str;
    /// The columns of its table.
    const HEADER: &'static [&'static str];

    /// Its row.
    fn row(&self) -> Vec<String>;

    /// What there is no room for in a table.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A list under the name of its noun, beside the version.
struct List<'a, T> {
    noun: &'static str,
    items: &'a [T],
}

/// A list, with what is to be known of it.
struct Noticed<'a, T> {
    list: List<'a, T>,
    notices: &'a [&'a str],
}

impl<T: serde::Serialize> Serialize for Noticed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry(self.list.noun, self.list.items)?;
        map.serialize_entry("notices", self.notices)?;
        map.end()
    }
}

impl<T: serde::Serialize> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry(self.noun, self.items)?;
        map.end()
    }
}

/// Prints a list.
///
/// # Errors
/// When it cannot be written.
pub fn print_list<T: Listed>(out: &mut impl Write, format: Format, items: &[T]) -> io::Result<()> {
    match format {
        Format::Json => print_json(out, &List { noun: T::NOUN, items }),
        Format::Table => table::print(out, T::HEADER, items.iter().map(T::row)),
    }
}

/// Prints a list, and for programs what is to be known of it, as a list `notices` that is there if there are some.
///
/// # Errors
/// When it cannot be written.
pub fn print_list_with<T: Listed>(
    out: &mut impl Write,
    format: Format,
    items: &[T],
    notices: &[&str],
) -> io::Result<()> {
    match format {
        Format::Json if !notices.is_empty() => {
            print_json(out, &Noticed { list: List { noun: T::NOUN, items }, notices })
        }
        format => print_list(out, format, items),
    }
}

/// Prints the steps of a plan, or that there are none.
///
/// # Errors
/// When they cannot be written.
pub fn print_ops(out: &mut impl Write, format: Format, ops: &[String]) -> io::Result<()> {
    match format {
        Format::Json => print_json(out, &List { noun: "ops", items: ops }),
        Format::Table if ops.is_empty() => writeln!(out, "nothing to do"),
        Format::Table => ops.iter().try_for_each(|op| writeln!(out, "{op}")),
    }
}

/// Prints one object on one line.
///
/// # Errors
/// When it cannot be written.
pub fn print_json(out: &mut impl Write, object: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    writeln!(out)
}

/// Prints one thing, a line for each column of its table and each detail.
///
/// # Errors
/// When it cannot be written.
pub fn print_details<T: Listed>(out: &mut impl Write, item: &T) -> io::Result<()> {
    let names = T::HEADER.iter().map(|name| name.to_lowercase());
    let columns = names.zip(item.row());
    let details = item.details().into_iter().map(|(name, value)| (name.to_owned(), value));
    columns.chain(details).try_for_each(|(name, value)| writeln!(out, "{name:<12}  {value}"))
}
