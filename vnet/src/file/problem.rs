//! What is wrong with files, and where.

use std::fmt;

/// A file to read.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called, for people.
    pub name: String,
    /// What it says, or why nobody knows.
    pub text: Result<String, String>,
}

impl Source {
    /// Whether it may say something about what is called so, although it could not be understood.
    pub(super) fn may_say(&self, word: &str) -> bool {
        // Behind a backslash may be any letter.
        self.text.as_ref().map_or(true, |text| text.contains(word) || text.contains('\\'))
    }

    /// What it says, as far as that is known.
    pub(super) fn known(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

/// A place in one of several sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// Which source.
    pub source: usize,
    /// The byte at which it begins.
    pub offset: usize,
}

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub spot: Spot,
    /// What, and what to do.
    pub message: String,
    /// Where the other one of two is that do not go together.
    pub other: Option<Spot>,
}

/// Everything that is wrong with some files, as `FILE:LINE:COLUMN: WHAT`. Columns count characters from 1. A file that
/// cannot be read has neither.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems {
    lines: Vec<String>,
    /// Whether the files make no sense in themselves.
    pub make_no_sense: bool,
    /// Why nothing of them was compared with what there is, if nothing was.
    pub not_compared: Option<String>,
}

impl Problems {
    /// Problems in the order of the places where they are; there is at least one.
    #[must_use]
    pub fn new(sources: &[Source], mut problems: Vec<Problem>, make_no_sense: bool) -> Self {
        problems.sort_by_key(|problem| problem.spot);
        problems.dedup();
        let places: Vec<Lines<'_>> = sources.iter().map(Lines::of).collect();
        let place = |spot: Spot| places.get(spot.source).map_or_else(String::new, |it| it.place(spot.offset));
        let unread = |source: &Source| Some(format!("{}: {}", source.name, source.text.as_ref().err()?));
        let line = |Problem { spot, message, other }: &Problem| match other {
            Some(other) => format!("{}: {message}, see {}", place(*spot), place(*other)),
            None => format!("{}: {message}", place(*spot)),
        };
        let lines = sources.iter().filter_map(unread).chain(problems.iter().map(line));
        Self { lines: lines.collect(), make_no_sense, not_compared: None }
    }

    /// One line for each.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = if self.lines.len() == 1 { "problem" } else { "problems" };
        write!(f, "nothing was changed, because of {} {problems}:", self.lines.len())?;
        self.lines.iter().try_for_each(|line| write!(f, "\n{line}"))?;
        match &self.not_compared {
            Some(reason) => write!(f, "\nnone of it was compared with what there is: {reason}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problems {}

/// The lines of a source.
struct Lines<'a> {
    source: &'a Source,
    /// Where each begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(source: &'a Source) -> Self {
        let ends = source.known().match_indices('\n').map(|(at, _)| at + 1);
        Self { source, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn place(&self, offset: usize) -> String {
        let line = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let before = self.source.known().get(self.starts[line]..offset).unwrap_or_default();
        format!("{}:{}:{}", self.source.name, line + 1, before.chars().count() + 1)
    }
}
