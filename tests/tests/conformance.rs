//! `docs/nat-conformance.md` says of each requirement whether it is held, and which tests show it: all of them have a
//! known status, and every test that is named exists.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use vnet_tests::report::report;

const PAGE: &str = "docs/nat-conformance.md";

/// What a row may say, and whether a test has to show it.
const STATUSES: [(&str, bool); 6] = [
    ("held", true),
    ("configurable", true),
    ("partly", true),
    ("not held", false),
    ("not yet", false),
    ("not ours", false),
];

/// Columns of every table.
const COLUMNS: usize = 6;

/// Requirements that must not be forgotten: a heading's beginning, and what rows there are below it.
const EXPECTED: [(&str, &[&str]); 7] = [
    (
        "RFC 4787",
        &[
            "REQ-1", "REQ-2", "REQ-3", "REQ-3a", "REQ-4", "REQ-5", "REQ-5a", "REQ-5b", "REQ-5c", "REQ-6",
            "REQ-6a", "REQ-7", "REQ-8", "REQ-9", "REQ-9a", "REQ-10", "REQ-11", "REQ-12", "REQ-12a",
            "REQ-12b", "REQ-13", "REQ-13a", "REQ-14", "REQ-14a",
        ],
    ),
    (
        "RFC 5382",
        &[
            "REQ-1", "REQ-2", "REQ-2a", "REQ-3", "REQ-4", "REQ-5", "REQ-6", "REQ-7", "REQ-8", "REQ-9",
            "REQ-10",
        ],
    ),
    (
        "RFC 5508",
        &[
            "REQ-1",
            "REQ-1a",
            "REQ-2",
            "REQ-3",
            "REQ-3a",
            "REQ-3b",
            "REQ-3c",
            "REQ-3d",
            "REQ-4",
            "REQ-5",
            "REQ-6",
            "REQ-7",
            "REQ-8",
            "REQ-9",
            "REQ-10a",
            "REQ-10b",
            "REQ-10c",
            "REQ-10d-f",
            "REQ-11",
        ],
    ),
    ("RFC 7857", &["2", "2.1", "2.2", "3", "4", "5, 6", "7", "7.1", "8", "9", "10", "11", "12"]),
    ("RFC 6056", &["3.2", "3.3", "3.3.2", "T6056-2"]),
    (
        "RFC 6888",
        &[
            "REQ-1",
            "REQ-2",
            "REQ-3",
            "REQ-4",
            "REQ-5",
            "REQ-6",
            "REQ-7",
            "REQ-8",
            "REQ-9",
            "REQ-10",
            "REQ-11",
            "REQ-12",
            "REQ-13, 14",
            "REQ-15",
        ],
    ),
    (
        "Behaviour",
        &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D12", "D13", "D14", "D15",
            "D16", "D17", "D18", "D19", "D20", "D21", "D22", "D23", "D24", "D25", "D26", "X1", "X2", "X3",
            "X4", "X5", "X6", "X7", "X8",
        ],
    ),
];

/// A row of a table.
#[derive(Debug)]
struct Row {
    heading: String,
    name: String,
    status: String,
    tests: Vec<String>,
    note: String,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace").to_owned()
}

/// The rows of a page.
fn rows(page: &str) -> Vec<Row> {
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.trim_end().strip_suffix('|')) else {
            continue;
        };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), COLUMNS, "cells of {line:?}");
        if cells[3] == "Status" {
            continue;
        }
        rows.push(Row {
            heading: heading.clone(),
            name: cells[0].to_owned(),
            status: cells[3].to_owned(),
            tests: cells[4].split('`').skip(1).step_by(2).map(str::to_owned).collect(),
            note: cells[5].to_owned(),
        });
    }
    rows
}

/// What is wrong with a row.
fn complaints(row: &Row, read: &mut impl FnMut(&str) -> Option<String>) -> Vec<String> {
    let Row { heading, name, status, tests, note } = row;
    let at = format!("{heading}: {name}");
    let mut complaints = Vec::new();
    match STATUSES.iter().find(|(known, _)| known == status) {
        None => complaints.push(format!("{at}: {status:?} is no status")),
        Some((_, true)) if tests.is_empty() => {
            complaints.push(format!("{at}: {status}, and no test shows it"));
        }
        Some((_, false)) if note.is_empty() && tests.is_empty() => {
            complaints.push(format!("{at}: {status}, and no note says why"));
        }
        Some(_) => {}
    }
    if status == "partly" && note.is_empty() {
        complaints.push(format!("{at}: partly, and no note says how far"));
    }
    for test in tests {
        let found = test.split_once(": ").and_then(|(file, name)| Some(exists(&read(file)?, name)));
        if found != Some(true) {
            complaints.push(format!("{at}: there is no test `{test}`"));
        }
    }
    complaints
}

/// Whether a source has a test function, or a case whose name begins so.
fn exists(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}("))
        || (name.contains(' ') || name.contains('-')) && source.contains(&format!("\"{name}"))
}

#[test]
fn every_requirement_has_a_status_and_every_test_of_it_exists() {
    let workspace = workspace();
    let page = fs::read_to_string(workspace.join(PAGE)).expect(PAGE);
    let mut sources: HashMap<String, Option<String>> = HashMap::new();
    let mut read = |file: &str| {
        let path = workspace.join("tests/tests").join(file);
        sources.entry(file.to_owned()).or_insert_with(|| fs::read_to_string(path).ok()).clone()
    };
    let rows = rows(&page);
    let mut found: Vec<String> = rows.iter().flat_map(|row| complaints(row, &mut read)).collect();
    for (heading, names) in EXPECTED {
        let there: HashSet<&str> =
            rows.iter().filter(|row| row.heading.starts_with(heading)).map(|row| row.name.as_str()).collect();
        found.extend(
            names
                .iter()
                .filter(|name| !there.contains(*name))
                .map(|name| format!("{heading}: no row {name}")),
        );
    }
    let tests: HashSet<&String> = rows.iter().flat_map(|row| &row.tests).collect();
    for (status, _) in STATUSES {
        report(format_args!("{status}: {}", rows.iter().filter(|row| row.status == *status).count()));
    }
    report(format_args!("{} rows, {} tests named", rows.len(), tests.len()));
    assert!(found.is_empty(), "{PAGE}:\n{}", found.join("\n"));
}

#[test]
fn a_page_that_is_not_true_is_found_out() {
    let page =
        "## RFC 1\n| Requirement | Level | In short | Status | Tests | Note |\n|---|---|---|---|---|---|\n";
    let source = "fn a_test_that_is_there() {}\n\"a case that is there and long\"";
    let mut read = |file: &str| (file == "there.rs").then(|| source.to_owned());
    for (row, expected) in [
        ("| 1 | MUST | x | held | `there.rs: a_test_that_is_there` | |", 0),
        ("| 1 | MUST | x | held | `there.rs: a case that is there` | |", 0),
        ("| 1 | MUST | x | not held | | for a reason |", 0),
        ("| 1 | MUST | x | held | | |", 1),
        ("| 1 | MUST | x | nearly | `there.rs: a_test_that_is_there` | |", 1),
        ("| 1 | MUST | x | | `there.rs: a_test_that_is_there` | |", 1),
        ("| 1 | MUST | x | partly | `there.rs: a_test_that_is_there` | |", 1),
        ("| 1 | MUST | x | not held | | |", 1),
        ("| 1 | MUST | x | held | `there.rs: a_test` | |", 1),
        ("| 1 | MUST | x | held | `there.rs: case that is there` | |", 1),
        ("| 1 | MUST | x | held | `gone.rs: a_test_that_is_there`, `there.rs: that_is_there` | |", 2),
    ] {
        let rows = rows(&format!("{page}{row}\n"));
        let found: Vec<String> = rows.iter().flat_map(|row| complaints(row, &mut read)).collect();
        assert_eq!((rows.len(), found.len()), (1, expected), "{row}: {found:?}");
    }
}
